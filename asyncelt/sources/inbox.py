"""A durable inbox on the local disk: messages are kept until they are committed. Blocking; called in threads.

A folder of segments. Each is a file ``<first number>.inbox`` of records: length, checksum, body. Numbers go on for
ever, so a message's number is its position; a record that was not written whole, or is empty, ends its file. What is
torn off that way was never answered for.
"""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from asyncelt.errors import StorageError, UsageError
from asyncelt.failpoints import failpoint

__all__ = ["SEGMENT_BYTES", "Inbox"]

_HEAD: Final = struct.Struct("<II")
SEGMENT_BYTES: Final = 16 * 1024 * 1024
_BATCH_BYTES: Final = 8 * 1024 * 1024
"""To read at a time, about."""
_FORMAT: Final = "asyncelt-inbox-1"


class Inbox:
    """One folder, held by one process. For one caller at a time.

    Args:
        folder: Made if it does not exist.
        segment_bytes: A file that has grown beyond is not written any more: it goes when all of it is committed.

    Raises:
        UsageError: Another process holds it.
        StorageError: The folder is something else.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        try:
            self._hold()
            self.identity = self._identity()
            """Tells this folder from one that was deleted and made anew: numbers start again there."""
            self._segments = sorted(int(path.stem) for path in folder.glob("*.inbox"))
            self._kept = sum(path.stat().st_size for path in folder.glob("*.inbox"))
            # Positions start at 1.
            self._next = (
                max((number for number, _ in self._records(self._segments[-1])), default=self._segments[-1] - 1) + 1
                if self._segments
                else 1
            )
        except BaseException:
            os.close(self._lock)
            raise

        self._file: int | None = None
        self._is_torn = False
        """Whether something is behind the last message that could not be taken away."""
        self._written = 0
        """Bytes in the file that is written."""
        self._reader: Iterator[tuple[int, bytes]] | None = None
        self._passed = 0

    def append(self, bodies: Sequence[bytes]) -> int:
        """Write messages, none of them empty; they are on the disk when this returns.

        Returns:
            The number of the first; the others follow.

        Raises:
            OSError: None of them is certain to be there.
            StorageError: An error before this one could not be made good.
        """
        first = self._next

        if self._is_torn:
            raise StorageError(
                f"The inbox {self._folder} takes nothing since a write failed and what it had written could not be "
                "taken back. Mend the disk, and start the program again."
            )

        if self._file is None or self._written > self._segment_bytes:
            self._start_segment(first)

        assert self._file is not None  # noqa: S101 - for the type checkers
        data = b"".join(_HEAD.pack(len(body), zlib.crc32(body)) + body for body in bodies)
        failpoint("inbox.before_write")

        try:
            _write_all(self._file, data)
            failpoint("inbox.before_sync")
            os.fdatasync(self._file)
        except BaseException:
            # These numbers are for others: what there is of these messages must not be read as them.
            self._is_torn = True
            os.ftruncate(self._file, self._written)
            self._is_torn = False
            raise

        self._written += len(data)
        self._next = first + len(bodies)
        failpoint("inbox.written")

        return first

    @property
    def nbytes(self) -> int:
        """Size of all files."""
        return self._kept + self._written

    def seek(self, after: int) -> None:
        """Let `read` go on behind this number, or with the first that is there."""
        self._passed = max(after, self._segments[0] - 1) if self._segments else after
        self._reader = None

    def read(self, most: int) -> list[tuple[int, bytes]]:
        """The next messages, with their numbers; none when all have been read.

        Raises:
            StorageError: A file is damaged.
        """
        found: list[tuple[int, bytes]] = []
        nbytes = 0

        while self._passed + 1 < self._next and len(found) < most and nbytes < _BATCH_BYTES:
            if self._reader is None:
                self._reader = self._records(max(one for one in self._segments if one <= self._passed + 1))

            number, body = next(self._reader, (0, b""))

            if number == 0:
                if self._passed + 1 not in self._segments:
                    raise StorageError(
                        f"The inbox {self._folder} is damaged: message {self._passed + 1} of {self._next - 1} cannot "
                        "be read. Nothing after it was loaded. Restore the folder, or move it away and start anew."
                    )

                self._reader = None
            elif number > self._passed:
                self._passed = number
                nbytes += len(body)
                found.append((number, body))

        return found

    def drop(self, floor: int) -> None:
        """Delete files in which no number is above ``floor``. The newest stays: it says where numbers go on.

        If that is all there is, and a lot, a new one is begun.
        """
        self._drop_before(floor + 1)

        if floor + 1 >= self._next and self.nbytes > self._segment_bytes:
            self._start_segment(self._next)
            self._drop_before(floor + 1)

    def _drop_before(self, wanted: int) -> None:
        while len(self._segments) > 1 and self._segments[1] <= wanted:
            path = self._folder / _name(self._segments[0])
            nbytes = path.stat().st_size
            path.unlink()
            self._segments.pop(0)
            self._kept -= nbytes

    def close(self) -> None:
        """Let go of it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

        os.close(self._lock)

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"The inbox {self._folder} is held by another process. Give each process (each worker of a web server) "
                "a folder of its own, and its pipeline a member= of its own."
            ) from error

    def _identity(self) -> str:
        path = self._folder / "identity"

        if path.exists():
            kind, _, identity = path.read_text().strip().partition(" ")

            if kind != _FORMAT:
                raise StorageError(f"{self._folder} is no inbox that this version can read: it is marked {kind!r}.")

            return identity

        identity = uuid.uuid4().hex
        fresh = self._folder / "identity.new"

        with fresh.open("w") as file:
            file.write(f"{_FORMAT} {identity}")
            file.flush()
            os.fsync(file.fileno())

        fresh.rename(path)
        self._sync_folder()

        return identity

    def _start_segment(self, first: int) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._kept, self._written = self._kept + self._written, 0
            os.close(file)

        if self._segments and self._segments[-1] == first:
            # The newest has no whole record, so this is its name again; what was torn is written over.
            self._kept -= (self._folder / _name(self._segments.pop())).stat().st_size

        # Appending: after a write that failed was taken back, the next one is not to leave a hole.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(self._folder / _name(first), flags, 0o600)

        try:
            self._sync_folder()
        except BaseException:
            os.close(file)
            raise

        self._file = file
        self._segments.append(first)

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)

        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _records(self, first: int) -> Iterator[tuple[int, bytes]]:
        number = first

        with (self._folder / _name(first)).open("rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                length, checksum = _HEAD.unpack(head)
                body = file.read(length)

                # Zeros, which a crash may leave, would be an empty message with a valid checksum.
                if not length or len(body) < length or zlib.crc32(body) != checksum:
                    return

                yield number, body
                number += 1


def _name(first: int) -> str:
    return f"{first:020}.inbox"


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)

    while view:
        view = view[os.write(file, view) :]
