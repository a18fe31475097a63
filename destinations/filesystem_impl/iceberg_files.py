"""Data files of Iceberg tables: how rows get into them, and out again. Blocking.

Files are written here and not by pyiceberg, which gathers half a gigabyte of rows for each: a row group at a time, with
the ids of the columns.
"""

from __future__ import annotations

import contextlib
import itertools
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import OutputFile
from pyiceberg.io.pyarrow import ArrowScan, ParquetFormatWriter, PyArrowFileIO, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
)
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.iceberg_partitions import Splitter
from asyncelt.destinations.filesystem_impl.row_groups import row_groups
from asyncelt.destinations.filesystem_impl.staged import plain_type
from asyncelt.destinations.sql.names import column, table
from asyncelt.errors import DestinationRejected
from asyncelt.schema.model import Column, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyiceberg.table import FileScanTask, Table as IcebergTable

__all__ = ["DataFiles", "View", "columns_of", "field_type", "see", "value_of"]

_TARGET_BYTES: Final = 512 * 1024 * 1024
"""Of Arrow, in a file. A tenth of it, or a third, on the disk; an upsert writes files anew that it touches."""
_MOST_OPEN: Final = 16
"""Files of partitions that are written at once: each may hold ten megabytes for a part of an upload."""
_BATCH_ROWS: Final = 8_192
_OURS: Final = "asyncelt-"
_SIMPLE: Final[dict[str, tuple[PrimitiveType, str]]] = {
    "text": (StringType(), "VARCHAR"),
    "json": (StringType(), "VARCHAR"),
    "double": (DoubleType(), "DOUBLE"),
    "bool": (BooleanType(), "BOOLEAN"),
    "date": (DateType(), "DATE"),
    "time": (TimeType(), "TIME"),
    "binary": (BinaryType(), "BLOB"),
}


def field_type(one: Column) -> PrimitiveType:
    """The Iceberg type of a column."""
    return _types_of(one)[0]


def value_of(one: Column) -> exp.Expression:
    """A column's value, in the type in which it is kept."""
    return exp.cast(column(one.name), exp.DataType.build(_types_of(one)[1], dialect="duckdb"))


def columns_of(definition: Table) -> Iterator[NestedField]:
    """The columns of a new table. All may be null: rows of other loads may not have them."""
    typed = (one for one in definition.columns.values() if one.data_type is not None)

    for number, one in enumerate(typed, start=1):
        yield NestedField(field_id=number, name=one.name, field_type=field_type(one), required=False)


def _types_of(one: Column) -> tuple[PrimitiveType, str]:
    if one.data_type == "bigint" and (one.precision or 0) <= 64:
        return LongType(), "BIGINT"

    if one.data_type == "timestamp":
        return (TimestampType(), "TIMESTAMP") if one.timezone is False else (TimestamptzType(), "TIMESTAMPTZ")

    if one.data_type in {"decimal", "wei", "bigint"}:
        precision = 38 if one.precision is None or one.data_type == "bigint" else one.precision
        scale = (min(9, precision) if one.data_type == "decimal" else 0) if one.scale is None else one.scale

        return DecimalType(precision, scale), f"DECIMAL({precision},{scale})"

    return _SIMPLE[str(one.data_type)]


@dataclass(slots=True)
class DataFiles:
    """The data files that one commit brings.

    Args:
        metadata: Of the table, as the commit leaves it.
        target: The table.
        load_id: In whose folder they lie.
        folder: What kind: ``load``; or ``compact``, whose files `tidy` of the same load leaves alone.
    """

    metadata: TableMetadata
    target: IcebergTable
    load_id: str
    folder: Literal["load", "compact"] = "load"
    _paths: list[str] = field(default_factory=list)
    _id: str = field(default_factory=lambda: uuid4().hex)

    def write(self, batches: Iterable[pa.RecordBatch]) -> list[DataFile]:
        """Write rows; a file is begun when the one before is large enough.

        Raises:
            DestinationRejected: A column of the table has a type that a value does not fit.
        """
        files: list[DataFile] = []
        splitter = Splitter(self.metadata.spec(), self.metadata.schema())
        writing: dict[Record, _OpenFile] = {}

        schema = schema_to_pyarrow(self.metadata.schema(), include_field_ids=True)
        where = f"Iceberg table {self.target.name()[-1]}, load {self.load_id}"

        for group in row_groups(batches, schema, where):
            for partition, rows in splitter.split(group):
                # The one that was written last is the last of them.
                writing[partition] = one = writing.pop(partition, None) or self._opened(partition)
                one.write(rows)

                if one.nbytes >= _TARGET_BYTES:
                    files.append(writing.pop(partition).close())
                elif len(writing) > _MOST_OPEN:
                    files.append(writing.pop(next(iter(writing))).close())

                del rows

            # None is in memory when the next one is made.
            del group

        return [*files, *(one.close() for one in writing.values())]

    def remove(self) -> None:
        """Remove what was written, after a commit that failed."""
        for path in self._paths:
            # One that was not finished is not there.
            with contextlib.suppress(OSError):
                self.target.io.delete(path)

    def tidy(self) -> None:
        """Remove what a session that died has written for the same load, once that is committed."""
        if not self._paths:
            return

        filesystem, path = _place_of(self.target.io, self._paths[0])
        own = {posixpath.basename(one) for one in self._paths}

        for one in filesystem.get_file_info(FileSelector(posixpath.dirname(path), allow_not_found=True)):
            if one.base_name.startswith(_OURS) and one.base_name not in own:
                filesystem.delete_file(one.path)

    def _opened(self, partition: Record) -> _OpenFile:
        path = self._next_path()
        output = self.target.io.new_output(path)
        writer = ParquetFormatWriter(output, self.metadata.schema(), self.metadata.properties)

        return _OpenFile(path, partition, self.metadata.default_spec_id, output, writer)

    def _next_path(self) -> str:
        # Like the folder of a partition: some servers take no others.
        name = f"{self.folder}={self.load_id}/{_OURS}{self._id}-{len(self._paths)}.parquet"
        self._paths.append(self.target.location_provider().new_data_location(name))

        return self._paths[-1]


@dataclass(slots=True)
class _OpenFile:
    """A data file that is being written."""

    path: str
    partition: Record
    spec_id: int
    output: OutputFile
    writer: ParquetFormatWriter
    nbytes: int = 0
    """Of Arrow."""

    def write(self, rows: pa.Table) -> None:
        """Append a row group."""
        self.writer.write(rows)
        self.nbytes += rows.nbytes

    def close(self) -> DataFile:
        """What the table has to know of it."""
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.path,
            file_format=FileFormat.PARQUET,
            partition=self.partition,
            **self.writer.close().to_serialized_dict(),
            file_size_in_bytes=len(self.output),
            sort_order_id=None,
            spec_id=self.spec_id,
            equality_ids=None,
            key_metadata=None,
        )


@dataclass(frozen=True, slots=True)
class View:
    """What is needed to read data files of a table."""

    metadata: TableMetadata
    io: PyArrowFileIO
    schema: pa.Schema
    renamed: bool
    """Whether a column had another name before, so that files have to be read by the ids of their columns."""

    @classmethod
    def of(cls, found: IcebergTable) -> View:
        """The newest version of a table.

        Raises:
            DestinationRejected: It is reached by a driver of another kind.
        """
        if not isinstance(found.io, PyArrowFileIO):
            raise DestinationRejected(f"Iceberg table {found.name()[-1]}: 'py-io-impl' has to be pyarrow's.")

        names = {(one.field_id, one.name) for schema in found.schemas().values() for one in schema.fields}

        return cls(
            metadata=found.metadata,
            io=found.io,
            schema=schema_to_pyarrow(found.schema(), include_field_ids=False),
            renamed=len({number for number, _ in names}) < len(names) or len({name for _, name in names}) < len(names),
        )


def see(
    connection: DuckDBPyConnection,
    name: str,
    view: View,
    tasks: Iterable[FileScanTask],
    *,
    once: Sequence[str] | None = None,
) -> None:
    """Make a view over some data files, under a name.

    Files that were written here are read by DuckDB through Arrow, only the columns and row groups that it needs.
    Others, and those with deleted rows, are read by pyiceberg, one at a time, into a table of this DuckDB.

    Args:
        connection: Where.
        name: Of the view.
        view: The table.
        tasks: Its files.
        once: Of files that were written here these columns are seen, once, in small memory.
    """
    plain: list[FileScanTask] = []
    others: list[FileScanTask] = []

    for task in tasks:
        ours = posixpath.basename(task.file.file_path).startswith(_OURS)
        (plain if ours and not task.delete_files and not view.renamed else others).append(task)

    plain.sort(key=lambda task: _place_in_time(task.file.file_path))
    sources = []

    for number, rows in enumerate(_datasets(view, plain) if once is None else [_streamed(view, plain, once)]):
        sources.append(f"{name}_files_{number}")
        connection.register(sources[-1], rows)

    if others:
        sources.append(f"{name}_rows")
        _copy(connection, sources[-1], view, others)

    selects = [exp.select(exp.Star()).from_(table(one)) for one in sources]
    union: exp.Query = selects[0]

    for one in selects[1:]:
        union = exp.Union(this=union, expression=one, distinct=False, by_name=True)

    create = exp.Create(
        this=table(name),
        kind="VIEW",
        expression=union,
        replace=True,
        properties=exp.Properties(expressions=[exp.TemporaryProperty()]),
    )
    connection.execute(create.sql(dialect="duckdb"))


def _place_in_time(path: str) -> tuple[str, str, int]:
    """Files of one load by number, after those of earlier loads: rows come in the order in which they were loaded.

    Those that were put together after a load come before its own, for they have older rows.
    """
    folder, name = posixpath.split(path)
    kind, _, load_id = posixpath.basename(folder).partition("=")

    return load_id, kind, int(name.removesuffix(".parquet").rpartition("-")[2])


def _datasets(view: View, tasks: Sequence[FileScanTask]) -> Iterator[ds.Dataset]:
    """The files by where they are; an empty one where there are none."""
    form = ds.ParquetFileFormat()
    groups: dict[int, tuple[FileSystem, list[ds.Fragment]]] = {}

    for task in tasks:
        filesystem, path = _place_of(view.io, task.file.file_path)
        groups.setdefault(id(filesystem), (filesystem, []))[1].append(form.make_fragment(path, filesystem=filesystem))

    for filesystem, fragments in groups.values():
        yield ds.FileSystemDataset(fragments, view.schema, form, filesystem)

    if not groups:
        yield ds.dataset(pa.Table.from_batches([], view.schema))


def _streamed(view: View, tasks: Sequence[FileScanTask], columns: Sequence[str]) -> object:
    """Rows of files that were written here, a batch at a time, as DuckDB takes them.

    Neither a dataset nor a reader: DuckDB gives both to a scanner of Arrow, which reads up to a gigabyte ahead in
    threads of its own.
    """
    schema = pa.schema([one.with_type(plain_type(one.type)) for one in view.schema if one.name in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for task in tasks:
            filesystem, path = _place_of(view.io, task.file.file_path)

            with filesystem.open_input_file(path) as file:
                parquet = pq.ParquetFile(file)
                known = [one for one in schema.names if one in parquet.schema_arrow.names]

                # One after the other: it would keep what it has of all of them until the last one ends.
                for number in range(parquet.num_row_groups):
                    for batch in parquet.iter_batches(
                        _BATCH_ROWS, row_groups=[number], columns=known, use_threads=False
                    ):
                        yield _as_shown(batch, schema)

    stream: Any = pa.RecordBatchReader.from_batches(schema, batches())

    return cast("object", stream.__arrow_c_stream__())


def _as_shown(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """With the columns that the table has by now."""
    names = batch.schema.names
    arrays = [
        batch.column(one.name).cast(one.type) if one.name in names else pa.nulls(batch.num_rows, one.type)
        for one in schema
    ]

    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _copy(connection: DuckDBPyConnection, name: str, view: View, tasks: Sequence[FileScanTask]) -> None:
    scan = ArrowScan(view.metadata, view.io, view.metadata.schema(), AlwaysTrue())
    batches = itertools.chain.from_iterable(scan.to_record_batches([task]) for task in tasks)
    incoming = f"{name}_incoming"
    connection.register(
        incoming, pa.RecordBatchReader.from_batches(view.schema, (one.cast(view.schema) for one in batches))
    )
    select = exp.select(exp.Star()).from_(table(incoming))
    create = exp.Create(this=table(name), kind="TABLE", expression=select, replace=True)
    connection.execute(create.sql(dialect="duckdb"))
    connection.unregister(incoming)


def _place_of(io: object, location: str) -> tuple[FileSystem, str]:
    """The file system of a data file, and its path there."""
    if not isinstance(io, PyArrowFileIO):
        raise DestinationRejected(f"{location}: 'py-io-impl' of the Iceberg catalog has to be pyarrow's.")

    scheme, netloc, path = PyArrowFileIO.parse_location(location, io.properties)

    return io.fs_by_scheme(scheme, netloc), path
