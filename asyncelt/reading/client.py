"""An SQL client on one dataset: any statement that the destination understands."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pyarrow as pa

from asyncelt.errors import ConfigError, Unsupported
from asyncelt.load.protocol import Destination, SupportsNames, SupportsQuery, SupportsTransaction, Target
from asyncelt.reading.cursor import Cursor, Row, as_rows, opened_cursor
from asyncelt.schema.capabilities import Capabilities
from asyncelt.types import SqlValue

__all__ = ["SqlClient", "opened_client", "with_question_marks"]


class SqlClient:
    """One connection to one dataset; unqualified names in statements mean its tables. Used by one task.

    Values are parameters, never text. ``query`` takes them as a sequence, for ``?`` or ``$1``, ``$2``; the calls that
    the reference has take them one by one and also know ``%s``.

    Args:
        destination: Where it is connected to.
        target: The dataset.
        session: The connection.
    """

    def __init__(self, destination: Destination, target: Target, session: SupportsQuery) -> None:
        self._destination = destination
        self._target = target
        self._session = session

    @property
    def session(self) -> SupportsQuery:
        """The connection."""
        return self._session

    @property
    def dataset_name(self) -> str:
        """Name of the dataset."""
        return self._target.dataset_name

    @property
    def staging_dataset_name(self) -> str:
        """Name of the dataset that rows pass through on their way, where a destination needs one."""
        return f"{self.dataset_name}_staging"

    @property
    def capabilities(self) -> Capabilities:
        """What the destination can do."""
        return self._destination.capabilities

    # ------------------------------------------------------------------------------------------- statements

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """Run one statement and return its whole result as an Arrow table.

        Raises:
            UndefinedRelation: It names a table or dataset that is not there.
            DestinationRejected: The destination refuses it for another reason.
            DestinationUnavailable: The destination cannot be reached.
        """
        return await self._session.query(sql, parameters)

    async def execute_sql(self, sql: str, *args: SqlValue) -> list[Row] | None:
        """Run one statement and return its rows; None where it has no result. Errors as `query`."""
        found = await self._session.query(with_question_marks(sql) if args else sql, args)

        return await as_rows(found) if found.num_columns else None

    async def execute_many(self, statements: Sequence[str]) -> list[list[Row] | None]:
        """Run statements one after the other and return the rows of each. Not one transaction."""
        return [await self.execute_sql(statement) for statement in statements]

    def execute_query(self, sql: str, *args: SqlValue) -> AbstractAsyncContextManager[Cursor]:
        """Run one query; inside the block a cursor hands out its rows as they are asked for. Errors as `query`."""
        return opened_cursor(self._session, with_question_marks(sql) if args else sql, args)

    @asynccontextmanager
    async def begin_transaction(self) -> AsyncIterator[SqlClient]:
        """Statements of the client that is given to the block are committed at its end, or undone by an exception.

        Raises:
            Unsupported: The destination has no transactions.
        """
        if not isinstance(self._session, SupportsTransaction):
            raise Unsupported(f"Destination {self._destination.destination_name!r} has no transactions for users.")

        async with self._session.transaction() as session:
            yield SqlClient(self._destination, self._target, session)

    # ------------------------------------------------------------------------------------------------ names

    def make_qualified_table_name(self, table_name: str, *, quote: bool = True) -> str:
        """The name of a table by which every statement finds it, ready to stand in SQL."""
        return ".".join(self.make_qualified_table_name_path(table_name, quote=quote))

    def make_qualified_table_name_path(self, table_name: str | None, *, quote: bool = True) -> list[str]:
        """The parts of the name, outermost first; those of the dataset where ``table_name`` is None."""
        if isinstance(self._session, SupportsNames):
            parts = list(self._session.path_of(table_name))
        else:
            parts = [] if table_name is None else [table_name]

        return [self.escape_column_name(part) for part in parts] if quote else parts

    def fully_qualified_dataset_name(self, *, quote: bool = True) -> str:
        """The name of the dataset, ready to stand in SQL.

        Raises:
            Unsupported: Datasets of this destination have no names in SQL.
        """
        path = self.make_qualified_table_name_path(None, quote=quote)

        if not path:
            raise Unsupported(f"A dataset of destination {self._destination.destination_name!r} has no name in SQL.")

        return ".".join(path)

    def escape_column_name(self, column_name: str, *, quote: bool = True) -> str:
        """A name as it has to be written in SQL."""
        return '"' + column_name.replace('"', '""') + '"' if quote else column_name

    def with_alternative_dataset_name(self, dataset_name: str) -> AbstractAsyncContextManager[SqlClient]:
        """A client on another dataset of the same destination, with a connection of its own."""
        return opened_client(self._destination, replace(self._target, dataset_name=dataset_name))

    def with_staging_dataset(self) -> AbstractAsyncContextManager[SqlClient]:
        """A client on the staging dataset."""
        return self.with_alternative_dataset_name(self.staging_dataset_name)

    # --------------------------------------------------------------------------------------------- datasets

    async def has_dataset(self) -> bool:
        """Whether the dataset is there: whether something has been loaded into it."""
        async with self._destination.connect(self._target) as session:
            restored = await session.restore(self._target.pipeline_name)

        return restored.exists

    async def create_dataset(self) -> None:
        """Make the dataset; it must not be there yet."""
        await self._session.query(f"CREATE SCHEMA {self.fully_qualified_dataset_name()}")

    async def drop_dataset(self) -> None:
        """Remove the dataset with everything in it, also what asyncelt has to know about it."""
        await self._session.query(f"DROP SCHEMA {self.fully_qualified_dataset_name()} CASCADE")

    async def drop_tables(self, *tables: str) -> None:
        """Remove tables that are there."""
        for table in tables:
            await self._session.query(f"DROP TABLE IF EXISTS {self.make_qualified_table_name(table)}")

    async def truncate_tables(self, *tables: str) -> None:
        """Remove all rows of the tables."""
        for table in tables:
            await self._session.query(f"DELETE FROM {self.make_qualified_table_name(table)}")  # noqa: S608 - escaped


@asynccontextmanager
async def opened_client(destination: Destination, target: Target) -> AsyncIterator[SqlClient]:
    """A client that is connected inside the block.

    Raises:
        ConfigError: The destination cannot be read with SQL.
    """
    async with destination.connect(target) as session:
        if not isinstance(session, SupportsQuery):
            raise ConfigError(f"Destination {destination.destination_name!r} cannot be read with SQL.")

        yield SqlClient(destination, target, session)


_PARTS = re.compile(r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | %% | %s""", re.VERBOSE | re.DOTALL)


def with_question_marks(sql: str) -> str:
    """The statement with ``?`` for each ``%s``, and ``%`` for ``%%``; texts, names and comments stay as they are."""
    if "%s" not in sql:
        return sql

    return _PARTS.sub(lambda found: {"%s": "?", "%%": "%"}.get(found[0], found[0]), sql)
