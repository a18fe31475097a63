"""The blocking side: one connection to one DuckDB database, used by one thread.

A file is attached while a call runs, and only then.

Only :meth:`Database.interrupt` is called from another thread (the event loop's).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa
from sqlglot import exp

from asyncelt.destinations.busy import Busy, ask_for, lock_file
from asyncelt.destinations.duckdb_impl import reading
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.early import Early, asked_ns
from asyncelt.destinations.duckdb_impl.errors import Interrupted, translated
from asyncelt.destinations.duckdb_impl.fences import Fences, FileFences
from asyncelt.destinations.duckdb_impl.interruptible import Interruptible
from asyncelt.destinations.duckdb_impl.positions import claim_positions
from asyncelt.destinations.duckdb_impl.staged import JobPaths, job_paths
from asyncelt.destinations.duckdb_impl.statements import DIALECT
from asyncelt.destinations.duckdb_impl.transaction import commit_packages
from asyncelt.destinations.duckdb_impl.tuning import (
    FittedMemory,
    appended_columns,
    leave_out_fsst,
    ran_out_of_memory,
)
from asyncelt.destinations.duckdb_impl.writing import Work
from asyncelt.destinations.local_sql import next_of
from asyncelt.destinations.sql.names import Dataset, quoted
from asyncelt.errors import CommitUnknown, DestinationRejected, DestinationUnavailable, LoadError
from asyncelt.flow import PositionClaim
from asyncelt.load.protocol import Commit, CommitResult, EarlyJob, Lease, Restored, StoredPosition, Target
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
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._statements = Interruptible()
        self.interrupt = self._statements.interrupt
        """From another thread: stops the statement that runs, and lets no other one begin."""
        self._hold = ExitStack()
        self._holds = False
        self._reader: pa.RecordBatchReader | None = None
        self._early: Early | None = None

    def restore(self, pipeline_name: str) -> Restored:
        """What the dataset knows about the pipeline; a file that does not exist is not created."""
        if not self._exists():
            return Restored()

        with self._open(f"reading the state of pipeline {pipeline_name!r}") as dataset:
            return reading.restore(self._statements, dataset, pipeline_name, self._target.member)

    def acquire(self, pipeline_name: str, member: str) -> Lease:
        """Make every lease that was handed out before useless. Writes nothing to the database.

        A pipeline that has never committed has no lease row: two owners of an empty dataset are told apart by the
        first commit, which makes the row and moves the head.
        """
        if not self._exists():
            return Lease(epoch=1)

        self._keep_open()

        with self._commit_lock() as fences, self._open(f"taking the lease of pipeline {pipeline_name!r}") as dataset:
            current = reading.lease(self._statements, dataset, pipeline_name, member)

            if current is None:
                return Lease(epoch=1)

            epoch = max(current.epoch, fences.newest(pipeline_name, member)) + 1
            fences.raise_to(pipeline_name, member, epoch)

            return Lease(epoch=epoch, head_load_id=current.head_load_id)

    def load_early(self, jobs: Sequence[EarlyJob]) -> bool:
        """Write job files into the transaction of the commit to come; False: nothing is kept of it.

        Should it fail for whatever reason, then the commit meets that reason again and says so.
        """
        if self._config.path is None:
            return False

        try:
            if self._early is None:
                self._early = self._begin_early(self._config.path)

            if not self._early.is_wanted_by_others:
                leave_out_fsst(self._statements, self._config, [one.table for one in jobs])
                self._early.write(jobs)

                return True
        except (duckdb.Error, LoadError, OSError):
            pass
        except BaseException:
            self.forget_early()
            raise

        self.forget_early()

        return False

    @property
    def holds_early(self) -> bool:
        """Whether a transaction waits for its commit."""
        return self._early is not None

    def forget_early(self) -> None:
        """Roll back what was written early."""
        early, self._early = self._early, None

        if early is None:
            return

        try:
            early.hold.close()
        except (duckdb.Error, LoadError):
            # A file that cannot be let go of, for instance on a full disk: the next call attaches it anew.
            with suppress(duckdb.Error):
                self.close()

    def _begin_early(self, path: Path) -> Early:
        path.parent.mkdir(parents=True, exist_ok=True)

        with ExitStack() as stack:
            fences = stack.enter_context(self._commit_lock())
            asked = asked_ns(_lock_path(path))
            dataset = stack.enter_context(self._open("loading early"))
            memory = FittedMemory(self._statements, self._config, is_alone=self._is_alone)
            stack.callback(memory.restore)
            self._statements.execute("BEGIN TRANSACTION")
            stack.callback(self._statements.rollback)
            work = Work(
                self._statements,
                dataset,
                reading.read_catalog(self._statements, dataset),
                self._config.replace_strategy,
            )

            return Early(
                work=work,
                hold=stack.pop_all(),
                fences=fences,
                memory=memory,
                lock_path=_lock_path(path),
                asked_ns=asked,
                deadline=Early.deadline_after(self._config.busy_timeout_s),
            )

    def commit(self, commit: Commit, staging: Staging | None = None) -> CommitResult:
        """Everything in one transaction; see `transaction`. Job files are read where they are staged, if they are."""
        load_ids = ", ".join(package.load_id for package in commit.packages)

        if self._config.path is not None:
            self._config.path.parent.mkdir(parents=True, exist_ok=True)

        if self._early is not None and (staging is not None or not self._early.fits(commit)):
            self.forget_early()

        early, self._early = self._early, None
        target = commit.target

        try:
            with ExitStack() as stack:
                if early is None:
                    fences = stack.enter_context(self._commit_lock())
                    dataset = stack.enter_context(self._open(f"committing {load_ids}"))
                else:
                    fences, dataset = early.fences, early.work.dataset
                    stack.enter_context(early.hold)
                    stack.enter_context(translated(f"committing {load_ids}"))

                leave_out_fsst(
                    self._statements,
                    self._config,
                    [table for one in commit.packages for table in one.schema.tables.values()],
                )
                newest = fences.newest(target.pipeline_name, target.member)
                paths = stack.enter_context(job_paths(self._statements.connection, staging))

                return self._committed(dataset, commit, newest, paths, early)
        except (DestinationUnavailable, CommitUnknown):
            # A disk that was full leaves DuckDB a database that it does not use until the file is attached anew.
            self._holds = False

            with suppress(duckdb.Error):  # the commit's error is the one to report
                self._hold.close()

            raise

    def _committed(
        self, dataset: Dataset, commit: Commit, newest: int, paths: JobPaths, early: Early | None
    ) -> CommitResult:
        strategy = self._config.replace_strategy
        is_less = False

        if early is None:
            memory = FittedMemory(self._statements, self._config, is_alone=self._is_alone)
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

    @property
    def _is_alone(self) -> bool:
        return self._config.instance.uses == 1 + self._holds

    def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """Which of the load ids are in ``_dlt_loads``."""
        if not load_ids or not self._exists():
            return frozenset()

        with self._open("asking for committed loads") as dataset:
            return reading.committed(self._statements, dataset, load_ids)

    def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """Load ids that this run has committed."""
        if not self._exists():
            return ()

        with self._open(f"asking for run {run_id!r}") as dataset:
            return reading.run_of(self._statements, dataset, pipeline_name, run_id)

    def positions(self, pipeline_name: str) -> tuple[StoredPosition, ...]:
        """What is committed of the pipeline's message sources."""
        if not self._exists():
            return ()

        with self._open("reading positions") as dataset:
            return reading.positions(self._statements, dataset, pipeline_name)

    def claim(self, pipeline_name: str, claims: Sequence[PositionClaim]) -> list[StoredPosition]:
        """Take partitions of message sources over."""
        if self._config.path is not None:
            self._config.path.parent.mkdir(parents=True, exist_ok=True)

        with self._commit_lock(), self._open("taking partitions over") as dataset:
            return claim_positions(self._statements, dataset, pipeline_name, claims)

    def query(self, sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
        """Run one statement of the user.

        Raises:
            DestinationRejected: DuckDB refuses it, or nothing has been loaded yet.
        """
        with self._in_dataset():
            return self._statements.execute(sql, list(parameters)).to_arrow_table()

    def begin_stream(self, sql: str, parameters: Sequence[SqlValue], batch_rows: int) -> pa.Schema:
        """Begin a query whose rows `next_batch` takes; the file stays attached until `close`.

        Raises:
            DestinationRejected: DuckDB refuses it, or nothing has been loaded yet.
        """
        self._hold.enter_context(self._in_dataset())

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
        self._hold.enter_context(self._in_dataset())

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
        self.forget_early()
        self._holds = False
        cursor, self._cursor = self._cursor, None
        reader, self._reader = self._reader, None

        if reader is not None:
            reader.close()

        try:
            self._hold.close()
        finally:
            if cursor is not None:
                cursor.close()

    def ask_others(self) -> None:
        """Let who holds the file know that it is wanted."""
        if self._config.path is not None:
            ask_for(_lock_path(self._config.path))

    def _keep_open(self) -> None:
        """Attach the file for the calls that follow, until `close`: an owner is about to read and commit.

        What cannot be attached now is left to these calls, which know how to wait or to share.
        """
        if self._config.path is None or self._holds:
            return

        attach, detach = self._attach_statements(self._config.path)

        with suppress(duckdb.Error):
            self._hold.enter_context(self._config.instance.attached(self._ready_cursor(), attach, detach))
            self._holds = True

    def _ready_cursor(self) -> duckdb.DuckDBPyConnection:
        if self._cursor is None:
            self._cursor = self._config.instance.cursor(self._make_instance)
            self._cursor.execute("SET TimeZone = 'UTC'")

        return self._cursor

    def _exists(self) -> bool:
        return self._config.path is None or self._config.path.exists()

    @contextmanager
    def _open(self, doing: str) -> Iterator[Dataset]:
        """Make the database available inside the block; raise our errors for DuckDB's.

        Yields:
            The dataset with its catalog: a file may be called like the dataset, then its name alone is ambiguous.

        Raises:
            Busy: Another process, or another DuckDB in this one, has the file open.
        """
        with translated(doing):
            cursor = self._ready_cursor()

            if self._config.path is None:
                with self._statements.using(cursor) as catalog:
                    yield Dataset(self._target.dataset_name, catalog)
            else:
                with self._attached(self._config.path, cursor) as catalog:
                    yield Dataset(self._target.dataset_name, catalog)

    @contextmanager
    def _in_dataset(self) -> Iterator[None]:
        """Make the database available inside the block, and unqualified names mean tables of the dataset."""
        if not self._exists():
            raise DestinationRejected(f"{self._config.location} does not exist: nothing has been loaded yet.")

        with self._open(self._reading) as dataset:
            before = self._statements.rows("SELECT current_database(), current_schema()")[0]

            with suppress(duckdb.CatalogException):
                self._statements.execute(reading.use(dataset))

            try:
                yield
            finally:
                # Whatever became of the query: a database that is in use cannot be detached.
                self._statements.rollback()
                self._statements.undisturbed(reading.use(Dataset(str(before[1]), str(before[0]))))

    def _attach_statements(self, path: Path) -> tuple[str, str]:
        # A file that is there keeps its version: its owner may have reasons.
        version = None if path.exists() else self._config.storage_version

        return _attach_statements(path, self._config.catalog or path.stem, version)

    @property
    def _reading(self) -> str:
        return f"running a query on dataset {self._target.dataset_name!r}"

    @contextmanager
    def _attached(self, path: Path, cursor: duckdb.DuckDBPyConnection) -> Iterator[str]:
        alias = self._config.catalog or path.stem
        attach, detach = self._attach_statements(path)

        with ExitStack() as stack:
            try:
                stack.enter_context(self._config.instance.attached(cursor, attach, detach))
            except duckdb.BinderException as error:
                if "file handle conflict" not in str(error):
                    raise

                # Another DuckDB of this process has it: usually the caller's own connection, which can be shared.
                catalog = stack.enter_context(self._sharing(path))
            else:
                stack.enter_context(self._statements.using(cursor))
                catalog = alias

            yield catalog

    @contextmanager
    def _sharing(self, path: Path) -> Iterator[str]:
        try:
            connection = duckdb.connect(str(path))
        except (duckdb.BinderException, duckdb.ConnectionException) as error:
            raise Busy(f"Another DuckDB in this process has {path} open.") from error

        with connection, self._statements.using(connection) as catalog:
            connection.execute("SET TimeZone = 'UTC'")
            yield catalog

    def _make_instance(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(":memory:", config=self._config.options())

    @contextmanager
    def _commit_lock(self) -> Iterator[Fences]:
        """Let one writer at a time in: DuckDB would fail the second one's transaction, not make it wait."""
        path = self._config.path

        if path is None:
            with self._config.instance.exclusive() as fences:
                yield fences
        else:
            what = f"Another session is committing to {self._config.location}."

            with lock_file(_lock_path(path), what) as descriptor:
                yield FileFences(descriptor)


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".asyncelt.lock")


@lru_cache(maxsize=64)
def _attach_statements(path: Path, alias: str, storage_version: str | None) -> tuple[str, str]:
    """ATTACH and DETACH under the name that DuckDB itself would give the file."""
    name = quoted(alias, DIALECT)
    file = exp.Literal.string(str(path)).sql(dialect=DIALECT)

    if storage_version is None:
        return f"ATTACH {file} AS {name}", f"DETACH {name}"

    version = exp.Literal.string(storage_version).sql(dialect=DIALECT)

    return f"ATTACH {file} AS {name} (STORAGE_VERSION {version})", f"DETACH {name}"
