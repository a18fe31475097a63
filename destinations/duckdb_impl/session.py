"""The side of the event loop: every call goes to the session's thread, and a cancel interrupts it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import pyarrow as pa

from asyncelt.destinations._worker import Worker
from asyncelt.destinations.busy import Busy, patiently
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.streaming import BatchStream
from asyncelt.errors import ConfigError, DestinationRejected, DestinationUnavailable
from asyncelt.flow import JobFile, Package, PositionClaim
from asyncelt.load.protocol import Commit, CommitResult, EarlyJob, Known, Lease, Restored, StoredPosition, Target
from asyncelt.load.staging import Staging
from asyncelt.types import LoadId, SqlValue

if TYPE_CHECKING:
    from asyncelt.destinations.duckdb_impl.database import Database

__all__ = ["DuckDbSession", "DuckDbTransaction"]

T = TypeVar("T")


class DuckDbSession:
    """One session. The database is opened for the length of each call, in the session's own thread.

    Args:
        config: Which database, and how it is opened.
        target: Dataset and pipeline.
        staging: Where job files go before they are loaded; None: they are loaded from the package.

    Cancellation:
        A running statement is interrupted and its transaction rolled back. COMMIT is not: the call ends when it
        has been answered, and the package is committed.
    """

    def __init__(self, config: DuckDbConfig, target: Target, staging: Staging | None = None) -> None:
        self._config = config
        self._target = target
        self._staging = staging
        self._worker = Worker(config.instance.threads)
        self._database: Database | None = None

    async def restore(self, pipeline_name: str) -> Restored:
        """See `Session.restore`."""
        return await self._run(lambda database: database.restore(pipeline_name))

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """See `Session.acquire`."""
        return await self._run(lambda database: database.acquire(pipeline_name, member))

    async def take_over(self, pipeline_name: str, member: str, known: Known | None) -> tuple[Lease, Restored]:
        """See `SupportsTakeOver.take_over`."""
        return await self._run(lambda database: database.take_over(pipeline_name, member, known))

    async def migrate(self, commit: Commit) -> None:
        """Nothing: DDL is part of the commit's transaction."""

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Nothing, as the commit reads the job files by itself; or stage them."""
        if self._staging is not None and commit.is_load:
            await self._staging.put(package, job)

    @property
    def loads_early(self) -> bool:
        """See `SupportsEarly`."""
        return self._config.path is not None and self._staging is None

    async def load_early(self, jobs: Sequence[EarlyJob]) -> bool:
        """See `SupportsEarly`."""
        return await self._worker.call(lambda: self._opened().early.load(jobs), interrupt=self._interrupt)

    async def forget_early(self) -> None:
        """See `SupportsEarly`."""
        database = self._database

        if database is not None:
            await self._worker.call(database.early.forget)

    async def commit(self, commit: Commit) -> CommitResult:
        """See `Session.commit`."""
        staging = self._staging if commit.is_load else None

        if staging is None:
            return await self._run(lambda database: database.commit(commit), keeps_early=True)

        try:
            for package in commit.packages:
                for job in package.jobs:
                    await staging.put(package, job)

            result = await self._run(lambda database: database.commit(commit, staging))
        except BaseException:
            # Whatever it was, perhaps a file that somebody has removed.
            await staging.forget()
            raise

        await staging.clear(commit.packages[-1].load_id, keep=self._config.keeps_staged)

        return result

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """See `Session.committed`."""
        return await self._run(lambda database: database.committed(load_ids))

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """See `Session.run_of`."""
        return await self._run(lambda database: database.run_of(pipeline_name, run_id))

    async def positions(self, pipeline_name: str) -> Sequence[StoredPosition]:
        """See `SupportsPositions.positions`."""
        return await self._run(lambda database: database.positions(pipeline_name))

    async def claim(self, pipeline_name: str, claims: Sequence[PositionClaim]) -> Sequence[StoredPosition]:
        """See `SupportsPositions.claim`."""
        return await self._run(lambda database: database.claim(pipeline_name, claims))

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """See `SupportsQuery.query`."""
        return await self._run(lambda database: database.query(sql, parameters))

    @asynccontextmanager
    async def stream(
        self, sql: str, parameters: Sequence[SqlValue] = (), *, batch_rows: int = 65_536
    ) -> AsyncIterator[BatchStream]:
        """See `SupportsStream.stream`. Other processes cannot open the file meanwhile."""
        # A connection and thread of its own: the session can be used for other calls while rows are read.
        own = DuckDbSession(self._config, self._target)

        try:
            schema = await own._run(lambda database: database.begin_stream(sql, parameters, batch_rows))

            yield BatchStream(schema, lambda: own._run(lambda database: database.next_batch()))
        finally:
            await own.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[DuckDbTransaction]:
        """See `SupportsTransaction.transaction`. Other processes cannot open the file meanwhile."""
        own = DuckDbSession(self._config, self._target)

        try:
            await own._run(lambda database: database.begin())

            yield DuckDbTransaction(own)

            await own._run(lambda database: database.end())
        finally:
            await own.close()

    def path_of(self, table: str | None = None) -> tuple[str, ...]:
        """See `SupportsNames.path_of`. With the file's name: a dataset of the same name would be ambiguous alone."""
        parts = (self._config.catalog, self._target.dataset_name, table)

        return tuple(part for part in parts if part is not None)

    async def idle(self) -> None:
        """See `SupportsIdle.idle`: close the file, so that other processes can open it."""
        if (database := self._database) is None or database.early.is_under_way:
            return

        with anyio.CancelScope(shield=True):
            await self._worker.call(self._let_go)

    async def close(self) -> None:
        """Close the connection and give the thread back, also while the task is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._worker.ended(self._let_go)

    async def _run(self, work: Callable[[Database], T], *, keeps_early: bool = False) -> T:
        """Make one call in the thread; what another owner holds is waited for, at most ``busy_timeout_s``."""

        def run() -> T:
            database = self._opened()

            if not keeps_early:
                # One connection has one transaction, in which no other call may look.
                database.early.forget()

            return work(database)

        async def call() -> T:
            try:
                return await self._worker.call(run, interrupt=self._interrupt)
            except Busy:
                # Once: the thread may let go of it at any time.
                if (database := self._database) is not None:
                    database.ask_others()

                raise
            except PermissionError as error:
                raise DestinationRejected(f"{self._config.location}: {error}") from error
            except OSError as error:
                raise DestinationUnavailable(f"{self._config.location}: {error}") from error

        return await patiently(
            call,
            timeout_s=self._config.busy_timeout_s,
            advice="A DuckDB file can be open in one process at a time: close it there, or wait.",
        )

    async def run(self, sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
        """A statement of the transaction that this session was opened for."""
        return await self._run(lambda database: database.run(sql, parameters))

    def _opened(self) -> Database:
        """The database, made by the first call. In the thread, as are all calls that use it."""
        if self._database is None:
            # Importing the driver and the SQL builder takes a fifth of a second: not on the event loop.
            try:
                module = importlib.import_module("asyncelt.destinations.duckdb_impl.database")
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"The duckdb destination needs the package {error.name!r}: pip install duckdb"
                ) from error

            self._database = cast("Database", module.Database(self._config, self._target))

        return self._database

    def _let_go(self) -> None:
        """Close the database, if there is one. In the thread."""
        database, self._database = self._database, None

        if database is not None:
            database.close()

    def _interrupt(self) -> None:
        # Called by the event loop, while the thread may let go of it.
        if (database := self._database) is not None:
            database.interrupt()


class DuckDbTransaction:
    """See `SupportsTransaction`."""

    def __init__(self, session: DuckDbSession) -> None:
        self._session = session

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """See `SupportsQuery.query`."""
        return await self._session.run(sql, parameters)
