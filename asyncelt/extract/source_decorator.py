"""The decorator users define sources with."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Generic, ParamSpec, Protocol, TypeAlias, cast, overload

from asyncelt import current
from asyncelt.arguments import FLAG, NESTING, TEXT, Kind, expect_if_given
from asyncelt.configuration.injection import configured
from asyncelt.errors import ConfigError, InvalidResourceData
from asyncelt.extract.functions import is_async_function, name_of_data, section_of
from asyncelt.extract.resource import Contract, Resource
from asyncelt.extract.source import Source
from asyncelt.schema.model import Schema
from asyncelt.schema.system import new_schema

__all__ = ["AsyncSourceFunction", "SourceFunction", "source"]

P = ParamSpec("P")
_Function: TypeAlias = Callable[..., object]
_SCHEMA = Kind("an asyncelt.Schema", lambda value: isinstance(value, Schema))


@dataclass(frozen=True, slots=True, kw_only=True)
class _SourceOptions:
    name: str
    section: str | None
    max_table_nesting: int | None
    root_key: bool | None
    schema: Schema | None
    schema_contract: Contract | None

    def entered(self) -> AbstractContextManager[None]:
        """Let the body of the function know whose it is: its schema, and a copy of the state."""
        schema = self.schema or new_schema(self.name)

        return current.activate_source(None, schema.name, schema=schema)

    def make(self, resources: list[object]) -> Source:
        """A source of what the function gave: resources, and sources whose resources join."""
        found: list[Resource] = []

        for item in resources:
            if isinstance(item, Source):
                found.extend(item.resources.values())
            elif isinstance(item, Resource):
                found.append(item)
            else:
                found.append(_as_resource(item, self.name))

        return Source(
            self.name,
            found,
            section=self.section,
            max_table_nesting=self.max_table_nesting,
            root_key=self.root_key,
            schema=self.schema,
            schema_contract=self.schema_contract,
        )


class SourceFunction(Generic[P]):
    """A function decorated with `asyncelt.source`: call it to get a `Source`."""

    def __init__(self, function: Callable[P, object], options: _SourceOptions) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._options = options
        self.name = options.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Source:
        """Run the function and collect its resources.

        Raises:
            InvalidResourceData: It gave None, or something that is no resource.
        """
        with self._options.entered():
            collected = _collected(self._function(*args, **kwargs), self.name)

        return self._options.make(collected)

    def clone(self, name: str) -> SourceFunction[P]:
        """The same function under another name."""
        return SourceFunction(self._function, replace(self._options, name=name))

    def __repr__(self) -> str:
        return f"<asyncelt.source function {self.name!r}>"


class AsyncSourceFunction(Generic[P]):
    """An ``async def`` function decorated with `asyncelt.source`: await its call, or pass the call on un-awaited."""

    def __init__(self, function: Callable[P, object], options: _SourceOptions) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._options = options
        self.name = options.name

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Source:
        """Run the function and collect its resources.

        Raises:
            InvalidResourceData: It gave None, or something that is no resource.
        """
        with self._options.entered():
            result = self._function(*args, **kwargs)

            if isinstance(result, AsyncIterable):
                collected = [item async for item in result]
            else:
                collected = _collected(await cast("Awaitable[object]", result), self.name)

        return self._options.make(collected)

    def clone(self, name: str) -> AsyncSourceFunction[P]:
        """The same function under another name."""
        return AsyncSourceFunction(self._function, replace(self._options, name=name))

    def __repr__(self) -> str:
        return f"<asyncelt.source async function {self.name!r}>"


class _SourceDecorator(Protocol):
    """What ``@source(...)`` gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[object, object, object]], /) -> AsyncSourceFunction[P]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, AsyncIterable[object]], /) -> AsyncSourceFunction[P]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, object], /) -> SourceFunction[P]: ...


@overload
def source(  # type: ignore[overload-overlap]
    func: Callable[P, Coroutine[object, object, object]],
    /,
    name: str | None = ...,
    *,
    section: str | None = ...,
    max_table_nesting: int | None = ...,
    root_key: bool | None = ...,
    schema: Schema | None = ...,
    schema_contract: Contract | None = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
) -> AsyncSourceFunction[P]: ...


@overload
def source(  # type: ignore[overload-overlap]
    func: Callable[P, AsyncIterable[object]],
    /,
    name: str | None = ...,
    *,
    section: str | None = ...,
    max_table_nesting: int | None = ...,
    root_key: bool | None = ...,
    schema: Schema | None = ...,
    schema_contract: Contract | None = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
) -> AsyncSourceFunction[P]: ...


@overload
def source(
    func: Callable[P, object],
    /,
    name: str | None = ...,
    *,
    section: str | None = ...,
    max_table_nesting: int | None = ...,
    root_key: bool | None = ...,
    schema: Schema | None = ...,
    schema_contract: Contract | None = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
) -> SourceFunction[P]: ...


@overload
def source(
    func: None = ...,
    /,
    name: str | None = ...,
    *,
    section: str | None = ...,
    max_table_nesting: int | None = ...,
    root_key: bool | None = ...,
    schema: Schema | None = ...,
    schema_contract: Contract | None = ...,
    spec: type[object] | None = ...,
    parallelized: bool = ...,
) -> _SourceDecorator: ...


def source(  # noqa: PLR0913 - the reference's arguments
    func: _Function | None = None,
    /,
    name: str | None = None,
    *,
    section: str | None = None,
    max_table_nesting: int | None = None,
    root_key: bool | None = None,
    schema: Schema | None = None,
    schema_contract: Contract | None = None,
    spec: type[object] | None = None,  # noqa: ARG001 - accepted
    parallelized: bool = False,  # noqa: ARG001 - accepted
) -> object:
    """Make a source from a function that returns or yields resources, plain or ``async``.

    Args:
        func: Function to decorate.
        name: Name of the source and its schema; None: the function's.
        section: Section of its configuration, ``sources.<section>.<name>``; None: the name of the module.
        max_table_nesting: Levels of nested tables, for resources that do not say otherwise.
        root_key: Whether nested tables get the key of their root row even where no disposition needs it.
        schema: To start from.
        schema_contract: For tables that do not have their own.
        spec: Accepted for the reference's sake; not used.
        parallelized: Accepted for the reference's sake: resources always run side by side.

    Raises:
        ConfigError: An argument is wrong.
    """
    expect_if_given("asyncelt.source", TEXT, name=name, section=section)
    expect_if_given("asyncelt.source", NESTING, max_table_nesting=max_table_nesting)
    expect_if_given("asyncelt.source", FLAG, root_key=root_key)
    expect_if_given("asyncelt.source", _SCHEMA, schema=schema)

    def decorate(function: _Function) -> object:
        if not callable(function):
            raise ConfigError(f"asyncelt.source decorates functions, not {type(function).__name__}.")

        found = name or (schema.name if schema is not None else name_of_data(function))

        if not found:
            raise ConfigError("This function has no name of its own; pass name=... to asyncelt.source.")

        options = _SourceOptions(
            name=found,
            section=section,
            max_table_nesting=max_table_nesting,
            root_key=root_key,
            schema=schema,
            schema_contract=schema_contract,
        )

        sections = ("sources", section or section_of(function), found)
        ready = configured(function, sections=sections, label=f"source {found!r}")

        return (AsyncSourceFunction if is_async_function(function) else SourceFunction)(ready, options)

    return decorate if func is None else decorate(func)


def _collected(result: object, name: str) -> list[object]:
    """What a source function returned, as a list."""
    if result is None:
        raise InvalidResourceData(
            f"Source {name!r} gave None. Return or yield resources; a function that yields rows is a resource, "
            "decorate it with asyncelt.resource."
        )

    if isinstance(result, Resource | Source):
        return [result]

    if isinstance(result, Iterable) and not isinstance(result, str | bytes | Mapping):
        return list(result)

    return [result]


def _as_resource(item: object, source_name: str) -> Resource:
    """Data with a name of its own, such as a generator, among the resources of a source."""
    name = name_of_data(item)

    if name is None:
        raise InvalidResourceData(
            f"Source {source_name!r} gave {type(item).__name__}, which is neither a resource nor data with a name. "
            "Wrap data: asyncelt.resource(data, name=...)."
        )

    return Resource(item, name)
