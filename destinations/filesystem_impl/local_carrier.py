"""How job files get into a local folder: by a second name where the file system has them, else as a copy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

import aiofiles
import aiofiles.os
import anyio
import orjson

from asyncelt.destinations._worker import wait_out
from asyncelt.destinations.filesystem_impl import documents
from asyncelt.failpoints import failpoint
from asyncelt.load.protocol import Target
from asyncelt.storage.files import write_atomically

__all__ = ["LocalCarrier"]

T = TypeVar("T")

_CHUNK_BYTES = 1024 * 1024
_THREADS = 4
_GRACE_S = 30.0
"""Longest wait for a file operation after a cancel."""


class LocalCarrier:
    """See `Carrier`.

    Args:
        path: Of the dataset.
        target: For whom.
    """

    def __init__(self, path: Path, target: Target) -> None:
        self._path = path
        self._target = target
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="asyncelt-filesystem")

    async def announce(self, commit_name: str, epoch: int, paths: Sequence[str]) -> None:
        """See `Carrier.announce`. A crash of the machine may lose it, and leave files that nobody lists."""
        target = self._target
        path = self._path / documents.upload_path(target.pipeline_name, target.member, epoch, commit_name)

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, orjson.dumps(list(paths)), durable=False)

        if paths:
            await self._file(asyncio.get_running_loop().run_in_executor(self._executor, write))

    async def bring(self, source: Path, path: str, tag: str) -> None:
        """See `Carrier.bring`."""
        target = self._path / path
        temporary = target.with_name(f".{target.name}.{tag}.tmp")

        context = copy_context()

        def link() -> bool:
            return context.run(_linked, source, target, temporary)

        if not await self._file(asyncio.get_running_loop().run_in_executor(self._executor, link)):
            await self._copied(source, target, temporary)

    def forget(self) -> None:
        """See `Carrier.forget`: each file is looked at before it is brought."""

    async def close(self) -> None:
        """See `Carrier.close`."""
        self._executor.shutdown(wait=False)

    async def _copied(self, source: Path, target: Path, temporary: Path) -> None:
        try:
            await self._copy(source, temporary)
            failpoint("filesystem.before_rename")
            await self._file(aiofiles.os.replace(temporary, target, executor=self._executor))
        finally:
            with anyio.CancelScope(shield=True):
                await self._remove(temporary)

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


def _linked(source: Path, target: Path, temporary: Path) -> bool:
    """Give the package's file, which nobody ever changes, its second name; False where a file cannot have two.

    One piece of work for a thread: a package has many small files, and each step of each would be a way there and back.
    """
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return True

    target.parent.mkdir(parents=True, exist_ok=True)

    try:
        temporary.unlink(missing_ok=True)

        try:
            os.link(source, temporary)
        except OSError:
            # Another device, or a file system without links.
            return False

        failpoint("filesystem.before_rename")
        temporary.replace(target)
    finally:
        # After a rename between two names of one file both stay; after an error the rest has to go.
        temporary.unlink(missing_ok=True)

    return True
