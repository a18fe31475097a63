"""Delta tables of a dataset: one commit per table and package. Blocking.

Each commit carries an application transaction: who (pipeline and member), and the load id as a number, which grows. So
a package that is written again is recognised, by whomever. A commit is refused when another one has come in between;
then the transaction is looked up again. Rows are streamed from the staged files, a batch at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.catalogs import CatalogConfig
from asyncelt.destinations.filesystem_impl.delta_upsert import upsert
from asyncelt.destinations.filesystem_impl.delta_views import schema_of, see
from asyncelt.destinations.filesystem_impl.lake import SMALL_BYTES, LakeWrite
from asyncelt.destinations.filesystem_impl.lakes import Author, pause
from asyncelt.destinations.filesystem_impl.partitioning import partition_columns
from asyncelt.destinations.filesystem_impl.staged import check_types, staged_rows
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.destinations.filesystem_impl.views import view_over
from asyncelt.destinations.sql.names import column
from asyncelt.errors import DestinationRejected, DestinationUnavailable, Unsupported
from asyncelt.failpoints import failpoint
from asyncelt.schema.model import Column, Table
from asyncelt.types import LoadId, TableName

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Application", "DeltaLake", "lake"]

_GROUP_ROWS: Final = 131_072
_FILE_BYTES: Final = 64 * 1024 * 1024
"""The driver keeps the file that it writes in memory, and the rows of a row group twice."""
_ATTEMPTS = 20
_PANIC: Final = "PanicException"
"""Of the Rust runtime; no module has it."""
_STATUS: Final = re.compile(r"status (?:code:? )?(\d{3})")
_PASSING: Final = ("HTTP error", "error sending request", "timed out", "onnection reset", "onnection closed")
"""What the driver says when a server did not answer."""
_UNREAD: Final = frozenset({"deletionVectors", "columnMapping"})
"""Features of tables whose files do not have the rows and columns as they are."""
_AS_TEXT = frozenset({"time", "json"})
"""Types that Delta does not have."""


@dataclass(frozen=True, slots=True)
class Application:
    """What is written into a table's log with the rows."""

    pipeline_name: str
    member: str
    load_id: LoadId

    @property
    def name(self) -> str:
        """Whose packages come in the order of their versions."""
        return f"asyncelt/{self.pipeline_name}/{self.member}"

    @property
    def version(self) -> int:
        """Grows with each package of a pipeline's member."""
        return int(Decimal(self.load_id) * 1_000_000)

    def is_in(self, found: DeltaTable | None) -> bool:
        """Whether a table has this load."""
        return found is not None and (found.transaction_version(self.name) or -1) >= self.version

    def properties(self) -> CommitProperties:
        """Of the commit. No retries: it must not come twice after another session has made it."""
        return CommitProperties(
            app_transactions=[Transaction(self.name, self.version)],
            custom_metadata={"load_id": self.load_id, "pipeline_name": self.pipeline_name},
            max_commit_retries=0,
        )


@dataclass(frozen=True, slots=True)
class DeltaLake:
    """See `Lake`."""

    store: Store
    _checked: dict[str, DeltaTable] = field(default_factory=dict, repr=False, compare=False)
    """Tables as `check_rows` has found them, for the first attempt at a commit: it is refused if they have changed."""

    def check(self, names: Iterable[TableName]) -> None:
        """See `Lake.check`: a table is reached as all files of the dataset are."""
        for name in names:
            if "%" in self.store.table_address(name)[0]:
                raise Unsupported(f"Table {name}: Delta's driver cannot read addresses with a percent sign. Rename it.")

    def check_rows(self, write: LakeWrite, definition: Table, load_id: LoadId) -> None:
        """See `Lake.check_rows`."""
        address, options = self.store.table_address(write.table)
        where = f"Delta table {write.table}, load {load_id}"

        with _guarded(address, f", load {load_id}"):
            found = _found(address, options)

            if found is not None:
                self._checked[address] = found
                check_types(self.store, write, definition, _value, schema_of(found), where)

    def write(self, write: LakeWrite, tables: Mapping[TableName, Table], author: Author, load_id: LoadId) -> None:
        """See `Lake.write`.

        Raises:
            DestinationRejected: The table does not take the rows.
            DestinationUnavailable: Others commit all the time.
        """
        address, options = self.store.table_address(write.table)
        application = Application(author.pipeline_name, author.member, load_id)

        with _guarded(address, f", load {load_id}"):
            self._commit(write, tables, application, address, options)

    def _commit(
        self,
        write: LakeWrite,
        tables: Mapping[TableName, Table],
        application: Application,
        address: str,
        options: dict[str, str],
    ) -> None:
        for attempt in range(_ATTEMPTS):
            pause(attempt)
            current = self._checked.pop(address, None) or _found(address, options)

            if application.is_in(current):
                return

            failpoint("filesystem.before_table")

            try:
                _write(self.store, write, tables, current or address, application.properties())
            except CommitFailedError:
                # Another session was quicker, perhaps with this very package.
                continue
            except (DeltaError, DestinationRejected):
                if application.is_in(_found(address, options)):
                    # Another session was quicker, and has removed the staged files.
                    return

                raise

            failpoint("filesystem.after_table")

            return

        raise DestinationUnavailable(f"Delta table {address}: other writers were quicker {_ATTEMPTS} times.")

    def compact(self, name: TableName, load_id: LoadId, at_least: int) -> None:
        """See `Lake.compact`."""
        address, options = self.store.table_address(name)

        with _guarded(address, f", after load {load_id}"):
            found = _found(address, options)

            if found is None or _most_small(found) < at_least:
                return

            # Another writer was quicker: the next load brings the next chance.
            with suppress(CommitFailedError):
                found.optimize.compact(max_concurrent_tasks=1, commit_properties=CommitProperties(max_commit_retries=0))

    def attach(self, connection: DuckDBPyConnection, definition: Table) -> bool:
        """See `Lake.attach`."""
        name = f"_asyncelt_delta_{definition.name}".replace('"', "_")

        address, options = self.store.table_address(definition.name)

        with _guarded(address):
            found = _found(address, options)

            if found is None:
                return False

            see(connection, name, self.store, definition.name, found)
            columns = schema_of(found).names

        connection.execute(view_over(name, definition, columns))

        return True


def lake(store: Store, _catalog: CatalogConfig, _namespace: str) -> DeltaLake:
    """Delta tables of a dataset."""
    return DeltaLake(store)


@contextmanager
def _guarded(address: str, where: str = "") -> Iterator[None]:
    """What the driver raises becomes an error of ours, inside the block.

    It has no classes for what may pass, and raises bare exceptions as well. Where it panics, on a log that somebody has
    damaged for instance, it raises what is no `Exception`, which would end the event loop and not the run.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, PermissionError) or (_is_of_driver(error) and not _may_pass(error)):
            raise DestinationRejected(
                f"Delta table {address}{where}: {error}. Mend the table or the rows, or load into another table."
            ) from error

        if _is_of_driver(error):
            raise DestinationUnavailable(f"Delta table {address}{where}: {error}") from error

        if type(error).__name__ != _PANIC:
            raise

        said = str(error).partition("\n")[0]

        raise DestinationRejected(
            f"Delta table {address}{where}: its driver gave up: {said}. Its log (_delta_log) or one of its files may "
            "be damaged: restore them, or load into another table."
        ) from error


def _is_of_driver(error: BaseException) -> bool:
    """Whether the driver has raised it: an error of its own, or the very class that it takes for what has no name."""
    return isinstance(error, (DeltaError, OSError)) or type(error) in {Exception, ValueError, NotImplementedError}


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help: the driver tells only in words."""
    said = str(error)

    if status := _STATUS.search(said):
        return status[1][0] == "5" or status[1] in {"408", "429"}

    return isinstance(error, OSError) or any(word in said for word in _PASSING)


def _most_small(found: DeltaTable) -> int:
    """Of all partitions, the most small files."""
    files = pa.table(found.get_add_actions(flatten=True))
    small = files.filter(pc.less(files.column("size_bytes"), pa.scalar(SMALL_BYTES)))
    partitions = [f"partition.{one}" for one in found.metadata().partition_columns]

    if not partitions:
        return small.num_rows

    counts = small.group_by(partitions).aggregate([([], "count_all")]).column("count_all")

    return int(pc.max(counts).as_py() or 0)


def _found(address: str, options: dict[str, str]) -> DeltaTable | None:
    try:
        # Not is_deltatable(), which holds the interpreter lock, and so stops the event loop, while it asks a bucket.
        found = DeltaTable(address, storage_options=options)
    except TableNotFoundError:
        return None

    unread = _UNREAD.intersection(found.protocol().reader_features or ())

    if unread:
        raise DestinationRejected(
            f"Delta table {address}: others have switched on {', '.join(sorted(unread))}, not read by asyncelt: "
            "what they have deleted would come back. Switch it off and purge the table, or load into another table."
        )

    return found


def _write(
    store: Store,
    write: LakeWrite,
    tables: Mapping[TableName, Table],
    target: DeltaTable | str,
    properties: CommitProperties,
) -> None:
    known = target if isinstance(target, DeltaTable) else None

    if not write.files and not (write.mode == "upsert" and known):
        if write.mode == "overwrite" and known:
            known.delete(commit_properties=properties)

        return

    def root(connection: DuckDBPyConnection, name: str, columns: Sequence[str]) -> bool:
        seen = write.root or write.table
        found = _found(*store.table_address(seen))

        if found is None or not set(columns) <= set(schema_of(found).names):
            return False

        see(connection, name, store, seen, found)

        return True

    definition = tables[write.table]

    with staged_rows(store, write, tables, _value, root) as staged:
        if write.mode == "upsert":
            if known and upsert(staged, store, write, definition, known, properties):
                return

            staged.forget_doomed()

        write_deltalake(
            target,
            staged.reader(),
            mode="overwrite" if write.mode == "overwrite" else "append",
            schema_mode="merge",
            writer_properties=WriterProperties(max_row_group_size=_GROUP_ROWS),
            target_file_size=_FILE_BYTES,
            # One that is there keeps what it has been given.
            partition_by=None if known else [str(one) for one in partition_columns(definition)] or None,
            storage_options=store.table_address(write.table)[1],
            commit_properties=properties,
        )


def _value(one: Column) -> exp.Expression:
    value: exp.Expression = column(one.name)

    if one.data_type in _AS_TEXT:
        value = exp.cast(value, "VARCHAR")

    return value
