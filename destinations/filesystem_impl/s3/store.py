"""Small files and names in a bucket. Called by a session's thread; the requests are made on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from asyncelt._async import each
from asyncelt.destinations.filesystem_impl.layout import path_part
from asyncelt.destinations.filesystem_impl.s3.bucket import AT_ONCE, Bucket
from asyncelt.destinations.filesystem_impl.s3.carrier import S3Carrier
from asyncelt.destinations.objects import SCHEME, Objects
from asyncelt.errors import DestinationUnavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["S3Store"]

T = TypeVar("T")

STALE_S = 3600.0
"""Other pipelines may write to a table at the same time: after an hour, an upload of theirs is none."""


class S3Store:
    """See `Store`. Made on the event loop.

    Args:
        bucket: Where.
        prefix: Of the dataset, with a slash at its end.
        carrier: Brings data files, and knows which are there.
    """

    def __init__(self, bucket: Bucket, prefix: str, carrier: S3Carrier) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._objects = Objects(self.span, self.size)

    @property
    def address(self) -> str:
        """The prefix as a URL."""
        return f"s3://{self._bucket.config.bucket}/{self._prefix}".rstrip("/")

    def wait(self, request: Coroutine[Any, Any, T]) -> T:
        """Have the event loop make a request, and wait for its end in this thread."""
        return asyncio.run_coroutine_threadsafe(request, self._loop).result()

    def exists(self) -> bool:
        """See `Store.exists`."""
        return bool(self.wait(self._bucket.keys(self._prefix, most=1)))

    def names(self, folder: str, *, begin: str = "", after: str = "") -> list[str]:
        """See `Store.names`."""
        prefix = f"{self._prefix}{folder}/"
        keys = self.wait(self._bucket.keys(prefix + begin, after=prefix + after if after else ""))

        return [key.removeprefix(prefix) for key in keys]

    def files(self) -> list[str]:
        """See `Store.files`."""
        keys = self.wait(self._bucket.keys(self._prefix))

        return [key.removeprefix(self._prefix) for key in keys if key.endswith((".parquet", ".jsonl", ".gz"))]

    def read(self, path: str) -> bytes | None:
        """See `Store.read`."""
        return self.wait(self._bucket.read(self._prefix + path))

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """See `Store.read_all`."""

        async def one(path: str) -> bytes:
            content = await self._bucket.read(self._prefix + path)

            if content is None:
                raise DestinationUnavailable(f"{self.address}: {path} has been removed at this moment. Try again.")

            return content

        return self.wait(each(one, paths, at_once=AT_ONCE))

    def read_each(self, paths: Sequence[str]) -> list[bytes | None]:
        """See `Store.read_each`."""

        async def one(path: str) -> bytes | None:
            return await self._bucket.read(self._prefix + path)

        return self.wait(each(one, paths, at_once=AT_ONCE))

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """See `Store.write_all`."""

        async def one(item: tuple[str, bytes]) -> None:
            await self._bucket.write(self._prefix + item[0], item[1])

        self.wait(each(one, list(contents.items()), at_once=AT_ONCE))

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file where none is; whether it was."""
        return self.wait(self._bucket.create(self._prefix + path, content)) is not None

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """See `Store.writing`."""
        with TemporaryDirectory(prefix="asyncelt-") as folder:
            file = Path(folder) / "file"

            yield file

            self.wait(self._carrier.bring(file, path, ""))

    def remove(self, paths: Sequence[str]) -> None:
        """See `Store.remove`."""
        if paths:
            self.wait(self._bucket.remove([self._prefix + path for path in paths]))

    def settle(self, paths: Sequence[str]) -> str | None:
        """See `Store.settle`. An object that was put is durable; only those of other sessions are looked for."""

        async def missing(path: str) -> bool:
            return await self._bucket.size(self._prefix + path) is None

        unknown = [path for path in paths if path not in self._carrier.brought]
        answers = self.wait(each(missing, unknown, at_once=AT_ONCE))

        return next((path for path, is_missing in zip(unknown, answers, strict=True) if is_missing), None)

    def abort_uploads(self, paths: Collection[str]) -> None:
        """See `Store.abort_uploads`."""

        async def abort() -> None:
            for key, upload in await self._bucket.uploads(self._prefix):
                if key.removeprefix(self._prefix) in paths:
                    await self._bucket.abort(key, upload)

        self.wait(abort())

    def abort_stale_uploads(self, tables: Collection[str]) -> None:
        """See `Store.abort_stale_uploads`."""
        folders = tuple(f"{self._prefix}{path_part(name)}/" for name in tables)

        async def abort() -> None:
            for key, upload in await self._bucket.uploads(self._prefix, older_than_s=STALE_S):
                if key.startswith(folders):
                    await self._bucket.abort(key, upload)

        self.wait(abort())

    def table_address(self, name: str) -> tuple[str, dict[str, str]]:
        """See `Store.table_address`. Commits are conditional puts."""
        config = self._bucket.config
        given = {
            "aws_access_key_id": config.access_key_id,
            "aws_secret_access_key": config.secret_access_key,
            "aws_session_token": config.session_token,
            "aws_region": config.region_name or ("us-east-1" if config.endpoint_url else None),
            "aws_endpoint_url": config.endpoint_url,
            "aws_allow_http": "true" if str(config.endpoint_url).startswith("http://") else None,
            "aws_virtual_hosted_style_request": "false" if config.path_style else "true",
            "aws_profile": config.profile_name,
            "aws_conditional_put": "etag",
        }

        return (
            f"s3://{config.bucket}/{self._prefix}{path_part(name)}",
            {option: value for option, value in given.items() if value is not None},
        )

    def check(self) -> None:
        """See `Store.check`: whether a bucket lets us write is seen from its first answer to that."""

    def attach(self, connection: DuckDBPyConnection, paths: Sequence[str]) -> list[str]:
        """See `Store.attach`. DuckDB asks for the ranges that it needs; small files of system tables come as one."""
        if SCHEME not in connection.list_filesystems():
            connection.register_filesystem(self._objects)

        if paths and all(path.startswith("_dlt_") for path in paths):
            return [self._objects.address_of(b"\n".join(self.read_all(paths)), ".jsonl")]

        return [self._objects.address_of(path, path[path.rindex(".", 0, -3) :]) for path in paths]

    def reading(self) -> AbstractContextManager[None]:
        """See `Store.reading`."""
        return self._objects.reading()

    def span(self, path: str, start: int, stop: int) -> bytes | None:
        """See `Store.span`."""
        return self.wait(self._bucket.read(self._prefix + path, (start, stop)))

    def size(self, path: str) -> int | None:
        """Bytes of one file; None if it is not there."""
        return self.wait(self._bucket.size(self._prefix + path))

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """See `Store.sizes`."""

        async def one(path: str) -> int | None:
            return await self._bucket.size(self._prefix + path)

        return self.wait(each(one, paths, at_once=AT_ONCE))

    def local_path(self, path: str) -> None:
        """See `Store.local_path`."""
        del path
