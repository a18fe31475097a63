"""SQL over data that is in no database, through a DuckDB in memory that lives for one query. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import duckdb
import pyarrow as pa

from asyncelt.destinations.sql.names import identifier
from asyncelt.errors import DestinationRejected, UndefinedRelation, Unsupported
from asyncelt.types import SqlValue

__all__ = ["Prepare", "next_of", "query_tables", "query_with", "reading_with"]

Prepare: TypeAlias = Callable[[duckdb.DuckDBPyConnection], None]
"""Makes the tables that a statement may name."""

_READING = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.RELATION})


def query_with(prepare: Prepare, sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
    """Run one statement after ``prepare`` has made the tables it may name.

    Raises:
        Unsupported: The statement would change something, in a database that is gone afterwards.
        DestinationRejected: DuckDB refuses the statement.
    """
    with _prepared(prepare) as connection:
        return _executed(connection, sql, parameters).to_arrow_table()


@contextmanager
def reading_with(
    prepare: Prepare, sql: str, parameters: Sequence[SqlValue], batch_rows: int
) -> Iterator[tuple[pa.RecordBatchReader, duckdb.DuckDBPyConnection]]:
    """Run one query; inside the block its rows can be read one batch after the other, or it can be interrupted.

    Raises:
        Unsupported: It is no query.
        DestinationRejected: DuckDB refuses it.
    """
    with _prepared(prepare) as connection, _executed(connection, sql, parameters).to_arrow_reader(batch_rows) as reader:
        yield reader, connection


def next_of(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    """The next batch that has rows; None at the end.

    Raises:
        DestinationRejected: The query fails only now, or a file of it is gone, or it was interrupted.
    """
    try:
        while True:
            batch = reader.read_next_batch()

            if batch.num_rows:
                return batch
    except StopIteration:
        return None
    except (OSError, pa.ArrowException) as error:
        # What DuckDB raises in the middle of a stream, Arrow passes on as an error of its own.
        raise DestinationRejected(f"The query failed while its rows were read: {error}") from error


def query_tables(tables: Mapping[str, pa.Table], sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
    """Run one statement that may name Arrow tables."""

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        for name, table in tables.items():
            # Registered under a plain name first: registering does not take names with a quote in them.
            connection.register("_asyncelt_rows", table)
            quoted = identifier(name).sql(dialect="duckdb")
            connection.execute(f"CREATE TABLE {quoted} AS SELECT * FROM _asyncelt_rows")  # noqa: S608 - quoted
            connection.unregister("_asyncelt_rows")

    return query_with(prepare, sql, parameters)


@contextmanager
def _prepared(prepare: Prepare) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": "1"}) as connection, _translated():
        connection.execute("SET TimeZone = 'UTC'")
        prepare(connection)

        yield connection


def _executed(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[SqlValue]
) -> duckdb.DuckDBPyConnection:
    if any(statement.type not in _READING for statement in connection.extract_statements(sql)):
        raise Unsupported("This dataset is not in a database: it can be read with SQL, not changed.")

    return connection.execute(sql, list(parameters))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        message, code = f"The query failed: {error}", type(error).__name__

        if isinstance(error, duckdb.CatalogException) and "does not exist" in str(error):
            raise UndefinedRelation(message, code=code) from error

        raise DestinationRejected(message, code=code) from error
