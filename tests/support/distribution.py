"""Where tests keep their files, and which process runs which of them, and when."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["arranged", "group_for_xdist", "use_files_in_memory"]

_IN_MEMORY = Path("/dev/shm")
_ENOUGH = 4 << 30
_LONG = ("timeout", "kill", "benchmark")
"""Marks of tests that take long, or would on a slow machine."""


def use_files_in_memory() -> None:
    """Put temporary files where a flush costs nothing, if there is such a place and nobody has named another.

    Tests kill processes, never the machine: what has been written is there afterwards, flushed or not.
    """
    if "TMPDIR" in os.environ or not _IN_MEMORY.is_dir() or not os.access(_IN_MEMORY, os.W_OK):
        return

    # Some tests start programs out of their folder.
    allows_programs = not os.statvfs(_IN_MEMORY).f_flag & os.ST_NOEXEC

    if allows_programs and shutil.disk_usage(_IN_MEMORY).free > _ENOUGH:
        os.environ["TMPDIR"] = str(_IN_MEMORY)
        tempfile.tempdir = None


def group_for_xdist(items: Sequence[pytest.Item]) -> None:
    """See to it that tests with the same mark ``xdist_group`` are run by one process.

    pytest-xdist reads the group off the end of a test's id. It also writes it there, but into an attribute of which
    pytest has made no use since 9.1: without this, each test goes to whoever is free.
    """
    for item in items:
        names = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
        ending = f"@{'_'.join(names)}"

        if names and not item.nodeid.endswith(ending):
            item._id = type(item.id).parse(item.nodeid + ending)  # type: ignore[attr-defined]
            assert item.nodeid.endswith(ending)


def arranged(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Long tests first, so that at the end no process waits for another; else in the order they have."""
    return sorted(items, key=lambda item: not any(item.get_closest_marker(name) for name in _LONG))
