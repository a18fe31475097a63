"""Requests to one bucket, on the event loop. Errors are translated here and nowhere else."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, cast

import anyio

from asyncelt._async import backoff_delays, each
from asyncelt.config import Retry
from asyncelt.destinations.filesystem_impl.s3.client import Answer, Client
from asyncelt.destinations.filesystem_impl.s3.config import S3Config
from asyncelt.destinations.filesystem_impl.s3.errors import CONFLICTS, FAILURES, check_removed, code_of, translated

__all__ = ["AT_ONCE", "Begun", "Bucket", "Found", "digest_of"]

AT_ONCE = 16
"""Small requests at once."""
_SLOWEST = 64 * 1024
"""Bytes per second; a request that takes longer to send has got stuck."""
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
_DELETED_AT_ONCE = 1000
"""Most that the service takes."""
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})


class _Body(Protocol):
    async def __aenter__(self) -> _Body: ...

    async def __aexit__(self, kind: object, value: object, trace: object) -> None: ...

    async def read(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A small object."""

    content: bytes
    etag: str
    age_s: float
    """Since it was written, by the server's clock."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload in parts."""

    upload: str
    """Its id."""
    is_repeated: bool
    """Whether it took several requests to begin it: one of those that had no answer may have begun another."""


class Bucket:
    """One bucket.

    Args:
        client: Open.
        config: Which bucket.
    """

    def __init__(self, client: Client, config: S3Config) -> None:
        self._client = client
        self.config = config
        self.slots = anyio.CapacityLimiter(config.slots)
        """Held by whoever has a part of a data file in memory."""

    async def read(self, key: str, span: tuple[int, int] | None = None) -> bytes | None:
        """An object, or the bytes from ``span[0]`` to before ``span[1]``; None if it is not there."""
        found = await self._get(key, {} if span is None else {"Range": f"bytes={span[0]}-{span[1] - 1}"})

        return None if found is None else found[0]

    async def look(self, key: str) -> Found | None:
        """A small object and what a conditional request needs; None if it is not there."""
        found = await self._get(key, {})

        if found is None:
            return None

        content, answer = found
        headers = cast("Mapping[str, Mapping[str, str]]", answer["ResponseMetadata"])["HTTPHeaders"]
        written = cast("datetime", answer["LastModified"])
        age_s = (parsedate_to_datetime(headers["date"]) - written).total_seconds()

        return Found(content, cast("str", answer["ETag"]), age_s)

    async def write(self, key: str, content: bytes, digest: str | None = None) -> None:
        """Put an object, whatever was there. With its `digest_of` nothing is hashed here."""
        await self._call("put_object", "writing", Key=key, Body=content, **_md5(digest))

    async def create(self, key: str, content: bytes) -> str | None:
        """Put an object where none is.

        Returns:
            Its ETag; None: there is one.
        """
        return await self._conditional(key, content, {"IfNoneMatch": "*"})

    async def replace(self, key: str, content: bytes, etag: str) -> str | None:
        """Put an object in place of the one with this ETag.

        Returns:
            Its ETag; None: there is another one by now, or none.
        """
        return await self._conditional(key, content, {"IfMatch": etag})

    async def size(self, key: str) -> int | None:
        """Bytes of an object; None if it is not there."""
        try:
            answer = await self._raw("head_object", Key=key)
        except FAILURES as error:
            if code_of(error) in _ABSENT:
                return None

            raise translated(error, self.config, f"looking at {key}") from error

        return cast("int", answer["ContentLength"])

    async def keys(self, prefix: str, *, after: str = "", most: int | None = None) -> list[str]:
        """Keys that begin with ``prefix``, sorted, beginning after ``after``; about ``most`` of them."""
        found: list[str] = []
        arguments: dict[str, object] = {"Prefix": prefix}

        if after:
            arguments["StartAfter"] = after

        if most is not None:
            arguments["MaxKeys"] = most

        while True:
            answer = await self._call("list_objects_v2", "listing", **arguments)
            found += [cast("str", one["Key"]) for one in cast("list[Answer]", answer.get("Contents", []))]

            if not answer.get("IsTruncated") or (most is not None and len(found) >= most):
                return found

            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is fine.

        Raises:
            DestinationRejected: One of them may not be removed.
        """
        chunks = [keys[at : at + _DELETED_AT_ONCE] for at in range(0, len(keys), _DELETED_AT_ONCE)]

        async def chunk(some: Sequence[str]) -> None:
            delete = {"Objects": [{"Key": key} for key in some], "Quiet": True}
            check_removed(await self._call("delete_objects", "deleting", Delete=delete), self.config)

        await each(chunk, chunks, at_once=self.config.slots)

    async def begin(self, key: str) -> Begun:
        """Begin an upload in parts."""
        answer = await self._call("create_multipart_upload", "uploading", Key=key)
        told = cast("Mapping[str, int]", answer["ResponseMetadata"])

        return Begun(cast("str", answer["UploadId"]), is_repeated=told.get("RetryAttempts", 0) > 0)

    async def part(self, key: str, upload: str, number: int, content: bytes, digest: str | None = None) -> str:
        """Send a part, numbered from 1. With its `digest_of` nothing is hashed here.

        Returns:
            Its ETag.
        """
        where = {"Key": key, "UploadId": upload, "PartNumber": number}
        answer = await self._call("upload_part", "uploading", **where, Body=content, **_md5(digest))

        return cast("str", answer["ETag"])

    async def complete(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Make an object of the parts."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        await self._call(
            "complete_multipart_upload", "uploading", Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    async def abort(self, key: str, upload: str) -> None:
        """Forget an upload; one that is not there is fine."""
        try:
            await self._raw("abort_multipart_upload", Key=key, UploadId=upload)
        except FAILURES as error:
            if code_of(error) not in _ABSENT | {"NoSuchUpload"}:
                raise translated(error, self.config, f"aborting the upload of {key}") from error

    async def uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Key and id of the uploads that are open."""
        found: list[tuple[str, str]] = []
        arguments: dict[str, object] = {"Prefix": prefix}

        while True:
            answer = await self._call("list_multipart_uploads", "listing uploads", **arguments)
            some = cast("list[Mapping[str, str]]", answer.get("Uploads", []))
            found += [(one["Key"], one["UploadId"]) for one in some]

            if not answer.get("IsTruncated"):
                return found

            arguments |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    async def _get(self, key: str, arguments: Mapping[str, object]) -> tuple[bytes, Answer] | None:
        """An object and the answer's head, where the driver's tries end: a body that breaks off is asked for anew."""
        delays = backoff_delays(Retry(attempts=self.config.attempts, first_s=_PAUSE_S, max_s=_LONGEST_PAUSE_S))

        while True:
            try:
                answer = await self._raw("get_object", Key=key, **arguments)
            except FAILURES as error:
                if code_of(error) in _ABSENT:
                    return None

                raise translated(error, self.config, f"reading {key}") from error

            try:
                async with cast("_Body", answer["Body"]) as body:
                    return await body.read(), answer
            except FAILURES as error:
                delay = next(delays, None)

                if delay is None:
                    raise translated(error, self.config, f"reading {key}") from error

            await anyio.sleep(delay)

    async def _conditional(self, key: str, content: bytes, condition: Mapping[str, object]) -> str | None:
        try:
            answer = await self._raw("put_object", Key=key, Body=content, **condition)
        except FAILURES as error:
            if code_of(error) in CONFLICTS | _ABSENT:
                return None

            raise translated(error, self.config, f"writing {key}") from error

        return cast("str", answer["ETag"])

    async def _call(self, operation: str, doing: str, **arguments: object) -> Answer:
        try:
            return await self._raw(operation, **arguments)
        except FAILURES as error:
            what = arguments.get("Key") or arguments.get("Prefix")
            raise translated(error, self.config, f"{doing} {what}" if what else doing) from error

    async def _raw(self, operation: str, **arguments: object) -> Answer:
        """Make a request. The driver's own limits do not count while it sends."""
        sent = cast("bytes", arguments.get("Body", b""))
        limit_s = self.config.connect_timeout_s + self.config.read_timeout_s + len(sent) / _SLOWEST

        with anyio.fail_after(limit_s):
            return cast("Answer", await getattr(self._client, operation)(Bucket=self.config.bucket, **arguments))


def digest_of(content: bytes) -> str:
    """By which the service sees that all of it has come as it is. Takes long: in a thread."""
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _md5(digest: str | None) -> dict[str, object]:
    return {} if digest is None else {"ContentMD5": digest}
