"""Settings of DuckDB for one commit: what wide tables need, and what narrow ones can do without.

Only a DuckDB of our own is touched, and only where its user has not said otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import duckdb

from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.errors import Interrupted
from asyncelt.destinations.duckdb_impl.statements import Statements
from asyncelt.flow import Package
from asyncelt.load.protocol import Commit
from asyncelt.schema.model import Table

__all__ = ["FittedMemory", "KeptBlocks", "appended_columns", "leave_out_fsst", "ran_out_of_memory"]

_WIDE: Final = 100
"""Columns."""
_DISABLED: Final = "disabled_compression_methods"
_LIMIT: Final = "memory_limit"
_MIB: Final = 1024 * 1024
_BASE_MIB: Final = 56
_COLUMN_MIB: Final = 1.5
"""A column holds blocks of 256 KiB for each thread that writes it: for its values and its nulls, raw and compressed."""
_FEW_BYTES: Final = 4 * _MIB
"""Of job files: what comes of them is small, and asking for a limit costs a small run as much as a query."""
_MUCH_BYTES: Final = 32 * _MIB
_MANY_COMMITS: Final = 256
_UNITS: Final = {"bytes": 1, "KiB": 1024, "MiB": _MIB, "GiB": 1024 * _MIB, "TiB": 1024 * 1024 * _MIB}


def leave_out_fsst(database: Statements, config: DuckDbConfig, tables: Iterable[Table]) -> None:
    """Leave out one way of compressing texts while wide tables are written.

    To find the best way DuckDB tries all of them on each column. FSST is the dearest to try: for tables of some
    hundreds of columns this was half of the whole commit, and the file not larger without it (measured with events
    of 630 columns: 200 to 110 microseconds a row, 1,837 to 1,804 bytes). Files of newer storage versions do not have
    it. The setting stays until the next commit: a small one is compressed only when the file is let go.
    """
    instance = config.instance

    if not instance.is_own or _DISABLED in config.settings:
        return

    without_fsst = max((len(table.columns) for table in tables), default=0) >= _WIDE

    if without_fsst != instance.is_without_fsst:
        database.execute(f"SET {_DISABLED} = 'fsst'" if without_fsst else f"RESET {_DISABLED}")
        instance.is_without_fsst = without_fsst


class FittedMemory:
    """Lets DuckDB have no more memory than appending the rows takes, until `restore`.

    What it is allowed to have it fills with blocks that it has written already. Without them a commit takes as long
    (measured with a million flat rows at 100 MB and at 1 GB: 2.8 and 2.9 s of processor time, 80 MB less resident).

    Args:
        database: Runs statements.
        config: What the user allows.
        is_alone: Whether no other session uses the same DuckDB now: a query that sorts needs what the user allows.
    """

    def __init__(self, database: Statements, config: DuckDbConfig, *, is_alone: bool) -> None:
        instance = config.instance
        self._database = database
        self._writers = config.writers
        self._may = _is_limit_ours(config) and is_alone and not instance.wants_all_memory
        self._limit = config.memory_limit
        self._allowed: float | None = None
        """Bytes."""
        self._columns: dict[str, int] = {}
        self.is_less = False
        """Whether there is less than before. It may turn out to be too little: `ran_out_of_memory`."""

    def fit(self, columns: Mapping[str, int]) -> None:
        """Rows are going to be appended to these tables too, which have so many columns."""
        before = dict(self._columns)
        self._columns.update(columns)

        if not self._may or self._columns == before:
            return

        if self._allowed is None:
            self._allowed = _bytes_of(str(self._database.rows(f"SELECT current_setting('{_LIMIT}')")[0][0]))

        needed = _BASE_MIB + round(sum(self._columns.values()) * _COLUMN_MIB * self._writers)

        if needed * _MIB >= self._allowed:
            self.restore()
        elif _is_set(self._database, f"{needed} MiB"):
            self.is_less = True

    def restore(self) -> None:
        """Give what was allowed before, also after a cancel, which lets no ordinary statement through any more."""
        if self.is_less:
            # As it was configured: what DuckDB says of it is rounded, down a little with each commit.
            self._database.restore_setting(_LIMIT, self._limit)

        self.is_less = False


class KeptBlocks:
    """Bounds what DuckDB keeps of a file that stays attached from commit to commit, as in a stream.

    It keeps every block that it has written, as long as it may have the memory: a stream would grow to that bound.

    Args:
        database: Runs statements.
        config: What the user allows.
    """

    def __init__(self, database: Statements, config: DuckDbConfig) -> None:
        self._database = database
        self._limit = config.memory_limit
        self._may = _is_limit_ours(config)
        self._commits = 0
        self._nbytes = 0

    def committed(self, commit: Commit, *, is_alone: bool) -> None:
        """Note what has been written; let go of it when it is much.

        Args:
            commit: Has happened.
            is_alone: Whether no other session uses the same DuckDB now: its query would lack memory for a moment.
        """
        self._commits += 1
        self._nbytes += sum(job.nbytes for package in commit.packages for job in package.jobs)

        if not self._may or not is_alone or (self._nbytes < _MUCH_BYTES and self._commits < _MANY_COMMITS):
            return

        self._commits = self._nbytes = 0

        # The rows are committed, whatever becomes of this.
        with suppress(duckdb.Error, Interrupted):
            if _is_set(self._database, f"{_BASE_MIB} MiB"):
                self._database.restore_setting(_LIMIT, self._limit)


def appended_columns(packages: Sequence[Package]) -> Mapping[str, int]:
    """Columns of the tables that rows are appended to; empty where rows are merged, or few."""
    if sum(job.nbytes for package in packages for job in package.jobs) < _FEW_BYTES:
        return {}

    columns: dict[str, int] = {}

    for package in packages:
        for name in {job.table for job in package.jobs}:
            if package.schema.disposition_of(name) == "merge":
                return {}

            columns[name] = len(package.schema.tables[name].columns)

    return columns


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is DuckDB's lack of memory."""
    return isinstance(error, duckdb.OutOfMemoryException) or isinstance(error.__cause__, duckdb.OutOfMemoryException)


def _is_limit_ours(config: DuckDbConfig) -> bool:
    """Whether DuckDB has a file, and a limit that may be changed for a while."""
    return config.instance.is_own and config.path is not None and _LIMIT not in config.settings


def _is_set(database: Statements, limit: str) -> bool:
    """DuckDB refuses a limit below what it holds."""
    with suppress(duckdb.OutOfMemoryException):
        database.execute(f"SET {_LIMIT} = '{limit}'")

        return True

    return False


def _bytes_of(setting: str) -> float:
    """Bytes of a size as DuckDB writes it ("953.6 MiB")."""
    found = re.fullmatch(r"([\d.]+) (\w+)", setting)

    return float(found[1]) * _UNITS.get(found[2], 0) if found else 0.0
