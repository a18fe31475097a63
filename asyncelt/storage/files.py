"""Small durable file operations. Blocking: called from threads, never on the event loop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from asyncelt.failpoints import failpoint

__all__ = ["fsync_directory", "fsync_file", "remove_tree", "rename_directory", "write_atomically"]


def fsync_file(path: Path) -> None:
    """Make the content of a file survive a crash of the machine."""
    failpoint("storage.fsync")
    descriptor = os.open(path, os.O_RDONLY)

    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Make the entries of a folder survive a crash of the machine."""
    fsync_file(path)


def write_atomically(path: Path, data: bytes, *, durable: bool) -> None:
    """Replace a file so that a reader sees the old or the new content, never a part.

    Args:
        path: Its folder must exist.
        data: The whole new content.
        durable: Whether it must survive a crash of the machine; else only a crash of the process.
    """
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)

        if durable:
            failpoint("storage.fsync")
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

    os.replace(temporary, path)


def rename_directory(source: Path, target: Path) -> None:
    """Move a folder in one step."""
    failpoint("storage.before_rename")
    os.rename(source, target)
    failpoint("storage.after_rename")


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it; a folder that is gone already is fine."""
    shutil.rmtree(path, ignore_errors=True)
