"""A dataset in a local folder. Ownership by file lock: the kernel lets go of it when the owner dies."""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import aiofiles
import aiofiles.os
import anyio
import orjson

from asyncelt.destinations._worker import wait_out
from asyncelt.destinations.busy import lock_file
from asyncelt.destinations.filesystem_impl import documents
from asyncelt.destinations.filesystem_impl.blocked import Blocked
from asyncelt.destinations.filesystem_impl.content import Content
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.layout import path_part
from asyncelt.failpoints import failpoint
from asyncelt.load.protocol import Commit, Lease
from asyncelt.storage.files import fsync_directory, write_atomically
from asyncelt.types import LoadId

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["LocalPlace"]

T = TypeVar("T")

_CHUNK_BYTES = 1024 * 1024
_THREADS = 4
_GRACE_S = 30.0
"""Longest wait for a file operation after a cancel."""


class LocalPlace:
    """A dataset's folder.

    Args:
        path: Need not exist.
    """

    marks_epochs = False
    """A dead owner cannot come back: what it has begun is written again under the same name."""

    def __init__(self, path: Path) -> None:
        self.store = LocalStore(path)
        self.journal = LocalJournal(path, self.store)
        self.carrier = LocalCarrier(path)


class LocalStore:
    """See `Store`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def address(self) -> str:
        """The folder."""
        return str(self._path)

    def exists(self) -> bool:
        """See `Store.exists`."""
        return self._path.is_dir()

    def names(self, folder: str) -> list[str]:
        """See `Store.names`."""
        try:
            return os.listdir(self._path / folder)
        except FileNotFoundError:
            return []

    def files(self) -> list[str]:
        """See `Store.files`."""
        return sorted(
            path.relative_to(self._path).as_posix()
            for path in self._path.rglob("*")
            if path.suffix in {".parquet", ".jsonl", ".gz"}
        )

    def read(self, path: str) -> bytes | None:
        """See `Store.read`."""
        try:
            return (self._path / path).read_bytes()
        except FileNotFoundError:
            return None

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """See `Store.read_all`."""
        return [(self._path / path).read_bytes() for path in paths]

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """See `Store.write_all`."""
        for path, content in contents.items():
            target = self._path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content, durable=True)

    def remove(self, paths: Sequence[str]) -> None:
        """See `Store.remove`."""
        for path in paths:
            (self._path / path).unlink(missing_ok=True)

    def settle(self, paths: Sequence[str]) -> str | None:
        """See `Store.settle`. Names survive a crash of the machine once their folders are written out."""
        folders: set[Path] = set()

        for path in paths:
            if not (self._path / path).exists():
                return path

            parent = (self._path / path).parent

            while parent not in folders and parent != self._path.parent:
                folders.add(parent)
                parent = parent.parent

        for folder in folders:
            fsync_directory(folder)

        return None

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """See `Store.sizes`."""

        def size(path: Path) -> int | None:
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return None

        return [size(self._path / path) for path in paths]

    def span(self, path: str, start: int, stop: int) -> bytes | None:
        """See `Store.span`."""
        try:
            with (self._path / path).open("rb") as file:
                file.seek(start)

                return file.read(stop - start)
        except FileNotFoundError:
            return None

    def local_path(self, path: str) -> Path:
        """See `Store.local_path`."""
        return self._path / path

    def abort_uploads(self, paths: Collection[str]) -> None:
        """See `Store.abort_uploads`."""
        for target in (self._path / path for path in paths):
            for temporary in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
                temporary.unlink(missing_ok=True)

    def table_address(self, name: str) -> tuple[str, dict[str, str]]:
        """See `Store.table_address`."""
        return str(self._path / path_part(name)), {}

    def attach(self, connection: DuckDBPyConnection, paths: Sequence[str]) -> list[str]:
        """See `Store.attach`: DuckDB reads local files itself."""
        del connection

        return [str(self._path / path) for path in paths]

    def reading(self) -> AbstractContextManager[None]:
        """See `Store.reading`: its errors are DuckDB's own."""
        return nullcontext()

    def check(self) -> None:
        """See `Store.check`. Leaves no trace: looks at the folder in which the first one would be made."""
        folder = self._path

        while not folder.exists() and folder != folder.parent:
            folder = folder.parent

        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is no folder, so nothing can be made in it.")

        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"files cannot be made in {folder}.")


class LocalJournal:
    """See `Journal`. Markers are named after their last load; epoch and head of a pipeline are in a file of its own."""

    def __init__(self, path: Path, store: LocalStore) -> None:
        self._path = path
        self._store = store

    def content(self) -> Content:
        """See `Journal.content`."""
        return Content().after(sorted(self._read(self._names()), key=lambda marker: marker.committed_at))

    def unsettled(self, settled: frozenset[LoadId]) -> list[Marker]:
        """See `Journal.unsettled`."""
        done = settled.union(one.name for one in self.blocked())

        return self._read(name for name in self._names() if name not in done)

    def blocked(self) -> list[Blocked]:
        """See `Journal.blocked`."""
        found = [
            self._store.read(f"{documents.BLOCKED}/{name}") for name in sorted(self._store.names(documents.BLOCKED))
        ]

        # One that is gone meanwhile is over.
        return [Blocked.from_json(content) for content in found if content is not None]

    def position(self) -> int:
        """See `Journal.position`."""
        return len(self._names())

    def owner_of(self, marker: Marker) -> str | None:
        """See `Journal.owner_of`: an owner that is alive would have the turn."""
        del marker

        return None

    def lease(self, pipeline_name: str, member: str) -> Lease:
        """See `Journal.lease`."""
        content = self._store.read(documents.lease_path(pipeline_name, member))

        return Lease(epoch=0) if content is None else Lease(**orjson.loads(content))

    def take(self, pipeline_name: str, member: str) -> Lease:
        """See `Journal.take`. A live owner holds the lock of its working folder; here nothing is waited for."""
        with self.turn():
            current = self.lease(pipeline_name, member)
            lease = Lease(epoch=current.epoch + 1, head_load_id=current.head_load_id)
            path = self._path / documents.lease_path(pipeline_name, member)
            write_atomically(path, documents.lease_document(lease), durable=False)

        return lease

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See `Journal.turn`."""
        self._path.mkdir(parents=True, exist_ok=True)

        with lock_file(self._path / documents.LOCK, f"Another session is committing to {self._path}."):
            yield

    def append(self, marker: Marker) -> None:
        """See `Journal.append`."""
        folder = self._path / documents.COMMITS
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{marker.name}.json", marker.to_json(), durable=True)
        fsync_directory(folder)
        fsync_directory(self._path)

    def followed(self, marker: Marker) -> None:
        """See `Journal.followed`."""
        lease = Lease(epoch=marker.epoch, head_load_id=marker.name)
        path = documents.lease_path(marker.pipeline_name, marker.member)
        self._store.write_all({path: documents.lease_document(lease)})

    def block(self, blocked: Blocked) -> None:
        """See `Journal.block`."""
        path = f"{documents.BLOCKED}/{blocked.name}.json"

        if blocked.is_over:
            self._store.remove([path])

            return

        self._store.write_all({path: blocked.to_json()})
        fsync_directory(self._path / documents.BLOCKED)
        fsync_directory(self._path)

    def withdraw(self, commit: Commit) -> None:
        """See `Journal.withdraw`: nothing was announced."""

    def _names(self) -> list[str]:
        names = self._store.names(documents.COMMITS)

        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def _read(self, names: Iterator[str] | Sequence[str]) -> list[Marker]:
        paths = [f"{documents.COMMITS}/{name}.json" for name in names]

        return [documents.parse_marker(content) for content in self._store.read_all(paths)]


class LocalCarrier:
    """See `Carrier`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="asyncelt-filesystem")

    async def announce(self, commit_name: str, epoch: int, paths: Sequence[str]) -> None:
        """See `Carrier.announce`: not needed, names are the same when a load is tried again."""

    async def bring(self, source: Path, path: str, tag: str) -> None:
        """See `Carrier.bring`."""
        target = self._path / path
        temporary = target.with_name(f".{target.name}.{tag}.tmp")

        if await self._file(aiofiles.os.path.exists(target, executor=self._executor)):
            sizes = [
                await self._file(aiofiles.os.path.getsize(one, executor=self._executor)) for one in (source, target)
            ]

            if sizes[0] == sizes[1]:
                return

        await self._file(aiofiles.os.makedirs(target.parent, exist_ok=True, executor=self._executor))

        try:
            await self._second_name(source, temporary)
            failpoint("filesystem.before_rename")
            await self._file(aiofiles.os.replace(temporary, target, executor=self._executor))
        finally:
            # After a rename between two names of one file both stay; after an error the rest has to go.
            with anyio.CancelScope(shield=True):
                await self._remove(temporary)

    def forget(self) -> None:
        """See `Carrier.forget`: each file is looked at before it is brought."""

    async def close(self) -> None:
        """See `Carrier.close`."""
        self._executor.shutdown(wait=False)

    async def _second_name(self, source: Path, temporary: Path) -> None:
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
