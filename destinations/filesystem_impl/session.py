"""The side of the event loop: data files are copied with aiofiles, everything else is done in one thread."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import aiofiles
import aiofiles.os
import anyio
import pyarrow as pa

from asyncelt.destinations._worker import Worker, wait_out
from asyncelt.destinations.busy import patiently
from asyncelt.destinations.filesystem_impl.folder import DatasetFolder
from asyncelt.destinations.streaming import BatchStream
from asyncelt.errors import DestinationRejected, DestinationUnavailable, Unsupported
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, Target
from asyncelt.schema.system import STATE_TABLE
from asyncelt.types import LoadId, SqlValue

if TYPE_CHECKING:
    from asyncelt.destinations.local_sql import LocalQuery

__all__ = ["FilesystemSession"]

T = TypeVar("T")

_CHUNK_BYTES = 1024 * 1024
_THREADS = 4
_GRACE_S = 30.0
"""Longest wait for a file operation after a cancel."""


class FilesystemSession:
    """One session on one dataset's folder.

    Cancellation:
        A file operation that has begun goes on to its end (a thread cannot be stopped), then the temporary file is
        removed. A commit that has begun goes on to its end.
    """

    def __init__(self, folder: DatasetFolder, target: Target, *, busy_timeout_s: float) -> None:
        self._folder = folder
        self._target = target
        self._busy_timeout_s = busy_timeout_s
        self._worker = Worker(f"asyncelt-filesystem-{target.dataset_name}")
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="asyncelt-filesystem")

    async def restore(self, pipeline_name: str) -> Restored:
        """See `Session.restore`."""
        return await self._run(lambda: self._folder.restore(pipeline_name, self._target.member))

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """See `Session.acquire`."""
        return await self._run(lambda: self._folder.acquire(pipeline_name, member))

    async def migrate(self, commit: Commit) -> None:
        """Files need no tables. Refuses what this destination cannot do, before any data moves.

        Raises:
            Unsupported: A table is to be merged.
        """
        for package in commit.packages if commit.is_load else ():
            merged = {job.table for job in package.jobs if package.schema.disposition_of(job.table) == "merge"}

            if merged:
                raise Unsupported(
                    f"The filesystem destination cannot merge into plain files (tables {', '.join(sorted(merged))}). "
                    "Use write_disposition append or replace, or a database."
                )

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Bring a job's file to its final name. No dataset lists it before the commit."""
        if job.table == STATE_TABLE or not commit.is_load:
            # States are documents of their own, which the commit writes.
            return

        source = package.path_of(job)
        target = self._folder.path / self._folder.layout.path_of(package, job)
        temporary = target.with_name(f".{target.name}.{package.load_id}.tmp")

        if await self._file(aiofiles.os.path.exists(target, executor=self._executor)):
            size = await self._file(aiofiles.os.path.getsize(target, executor=self._executor))

            if size == job.nbytes:
                return

        await self._file(aiofiles.os.makedirs(target.parent, exist_ok=True, executor=self._executor))

        try:
            await self._bring(source, temporary)
            failpoint("filesystem.before_rename")
            await self._file(aiofiles.os.replace(temporary, target, executor=self._executor))
        finally:
            # After a rename between two names of one file both stay; after an error the rest has to go.
            with anyio.CancelScope(shield=True):
                await self._remove(temporary)

        failpoint("filesystem.loaded")

    async def commit(self, commit: Commit) -> CommitResult:
        """See `Session.commit`."""
        await self.migrate(commit)

        load_ids = [package.load_id for package in commit.packages]

        if commit.is_load and len(await self.committed(load_ids)) < len(load_ids):
            for package in commit.packages:
                for job in package.jobs:
                    await self.load(commit, package, job)

        return await self._run(lambda: self._folder.commit(commit))

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """See `Session.committed`."""
        return await self._run(lambda: self._folder.committed(load_ids))

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """See `Session.run_of`."""
        return await self._run(lambda: self._folder.run_of(pipeline_name, run_id))

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
        own = FilesystemSession(self._folder, self._target, busy_timeout_s=self._busy_timeout_s)

        try:
            query = await own._query_of(sql, parameters)

            try:
                schema = await own._run(lambda: query.begin(batch_rows), interrupt=query.interrupt)

                yield BatchStream(schema, lambda: own._run(query.next_batch, interrupt=query.interrupt))
            finally:
                with anyio.CancelScope(shield=True):
                    await own._worker.call(query.close)
        finally:
            await own.close()

    async def close(self) -> None:
        """End the threads, also while the task is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._worker.ended()

        self._executor.shutdown(wait=False)

    async def _bring(self, source: Path, temporary: Path) -> None:
        """A second name for the package's file, which nobody ever changes; a copy where that is not possible."""
        await self._remove(temporary)

        try:
            await self._file(aiofiles.os.link(source, temporary, executor=self._executor))
        except OSError:
            # Another device, or a file system without links.
            await self._copy(source, temporary)

    async def _copy(self, source: Path, temporary: Path) -> None:
        async with (
            aiofiles.open(source, "rb", executor=self._executor) as reader,
            aiofiles.open(temporary, "wb", executor=self._executor) as writer,
        ):
            while chunk := await self._file(reader.read(_CHUNK_BYTES)):
                await self._file(writer.write(chunk))

            await self._file(writer.flush())
            sync = asyncio.get_running_loop().run_in_executor(self._executor, os.fsync, writer.fileno())
            await self._file(sync)

    async def _remove(self, path: Path) -> None:
        try:
            await self._file(aiofiles.os.unlink(path, executor=self._executor))
        except FileNotFoundError:
            return

    async def _file(self, operation: Awaitable[T]) -> T:
        """Wait for one file operation. When cancelled, wait for its end first: aiofiles would let it run on."""
        task = asyncio.ensure_future(operation)

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await wait_out(task, grace_s=_GRACE_S)
            raise

    async def _query_of(self, sql: str, parameters: Sequence[SqlValue]) -> LocalQuery:
        def build() -> LocalQuery:
            # Imports DuckDB and the SQL builder: not on the event loop.
            module = importlib.import_module("asyncelt.destinations.filesystem_impl.query")

            return cast("LocalQuery", module.folder_query(self._folder, sql, parameters))

        return await self._worker.call(build)

    async def _run(self, work: Callable[[], T], *, interrupt: Callable[[], None] | None = None) -> T:
        async def call() -> T:
            try:
                return await self._worker.call(work, interrupt=interrupt)
            except PermissionError as error:
                raise DestinationRejected(f"{self._folder.path}: {error}") from error
            except OSError as error:
                raise DestinationUnavailable(f"{self._folder.path}: {error}") from error

        return await patiently(
            call, timeout_s=self._busy_timeout_s, advice="Somebody holds its lock file; nothing was changed."
        )
