"""A DuckDB that lives in this process, and the files that are attached to it for a moment. Imports no driver.

Making a DuckDB takes about 10 ms (it registers all its functions); attaching a file to one that is there takes less
than one. So a destination keeps one without a file, and attaches the file for the length of each call: in between
everybody else can open it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asyncelt.destinations._threads import Threads
from asyncelt.destinations.busy import Busy
from asyncelt.destinations.duckdb_impl.fences import MemoryFences

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Instance"]


class Instance:
    """Shared by all sessions of a destination, which may run in several threads and event loops.

    Args:
        connection: The caller's; never closed by us. None: one in memory, made when it is first needed.
    """

    def __init__(self, connection: DuckDBPyConnection | None = None) -> None:
        self.is_own = connection is None
        """Whether its settings are ours to change."""
        self.threads = Threads("asyncelt-duckdb")
        """Those of the sessions."""
        self.is_without_fsst = False
        """Whether one way of compressing texts is left out now."""
        self.wants_all_memory = False
        """Whether a commit has failed with less memory than the user allows."""
        self._connection = connection
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._attached = 0
        self._fences = MemoryFences()

    def cursor(self, make: Callable[[], DuckDBPyConnection]) -> DuckDBPyConnection:
        """A connection of its own to the same database."""
        with self._lock:
            if self._connection is None:
                self._connection = make()

            return self._connection.cursor()

    @property
    def uses(self) -> int:
        """How many blocks have the file attached now."""
        return self._attached

    @contextmanager
    def attached(self, cursor: DuckDBPyConnection, attach: str, detach: str) -> Iterator[None]:
        """Have the destination's file attached inside the block; sessions that overlap share it.

        Args:
            cursor: Runs the two statements.
            attach: ATTACH of the file.
            detach: DETACH of it, which also writes its log back into it.
        """
        with self._lock:
            if self._attached == 0:
                cursor.execute(attach)

            self._attached += 1

        try:
            yield
        finally:
            with self._lock:
                self._attached -= 1

                if self._attached == 0:
                    self._let_go(cursor, detach)

    def _let_go(self, cursor: DuckDBPyConnection, detach: str) -> None:
        try:
            cursor.execute(detach)
        except Exception:
            # With the file still attached nobody could open it any more: the next call makes a new instance.
            self._connection = None
            raise

    @contextmanager
    def exclusive(self) -> Iterator[MemoryFences]:
        """Be the only writer.

        Yields:
            The epochs that were handed out.

        Raises:
            Busy: Another session is writing now.
        """
        if not self._writing.acquire(blocking=False):
            raise Busy("Another session is committing to this database.")

        try:
            yield self._fences
        finally:
            self._writing.release()
