"""A dataset read out of a DuckDB file, as plain values that two processes can exchange and compare."""

from __future__ import annotations

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

    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        columns = _columns(connection, dataset_name)
        tables = {}

        for table, described in columns.items():
            chosen = ", ".join(_quoted(column.name) for column in described)
            source = f"{_quoted(dataset_name)}.{_quoted(table)}"
            rows = connection.execute(f"SELECT {chosen} FROM {source}").fetchall()
            tables[table] = TableData(tuple(described), rows)

        return Dataset(tables, _unique(connection, dataset_name))


def _columns(connection: duckdb.DuckDBPyConnection, dataset_name: str) -> dict[str, list[ColumnInfo]]:
    found: dict[str, list[ColumnInfo]] = {}
    described = connection.execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = ? ORDER BY table_name, ordinal_position",
        [dataset_name],
    ).fetchall()

    for table, column, kind, nullable in described:
        found.setdefault(table, []).append(ColumnInfo(column, kind, nullable == "YES"))

    return found


def _unique(connection: duckdb.DuckDBPyConnection, dataset_name: str) -> frozenset[tuple[str, str]]:
    constraints = connection.execute(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
        "WHERE schema_name = ? AND constraint_type IN ('UNIQUE', 'PRIMARY KEY')",
        [dataset_name],
    ).fetchall()

    return frozenset((table, ",".join(names)) for table, names in constraints)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
