"""Statements of one thread that another thread may interrupt: all but those that must run to their end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import duckdb

from asyncelt.destinations.duckdb_impl.errors import Interrupted

__all__ = ["Interruptible"]


class Interruptible:
    """What `Statements` asks for, on the connection of the moment.

    Only `interrupt` is called from another thread (the event loop's).
    """

    def __init__(self) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self._protected = False
        self.is_cancelled = False
        """Whether the caller has gone; until the next `using`."""

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection in use.

        Raises:
            Interrupted: There is none.
        """
        if self._connection is None:
            raise Interrupted("The database is closed.")

        return self._connection

    @contextmanager
    def using(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Run statements on this connection inside the block."""
        with self._lock:
            self._connection = connection
            # An earlier call may have been cancelled; this one is not.
            self.is_cancelled = False

        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        """Run one statement, unless the caller has been cancelled."""
        connection = self.connection

        if self.is_cancelled:
            raise Interrupted("The caller was cancelled; the transaction is rolled back.")

        return connection.execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run one query and return its rows."""
        return self.execute(sql, parameters).fetchall()

    @contextmanager
    def uninterruptible(self) -> Iterator[None]:
        """Keep interrupts away: an interrupted COMMIT may have happened all the same."""
        with self._lock:
            if self.is_cancelled:
                raise Interrupted("The caller was cancelled before COMMIT; nothing was written.")

            self._protected = True

        try:
            yield
        finally:
            with self._lock:
                self._protected = False

    def rollback(self) -> None:
        """End the transaction without its changes, cancelled or not. Does nothing outside of one."""
        with suppress(duckdb.Error):
            self.undisturbed("ROLLBACK")

    def restore_setting(self, name: str, value: str | None) -> None:
        """Give a setting its former value, None for DuckDB's own, cancelled or not."""
        self.undisturbed(f"RESET {name}" if value is None else f"SET {name} = '{value}'")

    def undisturbed(self, sql: str) -> None:
        """Run a statement that cleans up: the caller may have been cancelled, and it is not interrupted."""
        with self._lock:
            self._protected = True

        try:
            if self._connection is not None:
                self._connection.execute(sql)
        finally:
            with self._lock:
                self._protected = False

    def interrupt(self) -> None:
        """Stop the statement that runs, and let no other one begin. Does nothing during COMMIT."""
        with self._lock:
            connection = self._connection

            if self._protected or connection is None:
                return

            self.is_cancelled = True
            connection.interrupt()
