"""Data files of Delta tables that are written here, and what a table's log says of them. Blocking.

The driver writes those of loads that append. Here it is a row group at a time, and whoever writes them knows which
files go for them.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction
from pyarrow.fs import FileSystem, PyFileSystem

from asyncelt.destinations.filesystem_impl.delta_views import schema_of
from asyncelt.destinations.filesystem_impl.row_groups import row_groups
from asyncelt.destinations.filesystem_impl.staged import plain_type

__all__ = ["DeltaFiles", "is_plain", "now_ms"]

_FILE_BYTES: Final = 64 * 1024 * 1024
_FEATURES: Final = frozenset({"appendOnly", "invariants", "timestampNtz"})
"""What a table may have switched on without that a writer has more to do than to write files, see `is_plain`."""
_SETTINGS: Final = ("delta.appendOnly", "delta.constraints.", "delta.enableChangeDataFeed")
"""Whoever has set them wants more of a writer, or less."""
_LONGEST: Final = 64
"""Characters of texts that stand in the log."""


def is_plain(found: DeltaTable) -> bool:
    """Whether a table takes files as they are: no partitions, no rules for rows, no further log of what has changed."""
    metadata, protocol, fields = found.metadata(), found.protocol(), found.schema().fields

    return (
        (protocol.min_writer_version <= 2 or _FEATURES.issuperset(protocol.writer_features or ("unknown",)))
        and not metadata.partition_columns
        and not any(one.startswith(_SETTINGS) for one in metadata.configuration)
        and all(isinstance(one.type, PrimitiveType) and one.nullable and not one.metadata for one in fields)
    )


def now_ms() -> int:
    """The time, as it stands in the log."""
    return int(time.time() * 1000)


@dataclass(slots=True)
class DeltaFiles:
    """The data files that one commit brings.

    Args:
        target: The table.
        address: Where it is.
        options: With which its driver gets there.
        where: For messages.
    """

    target: DeltaTable
    address: str
    options: dict[str, str]
    where: str
    _written: list[AddAction] = field(default_factory=list)
    _id: str = field(default_factory=lambda: uuid4().hex)

    def write(self, batches: Iterable[pa.RecordBatch]) -> list[AddAction]:
        """Write rows; a file is begun when the one before is large enough.

        Returns:
            What the table has to know of the files.

        Raises:
            DestinationRejected: A column of the table has a type that a value does not fit.
        """
        schema = pa.schema([one.with_type(plain_type(one.type)) for one in schema_of(self.target)])
        groups = row_groups(batches, schema, self.where)

        for group in groups:
            self._written.append(self._write_file(group, groups))

        return list(self._written)

    def remove(self) -> None:
        """Remove what was written, after a commit that failed."""
        files = self._place()

        for number in range(len(self._written) + 1):
            # The last one may not have come to be.
            with contextlib.suppress(OSError):
                files.delete_file(self._path(number))

    def _place(self) -> FileSystem:
        return PyFileSystem(DeltaStorageHandler(self.address, self.options))

    def _path(self, number: int) -> str:
        return f"part-{number:05}-{self._id}.snappy.parquet"

    def _write_file(self, first: pa.Table, others: Iterator[pa.Table]) -> AddAction:
        path = self._path(len(self._written))

        with self._place().open_output_stream(path) as stream:
            with pq.ParquetWriter(stream, first.schema, compression="snappy", store_schema=False) as writer:
                writer.write_table(first)

                while stream.tell() < _FILE_BYTES and (group := next(others, None)) is not None:
                    writer.write_table(group)

            size = stream.tell()

        stats = json.dumps(_stats(writer.writer.metadata))

        return AddAction(path, size, {}, now_ms(), data_change=True, stats=stats)


def _stats(metadata: pq.FileMetaData) -> dict[str, object]:
    """What readers leave files out by. Bounds that cannot be said exactly are not said."""
    told: dict[str, dict[str, object]] = {"minValues": {}, "maxValues": {}, "nullCount": {}}

    for number in range(metadata.num_columns):
        chunks = [metadata.row_group(group).column(number) for group in range(metadata.num_row_groups)]
        found = [one.statistics for one in chunks if one.statistics is not None and one.statistics.has_null_count]

        if len(found) < len(chunks):
            continue

        name = chunks[0].path_in_schema
        told["nullCount"][name] = sum(one.null_count for one in found)
        valued = [one for one in found if one.num_values]

        if not valued or not all(one.has_min_max for one in valued):
            continue

        # A time that Python does not have.
        with contextlib.suppress(ValueError, OverflowError):
            least, most = min(one.min for one in valued), max(one.max for one in valued)
            told["minValues"] |= _said(name, least)
            told["maxValues"] |= _said(name, most)

    return {"numRecords": metadata.num_rows, **told}


def _said(name: str, bound: object) -> dict[str, object]:
    """A bound as it stands in the log; nothing where it has no exact form there."""
    if isinstance(bound, datetime):
        said = bound.replace(tzinfo=None).isoformat(" " if bound.tzinfo is None else "T", "microseconds")

        return {name: said if bound.tzinfo is None else f"{said}Z"}

    if isinstance(bound, date):
        return {name: bound.isoformat()}

    is_exact = isinstance(bound, (bool, int)) or (isinstance(bound, float) and math.isfinite(bound))

    return {name: bound} if is_exact or (isinstance(bound, str) and len(bound) <= _LONGEST) else {}
