"""Data files of Delta tables that are written here, and what a table's log says of them. Blocking.

The driver writes those of loads that append. Here it is a row group at a time, and whoever writes them knows which
files go for them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction

from asyncelt.destinations.filesystem_impl.delta_views import schema_of
from asyncelt.destinations.filesystem_impl.layout import path_part
from asyncelt.destinations.filesystem_impl.row_groups import row_groups
from asyncelt.destinations.filesystem_impl.staged import plain_type
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.types import TableName

__all__ = ["is_plain", "now_ms", "write_files"]

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


def write_files(
    store: Store, name: TableName, target: DeltaTable, batches: Iterable[pa.RecordBatch]
) -> list[AddAction]:
    """Write rows; a file is begun when the one before is large enough. Leaves none behind when that fails.

    Args:
        store: Where the table is.
        name: How it is called there.
        target: The table.
        batches: The rows.

    Returns:
        What the table has to know of the files.

    Raises:
        DestinationRejected: A column of the table has a type that a value does not fit.
    """
    schema = pa.schema([one.with_type(plain_type(one.type)) for one in schema_of(target)])
    groups = row_groups(batches, schema, f"Delta table {name}")
    own = uuid4().hex
    paths: list[str] = []
    written: list[AddAction] = []

    try:
        for group in groups:
            box = [group]
            del group
            file = f"part-{len(paths):05}-{own}.snappy.parquet"
            paths.append(f"{path_part(name)}/{file}")

            with store.writing(paths[-1]) as place:
                size, stats = _write_file(place, schema, box, groups)

            written.append(AddAction(file, size, {}, now_ms(), data_change=True, stats=stats))
    except BaseException:
        store.remove(paths)
        raise

    return written


def _write_file(place: Path, schema: pa.Schema, box: list[pa.Table], others: Iterator[pa.Table]) -> tuple[int, str]:
    """Write the row group that is in the box, which is empty afterwards, and others until the file is large enough.

    None is in memory when the next one is made.

    Returns:
        Its size, and what the log says of its columns.
    """
    with place.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="snappy", store_schema=False) as writer:
            writer.write_table(box.pop())

            while file.tell() < _FILE_BYTES and (group := next(others, None)) is not None:
                writer.write_table(group)
                del group

        return file.tell(), json.dumps(_stats(writer.writer.metadata))


def _stats(metadata: pq.FileMetaData) -> dict[str, object]:
    """What readers leave files out by. Bounds that cannot be said exactly are not said."""
    told: dict[str, dict[str, object]] = {"minValues": {}, "maxValues": {}, "nullCount": {}}

    for number in range(metadata.num_columns):
        chunks = [metadata.row_group(group).column(number) for group in range(metadata.num_row_groups)]
        found = [one.statistics for one in chunks if one.statistics is not None]
        nulls = [one.null_count for one in found if one.null_count is not None]
        valued = [one for one in found if one.num_values]

        if len(nulls) < len(chunks):
            continue

        name = chunks[0].path_in_schema
        told["nullCount"][name] = sum(nulls)

        # Python does not have all times.
        with suppress(ValueError, OverflowError):
            bounds: list[tuple[Any, Any]] = [(one.min, one.max) for one in valued if one.has_min_max]

            if bounds and len(bounds) == len(valued):
                told["minValues"] |= _said(name, min(least for least, _ in bounds))
                told["maxValues"] |= _said(name, max(most for _, most in bounds))

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
