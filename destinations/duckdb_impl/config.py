"""Which DuckDB database, how it is opened and written. Imports no driver."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asyncelt.destinations.duckdb_impl.instance import Instance
from asyncelt.types import ReplaceStrategy

__all__ = ["DuckDbConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckDbConfig:
    """Either a file, or a database that lives in this process."""

    path: Path | None = None
    instance: Instance = field(default_factory=Instance)
    """What the file is attached to; without a file, the database itself."""
    location: str = ""
    memory_limit: str | None = None
    threads: int | None = None
    storage_version: str | None = None
    """Of the file where it is made; None: DuckDB's own choice."""
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Options of DuckDB; keys of clouds may be among them."""
    busy_timeout_s: float = 30.0
    replace_strategy: ReplaceStrategy = "truncate-and-insert"
    """Of tables that do not name one."""
    keeps_staged: bool = False
    """Whether staged files stay after the commit."""

    @property
    def catalog(self) -> str | None:
        """The name by which DuckDB knows the file; None where it is not ours to choose."""
        if self.path is None:
            return None

        return f"{self.path.stem}_file" if self.path.stem.lower() in _RESERVED else self.path.stem

    @property
    def writers(self) -> int:
        """How many threads of DuckDB write at the same time."""
        return self.threads or _fitting_threads() or os.cpu_count() or 1

    def options(self) -> dict[str, str | bool | int | float | list[str]]:
        """DuckDB's configuration for an instance of our own."""
        options: dict[str, str | bool | int | float | list[str]] = dict(self.settings)
        # Job files are read once. In its memory they would stay, also when they have long gone from the disk.
        options.setdefault("enable_external_file_cache", False)

        if self.path is not None:
            # Where DuckDB itself would put what does not fit its memory, if the file were all it has.
            options.setdefault("temp_directory", str(self.path.with_name(self.path.name + ".tmp")))
            # COMMIT writes into the file: by way of the log, which DETACH would move there at once, rows are written
            # twice (measured with 100,000 rows of five columns: 150 ms instead of 192).
            options.setdefault("checkpoint_threshold", "0KB")

        if self.memory_limit is not None:
            options["memory_limit"] = self.memory_limit

        threads = self.threads if self.threads is not None else _fitting_threads()

        if threads is not None:
            options["threads"] = threads

        return options


def _fitting_threads() -> int | None:
    """One thread on one or two cores; else DuckDB's own choice.

    With more than one thread DuckDB keeps the order of rows by writing row groups twice: an INSERT from Parquet
    then costs twice the processor time (measured with 300,000 rows of ten columns), which two cores cannot win back.
    """
    return 1 if (os.cpu_count() or 1) <= _FEW_CORES else None


_FEW_CORES = 2

_RESERVED = frozenset({"memory", "main", "system", "temp"})
"""Databases that every DuckDB has; a file of such a name is attached under another."""
