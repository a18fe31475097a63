"""Data files into a bucket: small ones in one request, large ones in parts, with bounded memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import orjson

from asyncelt._async import each, in_thread, shielded
from asyncelt.destinations._worker import wait_out
from asyncelt.destinations.filesystem_impl.documents import upload_path
from asyncelt.destinations.filesystem_impl.s3.bucket import Begun, Bucket, digest_of
from asyncelt.destinations.filesystem_impl.s3.holding import Holding
from asyncelt.failpoints import failpoint
from asyncelt.load.protocol import Target

__all__ = ["S3Carrier"]

_MAX_PARTS = 10_000
"""Of one object."""
_GRACE_S = 30.0


class S3Carrier:
    """See `Carrier`.

    Args:
        bucket: Where.
        prefix: Of the dataset, with a slash at its end.
        target: For whom.
        holding: Ended with the carrier.
    """

    def __init__(self, bucket: Bucket, prefix: str, target: Target, holding: Holding) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._target = target
        self._holding = holding
        self._threads = anyio.CapacityLimiter(bucket.config.slots)
        self._announced: set[str] = set()
        self._doubtful: set[str] = set()
        """Keys to which an upload may have been left open: its begin, or its abort, had no answer."""
        self.brought: set[str] = set()
        """Paths that this session has brought: nobody has to ask whether they are there."""

    async def announce(self, commit_name: str, epoch: int, paths: Sequence[str]) -> None:
        """See `Carrier.announce`."""
        path = upload_path(self._target.pipeline_name, self._target.member, epoch, commit_name)

        if not paths or path in self._announced:
            return

        await self._bucket.write(self._prefix + path, orjson.dumps(list(paths)))
        self._announced.add(path)

    async def bring(self, source: Path, path: str, tag: str) -> None:
        """See `Carrier.bring`. An object is there with all of its bytes or not at all."""
        del tag

        if path in self.brought:
            return

        key = self._prefix + path
        size = await in_thread(partial(os.path.getsize, source), self._threads)
        failpoint("filesystem.before_upload")

        if size <= self._bucket.config.part_bytes:
            async with self._bucket.slots:
                content, digest = await self._span(source, 0, size)
                await self._bucket.write(key, content, digest)
        else:
            await self._in_parts(source, key, size)

        self.brought.add(path)

    def forget(self) -> None:
        """See `Carrier.forget`."""
        self.brought.clear()

    async def close(self) -> None:
        """See `Carrier.close`."""
        await self._holding.close()

    async def _in_parts(self, source: Path, key: str, size: int) -> None:
        step = max(self._bucket.config.part_bytes, -(-size // _MAX_PARTS))
        begun = await self._begun(key)
        upload = begun.upload

        if begun.is_repeated:
            self._doubtful.add(key)

        async def send(start: int) -> str:
            async with self._bucket.slots:
                content, digest = await self._span(source, start, min(start + step, size))

                return await self._bucket.part(key, upload, start // step + 1, content, digest)

        try:
            etags = await each(send, range(0, size, step), at_once=self._bucket.config.slots)
            failpoint("filesystem.before_complete")
            await self._bucket.complete(key, upload, etags)
        except BaseException:
            # Whatever it was: an upload that stays open costs money and is seen by nobody.
            self._doubtful.add(key)

            with shielded(_GRACE_S):
                await self._bucket.abort(key, upload)
                self._doubtful.discard(key)

            raise

        await self._tidy(key)

    async def _tidy(self, key: str) -> None:
        """Abort what earlier tries have left, now that the object is there."""
        if key not in self._doubtful:
            return

        for found, upload in await self._bucket.uploads(key):
            if found == key:
                await self._bucket.abort(key, upload)

        self._doubtful.discard(key)

    async def _begun(self, key: str) -> Begun:
        """The new upload. A cancel in between waits for the answer, or nobody would know what to abort."""
        task = asyncio.ensure_future(self._bucket.begin(key))

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await wait_out(task, grace_s=_GRACE_S)

            if not task.cancelled() and task.exception() is None:
                with shielded(_GRACE_S):
                    await self._bucket.abort(key, task.result().upload)

            raise

    async def _span(self, source: Path, start: int, stop: int) -> tuple[bytes, str | None]:
        """A part of a file, and its digest where the driver would make one on the event loop."""

        def read() -> tuple[bytes, str | None]:
            with source.open("rb") as file:
                file.seek(start)
                content = file.read(stop - start)

            return content, digest_of(content) if self._bucket.config.wants_digests else None

        return await in_thread(read, self._threads)
