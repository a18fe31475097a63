"""Iceberg tables of a dataset: one snapshot per table and package. Blocking.

Each commit puts new columns, data files and the load id into the table at once: as a property of the snapshot, and as a
property of the table, which outlives the snapshot when old ones are expired. So a package that is written again is
recognised, by whomever. A commit is refused when another one has come in between; then everything is looked up again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchTableError,
    ValidationError,
)
from pyiceberg.expressions import (
    AlwaysFalse,
    AlwaysTrue,
    And,
    BooleanExpression,
    GreaterThanOrEqual,
    LessThanOrEqual,
    Reference,
)
from pyiceberg.expressions.literals import literal
from pyiceberg.schema import Schema as IcebergSchema
from pyiceberg.typedef import Record
from pyiceberg.types import IntegerType, LongType, StringType
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.catalogs import CatalogConfig
from asyncelt.destinations.filesystem_impl.going import Going, places_of
from asyncelt.destinations.filesystem_impl.iceberg_catalog import Source, Tables, opened
from asyncelt.destinations.filesystem_impl.iceberg_files import DataFiles, View, columns_of, field_type, see, value_of
from asyncelt.destinations.filesystem_impl.iceberg_partitions import is_writable, spec_of
from asyncelt.destinations.filesystem_impl.lake import SMALL_BYTES, LakeWrite
from asyncelt.destinations.filesystem_impl.lakes import Author, pause
from asyncelt.destinations.filesystem_impl.partitioning import partitions_of, properties_of
from asyncelt.destinations.filesystem_impl.staged import (
    DOOMED,
    Doomed,
    Staged,
    bounds,
    check_types,
    read,
    small_database,
    staged_rows,
)
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.destinations.filesystem_impl.views import view_over
from asyncelt.destinations.sql.names import column, table
from asyncelt.errors import AsynceltError, DestinationRejected, DestinationUnavailable
from asyncelt.failpoints import failpoint
from asyncelt.schema.model import Table
from asyncelt.types import LoadId, TableName

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table as IcebergTable, Transaction

__all__ = ["IcebergLake", "Origin", "lake"]

_ATTEMPTS: Final = 20
_FILE: Final = "_asyncelt_file"
_AT: Final = "_asyncelt_at"
_ORDERED: Final = frozenset({(int, LongType), (int, IntegerType), (str, StringType)})
"""Types of keys by whose bounds files are left out."""
_PROPERTIES: Final = {
    # The table's history would grow for ever otherwise; manifests would become as many as there were loads.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
    "commit.manifest-merge.enabled": "true",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose rows they are: what is written into a table's metadata with them."""

    pipeline_name: str
    member: str
    load_id: LoadId

    @property
    def key(self) -> str:
        """Property of the table: the last load of this pipeline's member."""
        return f"asyncelt.last-load.{self.pipeline_name}/{self.member}"

    def is_in(self, found: IcebergTable) -> bool:
        """Whether the table has this load. Load ids of a pipeline's member grow."""
        last = found.metadata.properties.get(self.key)

        return last is not None and Decimal(last) >= Decimal(self.load_id)

    def properties(self) -> dict[str, str]:
        """Of the snapshot."""
        member = {"asyncelt.member": self.member} if self.member else {}

        return {"asyncelt.load-id": self.load_id, "asyncelt.pipeline": self.pipeline_name, **member}


@dataclass(frozen=True, slots=True)
class IcebergLake:
    """See `Lake`."""

    store: Store
    catalog: Tables

    def check(self, names: Iterable[TableName]) -> None:
        """See `Lake.check`: the catalog is there, lets us in and takes such names."""
        with opened(self.catalog, self.store) as source:
            for name in names:
                found = source.find(name)

                if found is not None:
                    _check_writable(found)

    def check_rows(self, write: LakeWrite, definition: Table, load_id: LoadId) -> None:
        """See `Lake.check_rows`."""
        where = f"Iceberg table {write.table}, load {load_id}"

        with opened(self.catalog, self.store) as source, _refusing(where):
            found = source.find(write.table)

            if found is not None:
                check_types(self.store, write, definition, value_of, View.of(found).schema, where)

    def write(self, write: LakeWrite, tables: Mapping[TableName, Table], author: Author, load_id: LoadId) -> None:
        """See `Lake.write`.

        Raises:
            DestinationRejected: The table does not take the rows.
            DestinationUnavailable: Others commit all the time, or the catalog does not answer.
        """
        origin = Origin(author.pipeline_name, author.member, load_id)

        with opened(self.catalog, self.store) as source, _refusing(f"Iceberg table {write.table}, load {load_id}"):
            for attempt in range(_ATTEMPTS):
                pause(attempt)
                current = source.find(write.table)

                if current is not None and origin.is_in(current):
                    return

                if current is None and write.mode != "append" and not write.files:
                    return

                failpoint("filesystem.before_table")

                if current is None:
                    current = _create(source, tables[write.table])

                try:
                    _Commit(source, write, tables, origin, current).make()
                except (CommitFailedException, CommitStateUnknownException, NoSuchTableError, FileNotFoundError):
                    # Another session was quicker, perhaps with this very package, and has removed what was none of its
                    # files; or no answer came. Look again.
                    continue
                except DestinationRejected:
                    found = source.find(write.table)

                    if found is not None and origin.is_in(found):
                        # Another session was quicker, and has removed the staged files.
                        return

                    raise

                failpoint("filesystem.after_table")

                return

        raise DestinationUnavailable(f"Iceberg table {write.table}: other writers were quicker {_ATTEMPTS} times.")

    def compact(self, name: TableName, load_id: LoadId, at_least: int) -> None:
        """See `Lake.compact`."""
        with opened(self.catalog, self.store) as source:
            current = source.find(name)
            tasks = [] if current is None else list(current.scan().plan_files())
            small = _small(tasks, at_least)

            if current is None or not small:
                return

            # Another writer was quicker: the next load brings the next chance.
            with contextlib.suppress(CommitFailedException):
                _compact(current, small, load_id)

    def attach(self, connection: DuckDBPyConnection, definition: Table) -> bool:
        """See `Lake.attach`: the newest snapshot."""
        with opened(self.catalog, self.store) as source, _refusing(f"Iceberg table {definition.name}"):
            found = source.find(definition.name)

            if found is None:
                return False

            name = f"_asyncelt_iceberg_{definition.name}".replace('"', "_")
            view = View.of(found)
            see(connection, name, view, found.scan().plan_files())
            connection.execute(view_over(name, definition, view.schema.names))

            return True


def lake(store: Store, catalog: CatalogConfig, namespace: str) -> IcebergLake:
    """Iceberg tables of a dataset."""
    return IcebergLake(store, Tables(catalog, namespace))


@contextlib.contextmanager
def _refusing(where: str) -> Iterator[None]:
    """What the driver raises about a table or its rows becomes an error of ours, inside the block."""
    try:
        yield
    except (pa.ArrowException, ValidationError, ValueError, NotImplementedError, FileNotFoundError) as error:
        if isinstance(error, AsynceltError):
            raise

        said = " ".join(str(error).splitlines()[:2])

        raise DestinationRejected(
            f"{where}: {said}. Mend the table (its metadata or its files) or the rows, or load into another table."
        ) from error


@dataclass(frozen=True, slots=True)
class _Commit:
    source: Source
    write: LakeWrite
    tables: Mapping[TableName, Table]
    origin: Origin
    current: IcebergTable

    def make(self) -> None:
        """One transaction: columns, files, load id.

        It is not tried again below: a package must not come twice after another session has brought it.
        """
        current = self.current
        _check_writable(current)
        # Only in this copy; the table itself keeps what its owner has set.
        current.metadata.properties["commit.retry.num-retries"] = "0"
        change = current.transaction()
        self._add_columns(change)
        change.set_properties({self.origin.key: self.origin.load_id})
        files = DataFiles(change.table_metadata, current, self.origin.load_id)

        try:
            self._stage_snapshot(change, files)
            failpoint("filesystem.before_table_commit")
            change.commit_transaction()
        except CommitStateUnknownException:
            # The files may be part of the table by now.
            raise
        except BaseException:
            files.remove()
            raise

        files.tidy()

    def _add_columns(self, change: Transaction) -> None:
        definition = self.tables.get(self.write.table)

        if definition is None:
            return

        known = set(self.current.schema().column_names)

        with change.update_schema() as update:
            for one in definition.columns.values():
                if one.data_type is not None and one.name not in known:
                    update.add_column((one.name,), field_type(one))

    def _stage_snapshot(self, change: Transaction, files: DataFiles) -> None:
        write, snapshot = self.write, change.update_snapshot(self.origin.properties())

        if write.mode in {"append", "insert"}:
            with snapshot.merge_append() as append, self._staged() as staged:
                for one in files.write(staged.reader()):
                    append.append_data_file(one)

            return

        with snapshot.overwrite() as overwrite:
            for gone, come in self._replaced(files):
                for one in gone:
                    overwrite.delete_data_file(one)

                for one in come:
                    overwrite.append_data_file(one)

    def _replaced(self, files: DataFiles) -> Iterator[tuple[Sequence[DataFile], Sequence[DataFile]]]:
        """Data files that go, and those that come in their place."""
        write = self.write

        if write.mode == "overwrite":
            yield [task.file for task in self.current.scan().plan_files()], []

            if not write.files:
                return

        with self._staged() as staged:
            if write.mode == "upsert" and staged.doomed is not None:
                rest = _Rest(staged, staged.doomed, View.of(self.current), self._candidates(staged, staged.doomed))
                # What is left of several files goes into one.
                come = files.write(rest.rows())

                yield rest.touched, come
                staged.forget_doomed()

            yield [], files.write(staged.reader())

    def _candidates(self, staged: Staged, doomed: Doomed) -> list[FileScanTask]:
        """Data files that may have rows that go, by the bounds of the first key that the table knows."""
        return _files_between(staged.connection, doomed.columns[0], doomed.values[0], self.current)

    @contextlib.contextmanager
    def _staged(self) -> Iterator[Staged]:
        def root(connection: DuckDBPyConnection, name: str, columns: Sequence[str]) -> bool:
            found = self.current if self.write.root is None else self.source.find(self.write.root)

            if found is None or not set(columns) <= set(found.schema().column_names):
                return False

            inserted = self.write.mode == "insert"
            see(
                connection,
                name,
                View.of(found),
                _files_between(connection, columns[0], columns[0], found) if inserted else found.scan().plan_files(),
                once=columns,
            )

            return True

        with staged_rows(self.source.store, self.write, self.tables, value_of, root) as staged:
            yield staged


@dataclass(slots=True)
class _Rest:
    """What stays of data files that have rows that go.

    Only the keys of a file are read to find out whether it has some; only files that have some are written anew.
    """

    staged: Staged
    doomed: Doomed
    view: View
    candidates: Sequence[FileScanTask]
    touched: list[DataFile]

    def __init__(self, staged: Staged, doomed: Doomed, view: View, candidates: Sequence[FileScanTask]) -> None:
        self.staged, self.doomed, self.view, self.candidates = staged, doomed, view, candidates
        self.touched = []

    def rows(self) -> Iterator[pa.RecordBatch]:
        goes = exp.Exists(this=exp.select(exp.Literal.number(1)).from_(table(DOOMED)).where(self.doomed.matches(_FILE)))
        numbered = exp.alias_(exp.Window(this=exp.RowNumber()), _AT, quoted=True)
        keys = exp.select(*map(column, self.doomed.columns), numbered).from_(table(_FILE)).subquery(_FILE)
        places = exp.select(exp.Sub(this=column(_AT), expression=exp.Literal.number(1))).from_(keys).where(goes)

        for task in self.candidates:
            see(self.staged.connection, _FILE, self.view, [task], once=self.doomed.columns)
            gone = Going()

            for batch in self.staged.read(places):
                gone.add(places_of(batch.column(0)))

            if gone:
                self.touched.append(task.file)
                self.staged.let_go_of_memory()
                see(self.staged.connection, _FILE, self.view, [task], once=self.view.schema.names)
                yield from self._rest(gone)

    def _rest(self, gone: Going) -> Iterator[pa.RecordBatch]:
        """Rows of the file that stay. DuckDB gives all of them in the order in which it has numbered them."""
        seen = 0

        for batch in self.staged.read(exp.select(exp.Star()).from_(table(_FILE))):
            yield gone.rest_of(batch, np.arange(seen, seen + batch.num_rows))
            seen += batch.num_rows


def _small(tasks: Sequence[FileScanTask], at_least: int) -> list[FileScanTask]:
    """Small files of partitions that have so many."""
    partitions: dict[tuple[int, Record], list[FileScanTask]] = {}

    for task in tasks:
        if task.file.file_size_in_bytes < SMALL_BYTES:
            partitions.setdefault((task.file.spec_id, task.file.partition), []).append(task)

    return [task for small in partitions.values() if len(small) >= at_least for task in small]


def _compact(current: IcebergTable, small: Sequence[FileScanTask], load_id: LoadId) -> None:
    current.metadata.properties["commit.retry.num-retries"] = "0"
    change = current.transaction()
    files = DataFiles(change.table_metadata, current, load_id, "compact")

    try:
        with (
            small_database() as connection,
            change.update_snapshot({"asyncelt.compacted-files": str(len(small))}).overwrite() as overwrite,
        ):
            view = View.of(current)
            see(connection, _FILE, view, small, once=view.schema.names)

            for come in files.write(read(connection, exp.select(exp.Star()).from_(table(_FILE)))):
                overwrite.append_data_file(come)

            for task in small:
                overwrite.delete_data_file(task.file)

        change.commit_transaction()
    except CommitStateUnknownException:
        # The files may be part of the table by now.
        raise
    except BaseException:
        files.remove()
        raise


def _create(source: Source, definition: Table) -> IcebergTable:
    columns = IcebergSchema(*columns_of(definition))
    spec = spec_of(columns, partitions_of(definition))

    return source.create(definition.name, columns, spec, _PROPERTIES | properties_of(definition))


def _check_writable(found: IcebergTable) -> None:
    if not is_writable(found.spec(), found.schema()):
        raise DestinationRejected(
            f"Iceberg table {found.name()[-1]} is partitioned by {found.spec()}, which asyncelt does not write. "
            "Give it another spec, or load into another table."
        )


def _files_between(connection: DuckDBPyConnection, name: str, value: str, found: IcebergTable) -> list[FileScanTask]:
    """Data files that may have rows whose ``name`` is among the values of `DOOMED`."""
    return list(found.scan(row_filter=_range(connection, name, value, found.schema())).plan_files())


def _range(connection: DuckDBPyConnection, name: str, value: str, schema: IcebergSchema) -> BooleanExpression:
    """Between the least and the greatest key in `DOOMED`."""
    least, most = bounds(connection, value)
    found = next((one for one in schema.fields if one.name == name), None)

    if found is None or least is None:
        return AlwaysFalse()

    if (type(least), type(found.field_type)) not in _ORDERED or "." in name:
        return AlwaysTrue()

    key = Reference(name)

    return And(GreaterThanOrEqual(term=key, value=literal(least)), LessThanOrEqual(term=key, value=literal(most)))
