"""Column types of DuckDB, and how job files are read into them."""

from __future__ import annotations

from asyncelt.errors import ConfigError
from asyncelt.schema.model import Column

__all__ = ["duckdb_type", "json_type", "stored_type"]

_UNBOUND = {
    "text": "VARCHAR",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "time": "TIME",
    "json": "JSON",
    "binary": "BLOB",
}
_INTEGERS = ((8, "TINYINT"), (16, "SMALLINT"), (32, "INTEGER"), (64, "BIGINT"), (128, "HUGEINT"))
_NAIVE_TIMESTAMPS = ((0, "TIMESTAMP_S"), (3, "TIMESTAMP_MS"), (6, "TIMESTAMP"), (9, "TIMESTAMP_NS"))


def duckdb_type(column: Column) -> str:
    """SQL type of a column, the same that the reference gives it.

    Raises:
        ConfigError: The column's precision is beyond what DuckDB has.
    """
    if column.data_type == "bigint":
        return _bounded(column, 64 if column.precision is None else column.precision, _INTEGERS)

    if column.data_type == "timestamp":
        if column.timezone is not False:
            return "TIMESTAMP WITH TIME ZONE"

        return _bounded(column, 6 if column.precision is None else column.precision, _NAIVE_TIMESTAMPS)

    if column.data_type in {"decimal", "wei"}:
        precision = 38 if column.precision is None else column.precision
        scale = column.scale

        if scale is None:
            scale = min(9, precision) if column.data_type == "decimal" else 0

        return f"DECIMAL({precision},{scale})"

    if column.data_type is None:
        raise ConfigError(f"Column {column.name!r} has no data type yet.")

    return _UNBOUND[column.data_type]


def stored_type(column: Column) -> str:
    """SQL type of a column of a new table, with how it is compressed where that is known before its values are.

    Row ids are random: trying to compress them costs a quarter of the commit of a narrow table and saves a tenth of
    their bytes (measured with 100,000 rows of ten columns: 173 to 128 ms of COMMIT, 4.5 to 5.0 MB).
    """
    is_random = column.row_key and column.data_type == "text"

    return duckdb_type(column) + (" USING COMPRESSION uncompressed" if is_random else "")


def json_type(column: Column) -> str:
    """SQL type as which a value of a JSON-lines job file is read: text for what JSON can only say as text.

    Decimals would pass through a double, and a ``json`` column holds JSON text, not a nested value.
    """
    if column.data_type in {"json", "decimal", "wei", "binary"}:
        return "VARCHAR"

    return duckdb_type(column)


def _bounded(column: Column, precision: int, choices: tuple[tuple[int, str], ...]) -> str:
    for most, name in choices:
        if precision <= most:
            return name

    raise ConfigError(
        f"Column {column.name!r}: DuckDB has no {column.data_type} of precision {precision}; at most {choices[-1][0]}."
    )
