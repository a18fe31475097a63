"""Column types of Postgres, the same that the reference gives them."""

from __future__ import annotations

from asyncelt.errors import ConfigError
from asyncelt.schema.model import Column

__all__ = ["DECIMAL", "GEOMETRY_HINT", "INDEX_HINT", "MAX_NAME_BYTES", "SRID_HINT", "WEI", "postgres_type"]

MAX_NAME_BYTES = 63
GEOMETRY_HINT = "x-postgres-geometry"
"""Of columns with the type of PostGIS; this and the next are the reference's."""
SRID_HINT = "x-postgres-srid"
INDEX_HINT = "x-postgres-index"
"""Of columns that are to have an index, each one of its own."""
_SRID = 4326
DECIMAL = (38, 9)
"""Digits of decimals that say nothing about theirs."""
WEI = (156, 78)
_UNBOUND = {
    "double": "double precision",
    "bool": "boolean",
    "date": "date",
    "json": "jsonb",
    "binary": "bytea",
}
_INTEGERS = ((16, "smallint"), (32, "integer"), (64, "bigint"))
_MOST_FRACTION = 6


def postgres_type(column: Column) -> str:
    """SQL type of a column.

    Raises:
        ConfigError: The column's precision is beyond what Postgres has.
    """
    kind, precision = column.data_type, column.precision

    if kind is None:
        raise ConfigError(f"Column {column.name!r} has no data type yet.")

    if column.extra.get(GEOMETRY_HINT):
        return f"geometry(Geometry, {column.extra.get(SRID_HINT, _SRID)})"

    if kind in _UNBOUND:
        return _UNBOUND[kind]

    if kind == "text":
        return "varchar" if precision is None else f"varchar({precision})"

    if kind == "bigint":
        return _integer(column, 64 if precision is None else precision)

    if kind == "timestamp":
        return f"timestamp{_fraction(column)} {'without' if column.timezone is False else 'with'} time zone"

    if kind == "time":
        return f"time{_fraction(column)} without time zone"

    digits, scale = WEI if kind == "wei" else DECIMAL

    if precision is not None:
        digits, scale = precision, (min(scale, precision) if kind == "decimal" else 0)

    return f"numeric({digits},{scale if column.scale is None else column.scale})"


def _integer(column: Column, bits: int) -> str:
    for most, name in _INTEGERS:
        if bits <= most:
            return name

    raise ConfigError(f"Column {column.name!r}: Postgres has no integers of {bits} bits; at most {_INTEGERS[-1][0]}.")


def _fraction(column: Column) -> str:
    if column.precision is None:
        return ""

    if column.precision > _MOST_FRACTION:
        raise ConfigError(
            f"Column {column.name!r}: Postgres keeps {_MOST_FRACTION} digits of a second, not {column.precision}. "
            f"Give the column a precision of {_MOST_FRACTION} or less."
        )

    return f"({column.precision})"
