"""The blocking side: one connection to one DuckDB database, used by one thread.

Only :meth:`Database.interrupt` is called from another thread (the event loop's).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from asyncelt.destinations.busy import lock_file
from asyncelt.destinations.duckdb_impl import reading
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.errors import Interrupted, translate, translated
from asyncelt.destinations.duckdb_impl.transaction import commit_packages, raise_epoch
from asyncelt.destinations.sql.names import Dataset
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, Target
from asyncelt.types import JsonValue, LoadId

__all__ = ["Database"]


class Database:
    """Opens the database when it is first needed; `close` gives it back.

    Args:
        config: Which database, and how it is opened.
        target: The dataset and pipeline of the session.
    """

    def __init__(self, config: DuckDbConfig, target: Target) -> None:
        self._config = config
        self._target = target
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._catalog: str | None = None
        self._lock = threading.Lock()
        self._cancelled = False
        self._committing = False

    def restore(self, pipeline_name: str) -> Restored:
        """What the dataset knows about the pipeline; a file that does not exist is not created."""
        if not self._exists():
            return Restored()

        with translated(f"reading the state of pipeline {pipeline_name!r}"):
            return reading.restore(self, self.dataset, pipeline_name, self._target.member)

    def acquire(self, pipeline_name: str, member: str) -> Lease:
        """Raise the epoch of the lease row. Without one nothing is written: the first commit makes it."""
        if not self._exists():
            return Lease(epoch=1)

        with translated(f"taking the lease of pipeline {pipeline_name!r}"), self._commit_lock():
            return raise_epoch(self, self.dataset, pipeline_name, member)

    def commit(self, commit: Commit) -> CommitResult:
        """Everything in one transaction; see `transaction`."""
        load_ids = ", ".join(package.load_id for package in commit.packages)

        with translated(f"committing {load_ids}"):
            self.open()

            with self._commit_lock():
                return commit_packages(self, self.dataset, commit)

    def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """Which of the load ids are in ``_dlt_loads``."""
        if not load_ids or not self._exists():
            return frozenset()

        with translated("asking for committed loads"):
            return reading.committed(self, self.dataset, load_ids)

    def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """Load ids that this run has committed."""
        if not self._exists():
            return ()

        with translated(f"asking for run {run_id!r}"):
            return reading.run_of(self, self.dataset, pipeline_name, run_id)

    def query(self, sql: str, parameters: Sequence[JsonValue]) -> pa.Table:
        """Run one statement of the user."""
        self.open()

        with translated(f"running a query on dataset {self.dataset.name!r}"):
            if reading.has_dataset(self, self.dataset):
                self.execute(reading.use(self.dataset))

            return self.execute(sql, list(parameters)).to_arrow_table()

    @property
    def dataset(self) -> Dataset:
        """The dataset with its catalog: a file may be called like the dataset, then its name alone is ambiguous."""
        self.open()

        return Dataset(self._target.dataset_name, self._catalog)

    def open(self) -> None:
        """Open the database, once.

        Raises:
            Busy: Another process has the file open.
        """
        if self._connection is not None:
            return

        path = self._config.path

        try:
            connection = self._config.shared.cursor(self._in_memory) if path is None else _connect(path, self._config)
        except duckdb.Error as error:
            raise translate(error, f"opening {self._config.location}") from error

        with translated("preparing the connection"):
            found = connection.execute("SET TimeZone = 'UTC'; SELECT current_database()").fetchone()
            self._catalog = None if found is None else str(found[0])

        self._connection = connection

    def _in_memory(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(":memory:", config=self._config.options())

    def close(self) -> None:
        """Close the connection, which writes the file's log back into it when it was the last one."""
        connection, self._connection = self._connection, None

        if connection is not None:
            connection.close()

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        """Run one statement, unless the caller has been cancelled."""
        if self._connection is None:
            raise Interrupted("The database is closed.")

        if self._cancelled:
            raise Interrupted("The caller was cancelled; the transaction is rolled back.")

        return self._connection.execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run one query and return its rows."""
        return self.execute(sql, parameters).fetchall()

    @contextmanager
    def uninterruptible(self) -> Iterator[None]:
        """Keep interrupts away: an interrupted COMMIT may have happened all the same."""
        with self._lock:
            if self._cancelled:
                raise Interrupted("The caller was cancelled before COMMIT; nothing was written.")

            self._committing = True

        try:
            yield
        finally:
            with self._lock:
                self._committing = False

    def rollback(self) -> None:
        """End the transaction without its changes, cancelled or not."""
        if self._connection is not None:
            with suppress(duckdb.Error):
                self._connection.execute("ROLLBACK")

    def interrupt(self) -> None:
        """Stop the statement that runs, and let no other one begin. Does nothing during COMMIT."""
        with self._lock:
            connection = self._connection

            if self._committing or connection is None:
                return

            self._cancelled = True
            connection.interrupt()

    def resume(self) -> None:
        """Allow statements again after an interrupt."""
        self._cancelled = False

    def _exists(self) -> bool:
        path = self._config.path

        if path is not None and not path.exists():
            return False

        self.open()

        return True

    @contextmanager
    def _commit_lock(self) -> Iterator[None]:
        """Let one writer at a time in: DuckDB would fail the second one's transaction, not make it wait."""
        if self._config.path is None:
            with self._config.shared.exclusive():
                yield

            return

        lock = self._config.path.with_name(self._config.path.name + ".asyncelt.lock")

        with lock_file(lock, f"Another session is committing to {self._config.location}."):
            yield


def _connect(path: Path, config: DuckDbConfig) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), config=config.options())
    except duckdb.ConnectionException:
        # This process has the file open with other settings, which then hold for us too.
        return duckdb.connect(str(path))
