"""The side of the event loop: data files are brought by a carrier, everything else is done in one thread."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import pyarrow as pa

from asyncelt.destinations._threads import Threads
from asyncelt.destinations._worker import Worker
from asyncelt.destinations.busy import OwnerAlive, patiently
from asyncelt.destinations.filesystem_impl.dataset import FileDataset
from asyncelt.destinations.streaming import BatchStream
from asyncelt.errors import AsynceltError, DestinationRejected, DestinationUnavailable, PipelineBusy
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, Target
from asyncelt.schema.system import STATE_TABLE
from asyncelt.types import LoadId, SqlValue

if TYPE_CHECKING:
    from asyncelt.destinations.local_sql import LocalQuery

__all__ = ["FilesystemSession"]

T = TypeVar("T")


class FilesystemSession:
    """One session on one dataset of files.

    Cancellation:
        A file operation that has begun goes on to its end (a thread cannot be stopped), then the temporary file is
        removed. A commit that has begun goes on to its end.
    """

    def __init__(self, dataset: FileDataset, target: Target, threads: Threads, *, busy_timeout_s: float) -> None:
        self._dataset = dataset
        self._place = dataset.place
        self._target = target
        self._busy_timeout_s = busy_timeout_s
        self._threads = threads
        self._worker = Worker(threads)
        self._migrated: tuple[int, Sequence[LoadId]] | None = None
        """Epoch and loads of what has been checked and announced last."""

    async def restore(self, pipeline_name: str) -> Restored:
        """See `Session.restore`."""
        return await self._owning(lambda: self._dataset.restore(pipeline_name, self._target.member))

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """See `Session.acquire`."""
        return await self._owning(lambda: self._dataset.acquire(pipeline_name, member))

    async def migrate(self, commit: Commit) -> None:
        """Files need no tables. Refuses what this destination cannot do, before any data moves; announces the files.

        Raises:
            Unsupported: A table is to be written in a way that is not there.
        """
        load_ids = [package.load_id for package in commit.packages]
        migrated = (commit.lease.epoch, load_ids)

        if not commit.is_load or self._migrated == migrated:
            return

        try:
            for package in commit.packages:
                await self._run(partial(self._dataset.check, package))
        except AsynceltError:
            # The commit tells what is the matter with a load that is committed.
            if await self._is_committed(load_ids):
                return

            raise

        paths = [
            self._dataset.path_of(commit, package, job)
            for package in commit.packages
            for job in package.jobs
            if job.table != STATE_TABLE
        ]
        await self._place.carrier.announce(load_ids[-1], commit.lease.epoch, paths)
        self._migrated = migrated

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Bring a job's file to its final name. No dataset lists it before the commit."""
        if job.table == STATE_TABLE or not commit.is_load:
            # States are documents of their own, which the commit writes.
            return

        path = self._dataset.path_of(commit, package, job)

        with self._translated():
            await self._place.carrier.bring(package.path_of(job), path, package.load_id)

        failpoint("filesystem.loaded")

    async def commit(self, commit: Commit) -> CommitResult:
        """See `Session.commit`."""
        if commit.is_load and not await self._is_committed([package.load_id for package in commit.packages]):
            await self.migrate(commit)

            for package in commit.packages:
                for job in package.jobs:
                    await self.load(commit, package, job)

        return await self._run(lambda: self._dataset.commit(commit))

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """See `Session.committed`."""
        return await self._run(lambda: self._dataset.committed(load_ids, self._target))

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """See `Session.run_of`."""
        return await self._run(lambda: self._dataset.run_of(pipeline_name, run_id))

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """See `SupportsQuery.query`. Lists the files of committed loads, and no others."""
        query = await self._query_of(sql, parameters)

        return await self._run(query.run, interrupt=query.interrupt)

    @asynccontextmanager
    async def stream(
        self, sql: str, parameters: Sequence[SqlValue] = (), *, batch_rows: int = 65_536
    ) -> AsyncIterator[BatchStream]:
        """See `SupportsStream.stream`. A file that a later load has replaced ends the stream with an error."""
        # A thread of its own: the session can be used for other calls while rows are read.
        own = FilesystemSession(self._dataset, self._target, self._threads, busy_timeout_s=self._busy_timeout_s)

        try:
            query = await own._query_of(sql, parameters)

            try:
                schema = await own._run(lambda: query.begin(batch_rows), interrupt=query.interrupt)

                yield BatchStream(schema, lambda: own._run(query.next_batch, interrupt=query.interrupt))
            finally:
                with anyio.CancelScope(shield=True):
                    await own._worker.call(query.close)
        finally:
            # Only its thread: what is held of the dataset belongs to this session.
            with anyio.CancelScope(shield=True):
                await own._worker.ended()

    async def close(self) -> None:
        """Give the threads back, also while the task is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._worker.ended()
            await self._place.carrier.close()

    async def _is_committed(self, load_ids: Sequence[LoadId]) -> bool:
        return len(await self.committed(load_ids)) == len(load_ids)

    async def _query_of(self, sql: str, parameters: Sequence[SqlValue]) -> LocalQuery:
        def build() -> LocalQuery:
            # Imports DuckDB and the SQL builder: not on the event loop.
            module = importlib.import_module("asyncelt.destinations.filesystem_impl.query")

            return cast("LocalQuery", module.dataset_query(self._dataset, sql, parameters))

        return await self._worker.call(build)

    async def _owning(self, work: Callable[[], T]) -> T:
        try:
            return await self._run(work)
        except DestinationUnavailable as error:
            if isinstance(error.__cause__, OwnerAlive):
                raise PipelineBusy(str(error)) from error

            raise

    async def _run(self, work: Callable[[], T], *, interrupt: Callable[[], None] | None = None) -> T:
        async def call() -> T:
            with self._translated():
                return await self._worker.call(work, interrupt=interrupt)

        return await patiently(call, timeout_s=self._busy_timeout_s, advice="Nothing was changed.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What the file system raises becomes an error of ours, inside the block."""
        address = self._place.store.address

        try:
            yield
        except (PermissionError, NotADirectoryError) as error:
            raise DestinationRejected(f"{address}: {error}", hint="choose another folder, or mend this one.") from error
        except OSError as error:
            raise DestinationUnavailable(f"{address}: {error}") from error
