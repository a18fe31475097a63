"""A dataset read out of a DuckDB file, as plain values that two processes can exchange and compare."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

__all__ = ["ColumnInfo", "Dataset", "TableData", "read_dataset"]


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """One physical column, in the order of the table."""

    name: str
    kind: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class TableData:
    """One table with all its rows, in physical order."""

    columns: tuple[ColumnInfo, ...]
    rows: list[tuple[object, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Every table of one schema of the database, and which columns carry a unique index."""

    tables: dict[str, TableData] = field(default_factory=dict)
    unique: frozenset[tuple[str, str]] = frozenset()


def read_dataset(database: Path, dataset_name: str) -> Dataset:
    """All of ``dataset_name`` in the file; an empty dataset where file or schema do not exist."""
    if not database.exists():
        return Dataset()

    with _opened(database) as connection:
        columns = _columns(connection, dataset_name)
        tables = {}

        for table, described in columns.items():
            chosen = ", ".join(_quoted(column.name) for column in described)
            source = f"{_FILE}.{_quoted(dataset_name)}.{_quoted(table)}"
            rows = connection.execute(f"SELECT {chosen} FROM {source}").fetchall()
            tables[table] = TableData(tuple(described), rows)

        return Dataset(tables, _unique(connection, dataset_name))


_FILE = "file_that_is_read"


@contextmanager
def _opened(database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = _connection()
    path = str(database).replace("'", "''")
    connection.execute(f"ATTACH '{path}' AS {_FILE} (READ_ONLY)")

    try:
        yield connection
    finally:
        connection.execute(f"DETACH {_FILE}")


@functools.cache
def _connection() -> duckdb.DuckDBPyConnection:
    """One for all files: making a DuckDB takes longer than all that is asked of it."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")

    return connection


def _columns(connection: duckdb.DuckDBPyConnection, dataset_name: str) -> dict[str, list[ColumnInfo]]:
    found: dict[str, list[ColumnInfo]] = {}
    described = connection.execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() "
        "WHERE database_name = ? AND schema_name = ? ORDER BY table_name, column_index",
        [_FILE, dataset_name],
    ).fetchall()

    for table, column, kind, nullable in described:
        found.setdefault(table, []).append(ColumnInfo(column, kind, nullable))

    return found


def _unique(connection: duckdb.DuckDBPyConnection, dataset_name: str) -> frozenset[tuple[str, str]]:
    constraints = connection.execute(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
        "WHERE database_name = ? AND schema_name = ? AND constraint_type IN ('UNIQUE', 'PRIMARY KEY')",
        [_FILE, dataset_name],
    ).fetchall()

    return frozenset((table, ",".join(names)) for table, names in constraints)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
