"""What the engine talks to. Builds the `Database` with its first call: the driver is imported off the event loop."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import anyio
import pyarrow as pa
from anyio.to_thread import run_sync

from asyncelt.destinations.closed import closed_session
from asyncelt.destinations.postgres_impl.config import PostgresConfig
from asyncelt.errors import ConfigError
from asyncelt.flow import JobFile, Package, PositionClaim
from asyncelt.load.protocol import (
    ArrowStream,
    Commit,
    CommitResult,
    Lease,
    Restored,
    StoredPosition,
    SupportsQuery,
    Target,
)
from asyncelt.types import LoadId, SqlValue

if TYPE_CHECKING:
    from asyncelt.destinations.postgres_impl.database import Database

__all__ = ["PostgresSession"]


class PostgresSession:
    """One session: a pool for its work, and one more connection that says that the owner is alive.

    Cancellation:
        The server stops the statement that runs and undoes its transaction. A COMMIT that was sent is awaited: the
        call ends when it has been answered, and the package is committed.
    """

    def __init__(self, config: PostgresConfig, target: Target) -> None:
        self._config = config
        self._target = target
        self._lock = anyio.Lock()
        self._built: Database | None = None
        self._is_closed = False

    async def restore(self, pipeline_name: str) -> Restored:
        """See `Session.restore`."""
        return await (await self._database()).restore(pipeline_name)

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """See `Session.acquire`."""
        return await (await self._database()).acquire(pipeline_name, member)

    async def migrate(self, commit: Commit) -> None:
        """See `Session.migrate`."""
        await (await self._database()).migrate(commit)

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Copy a file of a large run into its staging table. Else nothing: the commit copies the files by itself."""
        await (await self._database()).load(commit, package, job)

    async def commit(self, commit: Commit) -> CommitResult:
        """See `Session.commit`."""
        return await (await self._database()).commit(commit)

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """See `Session.committed`."""
        return await (await self._database()).committed(load_ids)

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """See `Session.run_of`."""
        return await (await self._database()).run_of(pipeline_name, run_id)

    async def positions(self, pipeline_name: str) -> Sequence[StoredPosition]:
        """See `SupportsPositions.positions`."""
        return await (await self._database()).positions(pipeline_name)

    async def claim(self, pipeline_name: str, claims: Sequence[PositionClaim]) -> Sequence[StoredPosition]:
        """See `SupportsPositions.claim`."""
        return await (await self._database()).claim(pipeline_name, claims)

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """See `SupportsQuery.query`. Parameters are ``?`` or ``$1``."""
        return await (await self._database()).query(sql, parameters)

    @asynccontextmanager
    async def stream(
        self, sql: str, parameters: Sequence[SqlValue] = (), *, batch_rows: int = 65_536
    ) -> AsyncIterator[ArrowStream]:
        """See `SupportsStream.stream`."""
        async with (await self._database()).stream(sql, parameters, batch_rows) as stream:
            yield stream

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SupportsQuery]:
        """See `SupportsTransaction.transaction`."""
        async with (await self._database()).transaction() as transaction:
            yield transaction

    def path_of(self, table: str | None = None) -> tuple[str, ...]:
        """See `SupportsNames.path_of`."""
        return (self._target.dataset_name,) if table is None else (self._target.dataset_name, table)

    async def close(self) -> None:
        """Close the connections, also while the task is being cancelled."""
        self._is_closed = True
        database, self._built = self._built, None

        if database is not None:
            await database.close()

    async def _database(self) -> Database:
        if self._is_closed:
            raise closed_session()

        # Several first calls may come at the same time.
        async with self._lock:
            if self._built is None:
                self._built = await run_sync(self._build)

            return self._built

    def _build(self) -> Database:
        # Importing the driver and the SQL builder takes a fifth of a second.
        try:
            module = importlib.import_module("asyncelt.destinations.postgres_impl.database")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"The postgres destination needs the package {error.name!r}: pip install 'asyncelt[postgres]'"
            ) from error

        return cast("Database", module.Database(self._config, self._target))
