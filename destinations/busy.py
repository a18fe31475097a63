"""Something that another owner holds for a moment, without telling when it lets go."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio

from asyncelt.errors import DestinationUnavailable

__all__ = ["Busy", "OwnerAlive", "ask_for", "lock_file", "patiently"]

T = TypeVar("T")

_FIRST_WAIT_S = 0.005
_MAX_WAIT_S = 1.0


class Busy(DestinationUnavailable):
    """Another process or session holds it now. Nothing has been changed; wait and try again."""


class OwnerAlive(Busy):
    """Another owner of the pipeline is alive."""


async def patiently(call: Callable[[], Awaitable[T]], *, timeout_s: float, advice: str) -> T:
    """Await ``call`` until it is not refused as `Busy` any more, with growing pauses of at most a second.

    Raises:
        DestinationUnavailable: Still busy after ``timeout_s``; says ``advice``.
    """
    wait_s = _FIRST_WAIT_S
    deadline = anyio.current_time() + timeout_s

    while True:
        try:
            return await call()
        except Busy as busy:
            if anyio.current_time() + wait_s > deadline:
                raise DestinationUnavailable(f"Still busy after {timeout_s:g} s: {busy} {advice}") from busy

        await anyio.sleep(wait_s * (0.5 + random.random() / 2))  # noqa: S311 - jitter, not a secret
        wait_s = min(wait_s * 2, _MAX_WAIT_S)


@contextmanager
def lock_file(path: Path, what: str) -> Iterator[int]:
    """Hold an advisory lock on ``path`` inside the block; the kernel drops it when the process dies.

    Yields:
        The file's descriptor.

    Raises:
        Busy: Somebody else holds it; ``what`` says what that means.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            ask_for(path)
            raise Busy(what) from error

        yield descriptor
    finally:
        os.close(descriptor)


def ask_for(path: Path) -> None:
    """Let the holder of a lock know that somebody waits: the time of the lock file's last change moves.

    For a holder that could let go earlier than it would. Where there is no file, nobody holds it.
    """
    with suppress(OSError):
        os.utime(path)
