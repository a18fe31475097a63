"""The sign of life of a pipeline's owner: an object that it renews, and that others replace when it is old.

It tells whether somebody should wait. That an owner which was only paused cannot commit any more is ensured by
the journal, not here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import anyio
import orjson

from asyncelt._async import shielded
from asyncelt.destinations.busy import OwnerAlive
from asyncelt.destinations.filesystem_impl.documents import lease_path
from asyncelt.destinations.filesystem_impl.s3.bucket import Bucket
from asyncelt.errors import AsynceltError

__all__ = ["Holding", "this_process"]

_RELEASE_S = 5.0


class Holding:
    """The sign of life of one session.

    Args:
        bucket: Where.
        prefix: Of the dataset, with a slash at its end.
        process: Which process this is, see `this_process`.
    """

    def __init__(self, bucket: Bucket, prefix: str, process: Mapping[str, object]) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._own = {**process, "token": uuid.uuid4().hex}
        self._held: tuple[str, int, str] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, pipeline_name: str, member: str, epoch: int) -> None:
        """Become the owner to be waited for.

        Raises:
            OwnerAlive: There is another one.
        """
        key = self._prefix + lease_path(pipeline_name, member)
        found = await self._bucket.look(key)

        if found is None:
            etag = await self._bucket.create(key, self._document(epoch))
        else:
            held = cast("Mapping[str, object]", orjson.loads(found.content))

            if held["token"] != self._own["token"] and _alive(held, found.age_s, self._own):
                raise OwnerAlive(
                    f"Pipeline {pipeline_name!r} is owned by process {held['pid']} on {held['host']}, which gave a "
                    f"sign of life {found.age_s:.0f} s ago."
                )

            etag = await self._bucket.replace(key, self._document(epoch), found.etag)

        if etag is None:
            raise OwnerAlive(f"Another owner of pipeline {pipeline_name!r} is taking over at this moment.")

        self._begin(key, epoch, etag)

    async def other(self, pipeline_name: str, member: str, epoch: int) -> str | None:
        """Who else holds this epoch and is alive; None: nobody."""
        found = await self._bucket.look(self._prefix + lease_path(pipeline_name, member))
        held = {} if found is None else cast("Mapping[str, object]", orjson.loads(found.content))

        if found is None or held["token"] == self._own["token"] or held["epoch"] != epoch:
            return None

        return f"process {held['pid']} on {held['host']}" if _alive(held, found.age_s, self._own) else None

    async def begin(self, pipeline_name: str, member: str, epoch: int) -> None:
        """Give the first sign of life of a pipeline that has just committed for the first time."""
        if self._held is not None:
            return

        key = self._prefix + lease_path(pipeline_name, member)
        etag = await self._bucket.create(key, self._document(epoch))

        if etag is not None:
            self._begin(key, epoch, etag)

    async def close(self) -> None:
        """Let the next owner take over at once. Never raises: without it, the next one waits a little."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

        if self._held is not None:
            key, epoch, etag = self._held
            self._held = None

            with shielded(_RELEASE_S), suppress(AsynceltError):
                await self._bucket.replace(key, self._document(epoch, released=True), etag)

    def _begin(self, key: str, epoch: int, etag: str) -> None:
        self._held = (key, epoch, etag)

        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        while self._held is not None:
            await anyio.sleep(self._bucket.config.ttl_s / 3)
            key, epoch, etag = self._held

            # Unreachable now: the next turn tries again, and if none succeeds another owner may take over.
            with suppress(AsynceltError):
                renewed = await self._bucket.replace(key, self._document(epoch), etag)
                self._held = None if renewed is None else (key, epoch, renewed)

    def _document(self, epoch: int, *, released: bool = False) -> bytes:
        return orjson.dumps({**self._own, "epoch": epoch, "ttl_s": self._bucket.config.ttl_s, "released": released})


def this_process() -> dict[str, object]:
    """What tells this process from any other. Blocking."""
    return {
        "host": socket.gethostname(),
        "machine": _text("/proc/sys/kernel/random/boot_id"),
        "pids": _link("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _alive(held: Mapping[str, object], age_s: float, own: Mapping[str, object]) -> bool:
    if held["released"] or age_s > cast("float", held["ttl_s"]):
        return False

    here = bool(held["machine"]) and all(held[name] == own[name] for name in ("host", "machine", "pids"))

    # On this machine one can see at once that it is gone.
    return not here or _started(cast("int", held["pid"])) == held["started"]


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty when it has ended, or where there is no /proc."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()

    # Z, X: only its parent has not taken note yet.
    return fields[19] if fields and fields[0] not in {"Z", "X"} else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
