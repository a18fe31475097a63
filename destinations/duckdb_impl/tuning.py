"""Settings of DuckDB for one commit: what wide tables need, and what narrow ones can do without.

Only a DuckDB of our own is touched, and only where its user has not said otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import duckdb

from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.statements import Statements
from asyncelt.flow import Package
from asyncelt.load.protocol import Commit

__all__ = ["fitted_memory", "leave_out_fsst", "ran_out_of_memory"]

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
_UNITS: Final = {"bytes": 1, "KiB": 1024, "MiB": _MIB, "GiB": 1024 * _MIB, "TiB": 1024 * 1024 * _MIB}


def leave_out_fsst(database: Statements, config: DuckDbConfig, commit: Commit) -> None:
    """Leave out one way of compressing texts while wide tables are written.

    To find the best way DuckDB tries all of them on each column. FSST is the dearest to try: for tables of some
    hundreds of columns this was half of the whole commit, and the file not larger without it (measured with events
    of 630 columns: 200 to 110 microseconds a row, 1,837 to 1,804 bytes). Files of newer storage versions do not have
    it. The setting stays until the next commit: a small one is compressed only when the file is let go.
    """
    instance = config.instance

    if not instance.is_own or _DISABLED in config.settings:
        return

    tables = (table for package in commit.packages for table in package.schema.tables.values())
    without_fsst = max((len(table.columns) for table in tables), default=0) >= _WIDE

    if without_fsst != instance.is_without_fsst:
        database.execute(f"SET {_DISABLED} = 'fsst'" if without_fsst else f"RESET {_DISABLED}")
        instance.is_without_fsst = without_fsst


@contextmanager
def fitted_memory(database: Statements, config: DuckDbConfig, commit: Commit, *, is_alone: bool) -> Iterator[bool]:
    """Let DuckDB have no more memory inside the block than appending the rows takes.

    What it is allowed to have it fills with blocks that it has written already. Without them a commit takes as long
    (measured with a million flat rows at 100 MB and at 1 GB: 2.8 and 2.9 s of processor time, 80 MB less resident).

    Args:
        database: Runs statements.
        config: What the user allows.
        commit: What is written.
        is_alone: Whether no other session uses the same DuckDB now: a query that sorts needs what the user allows.

    Yields:
        Whether there is less than before. It may turn out to be too little: `ran_out_of_memory`.
    """
    needed = _needed_mib(commit.packages, config.writers)
    instance = config.instance

    is_ours = instance.is_own and config.path is not None and _LIMIT not in config.settings

    if needed is None or not is_ours or not is_alone or instance.wants_all_memory:
        yield False
        return

    allowed = str(database.rows(f"SELECT current_setting('{_LIMIT}')")[0][0])

    if needed * _MIB >= _bytes_of(allowed) or not _is_set(database, f"{needed} MiB"):
        yield False
        return

    try:
        yield True
    finally:
        # Also after a cancel, which lets no ordinary statement through any more.
        database.restore_setting(_LIMIT, allowed)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is DuckDB's lack of memory."""
    return isinstance(error, duckdb.OutOfMemoryException) or isinstance(error.__cause__, duckdb.OutOfMemoryException)


def _is_set(database: Statements, limit: str) -> bool:
    """DuckDB refuses a limit below what it holds."""
    with suppress(duckdb.OutOfMemoryException):
        database.execute(f"SET {_LIMIT} = '{limit}'")

        return True

    return False


def _needed_mib(packages: Sequence[Package], writers: int) -> int | None:
    """About what appending rows of common length takes; None where rows are merged, or few."""
    if sum(job.nbytes for package in packages for job in package.jobs) < _FEW_BYTES:
        return None

    columns = 0

    for package in packages:
        for name in {job.table for job in package.jobs}:
            if package.schema.disposition_of(name) == "merge":
                return None

            columns += len(package.schema.tables[name].columns)

    return _BASE_MIB + round(columns * _COLUMN_MIB * writers)


def _bytes_of(setting: str) -> float:
    """Bytes of a size as DuckDB writes it ("953.6 MiB")."""
    found = re.fullmatch(r"([\d.]+) (\w+)", setting)

    return float(found[1]) * _UNITS.get(found[2], 0) if found else 0.0
