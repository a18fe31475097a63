"""Whatever is passed to a run, as sources. Pure checks first; only asynchronous sources are awaited."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping, Sequence
from typing import cast

from asyncelt.errors import InvalidResourceData, ResourceNameMissing
from asyncelt.extract.functions import name_of_data
from asyncelt.extract.requests import TableName
from asyncelt.extract.resource import Contract, Names, NestedHints, Resource, WriteDispositionHint
from asyncelt.extract.source import Source
from asyncelt.extract.source_decorator import AsyncSourceFunction, SourceFunction
from asyncelt.schema.columns import ColumnHints
from asyncelt.types import JsonValue

__all__ = ["as_sources"]


async def as_sources(  # noqa: PLR0913 - the reference's arguments
    data: object,
    *,
    default_schema_name: str,
    table_name: TableName | None = None,
    parent_table_name: str | None = None,
    write_disposition: WriteDispositionHint | None = None,
    columns: ColumnHints | None = None,
    primary_key: Names | None = None,
    merge_key: Names | None = None,
    schema_contract: Contract | None = None,
    table_format: str | None = None,
    file_format: str | None = None,
    references: Sequence[Mapping[str, JsonValue]] | None = None,
    nested_hints: NestedHints | None = None,
) -> list[Source]:
    """The sources that data stands for, each an independent copy, in the order in which their names sort.

    Hints are laid over every resource of every source. Resources that are passed without a source share one that is
    named after the default schema; those of the same name are spread over several.

    Args:
        data: A source, a resource, a list whose first element is one of these (or will give one when it is awaited), a
            decorated function, a coroutine that gives any of them, or plain data: rows, a generator, JSON bytes, a
            frame, a single dict.
        default_schema_name: Schema of everything that does not bring its own.
        table_name: Also the name of plain data, which needs one.
        parent_table_name: Hint, like all that follow.
        write_disposition: Hint.
        columns: Hint.
        primary_key: Hint.
        merge_key: Hint.
        schema_contract: Hint; also of the sources.
        table_format: Hint.
        file_format: Hint.
        references: Hint.
        nested_hints: Hint.

    Raises:
        ResourceNameMissing: Plain data without a name.
        InvalidResourceData: This value cannot be a source.
        ConfigError: A hint is wrong.
    """
    found = await _found(data, table_name)
    sources = [item.clone() for item in found if isinstance(item, Source)]
    sources += _grouped([item for item in found if isinstance(item, Resource)], default_schema_name)

    for source in sources:
        if schema_contract is not None:
            source.schema_contract = schema_contract

        for resource in source.resources.values():
            resource.apply_hints(
                table_name=table_name,
                parent_table_name=parent_table_name,
                write_disposition=write_disposition,
                columns=columns,
                primary_key=primary_key,
                merge_key=merge_key,
                schema_contract=schema_contract,
                table_format=table_format,
                file_format=file_format,
                references=references,
                nested_hints=nested_hints,
            )

    return sorted(sources, key=lambda source: source.name)


async def _found(data: object, table_name: TableName | None) -> list[Source | Resource]:
    """Sources and resources, in the order in which they were given."""
    if isinstance(data, SourceFunction | AsyncSourceFunction):
        data = data()

    if inspect.isawaitable(data):
        data = await cast("Awaitable[object]", data)

    if isinstance(data, Source | Resource):
        return [data]

    if isinstance(data, list | tuple) and data and _is_defined(data[0]):
        return [found for item in data for found in await _found(item, table_name)]

    return [_plain(data, table_name)]


def _is_defined(item: object) -> bool:
    return isinstance(item, Source | Resource | SourceFunction | AsyncSourceFunction) or inspect.iscoroutine(item)


def _plain(data: object, table_name: TableName | None) -> Resource:
    if data is None:
        raise InvalidResourceData("There is no data: None was passed, or an awaited function returned None.")

    if isinstance(data, str):
        raise InvalidResourceData(
            f"Text is not data: {data[:60]!r}. Pass rows (a list of dicts, a generator, a frame), JSON as bytes, "
            "JsonPage(text), or a source object instead of its name."
        )

    name = table_name if isinstance(table_name, str) else None
    name = name or name_of_data(data)

    if not name:
        raise ResourceNameMissing(
            f"This {type(data).__name__} has no name of its own; pass table_name=..., or wrap it: "
            "asyncelt.resource(data, name=...)."
        )

    if isinstance(data, list | tuple) and not all(_is_readable(item) for item in data[:1]):
        raise InvalidResourceData(f"A list of {type(data[0]).__name__} cannot be read as data.")

    return Resource({} | data if isinstance(data, dict) else data, name)


def _is_readable(item: object) -> bool:
    return not isinstance(item, Source | Resource)


def _grouped(resources: list[Resource], schema_name: str) -> list[Source]:
    """One source for all resources; further ones where a name comes again."""
    groups: list[dict[str, Resource]] = []

    for resource in resources:
        group = next((group for group in groups if resource.name not in group), None)

        if group is None:
            group = {}
            groups.append(group)

        group[resource.name] = resource

    sources = [Source(schema_name, group.values()) for group in groups]

    for source in sources:
        source.is_gathered = True

    return sources
