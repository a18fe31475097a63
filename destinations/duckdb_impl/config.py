"""Which DuckDB database, and how it is opened. Imports no driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncelt.destinations.busy import Busy

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["DuckDbConfig", "Shared"]


class Shared:
    """A database that lives in this process: the caller's connection, or one in memory.

    Args:
        connection: The caller's; never closed by us. None: a database in memory, made at its first use.
    """

    def __init__(self, connection: DuckDBPyConnection | None = None) -> None:
        self._connection = connection
        self._opening = threading.Lock()
        self._writing = threading.Lock()

    def cursor(self, connect: Callable[[], DuckDBPyConnection]) -> DuckDBPyConnection:
        """A connection of its own to the same database."""
        with self._opening:
            if self._connection is None:
                self._connection = connect()

            return self._connection.cursor()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only writer.

        Raises:
            Busy: Another session is writing now.
        """
        if not self._writing.acquire(blocking=False):
            raise Busy("Another session is committing to this database.")

        try:
            yield
        finally:
            self._writing.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckDbConfig:
    """Either a file or a database that is shared within the process."""

    path: Path | None = None
    shared: Shared = field(default_factory=Shared)
    location: str = ""
    memory_limit: str | None = None
    threads: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    busy_timeout_s: float = 30.0

    def options(self) -> dict[str, str | bool | int | float | list[str]]:
        """DuckDB's configuration for opening a file."""
        options: dict[str, str | bool | int | float | list[str]] = dict(self.settings)

        if self.memory_limit is not None:
            options["memory_limit"] = self.memory_limit

        if self.threads is not None:
            options["threads"] = self.threads

        return options
