"""Columns of a COPY stream: type names of PostgreSQL, what the wire holds for them, what Arrow does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import pyarrow as pa

from asyncelt.errors import LoadError, Unsupported

__all__ = [
    "FIXED_BYTES",
    "CopyColumn",
    "CopyValueError",
    "Kind",
    "Refused",
    "WireType",
    "arrow_type_of",
    "wire_type",
]

Kind: TypeAlias = Literal[
    "bool",
    "bytea",
    "date",
    "float4",
    "float8",
    "int2",
    "int4",
    "int8",
    "json",
    "jsonb",
    "numeric",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "uuid",
]

FIXED_BYTES: Final[dict[Kind, int]] = {
    "bool": 1,
    "int2": 2,
    "int4": 4,
    "int8": 8,
    "float4": 4,
    "float8": 8,
    "date": 4,
    "time": 8,
    "timestamp": 8,
    "timestamptz": 8,
    "uuid": 16,
}
"""Bytes of a value on the wire, for the kinds whose values all have the same number."""

_KINDS: Final[dict[str, Kind]] = {
    "bigint": "int8",
    "int8": "int8",
    "integer": "int4",
    "int": "int4",
    "int4": "int4",
    "smallint": "int2",
    "int2": "int2",
    "double precision": "float8",
    "float8": "float8",
    "real": "float4",
    "float4": "float4",
    "boolean": "bool",
    "bool": "bool",
    "text": "text",
    "varchar": "text",
    "character varying": "text",
    "bytea": "bytea",
    "json": "json",
    "jsonb": "jsonb",
    "uuid": "uuid",
    "numeric": "numeric",
    "decimal": "numeric",
    "date": "date",
    "time": "time",
    "time without time zone": "time",
    "timestamp": "timestamp",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "timestamptz": "timestamptz",
}
_SPELLING: Final = re.compile(r"([a-z0-9 ]+?) ?(?:\( ?(\d+) ?(?:, ?(\d+) ?)?\))?( with(?:out)? time zone)?")

_ARROW: Final[dict[Kind, pa.DataType]] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "bytea": pa.binary(),
    "text": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "uuid": pa.string(),
}
_DECIMAL128_DIGITS: Final = 38
_DECIMAL256_DIGITS: Final = 76


@dataclass(frozen=True, slots=True)
class CopyColumn:
    """A column of the table, in the order in which COPY names it.

    Attributes:
        name: Under which batches have it.
        type: PostgreSQL's name of the type as DDL spells it, ``numeric(38,9)`` or ``timestamp (6) with time zone``.
    """

    name: str
    type: str


class CopyValueError(LoadError):
    """A value that the column's type cannot hold.

    Attributes:
        column: Name of the column.
        row: Its index in the whole stream, from 0.
        reason: What is wrong with it, without a place; completes "the value ...".
    """

    def __init__(self, column: str, row: int, reason: str) -> None:
        super().__init__(f"Column {column!r}, row {row}: the value {reason}.")
        self.column = column
        self.row = row
        self.reason = reason


class Refused(Exception):
    """The value at ``index`` of the array at hand cannot be sent or read."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WireType:
    """A type as the codec needs it: the kind of value, and digits, scale or length where the type has them."""

    kind: Kind
    size: int | None = None
    scale: int | None = None


@lru_cache(maxsize=256)
def wire_type(spelling: str) -> WireType:
    """The type behind a name as DDL spells it.

    Raises:
        Unsupported: The codec does not know this type.
    """
    match = _SPELLING.fullmatch(" ".join(spelling.lower().split()))
    kind = None if match is None else _KINDS.get(match[1] + (match[4] or ""))

    if match is None or kind is None:
        raise Unsupported(f"The type {spelling!r} cannot be copied in binary form; cast the column to text.")

    size = None if match[2] is None else int(match[2])

    if kind == "numeric" and size is not None:
        return WireType(kind, size, int(match[3] or 0))

    return WireType(kind, size)


def arrow_type_of(spelling: str) -> pa.DataType:
    """The Arrow type that `decode` gives to a column: microseconds, UTC; JSON and UUIDs as text.

    Numerics are decimals up to 76 digits. Beyond, and without a precision (a ``sum`` has none), they are text, the only
    form that loses no digit.

    Raises:
        Unsupported: The codec does not know this type.
    """
    wire = wire_type(spelling)

    if wire.kind != "numeric":
        return _ARROW[wire.kind]

    if wire.size is None or wire.size > _DECIMAL256_DIGITS:
        return pa.string()

    scale = wire.scale or 0

    return pa.decimal128(wire.size, scale) if wire.size <= _DECIMAL128_DIGITS else pa.decimal256(wire.size, scale)
