"""How a session gets at its database: a file is attached while a call runs, and only then, unless an owner keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import duckdb
from sqlglot import exp

from asyncelt.destinations.busy import Busy, lock_file
from asyncelt.destinations.duckdb_impl import reading
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.errors import translated
from asyncelt.destinations.duckdb_impl.fences import Fences, FileFences
from asyncelt.destinations.duckdb_impl.interruptible import Interruptible
from asyncelt.destinations.duckdb_impl.statements import DIALECT
from asyncelt.destinations.sql.names import Dataset, quoted
from asyncelt.errors import DestinationRejected

__all__ = ["Access", "commit_lock", "lock_path"]


class Access:
    """The database of one session. Used by one thread; only ``statements.interrupt`` may be called from another one.

    Args:
        config: Which database, and how it is opened.
        dataset_name: The schema in it.
    """

    def __init__(self, config: DuckDbConfig, dataset_name: str) -> None:
        self.statements = Interruptible()
        """Run on what is open at the moment."""
        self._config = config
        self._dataset_name = dataset_name
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._kept = ExitStack()
        self._keeps_file = False

    @property
    def exists(self) -> bool:
        """Whether there is a database; a file is made by the first call that writes."""
        return self._config.path is None or self._config.path.exists()

    @property
    def is_alone(self) -> bool:
        """Whether no other session has the file attached, while this one has."""
        return self._config.instance.uses == 1 + self._keeps_file

    @contextmanager
    def open(self, doing: str) -> Iterator[Dataset]:
        """Make the database available inside the block; raise our errors for DuckDB's.

        Yields:
            The dataset with its catalog: a file may be called like the dataset, then its name alone is ambiguous.

        Raises:
            Busy: Another process, or another DuckDB in this one, has the file open.
        """
        with translated(doing):
            cursor = self._ready_cursor()

            if self._config.path is None:
                catalog = _database_of(cursor)

                with self.statements.using(cursor):
                    yield Dataset(self._dataset_name, catalog)
            else:
                with self._attached(self._config.path, cursor) as catalog:
                    yield Dataset(self._dataset_name, catalog)

    @contextmanager
    def in_dataset(self, doing: str) -> Iterator[None]:
        """As `open`, and unqualified names mean tables of the dataset.

        Raises:
            DestinationRejected: Nothing has been loaded yet.
        """
        if not self.exists:
            raise DestinationRejected(f"{self._config.location} does not exist: nothing has been loaded yet.")

        with self.open(doing) as dataset:
            before = self.statements.rows("SELECT current_database(), current_schema()")[0]

            with suppress(duckdb.CatalogException):
                self.statements.execute(reading.use(dataset))

            try:
                yield
            finally:
                # Whatever became of the query: a database that is in use cannot be detached.
                self.statements.rollback()
                self.statements.undisturbed(reading.use(Dataset(str(before[1]), str(before[0]))))

    def stay_in_dataset(self, doing: str) -> None:
        """As `in_dataset`, until `close`."""
        self._kept.enter_context(self.in_dataset(doing))

    def keep_file(self) -> None:
        """Attach the file for the calls that follow, until `let_go`: an owner is about to read and commit.

        What cannot be attached now is left to these calls, which know how to wait or to share.
        """
        if self._config.path is None or self._keeps_file:
            return

        attach, detach = self._attach_statements(self._config.path)

        with suppress(duckdb.Error):
            self._kept.enter_context(self._config.instance.attached(self._ready_cursor(), attach, detach))
            self._keeps_file = True

    def let_go(self) -> None:
        """End what was kept; each further call attaches the file anew."""
        self._keeps_file = False
        self._kept.close()

    def close(self) -> None:
        """End what was kept, and close the connection."""
        cursor, self._cursor = self._cursor, None

        try:
            self.let_go()
        finally:
            if cursor is not None:
                cursor.close()

    def _ready_cursor(self) -> duckdb.DuckDBPyConnection:
        if self._cursor is None:
            self._cursor = self._config.instance.cursor(self._make_instance)
            self._cursor.execute("SET TimeZone = 'UTC'")

        return self._cursor

    def _make_instance(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(":memory:", config=self._config.options())

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
                stack.enter_context(self.statements.using(cursor))
                catalog = alias

            yield catalog

    @contextmanager
    def _sharing(self, path: Path) -> Iterator[str]:
        try:
            connection = duckdb.connect(str(path))
        except (duckdb.BinderException, duckdb.ConnectionException) as error:
            raise Busy(f"Another DuckDB in this process has {path} open.") from error

        with connection:
            catalog = _database_of(connection)
            connection.execute("SET TimeZone = 'UTC'")

            with self.statements.using(connection):
                yield catalog

    def _attach_statements(self, path: Path) -> tuple[str, str]:
        # A file that is there keeps its version: its owner may have reasons.
        version = None if path.exists() else self._config.storage_version

        return _attach_statements(path, self._config.catalog or path.stem, version)


def _database_of(connection: duckdb.DuckDBPyConnection) -> str:
    """The database that a connection is in."""
    found = connection.execute("SELECT current_database()").fetchone()

    return "" if found is None else str(found[0])


@contextmanager
def commit_lock(config: DuckDbConfig) -> Iterator[Fences]:
    """Let one writer at a time in: DuckDB would fail the second one's transaction, not make it wait.

    Yields:
        The epochs that were handed out.

    Raises:
        Busy: Another session is committing.
    """
    if config.path is None:
        with config.instance.exclusive() as fences:
            yield fences
    else:
        what = f"Another session is committing to {config.location}."

        with lock_file(lock_path(config.path), what) as descriptor:
            yield FileFences(descriptor)


def lock_path(path: Path) -> Path:
    """The lock file of a database."""
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
