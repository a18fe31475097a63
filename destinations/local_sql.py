"""SQL over data that is in no database, through a DuckDB in memory that lives for one query. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import duckdb
import pyarrow as pa

from asyncelt.destinations.sql.names import identifier
from asyncelt.errors import DestinationRejected
from asyncelt.types import JsonValue

__all__ = ["query_tables", "query_with"]


def query_with(
    prepare: Callable[[duckdb.DuckDBPyConnection], None], sql: str, parameters: Sequence[JsonValue]
) -> pa.Table:
    """Run one statement after ``prepare`` has made the tables it may name.

    Raises:
        DestinationRejected: DuckDB refuses the statement.
    """
    with duckdb.connect(":memory:", config={"threads": "1"}) as connection:
        try:
            connection.execute("SET TimeZone = 'UTC'")
            prepare(connection)

            return connection.execute(sql, list(parameters)).to_arrow_table()
        except duckdb.Error as error:
            raise DestinationRejected(f"The query failed: {error}", code=type(error).__name__) from error


def query_tables(tables: Mapping[str, pa.Table], sql: str, parameters: Sequence[JsonValue]) -> pa.Table:
    """Run one statement that may name Arrow tables."""

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        for name, table in tables.items():
            # Registered under a plain name first: registering does not take names with a quote in them.
            connection.register("_asyncelt_rows", table)
            quoted = identifier(name).sql(dialect="duckdb")
            connection.execute(f"CREATE TABLE {quoted} AS SELECT * FROM _asyncelt_rows")  # noqa: S608 - quoted
            connection.unregister("_asyncelt_rows")

    return query_with(prepare, sql, parameters)
