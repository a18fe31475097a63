"""Whether two outputs hold the same: tables, columns with types, rows, and which row hangs below which.

A *signature* of a table is its row count, its columns with their types, and the sum of the hashes of its rows without
the random ids, each row hashed together with the contents of all the rows above it. Equal signatures: equal data, in
whatever order.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg2
import s3fs

from benchmarks.job import DATASET, Job
from tests.support.seaweed import KEY, SECRET

__all__ = ["Signature", "differences", "signatures"]

_OF_DATASET = "WHERE table_schema = %s ORDER BY table_name, ordinal_position"
_CSV = "delim = ',', quote = '\"', escape = '\"', new_line = '\\n'"
LINKS = frozenset({"_dlt_id", "_dlt_parent_id", "_dlt_root_id", "_dlt_load_id"})


@dataclass(frozen=True, slots=True)
class Signature:
    """What a table holds, in three values that can be compared."""

    rows: int
    columns: tuple[tuple[str, str], ...]
    content: int


def signatures(job: Job) -> dict[str, Signature]:
    """The signature of each data table of a job's output."""
    database = str(job.output) if job.target == "duckdb" else ":memory:"

    with duckdb.connect(database, read_only=job.target == "duckdb") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sources = _sources(connection, job)

        return {
            table: _signature(connection, table, sources)
            for table in sorted(sources)
            if not table.startswith(("_dlt_", "_asyncelt_"))
        }


def _sources(connection: duckdb.DuckDBPyConnection, job: Job) -> dict[str, str]:
    if job.target == "duckdb":
        return _tables_of_database(connection)

    if job.target == "s3":
        _copy_bucket(job)

    return _copies_from_postgres(connection, job) if job.target == "postgres" else _tables_of_folder(job.output)


def _copy_bucket(job: Job) -> None:
    bucket = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=job.dsn)
    bucket.get(f"{job.bucket_url}/{DATASET}", f"{job.output}/", recursive=True)


def _copies_from_postgres(connection: duckdb.DuckDBPyConnection, job: Job) -> dict[str, str]:
    """Tables of the same names in DuckDB: doubles as they are, all else as the text that Postgres makes of it."""
    sources, columns = {}, f"SELECT table_name, column_name, data_type FROM information_schema.columns {_OF_DATASET}"

    with contextlib.closing(psycopg2.connect(job.dsn)) as server, server.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute(columns, [DATASET])
        tables: dict[str, list[tuple[str, str]]] = {}

        for table, column, kind in cursor.fetchall():
            tables.setdefault(table, []).append((column, kind))

        for table, held in tables.items():
            names = ", ".join(f'"{name}"' for name, _ in held)
            path = Path(job.folder) / f"{table}.csv"

            with path.open("wb") as file:
                cursor.copy_expert(f'COPY (SELECT {names} FROM "{DATASET}"."{table}") TO STDOUT (FORMAT csv)', file)

            types = {name: "DOUBLE" if kind == "double precision" else "VARCHAR" for name, kind in held}
            options = f"header = false, auto_detect = false, {_CSV}, columns = {types}"
            connection.execute(f"CREATE TABLE \"{table}\" AS FROM read_csv('{path}', {options})")
            sources[table] = f'"{table}"'

    return sources


def differences(expected: dict[str, Signature], actual: dict[str, Signature]) -> list[str]:
    """What differs, in words; empty when both hold the same."""
    found = [f"table {name} is on one side only" for name in sorted(expected.keys() ^ actual.keys())]

    for name in sorted(expected.keys() & actual.keys()):
        left, right = expected[name], actual[name]

        if left.rows != right.rows:
            found.append(f"{name}: {left.rows} rows against {right.rows}")
        elif set(left.columns) != set(right.columns):
            found.append(f"{name}: columns {sorted(set(left.columns) ^ set(right.columns))[:8]}")
        elif left.content != right.content:
            found.append(f"{name}: the rows differ")

    return found


def _tables_of_database(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    names = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = ?", [DATASET]
    ).fetchall()

    return {name: f'"{DATASET}"."{name}"' for (name,) in names}


def _tables_of_folder(folder: Path) -> dict[str, str]:
    found = {}

    for table in sorted((folder / DATASET).iterdir()):
        if table.is_dir() and any(table.rglob("*.parquet")):
            found[table.name] = f"read_parquet('{table}/**/*.parquet', union_by_name = true)"

    return found


def _signature(connection: duckdb.DuckDBPyConnection, table: str, sources: dict[str, str]) -> Signature:
    source = sources[table]
    columns = [(str(row[0]), str(row[1])) for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    content, joins = _hash(connection, table, sources)
    query = f"SELECT count(*), coalesce(sum(({content})::HUGEINT), 0) FROM {source} t0 {joins}"
    row = connection.execute(query).fetchone()
    assert row is not None

    return Signature(rows=int(row[0]), columns=tuple(sorted(columns)), content=int(row[1]))


def _hash(connection: duckdb.DuckDBPyConnection, table: str, sources: dict[str, str]) -> tuple[str, str]:
    """An expression for the hash of a row with all rows above it, and the joins that bring those in."""
    parts, joins, alias = [_row_hash(connection, sources[table], "t0")], [], 0

    while (parent := _parent(table, sources)) is not None and _has_parent(connection, sources[table]):
        below, alias, table = f"t{alias}", alias + 1, parent
        joins.append(f't{alias} ON {below}."_dlt_parent_id" = t{alias}."_dlt_id"')
        joins[-1] = f"LEFT JOIN {sources[table]} {joins[-1]}"
        parts.append(_row_hash(connection, sources[table], f"t{alias}"))

    return f"hash({', '.join(parts)})", " ".join(joins)


def _row_hash(connection: duckdb.DuckDBPyConnection, source: str, alias: str) -> str:
    columns = [(str(row[0]), str(row[1])) for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    held = ", ".join(_value(f'{alias}."{name}"', kind) for name, kind in sorted(columns) if name not in LINKS)

    return f"hash({held})" if held else "0"


def _value(column: str, kind: str) -> str:
    """Doubles count to 13 digits: what the reference writes as SQL text comes back a last bit off now and then."""
    return f"format('{{:.12e}}', {column} + 0.0)" if kind == "DOUBLE" else column


def _has_parent(connection: duckdb.DuckDBPyConnection, source: str) -> bool:
    return any(row[0] == "_dlt_parent_id" for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall())


def _parent(table: str, sources: dict[str, str]) -> str | None:
    parts = table.split("__")
    above = ("__".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))

    return next((name for name in above if name in sources), None)
