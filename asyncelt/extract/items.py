"""What a source may yield, told apart by type. No data is touched here and no optional package imported.

An *item* is whatever came out of a source or a step. `kind_of` says what it is; the values a user wraps data in
(`JsonPage`, `with_table_name`) are defined here.
"""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncIterable, Awaitable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum, auto

import pyarrow as pa

from asyncelt.errors import ConfigError
from asyncelt.flow import JsonBody

__all__ = ["JsonPage", "Kind", "Marked", "body_of", "is_model", "iterate_once", "kind_of", "table_of", "with_table_name"]


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

        if self.items is not None and (not self.items or not all(self.items.split("."))):
            raise ConfigError(f'JsonPage(items={self.items!r}): expected a dotted path such as "data.results".')


@dataclass(frozen=True, slots=True)
class Marked:
    """Data that goes to a table of its own choosing. Made by `with_table_name`."""

    item: object
    table_name: str


def with_table_name(item: object, table_name: str) -> Marked:
    """Send one item (a row, a page, a body, a frame) to ``table_name`` instead of its resource's table."""
    if not table_name or not isinstance(table_name, str):
        raise ConfigError(f"with_table_name(item, {table_name!r}): the table name must be text that is not empty.")

    return Marked(item, table_name)


@functools.lru_cache(maxsize=1024)
def kind_of(kind: type) -> Kind:
    """What objects of this type are to the engine. By type only, so that pages can be judged by their types."""
    for known, answer in _BY_CLASS:
        if issubclass(kind, known):
            return answer

    if is_model(kind):
        return Kind.ROW

    if hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__") or _is_frame(kind):
        return Kind.FRAME

    if hasattr(kind, "__next__"):
        return Kind.ITERATOR

    if issubclass(kind, AsyncIterable):
        return Kind.ASYNC_ITERABLE

    if issubclass(kind, Awaitable):
        return Kind.AWAITABLE

    return Kind.ROW


_BY_CLASS: tuple[tuple[type | tuple[type, ...], Kind], ...] = (
    (types.NoneType, Kind.NOTHING),
    ((str, int, float, Mapping), Kind.ROW),
    (list, Kind.PAGE),
    (tuple, Kind.TUPLE),
    ((bytes, bytearray, memoryview, JsonPage, JsonBody), Kind.BODY),
    ((pa.Table, pa.RecordBatch), Kind.ARROW),
    (pa.RecordBatchReader, Kind.ITERATOR),
    (Marked, Kind.MARKED),
    (
        (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial),
        Kind.CALLABLE,
    ),
)


def is_model(kind: type) -> bool:
    """Whether objects of this type are dataclasses, pydantic or msgspec models."""
    return is_dataclass(kind) or hasattr(kind, "__pydantic_fields__") or hasattr(kind, "__struct_fields__")


def _is_frame(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in {"pandas", "polars"} and kind.__name__ in {"DataFrame", "LazyFrame"}


def body_of(item: object) -> JsonBody:
    """A JSON item as the value that crosses the doorway. Bytes are not copied."""
    path = None

    if isinstance(item, JsonBody):
        return item

    if isinstance(item, JsonPage):
        item, path = item.body, item.items

    if isinstance(item, str):
        item = item.encode()

    return JsonBody(item if isinstance(item, bytes) else bytes(item), path)  # type: ignore[call-overload]


def table_of(frame: object) -> pa.Table:
    """A data frame as an Arrow table, without its index. May compute and import: call it off the loop."""
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])

    if isinstance(frame, pa.Table):
        return frame

    module = type(frame).__module__.partition(".")[0]

    if module == "polars":
        collected = frame.collect() if hasattr(frame, "collect") else frame  # type: ignore[attr-defined]
        return collected.to_arrow()

    if module == "pandas":
        return pa.Table.from_pandas(frame, preserve_index=False)

    return pa.table(frame)


def iterate_once(items: object) -> Iterator[object]:
    """The items of a synchronous source: what a function returned, or the data a resource was made from.

    A list or another iterable gives its elements; a single row, body, table or frame is one item.
    """
    if isinstance(items, list | tuple | pa.RecordBatchReader):
        return iter(items)

    kind = kind_of(type(items))

    if kind is Kind.NOTHING:
        return iter(())

    if kind is Kind.ITERATOR:
        return iter(items)  # type: ignore[call-overload, no-any-return]

    is_plain = isinstance(items, str | Mapping) or is_model(type(items))

    if kind is Kind.ROW and not is_plain and hasattr(items, "__iter__"):
        return iter(items)  # type: ignore[no-any-return]

    return iter((items,))
