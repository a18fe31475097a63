"""One dataset in a bucket, as a session uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiobotocore.session import AioSession
from anyio.to_thread import run_sync

from asyncelt.destinations.filesystem_impl.s3.bucket import Bucket
from asyncelt.destinations.filesystem_impl.s3.carrier import S3Carrier
from asyncelt.destinations.filesystem_impl.s3.client import new_session, opened_client
from asyncelt.destinations.filesystem_impl.s3.config import S3Config
from asyncelt.destinations.filesystem_impl.s3.holding import Holding, this_process
from asyncelt.destinations.filesystem_impl.s3.journal import S3Journal
from asyncelt.destinations.filesystem_impl.s3.store import S3Store
from asyncelt.load.protocol import Target

__all__ = ["Bucketeer", "S3Place"]


class S3Place:
    """See `Place`.

    Args:
        store: Small files and names.
        journal: Commits and leases.
        carrier: Data files.
    """

    marks_epochs = True
    """An owner that was only paused may still write; it must not write over what the next one has written."""

    def __init__(self, store: S3Store, journal: S3Journal, carrier: S3Carrier) -> None:
        self.store = store
        self.journal = journal
        self.carrier = carrier


class Bucketeer:
    """Opens places, and keeps what takes long to read for the next one."""

    def __init__(self) -> None:
        self._process: Mapping[str, object] = {}
        self._sessions: dict[str | None, AioSession] = {}

    @asynccontextmanager
    async def opened(self, config: S3Config, folder: str, target: Target) -> AsyncIterator[S3Place]:
        """A place inside the block. Makes no request.

        Args:
            config: Which bucket.
            folder: Of the dataset, below the prefix.
            target: For whom.
        """
        session = await run_sync(self._session_of, config)
        prefix = f"{config.prefix}/{folder}/".lstrip("/")

        async with opened_client(session, config) as client:
            bucket = Bucket(client, config)
            holding = Holding(bucket, prefix, self._process)
            carrier = S3Carrier(bucket, prefix, target, holding)
            store = S3Store(bucket, prefix, carrier)

            yield S3Place(store, S3Journal(store, holding), carrier)

    def _session_of(self, config: S3Config) -> AioSession:
        self._process = self._process or this_process()

        if config.profile_name not in self._sessions:
            self._sessions[config.profile_name] = new_session(config)

        return self._sessions[config.profile_name]
