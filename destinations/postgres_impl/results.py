"""The columns of a query: as what they are copied, and which Arrow types they have then."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
import pyarrow as pa

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.postgres_impl.types import DECIMAL, WEI

__all__ = ["Result", "ResultColumn", "arrow_schema", "result_of"]

_TYPES: Final = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "name": "text",
    "json": "text",
    "jsonb": "jsonb",
    "bytea": "bytea",
    "date": "date",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}
"""What is copied as it is. Anything else is copied as text."""
_ARROW: Final[dict[str, pa.DataType]] = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "jsonb": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}
_DIGITS: Final = re.compile(r"numeric\((\d+),(\d+)\)")
_MOST_DIGITS: Final = 76
"""Of a decimal in Arrow."""
_SMALL_DIGITS: Final = 38
_PROBE: Final = '"pg_temp"."_asyncelt_result"'
_PROBE_TYPES: Final = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute WHERE attrelid = $1::regclass"
)


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column of a result."""

    name: str
    type: str
    """As which it is copied."""
    cast: str | None = None
    """Type to which the query casts it; None: it is copied as it is."""


@dataclass(frozen=True, slots=True)
class Result:
    """A query that can be copied, and its columns."""

    sql: str
    columns: tuple[ResultColumn, ...]


async def result_of(connection: Connection, sql: str, attributes: Sequence[asyncpg.Attribute]) -> Result:
    """The query with the casts that its columns need.

    Args:
        connection: In a transaction.
        sql: A query without parameters.
        attributes: Its columns.
    """
    numerics: dict[str, str] = {}

    if any(one.type.name == "numeric" for one in attributes):
        numerics = await _digits(connection, sql, len(attributes))

    columns = tuple(_column(at, one, numerics) for at, one in enumerate(attributes))

    if all(one.cast is None for one in columns):
        return Result(sql, columns)

    names = [f'"c{at}"' for at in range(len(columns))]
    values = [name if one.cast is None else f"{name}::{one.cast}" for name, one in zip(names, columns, strict=True)]
    inner = f"(\n{sql}\n) AS _asyncelt_result({', '.join(names)})"

    return Result(f"SELECT {', '.join(values)} FROM {inner}", columns)  # noqa: S608 - names of our own


def arrow_schema(columns: Sequence[ResultColumn]) -> pa.Schema:
    """Arrow types of the columns."""
    return pa.schema([pa.field(one.name, _arrow(one.type)) for one in columns])


def _column(at: int, attribute: asyncpg.Attribute, numerics: dict[str, str]) -> ResultColumn:
    name, kind = attribute.name, attribute.type.name

    if kind == "numeric":
        return _numeric(name, numerics.get(f"c{at}", kind))

    if kind in _TYPES and attribute.type.schema == "pg_catalog":
        return ResultColumn(name, _TYPES[kind])

    return ResultColumn(name, "text", "text")


def _numeric(name: str, kind: str) -> ResultColumn:
    digits = _DIGITS.fullmatch(kind)

    if digits is None:
        # What a query computes has no declared digits.
        declared = f"numeric({DECIMAL[0]},{DECIMAL[1]})"

        return ResultColumn(name, declared, declared)

    precision, scale = int(digits[1]), int(digits[2])

    if (precision, scale) == WEI:
        # Integers, although the type that the reference gives them could hold fractions.
        whole = f"numeric({_MOST_DIGITS},0)"

        return ResultColumn(name, whole, whole)

    if precision > _MOST_DIGITS or scale > precision:
        return ResultColumn(name, "text", "text")

    return ResultColumn(name, kind)


def _arrow(kind: str) -> pa.DataType:
    digits = _DIGITS.fullmatch(kind)

    if digits is None:
        return _ARROW[kind]

    precision, scale = int(digits[1]), int(digits[2])

    if precision <= _SMALL_DIGITS:
        return pa.decimal128(precision, scale)

    return pa.decimal256(precision, scale)


async def _digits(connection: Connection, sql: str, count: int) -> dict[str, str]:
    """Types with their digits, which the server tells of columns of tables and views only: of a view, then.

    Empty where none can be made, on a server that only answers queries for instance.
    """
    names = ", ".join(f'"c{at}"' for at in range(count))
    await connection.execute("SAVEPOINT asyncelt_result")

    try:
        await connection.execute(f"CREATE TEMPORARY VIEW _asyncelt_result({names}) AS {sql}")

        return {str(row[0]): str(row[1]) for row in await connection.fetch(_PROBE_TYPES, _PROBE)}
    except asyncpg.PostgresError:
        return {}
    finally:
        await connection.execute("ROLLBACK TO SAVEPOINT asyncelt_result")
