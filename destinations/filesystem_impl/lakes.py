"""Tables of a dataset that are kept in a table format: the driver of each is imported when it is needed. Blocking."""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, cast

from asyncelt.destinations.filesystem_impl.catalogs import CatalogConfig
from asyncelt.destinations.filesystem_impl.lake import LakeFormat, LakeWrite
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.schema.model import Table
from asyncelt.types import LoadId, TableName

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Author", "Lake", "lake_of", "pause"]

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0


class Author(Protocol):
    """Whose rows they are: enough to recognise them in a table."""

    @property
    def pipeline_name(self) -> str:
        """Of the load."""
        ...

    @property
    def member(self) -> str:
        """Of the pipeline."""
        ...


class Lake(Protocol):
    """One table format. Blocking."""

    def check(self, names: Iterable[TableName]) -> None:
        """Find out whether tables can be written, before any data moves.

        Raises:
            ConfigError: What was configured cannot be used.
            DestinationRejected: Somebody does not let us in, or a table is of a kind that is not written.
        """
        ...

    def check_rows(self, write: LakeWrite, definition: Table, load_id: LoadId) -> None:
        """Refuse staged rows whose types the table does not take as it is, before anything is committed.

        Raises:
            DestinationRejected: Names the table, the column and what to do.
        """
        ...

    def write(self, write: LakeWrite, tables: Mapping[TableName, Table], author: Author, load_id: LoadId) -> None:
        """Make the commit of one table, unless it has been made."""
        ...

    def compact(self, name: TableName, load_id: LoadId, at_least: int) -> None:
        """Put the small files of a table together, in a commit of its own, if there are so many.

        It is left for another time when somebody else changes the table meanwhile.

        Args:
            name: Of the table.
            load_id: The load after which it is done.
            at_least: How many.
        """
        ...

    def attach(self, connection: DuckDBPyConnection, definition: Table) -> bool:
        """Make a view over a table as it is; False: there is none."""
        ...


def lake_of(kind: LakeFormat, store: Store, catalog: CatalogConfig, namespace: str) -> Lake:
    """The driver of a format, for one dataset. It takes from a quarter of a second to two to import."""
    module = importlib.import_module(f"asyncelt.destinations.filesystem_impl.{kind}")

    return cast("Lake", module.lake(store, catalog, namespace))


def pause(attempt: int) -> None:
    """Wait before an attempt at a commit: nothing before the first, then longer and longer. Blocking.

    Writers that have come at once would otherwise be in each other's way again.
    """
    if attempt:
        longest = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
        time.sleep(longest * (0.5 + random.random() / 2))  # noqa: S311 - jitter, not a secret
