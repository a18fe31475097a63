"""The blocking side: one connection to one DuckDB database, used by one thread.

A file is attached while a call runs, and only then.

Only :meth:`Database.interrupt` is called from another thread (the event loop's).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

import duckdb
import pyarrow as pa

from asyncelt.destinations.busy import ask_for
from asyncelt.destinations.duckdb_impl import reading
from asyncelt.destinations.duckdb_impl.attaching import Access, commit_lock, lock_path
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.early import Early, EarlyLoading
from asyncelt.destinations.duckdb_impl.errors import Interrupted, translated
from asyncelt.destinations.duckdb_impl.fences import Fences
from asyncelt.destinations.duckdb_impl.job_paths import JobPaths, job_paths
from asyncelt.destinations.duckdb_impl.positions import claim_positions
from asyncelt.destinations.duckdb_impl.transaction import commit_packages
from asyncelt.destinations.duckdb_impl.tuning import (
    FittedMemory,
    KeptBlocks,
    appended_columns,
    leave_out_fsst,
    ran_out_of_memory,
)
from asyncelt.destinations.local_sql import next_of
from asyncelt.destinations.sql.names import Dataset
from asyncelt.errors import CommitUnknown, DestinationRejected, DestinationUnavailable, LoadError
from asyncelt.flow import PositionClaim
from asyncelt.load.protocol import Commit, CommitResult, Known, Lease, Restored, StoredPosition, Target
from asyncelt.load.staging import Staging
from asyncelt.types import LoadId, SqlValue

__all__ = ["Database"]


class Database:
    """All calls of one session.

    Args:
        config: Which database, and how it is opened.
        target: The dataset and pipeline of the session.
    """

    def __init__(self, config: DuckDbConfig, target: Target) -> None:
        self._config = config
        self._target = target
        self._access = Access(config, target.dataset_name)
        self._statements = self._access.statements
        self.early = EarlyLoading(config, self._access)
        self.interrupt = self._statements.interrupt
        """From another thread: stops the statement that runs, and lets no other one begin."""
        self._reader: pa.RecordBatchReader | None = None
        self._kept = KeptBlocks(self._statements, config)

    def restore(self, pipeline_name: str) -> Restored:
        """What the dataset knows about the pipeline; a file that does not exist is not created."""
        if not self._access.exists:
            return Restored()

        with self._access.open(f"reading the state of pipeline {pipeline_name!r}") as dataset:
            return reading.restore(self._statements, dataset, pipeline_name, self._target.member)

    def acquire(self, pipeline_name: str, member: str) -> Lease:
        """Make every lease that was handed out before useless. Writes nothing to the database.

        A pipeline that has never committed has no lease row: two owners of an empty dataset are told apart by the
        first commit, which makes the row and moves the head.
        """
        if not self._access.exists:
            return Lease(epoch=1)

        self._access.keep_file()

        with (
            commit_lock(self._config) as fences,
            self._access.open(f"taking the lease of pipeline {pipeline_name!r}") as dataset,
        ):
            current = reading.lease(self._statements, dataset, pipeline_name, member)

            return _next_lease(fences, dataset, pipeline_name, member, current)

    def take_over(self, pipeline_name: str, member: str, known: Known | None) -> tuple[Lease, Restored]:
        """`acquire` and `restore`; little is read where what is known is still so."""
        if known is None or not self._access.exists:
            return self.acquire(pipeline_name, member), self.restore(pipeline_name)

        self._access.keep_file()

        with (
            commit_lock(self._config) as fences,
            self._access.open(f"taking the lease of pipeline {pipeline_name!r}") as dataset,
        ):
            current = reading.lease(self._statements, dataset, pipeline_name, member)
            lease = _next_lease(fences, dataset, pipeline_name, member, current)
            found = reading.glance(self._statements, dataset, pipeline_name, current)

        if found is not None and (found.head_load_id, found.state) == (known.load_id, known.state):
            return lease, replace(found, is_known=True)

        return lease, self.restore(pipeline_name)

    def commit(self, commit: Commit, staging: Staging | None = None) -> CommitResult:
        """Everything in one transaction; see `transaction`. Job files are read where they are staged, if they are."""
        load_ids = ", ".join(package.load_id for package in commit.packages)

        if self._config.path is not None:
            self._config.path.parent.mkdir(parents=True, exist_ok=True)

        if staging is not None:
            self.early.forget()

        early = self.early.take(commit)
        target = commit.target

        try:
            with ExitStack() as stack:
                if early is None:
                    fences = stack.enter_context(commit_lock(self._config))
                    dataset = stack.enter_context(self._access.open(f"committing {load_ids}"))
                else:
                    fences, dataset = early.fences, early.work.dataset
                    stack.enter_context(early.hold)
                    stack.enter_context(translated(f"committing {load_ids}"))

                leave_out_fsst(
                    self._statements,
                    self._config,
                    [table for one in commit.packages for table in one.schema.tables.values()],
                )
                newest = fences.newest(dataset.name, target.pipeline_name, target.member)
                paths = stack.enter_context(job_paths(self._statements.connection, staging))

                result = self._committed(dataset, commit, newest, paths, early)
                self._kept.committed(commit, is_alone=self._access.is_alone)

                return result
        except (DestinationUnavailable, CommitUnknown):
            # A disk that was full leaves DuckDB a database that it does not use until the file is attached anew.
            with suppress(duckdb.Error):  # the commit's error is the one to report
                self._access.let_go()

            raise

    def _committed(
        self, dataset: Dataset, commit: Commit, newest: int, paths: JobPaths, early: Early | None
    ) -> CommitResult:
        strategy = self._config.replace_strategy
        is_less = False

        if early is None:
            memory = FittedMemory(self._statements, self._config, is_alone=self._access.is_alone)
        else:
            memory = early.memory

        try:
            memory.fit(appended_columns(commit.packages))
            is_less = memory.is_less

            return commit_packages(
                self._statements, dataset, commit, newest, replace_strategy=strategy, paths=paths, early=early
            )
        except (duckdb.Error, LoadError) as error:
            if not is_less or not ran_out_of_memory(error):
                raise
        finally:
            memory.restore()

        # The transaction was rolled back. Rows may be much longer than they usually are. Should DuckDB not use the file
        # any more, then the engine's next attempt, which attaches it anew, has all memory too.
        self._config.instance.wants_all_memory = True

        return commit_packages(self._statements, dataset, commit, newest, replace_strategy=strategy, paths=paths)

    def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """Which of the load ids are in ``_dlt_loads``."""
        if not load_ids or not self._access.exists:
            return frozenset()

        with self._access.open("asking for committed loads") as dataset:
            return reading.committed(self._statements, dataset, load_ids)

    def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """Load ids that this run has committed."""
        if not self._access.exists:
            return ()

        with self._access.open(f"asking for run {run_id!r}") as dataset:
            return reading.run_of(self._statements, dataset, pipeline_name, run_id)

    def positions(self, pipeline_name: str) -> tuple[StoredPosition, ...]:
        """What is committed of the pipeline's message sources."""
        if not self._access.exists:
            return ()

        with self._access.open("reading positions") as dataset:
            return reading.positions(self._statements, dataset, pipeline_name)

    def claim(self, pipeline_name: str, claims: Sequence[PositionClaim]) -> list[StoredPosition]:
        """Take partitions of message sources over."""
        if self._config.path is not None:
            self._config.path.parent.mkdir(parents=True, exist_ok=True)

        with commit_lock(self._config), self._access.open("taking partitions over") as dataset:
            return claim_positions(self._statements, dataset, pipeline_name, claims)

    def query(self, sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
        """Run one statement of the user.

        Raises:
            DestinationRejected: DuckDB refuses it, or nothing has been loaded yet.
        """
        with self._access.in_dataset(self._reading):
            return self._statements.execute(sql, list(parameters)).to_arrow_table()

    def begin_stream(self, sql: str, parameters: Sequence[SqlValue], batch_rows: int) -> pa.Schema:
        """Begin a query whose rows `next_batch` takes; the file stays attached until `close`.

        Raises:
            DestinationRejected: DuckDB refuses it, or nothing has been loaded yet.
        """
        self._access.stay_in_dataset(self._reading)

        with translated(self._reading):
            self._reader = self._statements.execute(sql, list(parameters)).to_arrow_reader(batch_rows)

        return self._reader.schema

    def next_batch(self) -> pa.RecordBatch | None:
        """The next rows of the stream; None at its end."""
        if self._reader is None:
            raise Interrupted("The database is closed.")

        try:
            with translated(self._reading):
                return next_of(self._reader)
        except DestinationRejected as error:
            if self._statements.is_cancelled:
                raise Interrupted("The caller was cancelled while it read rows.") from error

            raise

    def begin(self) -> None:
        """Begin a transaction for `run`; the file stays attached until `close`, which undoes what was not committed."""
        self._access.stay_in_dataset(self._reading)

        with translated("beginning a transaction"):
            self._statements.execute("BEGIN")

    def run(self, sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
        """Run one statement of the transaction."""
        with translated(self._reading):
            return self._statements.execute(sql, list(parameters)).to_arrow_table()

    def end(self) -> None:
        """Commit the transaction."""
        with translated("committing a transaction"), self._statements.uninterruptible():
            self._statements.execute("COMMIT")

    def close(self) -> None:
        """Close the connection, and the file that was kept open."""
        self.early.forget()
        reader, self._reader = self._reader, None

        if reader is not None:
            reader.close()

        self._access.close()

    def ask_others(self) -> None:
        """Let who holds the file know that it is wanted."""
        if self._config.path is not None:
            ask_for(lock_path(self._config.path))

    @property
    def _reading(self) -> str:
        return f"running a query on dataset {self._target.dataset_name!r}"


def _next_lease(fences: Fences, dataset: Dataset, pipeline_name: str, member: str, current: Lease | None) -> Lease:
    """A lease that makes all others useless, given the row in the dataset."""
    if current is None:
        return Lease(epoch=1)

    epoch = max(current.epoch, fences.newest(dataset.name, pipeline_name, member)) + 1
    fences.raise_to(dataset.name, pipeline_name, member, epoch)

    return Lease(epoch=epoch, head_load_id=current.head_load_id)
