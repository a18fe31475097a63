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
    """Opens places, and keeps what takes long to read for the next one.

    Args:
        config: Which bucket.
    """

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._made: tuple[AioSession, Mapping[str, object]] | None = None

    @asynccontextmanager
    async def opened(self, folder: str, target: Target) -> AsyncIterator[S3Place]:
        """A place inside the block. Makes no request.

        Args:
            folder: Of the dataset, below the prefix.
            target: For whom.
        """
        if self._made is None:
            self._made = await run_sync(lambda: (new_session(self._config), this_process()))

        session, process = self._made
        prefix = f"{self._config.prefix}/{folder}/".lstrip("/")

        async with opened_client(session, self._config) as client:
            bucket = Bucket(client, self._config)
            holding = Holding(bucket, prefix, process)
            carrier = S3Carrier(bucket, prefix, target, holding)
            store = S3Store(bucket, prefix, carrier.brought)

            yield S3Place(store, S3Journal(store, holding), carrier)
