"""Ownership of a working folder: an advisory lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from asyncelt.errors import PipelineBusy, StorageError, UsageError
from asyncelt.types import OnBusy

__all__ = ["hold_lock"]


@dataclass(slots=True)
class _Hold:
    """One lock for as long as it is held."""

    path: Path
    is_over: bool = False


_holds: ContextVar[tuple[_Hold, ...]] = ContextVar("asyncelt_held_locks", default=())
"""Of this task, and of the tasks that started it."""

_FIRST_WAIT_S = 0.005
_MAX_WAIT_S = 0.5


@asynccontextmanager
async def hold_lock(
    path: Path, *, on_busy: OnBusy, what: str, make_folder: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Own ``path`` inside the block; a dead owner in another process is replaced at once.

    The kernel gives no notice when a lock is dropped, so waiting is trying again with growing pauses (up to
    half a second).

    Args:
        path: Lock file; created if it does not exist. It stays afterwards.
        on_busy: ``wait`` until the owner has gone, or ``raise``.
        what: Named in the error.
        make_folder: Makes the folder of ``path``, called when it is not there.

    Raises:
        PipelineBusy: Somebody else owns it and ``on_busy`` is ``raise``.
        StorageError: The folder cannot be written.
        UsageError: This task owns it already.
    """
    if any(hold.path == path and not hold.is_over for hold in _holds.get()):
        raise UsageError(
            f"{what} is being run by this very task, which would wait for itself. Do not call a pipeline from inside "
            "one of its own resources or from inside its managed_state()."
        )

    descriptor = await _opened(path, what, make_folder)
    hold = _Hold(path)
    before = _holds.get()
    _holds.set((*before, hold))

    try:
        wait_s = _FIRST_WAIT_S

        while not _try_lock(descriptor):
            if on_busy == "raise":
                raise PipelineBusy(
                    f"{what} is being run by another task or process. Wait for it (on_busy='wait'), or give each "
                    "process a name of its own (member=...)."
                )

            await anyio.sleep(wait_s)
            wait_s = min(wait_s * 2, _MAX_WAIT_S)

        yield
    finally:
        os.close(descriptor)
        hold.is_over = True
        _holds.set(before)


def _unwritable(folder: Path, what: str, error: OSError) -> StorageError:
    """The error of a working folder that this user cannot make or write."""
    return StorageError(
        f"{what} cannot use its working folder {folder}: {error.strerror}. Let pipelines_dir=... or the environment "
        "variable ASYNCELT_DATA_DIR name a folder that this user may write to."
    )


async def _opened(path: Path, what: str, make_folder: Callable[[], Awaitable[None]] | None) -> int:
    open_file = partial(os.open, path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    try:
        try:
            return open_file()
        except FileNotFoundError:
            if make_folder is None:
                raise

            await make_folder()

            return open_file()
    except OSError as error:
        raise _unwritable(path.parent, what, error) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False

    return True
