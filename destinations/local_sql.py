"""SQL over data that is in no database, through a DuckDB in memory that lives for one query. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

import duckdb
import pyarrow as pa

from asyncelt.destinations.sql.names import identifier
from asyncelt.errors import DestinationRejected, UndefinedRelation, Unsupported
from asyncelt.types import SqlValue

__all__ = ["MEMORY_LIMIT", "LocalQuery", "Prepare", "bounded_database", "next_of", "query_tables"]

Prepare: TypeAlias = Callable[[duckdb.DuckDBPyConnection], None]
"""Makes the tables that a statement may name."""
Around: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Makes other errors of those inside the block."""

MEMORY_LIMIT: Final = "1GB"
"""Of one query, unless something else is said."""
_READING = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.RELATION})
_TRACE = "\n\nAt:\n"


class LocalQuery:
    """One statement in a DuckDB of its own. Used by one thread; only `interrupt` may come from another one.

    Args:
        prepare: Makes the tables that the statement may name.
        sql: The statement.
        parameters: Values of its parameters.
        one_state: Around all that happens until there are rows.
        reading: Around what reads further rows.
        memory_limit: See `bounded_database`.
    """

    def __init__(
        self,
        prepare: Prepare,
        sql: str,
        parameters: Sequence[SqlValue],
        *,
        one_state: Around = nullcontext,
        reading: Around = nullcontext,
        memory_limit: str | None = MEMORY_LIMIT,
    ) -> None:
        self._prepare = prepare
        self._one_state = one_state
        self._reading = reading
        self._memory_limit = memory_limit
        self._sql = sql
        self._parameters = list(parameters)
        self._stack = ExitStack()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._reader: pa.RecordBatchReader | None = None

    def run(self) -> pa.Table:
        """The whole result.

        Raises:
            Unsupported: The statement would change something, in a database that is gone afterwards.
            DestinationRejected: DuckDB refuses the statement.
        """
        with self._one_state(), self._stack, _translated():
            return self._executed().to_arrow_table()

    def begin(self, batch_rows: int) -> pa.Schema:
        """Begin to read; `next_batch` goes on until `close`. Errors as `run`."""
        with self._one_state(), ExitStack() as undone, _translated():
            undone.callback(self._stack.close)
            self._reader = self._stack.enter_context(self._executed().to_arrow_reader(batch_rows))
            undone.pop_all()

            return self._reader.schema

    def next_batch(self) -> pa.RecordBatch | None:
        """The next rows; None at the end.

        Raises:
            DestinationRejected: The query fails only now, or a file of it is gone, or it was interrupted.
        """
        with self._reading():
            return None if self._reader is None else next_of(self._reader)

    def interrupt(self) -> None:
        """Stop the statement that runs."""
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        """End the query."""
        self._stack.close()

    def _executed(self) -> duckdb.DuckDBPyConnection:
        connection = self._stack.enter_context(bounded_database(self._memory_limit))
        self._connection = connection

        if any(statement.type not in _READING for statement in connection.extract_statements(self._sql)):
            raise Unsupported("This dataset is not in a database: it can be read with SQL, not changed.")

        self._prepare(connection)

        return connection.execute(self._sql, self._parameters)


@contextmanager
def bounded_database(memory_limit: str | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory, inside the block. What does not fit goes to a temporary folder, which is gone afterwards.

    Args:
        memory_limit: As DuckDB writes it ("512MB"); None: its own default.
    """
    config = {"threads": "1"} if memory_limit is None else {"threads": "1", "memory_limit": memory_limit}

    with (
        TemporaryDirectory(prefix="asyncelt-") as folder,
        duckdb.connect(":memory:", config={**config, "temp_directory": folder}) as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")

        yield connection


def next_of(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    """The next batch that has rows; None at the end.

    Raises:
        DestinationRejected: The query fails only now, or was interrupted.
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
        said = str(error).partition(_TRACE)[0]

        raise DestinationRejected(f"The query failed while its rows were read: {said}") from error


def query_tables(tables: Mapping[str, pa.Table], sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
    """Run one statement that may name Arrow tables. Errors as `LocalQuery.run`."""

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        for name, table in tables.items():
            # Registered under a plain name first: registering does not take names with a quote in them.
            connection.register("_asyncelt_rows", table)
            quoted = identifier(name).sql(dialect="duckdb")
            connection.execute(f"CREATE TABLE {quoted} AS SELECT * FROM _asyncelt_rows")  # noqa: S608 - quoted
            connection.unregister("_asyncelt_rows")

    return LocalQuery(prepare, sql, parameters).run()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        # Where it asked us for bytes, DuckDB adds a trace of our frames.
        message, code = f"The query failed: {str(error).partition(_TRACE)[0]}", type(error).__name__

        if isinstance(error, duckdb.CatalogException) and "does not exist" in str(error):
            raise UndefinedRelation(message, code=code) from error

        raise DestinationRejected(message, code=code) from error
