"""Newest epoch that was handed out per dataset, pipeline and member, kept outside the database.

A lease row is written by commits only. Who takes a lease leaves its epoch here, which costs no transaction and no
fsync: in the lock file beside the database, under its lock. Should a crash of the machine lose it, all owners it
could fence off are dead too; and a commit on an old head is refused in any case.
"""

from __future__ import annotations

import json
import os
from typing import Protocol

__all__ = ["Fences", "FileFences", "MemoryFences"]

_MOST_BYTES = 1 << 20


class Fences(Protocol):
    """Epochs by pipeline and member. Used by who holds the commit lock."""

    def newest(self, dataset: str, pipeline_name: str, member: str) -> int:
        """The newest epoch that was handed out; 0 when none is known."""
        ...

    def raise_to(self, dataset: str, pipeline_name: str, member: str, epoch: int) -> None:
        """Remember that ``epoch`` was handed out."""
        ...


class MemoryFences:
    """For a database that only this process has open."""

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, str, str], int] = {}

    def newest(self, dataset: str, pipeline_name: str, member: str) -> int:
        """See `Fences.newest`."""
        return self._epochs.get((dataset, pipeline_name, member), 0)

    def raise_to(self, dataset: str, pipeline_name: str, member: str, epoch: int) -> None:
        """See `Fences.raise_to`."""
        self._epochs[dataset, pipeline_name, member] = epoch


class FileFences:
    """In the content of the lock file.

    Args:
        descriptor: Of the file, locked.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def newest(self, dataset: str, pipeline_name: str, member: str) -> int:
        """See `Fences.newest`."""
        return self._read().get(_key(dataset, pipeline_name, member), 0)

    def raise_to(self, dataset: str, pipeline_name: str, member: str, epoch: int) -> None:
        """See `Fences.raise_to`."""
        content = json.dumps({**self._read(), _key(dataset, pipeline_name, member): epoch}).encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(os.pread(self._descriptor, _MOST_BYTES, 0) or b"{}")
        except ValueError:
            # Cut off by a kill: the heads in the lease table still hold.
            return {}

        return {str(key): int(epoch) for key, epoch in found.items()} if isinstance(found, dict) else {}


def _key(dataset: str, pipeline_name: str, member: str) -> str:
    return json.dumps([dataset, pipeline_name, member])
