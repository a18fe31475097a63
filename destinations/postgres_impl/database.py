"""All calls of one session, over its connections. Imports the driver; imported off the event loop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import anyio
import asyncpg
import pyarrow as pa
from sqlglot.dialects import postgres as _dialect  # noqa: F401 - loaded now, off the event loop

from asyncelt.destinations.postgres_impl.config import PostgresConfig
from asyncelt.destinations.postgres_impl.connections import Connection, Connections, commit_now
from asyncelt.destinations.postgres_impl.errors import DRIVER_ERRORS, translate, translated
from asyncelt.destinations.postgres_impl.locks import become_owner, take_commit_turn
from asyncelt.destinations.postgres_impl.migrating import Updates, migrate
from asyncelt.destinations.postgres_impl.positions import claim_positions
from asyncelt.destinations.postgres_impl.query import open_reader, run_statement
from asyncelt.destinations.postgres_impl.reading import DIALECT, committed, positions, read_catalog, restore, run_of
from asyncelt.destinations.postgres_impl.rights import check_rights
from asyncelt.destinations.postgres_impl.transaction import write_commit
from asyncelt.destinations.postgres_impl.writing import Work
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.names import Dataset, identifier
from asyncelt.destinations.streaming import BatchStream
from asyncelt.errors import CommitUnknown, DestinationUnavailable, PipelineBusy
from asyncelt.failpoints import failpoint
from asyncelt.flow import PositionClaim
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, StoredPosition, Target
from asyncelt.schema.system import LOADS_TABLE
from asyncelt.types import LoadId, SqlValue

__all__ = ["Database", "Transaction"]

_THREADS = 2
"""Per session: one reads and encodes what comes next, another may still be at it when it was cancelled."""
_PATIENCE = "SELECT set_config('idle_in_transaction_session_timeout', '60s', true)"
"""After which the server ends the transaction of an owner that has been stopped."""


class Database:
    """One dataset of one database.

    Args:
        config: Where it is.
        target: The dataset and pipeline of the session.
    """

    def __init__(self, config: PostgresConfig, target: Target) -> None:
        self._config = config
        self._target = target
        self._dataset = Dataset(target.dataset_name)
        self._connections = Connections(config, f"asyncelt {target.pipeline_name}")
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._updates: Updates = {}

    async def restore(self, pipeline_name: str) -> Restored:
        """What the dataset knows about the pipeline."""
        doing = f"reading the state of pipeline {pipeline_name!r}"

        async with self._transaction(doing) as connection:
            with translated(doing):
                return await restore(connection, self._dataset, pipeline_name, self._target.member)

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """Become the owner, and make every lease that was handed out before useless.

        A pipeline that has never committed has no lease row: two owners of an empty dataset are told apart by the
        first commit, which makes the row and moves the head.

        Raises:
            PipelineBusy: The connection of another owner is alive.
            DestinationRejected: The role may not write the dataset.
        """
        target = replace(self._target, pipeline_name=pipeline_name, member=member)
        doing = f"taking the lease of pipeline {pipeline_name!r}"

        with translated(doing):
            dedicated = await self._connections.dedicated()
            await check_rights(dedicated, target.dataset_name)

            if not await become_owner(dedicated, target):
                raise PipelineBusy(
                    f"Pipeline {pipeline_name!r}" + (f" (member {member!r})" if member else "") + " is being run by "
                    f"another owner on dataset {target.dataset_name!r}. Wait for it, or give each process a name of "
                    "its own (member=...)."
                )

        async with self._transaction(doing) as connection:
            with translated(doing):
                # Whatever a former owner has sent is over then.
                await take_commit_turn(connection, target)

                if not await read_catalog(connection, self._dataset, [system.LEASE_TABLE.name]):
                    return Lease(epoch=1)

                raised = system.raise_epoch(self._dataset, DIALECT)
                row = await connection.fetchrow(raised, pipeline_name, member, datetime.now(UTC))

                if row is None:
                    return Lease(epoch=1)

                await commit_now(connection, timeout_s=self._config.commit_timeout_s)

                return Lease(epoch=int(row[0]), head_load_id=None if row[1] is None else LoadId(str(row[1])))

    async def migrate(self, commit: Commit) -> None:
        """CREATE and ADD COLUMN, in a transaction of its own: an ADD COLUMN keeps readers out until it is committed.

        Tables that the commit drops are left to it.
        """
        dropped = {name for package in commit.packages for name in package.dropped_tables}
        doing = f"changing tables for load {commit.packages[0].load_id}"

        async with self._transaction(doing) as connection:
            with translated(doing):
                self._updates = await migrate(
                    connection,
                    self._dataset,
                    commit.packages,
                    create_indexes=self._config.create_indexes,
                    except_for=dropped,
                )
                failpoint("postgres.before_migrate_commit")

                if self._updates:
                    await commit_now(connection, timeout_s=self._config.commit_timeout_s)

        failpoint("postgres.after_migrate")

    async def commit(self, commit: Commit) -> CommitResult:
        """Everything in one transaction; see `transaction`."""
        doing = f"committing {', '.join(package.load_id for package in commit.packages)}"
        failpoint("postgres.before_begin")

        async with self._transaction(doing) as connection:
            with translated(doing):
                await connection.execute(_PATIENCE)
                work = Work(
                    connection=connection,
                    dataset=self._dataset,
                    catalog={},
                    threads=self._threads,
                    replace_strategy=self._config.replace_strategy,
                    create_indexes=self._config.create_indexes,
                )
                result = await write_commit(work, commit, self._updates)

            if result.already_committed:
                return result

            failpoint("postgres.before_commit")
            await self._finish(connection, doing)

        failpoint("postgres.after_commit")

        return result

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """Which of the load ids are in ``_dlt_loads``, once no commit of the pipeline is under way any more."""
        doing = "asking for committed loads"

        async with self._transaction(doing) as connection:
            with translated(doing):
                await take_commit_turn(connection, self._target)
                catalog = await read_catalog(connection, self._dataset, [LOADS_TABLE])

                return await committed(connection, self._dataset, catalog, load_ids)

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """Load ids that this run has committed."""
        doing = f"asking for run {run_id!r}"

        async with self._transaction(doing) as connection:
            with translated(doing):
                return await run_of(connection, self._dataset, pipeline_name, run_id)

    async def positions(self, pipeline_name: str) -> tuple[StoredPosition, ...]:
        """What is committed of the pipeline's message sources."""
        doing = "reading positions"

        async with self._transaction(doing) as connection:
            with translated(doing):
                return await positions(connection, self._dataset, pipeline_name)

    async def claim(self, pipeline_name: str, claims: Sequence[PositionClaim]) -> list[StoredPosition]:
        """Take partitions of message sources over."""
        doing = "taking partitions over"

        async with self._transaction(doing) as connection:
            with translated(doing):
                await connection.execute(_PATIENCE)
                found = await claim_positions(connection, self._dataset, pipeline_name, claims)
                await commit_now(connection, timeout_s=self._config.commit_timeout_s)

        return found

    async def query(self, sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
        """Run one statement of the user, in a transaction of its own."""
        async with self.transaction() as transaction:
            return await transaction.query(sql, parameters)

    @asynccontextmanager
    async def stream(self, sql: str, parameters: Sequence[SqlValue], batch_rows: int) -> AsyncIterator[BatchStream]:
        """The rows of one query, on a connection of its own."""
        doing = self._reading

        async with self._transaction(doing) as connection:
            with translated(doing):
                reader = await open_reader(connection, sql, parameters, batch_rows)

            async def fetch() -> pa.RecordBatch | None:
                with translated(doing):
                    return await reader.next_batch()

            try:
                yield BatchStream(reader.schema, fetch)
            finally:
                await reader.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Statements of the user, committed at the end of the block."""
        async with self._transaction(self._reading) as connection:
            yield Transaction(connection, self._reading)

            with translated(self._reading):
                await commit_now(connection, timeout_s=self._config.commit_timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    @property
    def _reading(self) -> str:
        return f"running a query on dataset {self._target.dataset_name!r}"

    def _transaction(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        path = identifier(self._dataset.name).sql(dialect=DIALECT)

        return self._connections.transaction(f"{path}, public", doing=doing)

    async def _finish(self, connection: Connection, doing: str) -> None:
        """COMMIT. When the connection breaks meanwhile, nobody knows whether it happened."""
        try:
            await commit_now(connection, timeout_s=self._config.commit_timeout_s)
        except DRIVER_ERRORS as error:
            found = translate(error, doing)
            answered = isinstance(error, asyncpg.PostgresError) and not isinstance(
                error, asyncpg.PostgresConnectionError
            )

            if answered and not isinstance(found, DestinationUnavailable):
                raise found from error

            logging.getLogger("asyncelt.destinations.postgres").warning("The answer to a COMMIT was lost: %s", error)

            raise CommitUnknown(f"The connection broke during COMMIT: {found}") from error


class Transaction:
    """See `SupportsTransaction`."""

    def __init__(self, connection: Connection, doing: str) -> None:
        self._connection = connection
        self._doing = doing

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """See `SupportsQuery.query`."""
        with translated(self._doing):
            return await run_statement(self._connection, sql, parameters)
