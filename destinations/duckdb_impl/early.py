"""Rows that are written into a commit's transaction before the package is complete: loading while extraction runs.

The transaction is begun with the first job file that is complete, and its rows become visible with the commit of the
package or never. Whoever holds it keeps all others out of the file. So it is given up when somebody asks for the file,
and after half of the time that others wait for one; then the commit writes all rows by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import duckdb

from asyncelt.destinations.duckdb_impl.attaching import Access, commit_lock, lock_path
from asyncelt.destinations.duckdb_impl.catalog import Catalog
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.fences import Fences
from asyncelt.destinations.duckdb_impl.files import insert_parquet
from asyncelt.destinations.duckdb_impl.tables import migrate_table, require_dataset
from asyncelt.destinations.duckdb_impl.tuning import FittedMemory, leave_out_fsst
from asyncelt.destinations.duckdb_impl.writing import Work
from asyncelt.errors import LoadError
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, EarlyJob
from asyncelt.schema.model import Table
from asyncelt.types import LoadId, TableName

__all__ = ["Early", "EarlyLoading"]

_SHARE_OF_PATIENCE: Final = 0.5
"""How long a transaction may be held, as part of the time that others wait for the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """A transaction that was begun for a commit that is still to come. Used by one thread."""

    work: Work
    hold: ExitStack
    """Ends with the lock, the attached file and the memory limit as they were before."""
    fences: Fences
    memory: FittedMemory
    lock_path: Path
    asked_ns: int
    """Last change of the lock file when the transaction was begun."""
    deadline: float
    """Of the monotonic clock."""
    written: set[tuple[LoadId, str]] = field(default_factory=set)
    """Load id and file name."""
    columns: dict[tuple[LoadId, TableName], list[str]] = field(default_factory=dict)
    """What tables got here, in order."""

    @property
    def is_wanted_by_others(self) -> bool:
        """Whether somebody waits for the file, or it has been held for long."""
        return _asked_ns(self.lock_path) != self.asked_ns or time.monotonic() > self.deadline

    @property
    def updates(self) -> Mapping[LoadId, Mapping[str, tuple[str, ...]]]:
        """Tables and columns that were made, by load id."""
        found: dict[LoadId, dict[str, tuple[str, ...]]] = {}

        for (load_id, table), columns in self.columns.items():
            found.setdefault(load_id, {})[table] = tuple(columns)

        return found

    def write(self, jobs: Sequence[EarlyJob]) -> None:
        """Bring the tables to what the files have, and write their rows."""
        work = self.work

        for one in jobs:
            work.catalog.read([one.table.name])
            self._migrate(one.load_id, one.table)
            self.memory.fit({one.table.name: len(one.table.columns)})
            sql, parameters = insert_parquet(one.table.name, work.dataset, [str(one.path)])
            work.database.execute(sql, parameters)
            self.written.add((one.load_id, one.job.file_name))
            failpoint("duckdb.after_early_load")

    def _migrate(self, load_id: LoadId, table: Table) -> None:
        require_dataset(self.work)
        added = migrate_table(self.work, table)

        if added:
            self.columns.setdefault((load_id, table.name), []).extend(added)

    def fits(self, commit: Commit) -> bool:
        """Whether the commit would have written the same rows into the same tables: it can go on from here."""
        packages = {package.load_id: package for package in commit.packages}
        files = {(one.load_id, job.file_name): job for one in commit.packages for job in one.jobs}

        if not commit.is_load or not self.written <= files.keys():
            return False

        tables = {(load_id, files[load_id, name].table) for load_id, name in self.written}
        changed = {name for package in commit.packages for name in _changed_otherwise(package)}

        return all(
            packages[load_id].schema.disposition_of(table) == "append" and table not in changed
            for load_id, table in tables
        ) and all(
            load_id in packages and self._is_in_order(packages[load_id].schema.tables[table], columns)
            for (load_id, table), columns in self.columns.items()
        )

    def remaining(self, package: Package) -> tuple[JobFile, ...]:
        """Those of the package's job files that are still to be written."""
        return tuple(job for job in package.jobs if (package.load_id, job.file_name) not in self.written)

    def _is_in_order(self, table: Table, added: Sequence[str]) -> bool:
        """Whether the table has the columns in the order in which the commit alone would have put them."""
        there = self.work.catalog.columns_of(table.name) or {}
        wanted = [
            name
            for name, column in table.columns.items()
            if column.data_type is not None and (name in added or name.lower() not in there)
        ]

        return wanted[: len(added)] == list(added)


class EarlyLoading:
    """The transaction of a session that waits for its commit, if there is one. Used by one thread.

    Args:
        config: Which database, and how it is written.
        access: To it.
    """

    def __init__(self, config: DuckDbConfig, access: Access) -> None:
        self._config = config
        self._access = access
        self._early: Early | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a transaction waits for its commit."""
        return self._early is not None

    def load(self, jobs: Sequence[EarlyJob]) -> bool:
        """Write job files into the transaction of the commit to come; False: nothing is kept of it.

        Should it fail for whatever reason, then the commit meets that reason again and says so.
        """
        if self._config.path is None:
            return False

        try:
            if self._early is None:
                self._early = self._begin(self._config.path)

            if not self._early.is_wanted_by_others:
                leave_out_fsst(self._access.statements, self._config, [one.table for one in jobs])
                self._early.write(jobs)

                return True
        except (duckdb.Error, LoadError, OSError):
            pass
        except BaseException:
            self.forget()
            raise

        self.forget()

        return False

    def take(self, commit: Commit) -> Early | None:
        """Hand over what has been written for this commit; what was written otherwise is rolled back."""
        if self._early is not None and not self._early.fits(commit):
            self.forget()

        early, self._early = self._early, None

        return early

    def forget(self) -> None:
        """Roll back what was written early."""
        early, self._early = self._early, None

        if early is None:
            return

        try:
            early.hold.close()
        except (duckdb.Error, LoadError):
            # A file that cannot be let go of, for instance on a full disk: the next call attaches it anew.
            with suppress(duckdb.Error):
                self._access.close()

    def _begin(self, path: Path) -> Early:
        path.parent.mkdir(parents=True, exist_ok=True)
        statements = self._access.statements

        with ExitStack() as stack:
            fences = stack.enter_context(commit_lock(self._config))
            asked = _asked_ns(lock_path(path))
            dataset = stack.enter_context(self._access.open("loading early"))
            memory = FittedMemory(statements, self._config, is_alone=self._access.is_alone)
            stack.callback(memory.restore)
            statements.execute("BEGIN TRANSACTION")
            stack.callback(statements.rollback)
            work = Work(statements, dataset, Catalog(statements, dataset), self._config.replace_strategy)

            return Early(
                work=work,
                hold=stack.pop_all(),
                fences=fences,
                memory=memory,
                lock_path=lock_path(path),
                asked_ns=asked,
                deadline=time.monotonic() + self._config.busy_timeout_s * _SHARE_OF_PATIENCE,
            )


def _asked_ns(lock_path: Path) -> int:
    """Last change of a lock file."""
    return os.stat(lock_path).st_mtime_ns


def _changed_otherwise(package: Package) -> set[TableName]:
    """Tables from which the package takes rows away."""
    roots = (*package.replaced_tables, *package.dropped_tables, *package.truncated_tables)
    schema = package.schema

    return {one.name for root in roots if root in schema.tables for one in schema.chain_of(root)} | set(roots)
