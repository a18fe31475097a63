"""The decorators users define data with. They only describe: nothing is called or read here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeAlias, TypeGuard, TypeVar, overload

from asyncelt.arguments import FLAG, TEXT, expect_if_given
from asyncelt.configuration.injection import configured
from asyncelt.errors import ConfigError, InvalidResourceData, ResourceNameMissing
from asyncelt.extract.functions import is_async_function, name_of_data, section_of
from asyncelt.extract.requests import TableName
from asyncelt.extract.resource import (
    Contract,
    Names,
    NestedHints,
    Resource,
    WriteDispositionHint,
)
from asyncelt.extract.resource_function import ResourceFunction
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.hints import TableHints
from asyncelt.types import JsonValue, OnError

__all__ = ["resource", "transformer"]

P = ParamSpec("P")
T = TypeVar("T")
_Function: TypeAlias = Callable[..., object]


@overload
def resource(
    data: Callable[P, object],
    /,
    name: str | None = ...,
    *,
    table_name: TableName | None = ...,
    max_table_nesting: int | None = ...,
    write_disposition: WriteDispositionHint | None = ...,
    columns: ColumnHints | None = ...,
    primary_key: Names | None = ...,
    merge_key: Names | None = ...,
    schema_contract: Contract | None = ...,
    table_format: str | None = ...,
    file_format: str | None = ...,
    references: Sequence[Mapping[str, JsonValue]] | None = ...,
    nested_hints: NestedHints | None = ...,
    selected: bool = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
    incremental: object = ...,
    section: str | None = ...,
    on_error: OnError = ...,
) -> ResourceFunction[P]: ...


@overload
def resource(
    data: None = ...,
    /,
    name: str | None = ...,
    *,
    table_name: TableName | None = ...,
    max_table_nesting: int | None = ...,
    write_disposition: WriteDispositionHint | None = ...,
    columns: ColumnHints | None = ...,
    primary_key: Names | None = ...,
    merge_key: Names | None = ...,
    schema_contract: Contract | None = ...,
    table_format: str | None = ...,
    file_format: str | None = ...,
    references: Sequence[Mapping[str, JsonValue]] | None = ...,
    nested_hints: NestedHints | None = ...,
    selected: bool = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
    incremental: object = ...,
    section: str | None = ...,
    on_error: OnError = ...,
) -> Callable[[Callable[P, object]], ResourceFunction[P]]: ...


@overload
def resource(
    data: object,
    /,
    name: str | None = ...,
    *,
    table_name: TableName | None = ...,
    max_table_nesting: int | None = ...,
    write_disposition: WriteDispositionHint | None = ...,
    columns: ColumnHints | None = ...,
    primary_key: Names | None = ...,
    merge_key: Names | None = ...,
    schema_contract: Contract | None = ...,
    table_format: str | None = ...,
    file_format: str | None = ...,
    references: Sequence[Mapping[str, JsonValue]] | None = ...,
    nested_hints: NestedHints | None = ...,
    selected: bool = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
    incremental: object = ...,
    section: str | None = ...,
    on_error: OnError = ...,
) -> Resource: ...


def resource(
    data: object = None,
    /,
    name: str | None = None,
    *,
    table_name: TableName | None = None,
    max_table_nesting: int | None = None,
    write_disposition: WriteDispositionHint | None = None,
    columns: ColumnHints | None = None,
    primary_key: Names | None = None,
    merge_key: Names | None = None,
    schema_contract: Contract | None = None,
    table_format: str | None = None,
    file_format: str | None = None,
    references: Sequence[Mapping[str, JsonValue]] | None = None,
    nested_hints: NestedHints | None = None,
    selected: bool = True,
    spec: type[object] | None = None,  # noqa: ARG001 - accepted
    parallelized: bool = False,
    incremental: object = None,
    section: str | None = None,
    on_error: OnError = "fail",
) -> object:
    """Make a resource from a function (as a decorator, with or without parentheses) or from data.

    Nothing is called or read before a run asks for the data. The function may be plain or ``async``, return data or
    yield it; what it may yield is listed in the guide: rows, lists of rows, JSON as bytes, `JsonPage`, Arrow, frames,
    models, and iterators or awaitables of these.

    Args:
        data: Function to decorate, or data.
        name: Name of the resource; None: the function's.
        table_name: Name of the table, if it is not the resource's, or a function of a row that gives it.
        max_table_nesting: Levels of nested tables; deeper data is kept as ``json``.
        write_disposition: ``append``, ``replace``, ``merge`` or ``skip``, or a mapping with options.
        columns: Column hints: a list, a mapping, a model class or an Arrow schema.
        primary_key: Column or columns that identify a row.
        merge_key: Column or columns that identify a group of rows which are replaced together.
        schema_contract: What may change in the schema.
        table_format: Table format at the destination.
        file_format: File format of the jobs.
        references: References to other tables.
        nested_hints: Hints of nested tables, by path.
        selected: Whether a source loads this resource.
        spec: Accepted for the reference's sake; not used.
        parallelized: Accepted for the reference's sake: resources always run side by side.
        incremental: Cursor of an incremental resource.
        section: Section of its configuration, ``sources.<section>.<name>``; None: the name of the module.
        on_error: What a resource that fails, or a row that cannot be loaded, costs: ``fail`` the run, ``skip`` it, or
            ``quarantine`` the row; see docs/errors.md.

    Returns:
        The resource; a decorator that makes one, when called without data.

    Raises:
        ConfigError: An argument is wrong.
        ResourceNameMissing: Data without a name of its own was given none.
        InvalidResourceData: This value cannot be a resource.
    """
    hints = TableHints(
        name="",
        max_table_nesting=max_table_nesting,
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
    expect_if_given("asyncelt.resource", FLAG, selected=selected, parallelized=parallelized)
    expect_if_given("asyncelt.resource", TEXT, section=section)
    options: dict[str, object] = {
        "hints": hints,
        "table_name": table_name,
        "selected": selected,
        "parallelized": parallelized,
        "incremental": incremental,
        "section": section,
        "on_error": on_error,
    }

    if data is None:
        return functools.partial(_make_function, name=name, options=options)

    if _is_decorated(data):
        return _make_function(data, name, options)

    if isinstance(data, str) and not name:
        raise InvalidResourceData(
            f"asyncelt.resource was given the text {data[:60]!r}, which is no data. The name of a decorated function "
            "is passed by name: @asyncelt.resource(name=...)."
        )

    if isinstance(data, Resource):
        raise InvalidResourceData(f"{data!r} is a resource already; change it with apply_hints() or with_name().")

    return Resource(data, _required_name(name or name_of_data(data)), **options)  # type: ignore[arg-type]


@overload
def transformer(
    f: Callable[Concatenate[T, P], object],
    /,
    data_from: Resource | None = ...,
    *,
    name: str | None = ...,
    table_name: TableName | None = ...,
    max_table_nesting: int | None = ...,
    write_disposition: WriteDispositionHint | None = ...,
    columns: ColumnHints | None = ...,
    primary_key: Names | None = ...,
    merge_key: Names | None = ...,
    schema_contract: Contract | None = ...,
    table_format: str | None = ...,
    file_format: str | None = ...,
    references: Sequence[Mapping[str, JsonValue]] | None = ...,
    nested_hints: NestedHints | None = ...,
    selected: bool = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
    section: str | None = ...,
    on_error: OnError = ...,
) -> ResourceFunction[P]: ...


@overload
def transformer(
    f: None = ...,
    /,
    data_from: Resource | None = ...,
    *,
    name: str | None = ...,
    table_name: TableName | None = ...,
    max_table_nesting: int | None = ...,
    write_disposition: WriteDispositionHint | None = ...,
    columns: ColumnHints | None = ...,
    primary_key: Names | None = ...,
    merge_key: Names | None = ...,
    schema_contract: Contract | None = ...,
    table_format: str | None = ...,
    file_format: str | None = ...,
    references: Sequence[Mapping[str, JsonValue]] | None = ...,
    nested_hints: NestedHints | None = ...,
    selected: bool = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
    section: str | None = ...,
    on_error: OnError = ...,
) -> Callable[[Callable[Concatenate[T, P], object]], ResourceFunction[P]]: ...


def transformer(
    f: Callable[..., object] | None = None,
    /,
    data_from: Resource | None = None,
    *,
    name: str | None = None,
    table_name: TableName | None = None,
    max_table_nesting: int | None = None,
    write_disposition: WriteDispositionHint | None = None,
    columns: ColumnHints | None = None,
    primary_key: Names | None = None,
    merge_key: Names | None = None,
    schema_contract: Contract | None = None,
    table_format: str | None = None,
    file_format: str | None = None,
    references: Sequence[Mapping[str, JsonValue]] | None = None,
    nested_hints: NestedHints | None = None,
    selected: bool = True,
    spec: type[object] | None = None,
    parallelized: bool = False,
    section: str | None = None,
    on_error: OnError = "fail",
) -> object:
    """Make a resource that takes its items from another one.

    The function's first parameter is an item of ``data_from``, as it was yielded: a row, a page, a JSON body. Further
    parameters are bound by calling the transformer. Without ``data_from``, connect it: ``resource | transformer``.

    Args:
        f: Function to decorate, plain or ``async``, which returns or yields items.
        data_from: The resource that gives the items.
        name: As in `resource`, like all that follow.
        table_name: As in `resource`.
        max_table_nesting: As in `resource`.
        write_disposition: As in `resource`.
        columns: As in `resource`.
        primary_key: As in `resource`.
        merge_key: As in `resource`.
        schema_contract: As in `resource`.
        table_format: As in `resource`.
        file_format: As in `resource`.
        references: As in `resource`.
        nested_hints: As in `resource`.
        selected: As in `resource`.
        spec: As in `resource`.
        parallelized: As in `resource`.
        section: As in `resource`.
        on_error: As in `resource`.

    Raises:
        ConfigError: An argument is wrong, or the function cannot take an item.
    """
    make = resource(
        None,
        name,
        table_name=table_name,
        max_table_nesting=max_table_nesting,
        write_disposition=write_disposition,
        columns=columns,
        primary_key=primary_key,
        merge_key=merge_key,
        schema_contract=schema_contract,
        table_format=table_format,
        file_format=file_format,
        references=references,
        nested_hints=nested_hints,
        selected=selected,
        spec=spec,
        parallelized=parallelized,
        section=section,
        on_error=on_error,
    )

    def decorate(function: Callable[..., object]) -> object:
        _check_transformer(function)
        return make(function).as_transformer(data_from)

    return decorate if f is None else decorate(f)


def _make_function(function: _Function, name: str | None, options: Mapping[str, object]) -> ResourceFunction[...]:
    if not _is_decorated(function):
        raise ConfigError(f"asyncelt.resource decorates functions, not {type(function).__name__}.")

    found = _required_name(name or name_of_data(function))
    section = options.get("section") or section_of(function)
    ready = configured(function, sections=("sources", str(section), found), label=f"resource {found!r}")

    return ResourceFunction(ready, found, **options)


def _is_decorated(data: object) -> TypeGuard[_Function]:
    return inspect.isroutine(data) or isinstance(data, functools.partial) or is_async_function(data)


def _required_name(name: str | None) -> str:
    if not name:
        raise ResourceNameMissing("This data has no name of its own; pass name=..., or decorate a named function.")

    return name


def _check_transformer(function: _Function) -> None:
    if not _is_decorated(function):
        raise ConfigError(f"asyncelt.transformer decorates functions, not {type(function).__name__}.")

    try:
        inspect.signature(function).bind_partial(None)
    except TypeError:
        raise ConfigError(
            f"Transformer {name_of_data(function) or 'function'} needs a first parameter for the item; it has "
            f"{inspect.signature(function)}."
        ) from None
