"""What a transaction needs of a connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["DIALECT", "Statements"]

DIALECT = "duckdb"


class Statements(Protocol):
    """One connection; statements run one after the other in one thread."""

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> object:
        """Run one statement, unless the caller has been cancelled."""
        ...

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run one query and return its rows."""
        ...

    def rollback(self) -> None:
        """End the transaction without its changes. Never raises."""
        ...

    def uninterruptible(self) -> AbstractContextManager[None]:
        """A block in which the running statement is not interrupted."""
        ...

    def restore_setting(self, name: str, value: str | None) -> None:
        """Give a setting its former value, None for DuckDB's own, cancelled or not."""
        ...
