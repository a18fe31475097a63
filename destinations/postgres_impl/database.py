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

from asyncelt._async import shielded
from asyncelt.destinations.postgres_impl.config import PostgresConfig
from asyncelt.destinations.postgres_impl.connections import Connection, Connections, commit_now, max_copies
from asyncelt.destinations.postgres_impl.errors import DRIVER_ERRORS, translate, translated
from asyncelt.destinations.postgres_impl.locks import become_owner, take_commit_turn
from asyncelt.destinations.postgres_impl.migrating import Updates, migrate
from asyncelt.destinations.postgres_impl.part_tables import adopt, drop_orphans, drop_parts, part_tables, stage_next
from asyncelt.destinations.postgres_impl.parts import Part, Parts, owner_prefix, parts_of
from asyncelt.destinations.postgres_impl.positions import claim_positions
from asyncelt.destinations.postgres_impl.query import open_reader, run_statement
from asyncelt.destinations.postgres_impl.reading import DIALECT, committed, positions, read_catalog, restore, run_of
from asyncelt.destinations.postgres_impl.rights import check_rights
from asyncelt.destinations.postgres_impl.transaction import write_commit
from asyncelt.destinations.postgres_impl.writing import Work
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.names import Dataset, identifier
from asyncelt.destinations.streaming import BatchStream
from asyncelt.errors import CommitUnknown, DestinationUnavailable, LoadError, PipelineBusy
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package, PositionClaim
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, StoredPosition, Target
from asyncelt.schema.system import LOADS_TABLE
from asyncelt.types import LoadId, SqlValue

__all__ = ["Database", "Transaction"]

_CLEANUP_S = 5.0
_PATIENCE = "SELECT set_config('idle_in_transaction_session_timeout', '60s', true)"
"""After which the server ends the transaction of an owner that has been stopped."""
_COMPRESSION = """
SELECT set_config(name, 'lz4', true) FROM pg_catalog.pg_settings
WHERE name = 'default_toast_compression' AND source = 'default' AND 'lz4' = ANY (enumvals)
"""
"""Long values cost the server half as much to compress as by its own method; where it can, and nobody has chosen."""


_logger = logging.getLogger("asyncelt.destinations.postgres")


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
        self._copies = anyio.CapacityLimiter(max_copies(config))
        # One more than there are copies: one may still be reading when it was cancelled.
        self._threads = anyio.CapacityLimiter(self._copies.total_tokens + 1)
        self._updates: Updates = {}
        self._parts: Parts = {}
        self._has_swept = False
        self._is_owner = self._holds_lock = False

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
            PipelineBusy: The connection of another owner is alive. Behind a pooler that is not known.
            DestinationRejected: The role may not write the dataset.
        """
        target = replace(self._target, pipeline_name=pipeline_name, member=member)
        doing = f"taking the lease of pipeline {pipeline_name!r}"

        if not self._config.pooled:
            await self._hold_lock(target, doing)

        async with self._transaction(doing) as connection:
            with translated(doing):
                if self._config.pooled:
                    await check_rights(connection, target.dataset_name)

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

    async def _hold_lock(self, target: Target, doing: str) -> None:
        with translated(doing):
            dedicated = await self._connections.dedicated()
            await check_rights(dedicated, target.dataset_name)
            self._is_owner = self._holds_lock = await become_owner(dedicated, target)

            if not self._is_owner:
                raise PipelineBusy(
                    f"Pipeline {target.pipeline_name!r}"
                    + (f" (member {target.member!r})" if target.member else "")
                    + " is being run by "
                    f"another owner on dataset {target.dataset_name!r}. Wait for it, or give each process a name of "
                    "its own (member=...)."
                )

    async def _stay_owner(self, target: Target, doing: str) -> None:
        """Take the lock again if its connection has broken, so that others go on seeing that there is an owner.

        Not to get it says nothing: it may still be our own, of a connection that the server has not missed yet.
        Whether somebody else has taken over is told by the lease.
        """
        if not self._is_owner or (self._holds_lock and self._connections.holds_dedicated):
            return

        with translated(doing):
            self._holds_lock = await become_owner(await self._connections.dedicated(), target)

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
        await self._adopt(commit)

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Copy the part of the commit that begins with this file into its staging table, if it has one.

        What has arrived before is not copied again.
        """
        part = self._parts.get((package.load_id, job.job_id))

        # Who copies the first file of a part copies the others too, in their order.
        if part is None or job != part.jobs[0]:
            return

        doing = f"staging table {part.table!r} of load {package.load_id}"

        async with self._copies:
            while await self._stage_next(commit, package, part, doing):
                failpoint("postgres.after_stage")

    async def _stage_next(self, commit: Commit, package: Package, part: Part, doing: str) -> bool:
        async with self._transaction(doing) as connection:
            with translated(doing):
                await connection.execute(_PATIENCE)
                await connection.execute(_COMPRESSION)
                has_copied = await stage_next(self._work(connection), commit.target, package, part)

                if has_copied:
                    await commit_now(connection, timeout_s=self._config.commit_timeout_s)

        return has_copied

    async def _adopt(self, commit: Commit) -> None:
        parts = parts_of(commit, self._config.staging_threshold)
        self._parts = {}

        if self._has_swept and not parts:
            return

        doing = f"looking for staging tables of pipeline {commit.target.pipeline_name!r}"

        async with self._transaction(doing) as connection:
            with translated(doing):
                tables = await part_tables(connection, self._dataset)
                own = [name for name in tables if name.startswith(owner_prefix(commit.target))]

                # Behind a pooler nobody knows who is alive.
                if len(tables) > len(own) and not self._has_swept and not self._config.pooled:
                    await drop_orphans(connection, self._dataset, commit.target)

                if own or parts:
                    may_stage = await adopt(connection, self._dataset, commit.target, parts, own)
                    self._parts = parts if may_stage else {}

                if tables or parts:
                    await commit_now(connection, timeout_s=self._config.commit_timeout_s)

        self._has_swept = True

    def _work(self, connection: Connection) -> Work:
        return Work(
            connection=connection,
            dataset=self._dataset,
            catalog={},
            threads=self._threads,
            replace_strategy=self._config.replace_strategy,
            create_indexes=self._config.create_indexes,
        )

    async def commit(self, commit: Commit) -> CommitResult:
        """Everything in one transaction; see `transaction`."""
        doing = f"committing {', '.join(package.load_id for package in commit.packages)}"
        failpoint("postgres.before_begin")
        await self._stay_owner(commit.target, doing)

        async with self._transaction(doing) as connection:
            with translated(doing):
                await connection.execute(_PATIENCE)
                await connection.execute(_COMPRESSION)
                result = await write_commit(self._work(connection), commit, self._updates, self._parts)

            if result.already_committed:
                return result

            failpoint("postgres.before_commit")
            await self._finish(connection, doing)

        self._parts = {}
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
                found = await claim_positions(connection, self._dataset, pipeline_name, claims, self._threads)
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
        """Drop what was staged and not committed, and close the connections; also while the task is being cancelled."""
        parts, self._parts = self._parts, {}

        with shielded(_CLEANUP_S):
            if parts:
                await self._drop(parts)

        await self._connections.close()

    async def _drop(self, parts: Parts) -> None:
        doing = "dropping staging tables"

        try:
            async with self._transaction(doing) as connection:
                with translated(doing):
                    await drop_parts(connection, self._dataset, parts)
                    await commit_now(connection, timeout_s=_CLEANUP_S)
        except LoadError as error:
            # The next owner drops them, or uses them.
            _logger.warning("Staging tables of dataset %r were left: %s", self._dataset.name, error)

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

            _logger.warning("The answer to a COMMIT was lost: %s", error)

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
