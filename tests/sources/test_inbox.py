"""The spool of a webhook on the disk: what was answered for can be read, whatever the disk does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.errors import MessageNotCommitted, StorageError
from asyncelt.extract.intervals import Intervals
from asyncelt.failpoints import installed
from asyncelt.sources.desk import SpooledDesk
from asyncelt.sources.inbox import Inbox


def full_at(point: str) -> Callable[[str], None]:
    def handle(passed: str) -> None:
        if passed == point:
            raise OSError(errno.ENOSPC, "No space left on device")

    return handle


def messages_of(inbox: Inbox) -> list[tuple[int, bytes]]:
    inbox.seek(0)

    return inbox.read(100)


def partly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes five bytes, and then nothing."""
    write, calls = os.write, []

    def failing(file: int, data: bytes | memoryview) -> int:
        calls.append(file)

        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

        return write(file, bytes(data)[:5])

    monkeypatch.setattr(os, "write", failing)


@pytest.mark.parametrize("how", ["before_write", "partly", "before_sync"])
def test_a_write_that_fails_leaves_no_hole(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path)
    inbox.append([b"one"])

    with monkeypatch.context() as patched, installed(full_at(f"inbox.{how}")):
        if how == "partly":
            partly(patched)

        with pytest.raises(OSError, match="No space"):
            inbox.append([b"lost" * 10])

    assert inbox.append([b"two", b"three"]) == 2
    expected = [(1, b"one"), (2, b"two"), (3, b"three")]
    assert messages_of(inbox) == expected
    assert inbox.nbytes == sum(path.stat().st_size for path in tmp_path.glob("*.inbox"))
    inbox.close()

    again = Inbox(tmp_path)
    assert messages_of(again) == expected
    assert again.append([b"four"]) == 4
    again.close()


def test_what_cannot_be_taken_back_ends_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path)
    inbox.append([b"one"])

    def failing(file: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched, installed(full_at("inbox.before_sync")):
        patched.setattr(os, "ftruncate", failing)

        with pytest.raises(OSError, match="Input"):
            inbox.append([b"lost"])

    with pytest.raises(StorageError, match="could not be taken back"):
        inbox.append([b"two"])

    assert messages_of(inbox) == [(1, b"one")]
    inbox.close()

    # What may be there is counted by whoever opens it next: no number is given twice.
    again = Inbox(tmp_path)
    assert again.append([b"two"]) == 3
    assert messages_of(again) == [(1, b"one"), (2, b"lost"), (3, b"two")]
    again.close()


def test_a_segment_that_cannot_be_begun_is_begun_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path, segment_bytes=1)
    inbox.append([b"one"])

    for name in ("open", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, lambda *_: full_at("")(""))

            with pytest.raises(OSError, match="No space"):
                inbox.append([b"lost"])

    assert inbox.append([b"two"]) == 2
    assert messages_of(inbox) == [(1, b"one"), (2, b"two")]
    assert inbox.nbytes == sum(path.stat().st_size for path in tmp_path.glob("*.inbox"))
    inbox.close()


def test_zeros_at_the_end_are_no_messages(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    inbox.append([b"one"])
    inbox.close()
    file = next(tmp_path.glob("*.inbox"))
    file.write_bytes(file.read_bytes() + bytes(64))

    again = Inbox(tmp_path)
    assert again.append([b"two"]) == 2
    assert messages_of(again) == [(1, b"one"), (2, b"two")]
    again.close()


def test_what_is_committed_makes_room_however_little_there_may_be(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, segment_bytes=100)

    for _ in range(3):
        inbox.append([b"x" * 90])

    inbox.drop(2)
    assert inbox.nbytes == 98
    inbox.append([b"x" * 90])
    inbox.drop(4)
    assert inbox.nbytes == 0
    inbox.close()

    again = Inbox(tmp_path, segment_bytes=100)
    assert again.append([b"five"]) == 5
    assert messages_of(again) == [(5, b"five")]
    again.close()


async def test_a_desk_is_not_full_for_ever(tmp_path: Path) -> None:
    desk = SpooledDesk("orders", tmp_path, most_bytes=200)
    await desk.position({})

    for _ in range(2):
        while not desk.is_full:
            await desk.put(asyncelt.Message(b"{}"))

        fetched = await desk.fetch(100)
        await desk.ack([message.receipt for message in fetched])
        assert not desk.is_full

    # The next process is not told by an acknowledgement.
    while not desk.is_full:
        await desk.put(asyncelt.Message(b"{}"))

    last = (await desk.fetch(100))[-1].receipt
    await desk.close()
    assert last.position is not None
    again = SpooledDesk("orders", tmp_path, most_bytes=200)
    await again.position({last.partition: Intervals(last.position)})
    assert not again.is_full
    await again.close()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), MemoryError(), StorageError("torn")], ids=repr)
async def test_whatever_fails_nobody_is_told_that_it_is_safe(error: Exception, tmp_path: Path) -> None:
    desk = SpooledDesk("orders", tmp_path, most_bytes=1000)
    refused = []

    def failing(point: str) -> None:
        if point == "inbox.before_write":
            raise error

    async def put(value: bytes) -> None:
        try:
            await desk.put(asyncelt.Message(value))
        except MessageNotCommitted:
            refused.append(value)

    with installed(failing):
        async with anyio.create_task_group() as tasks:
            for value in (b"1", b"2", b"3"):
                tasks.start_soon(put, value)

    assert sorted(refused) == [b"1", b"2", b"3"]
    await desk.put(asyncelt.Message(b"4"))
    assert [message.value for message in await desk.fetch(10)] == [b"4"]
    await desk.close()
