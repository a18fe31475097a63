"""The side of the event loop: every call goes to the session's thread, and a cancel interrupts it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import pyarrow as pa

from asyncelt.destinations._worker import Worker
from asyncelt.destinations.busy import patiently
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.errors import ConfigError, DestinationRejected, DestinationUnavailable
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, Target
from asyncelt.types import JsonValue, LoadId

if TYPE_CHECKING:
    from asyncelt.destinations.duckdb_impl.database import Database

__all__ = ["DuckDbSession"]

T = TypeVar("T")


class DuckDbSession:
    """One session. The database is opened for the length of each call, in the session's own thread.

    Cancellation:
        A running statement is interrupted and its transaction rolled back. COMMIT is not: the call ends when it
        has been answered, and the package is committed.
    """

    def __init__(self, config: DuckDbConfig, target: Target) -> None:
        self._config = config
        self._target = target
        self._worker = Worker(f"asyncelt-duckdb-{target.dataset_name}")
        self._database: Database | None = None

    async def restore(self, pipeline_name: str) -> Restored:
        """See `Session.restore`."""
        return await self._run(lambda database: database.restore(pipeline_name))

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """See `Session.acquire`."""
        return await self._run(lambda database: database.acquire(pipeline_name, member))

    async def migrate(self, commit: Commit) -> None:
        """Nothing: DDL is part of the commit's transaction."""

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Nothing: the commit reads the job files by itself."""

    async def commit(self, commit: Commit) -> CommitResult:
        """See `Session.commit`."""
        return await self._run(lambda database: database.commit(commit))

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """See `Session.committed`."""
        return await self._run(lambda database: database.committed(load_ids))

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """See `Session.run_of`."""
        return await self._run(lambda database: database.run_of(pipeline_name, run_id))

    async def query(self, sql: str, parameters: Sequence[JsonValue] = ()) -> pa.Table:
        """See `SupportsQuery.query`."""
        return await self._run(lambda database: database.query(sql, parameters))

    async def idle(self) -> None:
        """See `SupportsIdle.idle`: close the file, so that other processes can open it."""
        database, self._database = self._database, None

        if database is not None:
            with anyio.CancelScope(shield=True):
                await self._worker.call(database.close)

    async def close(self) -> None:
        """Close the connection and end the thread, also while the task is being cancelled."""
        database, self._database = self._database, None

        with anyio.CancelScope(shield=True):
            try:
                if database is not None:
                    await self._worker.call(database.close)
            finally:
                await self._worker.ended()

    async def _run(self, work: Callable[[Database], T]) -> T:
        """Make one call in the thread; what another owner holds is waited for, at most ``busy_timeout_s``."""
        database = self._database or await self._prepare()

        async def call() -> T:
            try:
                return await self._worker.call(lambda: work(database), interrupt=database.interrupt)
            except PermissionError as error:
                raise DestinationRejected(f"{self._config.location}: {error}") from error
            except OSError as error:
                raise DestinationUnavailable(f"{self._config.location}: {error}") from error

        return await patiently(
            call,
            timeout_s=self._config.busy_timeout_s,
            advice="A DuckDB file can be open in one process at a time: close it there, or wait.",
        )

    async def _prepare(self) -> Database:
        config, target = self._config, self._target

        def build() -> Database:
            # Importing the driver and the SQL builder takes a fifth of a second: not on the event loop.
            try:
                module = importlib.import_module("asyncelt.destinations.duckdb_impl.database")
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"The duckdb destination needs the package {error.name!r}: pip install 'asyncelt[duckdb]'"
                ) from error

            return cast("Database", module.Database(config, target))

        built = await self._worker.call(build)

        # Several first calls may come at the same time; all use what the first of them has built.
        if self._database is None:
            self._database = built

        return self._database
