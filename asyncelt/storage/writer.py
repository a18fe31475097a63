"""One table's way into the package: buffer, align, roll. Blocking parts are called from threads.

The engine adds conformed batches in page order (on the event loop, cheap) and takes a :class:`Chunk` out when
enough has gathered; a thread then aligns the chunk to the table's schema as of now and appends it to the open
file. A file has one schema: when the table has grown a column, the next chunk opens a new file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import pyarrow as pa

from asyncelt.config import Limits
from asyncelt.failpoints import failpoint
from asyncelt.flow import ROOT_ROW, JobFile, TableBatch
from asyncelt.schema.arrow import arrow_type
from asyncelt.schema.capabilities import Capabilities, ParquetForm
from asyncelt.schema.model import Table
from asyncelt.storage.draft import PackageDraft
from asyncelt.storage.files import fsync_file
from asyncelt.storage.formats import EXTENSIONS, FileWriter, open_writer
from asyncelt.types import FileFormat, TableName

__all__ = ["Chunk", "TableBuffer", "TableFiles", "file_schema"]

_Nothing: TypeAlias = "dict[tuple[int, pa.DataType], pa.Array[pa.Scalar[pa.DataType]]]"
"""Nulls by number and type."""


@dataclass(slots=True)
class TableBuffer:
    """Conformed batches of one table that wait to be written. Belongs to the event loop."""

    table: TableName
    batches: list[TableBatch] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0

    def add(self, batch: TableBatch, size: int) -> None:
        """Keep a batch of ``size`` bytes."""
        self.batches.append(batch)
        self.rows += batch.rows
        self.nbytes += size

    def is_full(self, limits: Limits) -> bool:
        """Whether enough has gathered for one row group."""
        return self.rows >= limits.buffer_max_items or self.nbytes >= limits.buffer_max_bytes

    def take(self, table: Table) -> Chunk:
        """Empty the buffer into a chunk that is valid under ``table``."""
        chunk = Chunk(table=table, batches=tuple(self.batches), rows=self.rows, nbytes=self.nbytes)
        self.batches = []
        self.rows = self.nbytes = 0

        return chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Rows of one table on their way into a file."""

    table: Table
    batches: tuple[TableBatch, ...]
    rows: int
    nbytes: int


def file_schema(table: Table, capabilities: Capabilities) -> pa.Schema:
    """Arrow schema of the table's files: its typed columns in order."""
    return pa.schema(
        [
            pa.field(name, arrow_type(column, capabilities))
            for name, column in table.columns.items()
            if column.data_type is not None
        ]
    )


class TableFiles:
    """The job files of one table of one package. Used by one thread at a time.

    Args:
        draft: The package.
        table: Table name; starts every file name.
        file_format: Of all files.
        limits: When to roll: ``file_max_items``, ``file_max_bytes``.
        capabilities: Decide the Arrow types.
        parquet: How Parquet files are written; None: as ``capabilities`` say.
    """

    def __init__(
        self,
        draft: PackageDraft,
        table: TableName,
        file_format: FileFormat,
        limits: Limits,
        capabilities: Capabilities,
        parquet: ParquetForm | None = None,
    ) -> None:
        self._folder = draft.jobs_folder
        self._disk = draft.disk
        self._table = table
        self._format: FileFormat = file_format
        self._parquet = parquet or capabilities.parquet

        if limits.parquet_compression is not None:
            self._parquet = replace(self._parquet, compression=limits.parquet_compression)

        self._limits = limits
        self._capabilities = capabilities
        self._writer: FileWriter | None = None
        self._schema = pa.schema([])
        self._columns: object = None
        self._numbered = False
        self._file_id = ""
        self._rows = 0
        self._nbytes = 0
        self.jobs: list[JobFile] = []

    def append(self, chunk: Chunk) -> None:
        """Write one chunk, rolling files where limits or the schema ask for it.

        Raises:
            DiskLimitReached: There is more on the disk now than there may be.
        """
        numbered = any(ROOT_ROW in batch.data.schema.names for batch in chunk.batches)

        if self._columns is not chunk.table.columns or self._numbered != numbered:
            schema = file_schema(chunk.table, self._capabilities)

            if numbered:
                schema = schema.append(pa.field(ROOT_ROW, pa.int64()))

            if schema != self._schema:
                self.finish()

            self._schema = schema
            self._columns = chunk.table.columns
            self._numbered = numbered

        aligned = _align(chunk, self._schema)

        for piece in self._pieces(aligned):
            writer = self._open()
            writer.write(piece)
            self._rows += piece.num_rows
            self._note(writer.tell())

            if self._is_full():
                self.finish()

    def finish(self) -> None:
        """Close the open file, if any, and make it durable."""
        if self._writer is None:
            return

        self._writer.close()
        self._writer = None
        name = self._file_name()
        path = self._folder / name
        fsync_file(path)
        failpoint("storage.job_written")
        self._note(path.stat().st_size)
        self.jobs.append(
            JobFile(
                job_id=f"{self._table}.{self._file_id}",
                table=self._table,
                file_name=name,
                file_format=self._format,
                rows=self._rows,
                nbytes=self._nbytes,
            )
        )

    def abandon(self) -> None:
        """Let go of the open file, if any; it is garbage."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> FileWriter:
        if self._writer is None:
            # The counter in front keeps the order of files in the order of their names.
            self._file_id = f"{len(self.jobs):04x}{os.urandom(3).hex()}"
            self._rows = self._nbytes = 0
            self._writer = open_writer(self._folder / self._file_name(), self._schema, self._format, self._parquet)

        return self._writer

    def _note(self, nbytes: int) -> None:
        """The open file has grown to this size."""
        self._disk.wrote(nbytes - self._nbytes, self._table)
        self._nbytes = nbytes

    def _file_name(self) -> str:
        return f"{self._table}.{self._file_id}.0.{EXTENSIONS[self._format]}"

    def _is_full(self) -> bool:
        limits = self._limits

        if limits.file_max_items is not None and self._rows >= limits.file_max_items:
            return True

        return self._writer is not None and self._writer.tell() >= limits.file_max_bytes

    def _pieces(self, table: pa.Table) -> list[pa.Table]:
        most = self._limits.file_max_items

        # An empty table is a file too, which makes the table exist.
        if most is None or not table.num_rows:
            return [table]

        pieces: list[pa.Table] = []
        start = 0

        while start < table.num_rows:
            room = most - (self._rows if self._writer is not None and not pieces else 0)
            size = max(min(room, table.num_rows - start), 1)
            pieces.append(table.slice(start, size))
            start += size

        return pieces


def _align(chunk: Chunk, schema: pa.Schema) -> pa.Table:
    """The chunk's batches as one table with exactly the columns of ``schema``, nulls where a batch has none."""
    nothing: _Nothing = {}
    pieces = [_in_order(batch.data, schema, nothing) for batch in chunk.batches]

    return pa.concat_tables(pieces) if pieces else schema.empty_table()


def _in_order(data: pa.Table, schema: pa.Schema, nothing: _Nothing) -> pa.Table:
    names = data.schema.names

    if set(names).issuperset(schema.names):
        # Nearly all batches: wide tables have hundreds of columns, which are left where they are.
        picked = data.select(schema.names)

        if picked.schema.equals(schema, check_metadata=True):
            return picked

    held = dict(zip(names, data.columns, strict=True))
    columns = [
        # Made anew with its type, because a table is made of columns of any type without a word.
        pa.chunked_array(
            held[name].chunks if name in held else [_nulls(data.num_rows, kind, nothing)], cast("Any", kind)
        )
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]

    return pa.Table.from_arrays(columns, schema=schema)


def _nulls(rows: int, kind: pa.DataType, nothing: _Nothing) -> pa.Array[pa.Scalar[pa.DataType]]:
    """As many nulls. One array serves all columns of its type."""
    found = nothing.get((rows, kind))

    if found is None:
        found = nothing[rows, kind] = pa.nulls(rows, cast("Any", kind))

    return found
