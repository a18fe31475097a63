"""What a source may yield, told apart by type. No data is touched here and no optional package imported.

An *item* is whatever came out of a source or a step. `kind_of` says what it is; the values a user wraps data in
(`JsonPage`, `with_table_name`) are defined here.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum, auto
from typing import Any, Protocol, cast, runtime_checkable

import pyarrow as pa

from asyncelt.arguments import TEXT, expect_if_given
from asyncelt.errors import ConfigError
from asyncelt.extract.messages import Checkpoint, Message, Messages
from asyncelt.flow import JsonBody

__all__ = [
    "JsonPage",
    "Kind",
    "Mark",
    "Marked",
    "Materialized",
    "SupportsItems",
    "body_of",
    "is_exhausted",
    "is_iterable_data",
    "is_model",
    "iterate_once",
    "judged",
    "kind_of",
    "table_of",
    "with_table_name",
]


class Kind(Enum):
    """What an item is to the engine."""

    NOTHING = auto()
    """None: skipped."""
    ROW = auto()
    """One row: a dict, a model, or a value that becomes ``{"value": ...}``."""
    PAGE = auto()
    """A list: its elements are rows."""
    TUPLE = auto()
    """A page when it holds rows (mappings or models), otherwise one value, as in the reference."""
    BODY = auto()
    """JSON as received."""
    ARROW = auto()
    """An Arrow table or batch."""
    FRAME = auto()
    """A data frame, or another object that hands out Arrow columns; converted off the loop."""
    ITERATOR = auto()
    """Consumed in place; its items follow."""
    ASYNC_ITERABLE = auto()
    AWAITABLE = auto()
    CALLABLE = auto()
    """A function without arguments: called, its result takes its place."""
    MARKED = auto()
    """Data with a table name."""
    MESSAGE = auto()
    """Data with a receipt, or a checkpoint: a safe point of a stream comes after it."""


@dataclass(frozen=True, slots=True)
class JsonPage:
    """A JSON body whose item list is cut out without parsing the items.

    ``JsonPage(response_body, items="data.results")`` is as good as parsing the body and yielding
    ``body["data"]["results"]``, without a Python object for each value.

    Args:
        body: JSON as received: one document, an array, or one document per line.
        items: Dotted path of the list inside each document; None: the body itself is the data.
    """

    body: bytes | bytearray | memoryview | str
    items: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.body, bytes | bytearray | memoryview | str):
            raise ConfigError(f"JsonPage takes the body as bytes or text, not as {type(self.body).__name__}.")

        expect_if_given("JsonPage", TEXT, items=self.items)

        if self.items is not None and (not self.items or not all(self.items.split("."))):
            raise ConfigError(f'JsonPage(items={self.items!r}): expected a dotted path such as "data.results".')


@dataclass(frozen=True, slots=True)
class Mark:
    """What has been said of an item. Functions of two arguments get it beside the row, transformers as ``meta``."""

    table_name: str | None = None
    """The table it goes to; None: the resource's."""
    hints: Mapping[str, object] | None = None
    """They hold from this item on."""
    create_table_variant: bool = False
    """Whether the hints are those of ``table_name`` alone."""

    def inside(self, outer: Mark | None) -> Mark:
        """This mark, of an item whose own item stands for ``outer``: a table is not forgotten."""
        return self if self.table_name or outer is None else replace(self, table_name=outer.table_name)


@dataclass(frozen=True, slots=True)
class Marked:
    """Data that goes to a table of its own choosing, or brings hints. Made by the functions of ``asyncelt.mark``."""

    item: object
    mark: Mark


def with_table_name(item: object, table_name: str) -> Marked:
    """Send one item (a row, a page, a body, a frame) to ``table_name`` instead of its resource's table."""
    if not table_name or not isinstance(table_name, str):
        raise ConfigError(f"with_table_name(item, {table_name!r}): the table name must be text that is not empty.")

    return Marked(item, Mark(table_name))


class Materialized(list[object]):
    """No rows, for a table that is to exist all the same."""


@runtime_checkable
class SupportsItems(Protocol):
    """Data that knows how it is read, such as a relation of a dataset."""

    def __asyncelt_items__(self) -> AsyncIterator[object]:
        """Its items, from the beginning with each call."""
        ...


def _judge(kind: type) -> Kind:
    for known, answer in _BY_CLASS:
        if issubclass(kind, known):
            return answer

    if is_model(kind):
        return Kind.ROW

    if hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__") or _is_frame(kind):
        return Kind.FRAME

    if hasattr(kind, "__next__"):
        return Kind.ITERATOR

    if issubclass(kind, AsyncIterable | SupportsItems):
        return Kind.ASYNC_ITERABLE

    if issubclass(kind, Awaitable):
        return Kind.AWAITABLE

    return Kind.ROW


kind_of: Callable[[type], Kind] = functools.lru_cache(maxsize=1024)(_judge)
"""What objects of a type are to the engine. By type only, so that pages can be judged by their types."""

_APART = frozenset(
    {
        Kind.BODY,
        Kind.ARROW,
        Kind.FRAME,
        Kind.ITERATOR,
        Kind.ASYNC_ITERABLE,
        Kind.AWAITABLE,
        Kind.MARKED,
        Kind.MESSAGE,
    }
)
"""A list with any of these is not a page of rows; its elements are items."""

_BY_CLASS: tuple[tuple[type | tuple[type, ...], Kind], ...] = (
    (types.NoneType, Kind.NOTHING),
    ((str, int, float, Mapping), Kind.ROW),
    (list, Kind.PAGE),
    (tuple, Kind.TUPLE),
    ((bytes, bytearray, memoryview, JsonPage, JsonBody), Kind.BODY),
    ((pa.Table, pa.RecordBatch), Kind.ARROW),
    (pa.RecordBatchReader, Kind.ITERATOR),
    (Marked, Kind.MARKED),
    ((Message, Messages, Checkpoint), Kind.MESSAGE),
    (
        (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial),
        Kind.CALLABLE,
    ),
)


def judged(item: object) -> tuple[Kind, object]:
    """What an item is, and the item, in the form in which steps take it.

    `Kind.PAGE` is only a list whose elements are items of their own; a page of rows is treated as a row is. A tuple of
    rows is a page, any other tuple is one value, as in the reference.
    """
    kind = kind_of(type(item))

    if kind is Kind.BODY:
        return kind, body_of(item)

    if kind is Kind.ASYNC_ITERABLE and isinstance(item, SupportsItems):
        return kind, item.__asyncelt_items__()

    if kind is Kind.ARROW:
        return kind, table_of(item)

    if kind is Kind.TUPLE:
        values = cast("tuple[object, ...]", item)
        kind, item = (Kind.PAGE, list(values)) if values and all(map(_is_row, values)) else (Kind.ROW, item)

    if kind is Kind.PAGE and _is_page(cast("list[object]", item)):
        kind = Kind.ROW

    return kind, item


def _is_row(element: object) -> bool:
    kind = type(element)

    return issubclass(kind, Mapping) or is_model(kind) or kind_of(kind) in _APART


def _is_page(rows: list[object]) -> bool:
    kinds = set(map(type, rows))

    return kinds == {dict} or not any(kind_of(kind) in _APART for kind in kinds)


def is_model(kind: type) -> bool:
    """Whether objects of this type are dataclasses, pydantic or msgspec models."""
    return is_dataclass(kind) or hasattr(kind, "__pydantic_fields__") or hasattr(kind, "__struct_fields__")


def _is_frame(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in {"pandas", "polars"} and kind.__name__ in {"DataFrame", "LazyFrame"}


def body_of(item: object) -> JsonBody:
    """A JSON item as the value that crosses the doorway. Bytes are not copied."""
    if isinstance(item, JsonBody):
        return item

    body, path = (item.body, item.items) if isinstance(item, JsonPage) else (item, None)

    if isinstance(body, str):
        body = body.encode()

    return JsonBody(body if isinstance(body, bytes) else bytes(cast("bytearray | memoryview", body)), path)


def table_of(frame: object) -> pa.Table:
    """A data frame as an Arrow table, without its index. May compute and import: call it off the loop."""
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])

    if isinstance(frame, pa.Table):
        return frame

    module = type(frame).__module__.partition(".")[0]
    columns: Any = frame  # optional packages, known by their methods only

    if module == "polars":
        collected = columns.collect() if hasattr(columns, "collect") else columns
        return cast("pa.Table", collected.to_arrow())

    if module == "pandas":
        return pa.Table.from_pandas(columns, preserve_index=False)

    return pa.table(columns)


def iterate_once(items: object) -> Iterator[object]:
    """The items of a synchronous source: what a function returned, or the data a resource was made from.

    A list or another iterable gives its elements; a single row, body, table or frame is one item.
    """
    if items is None:
        return iter(())

    return iter(cast("Iterable[object]", items)) if is_iterable_data(items) else iter((items,))


def is_iterable_data(data: object) -> bool:
    """Whether data is a stream of items, rather than one item that happens to be iterable, such as a dict."""
    kind = kind_of(type(data))

    if kind is Kind.ROW:
        return hasattr(data, "__iter__") and not isinstance(data, str | Mapping) and not is_model(type(data))

    return kind in (Kind.ITERATOR, Kind.PAGE, Kind.TUPLE)


def is_exhausted(data: object) -> bool:
    """Whether data can be read only once and has been started."""
    if inspect.isgenerator(data):
        return inspect.getgeneratorstate(data) != inspect.GEN_CREATED

    if inspect.iscoroutine(data):
        return inspect.getcoroutinestate(data) != inspect.CORO_CREATED

    if inspect.isasyncgen(data):
        frame = data.ag_frame

        return frame is None or data.ag_running or frame.f_lasti > _FIRST_INSTRUCTION

    return False


async def _unstarted() -> AsyncIterator[None]:
    yield None


_FIRST_INSTRUCTION = cast("int", _unstarted().ag_frame.f_lasti)  # type: ignore[attr-defined]
