"""How many bytes of package files lie on the disk, and the bound on them. Blocking: called from threads."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from asyncelt.errors import DiskLimitReached

__all__ = ["DiskMeter"]

_FOLDERS = frozenset({"jobs", "pages"})


class DiskMeter:
    """Counts what is written below a working folder. May be used by several threads.

    What others remove meanwhile (a commit files its package away) is noticed when the bound seems to be reached: then
    the folder is measured again.

    Args:
        root: The working folder.
        limit: Bytes; None: nothing is counted.
    """

    def __init__(self, root: Path, limit: int | None) -> None:
        self.limit = limit
        self._root = root
        self._used: int | None = None
        self._lock = Lock()

    def wrote(self, nbytes: int, table: str) -> None:
        """Take note of bytes that were written for a table.

        Raises:
            DiskLimitReached: With them it is more than the limit. What is being written has to go.
        """
        if self.limit is None or nbytes <= 0:
            return

        with self._lock:
            self._used = self.measure() if self._used is None else self._used + nbytes

            if self._used > self.limit:
                self._used = self.measure()

            if self._used > self.limit:
                raise DiskLimitReached(
                    f"Package files in {self._root} take {self._used} bytes while rows of table {table!r} are written; "
                    f"max_disk allows {self.limit}. What this call has written is removed, what was pending before "
                    "stays. Load what is pending (load(), or run() without data), load less at a time "
                    "(add_limit(), stream()), or raise Limits.max_disk, asyncelt.limits.max_disk in the configuration."
                )

    def measure(self) -> int:
        """Bytes of all pages and job files."""
        sizes: dict[int, int] = {}

        # Others seal packages and file them away meanwhile: what is gone is passed over, what has moved counts once.
        for folder, _, names in os.walk(self._root / "packages"):
            if Path(folder).name in _FOLDERS:
                for name in names:
                    with suppress(FileNotFoundError):
                        found = os.stat(os.path.join(folder, name))
                        sizes[found.st_ino] = found.st_size

        return sum(sizes.values())
