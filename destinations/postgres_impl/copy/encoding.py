"""Arrow batches into binary COPY, by pgpq."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pgpq
import pyarrow as pa
from pgpq import encoders, schema as types

from asyncelt.destinations.postgres_impl.copy.columns import CopyColumn

__all__ = ["encode"]

_ROWS = 4096
_FIXED: dict[str, pa.DataType] = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "bytea": pa.binary(),
}


def encode(
    batches: Iterable[pa.RecordBatch], columns: Sequence[CopyColumn], *, chunk_bytes: int = 1 << 20
) -> Iterator[bytes]:
    """Yield header, rows and trailer of a COPY, in pieces of about ``chunk_bytes``.

    Args:
        batches: With the columns, in their order.
        columns: Of the table.
        chunk_bytes: A piece is yielded when it has grown to this size.
    """
    schema = pa.schema([pa.field(f"c{at}", _arrow(one)) for at, one in enumerate(columns)])
    builders = {field.name: _builder(field, one) for field, one in zip(schema, columns, strict=True)}
    encoder = pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(schema, builders)
    buffer = bytearray(encoder.write_header())

    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            piece = batch.slice(start, _ROWS)
            arrays = [_cast(column, field.type) for column, field in zip(piece.columns, schema, strict=True)]
            buffer += encoder.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

            if len(buffer) >= chunk_bytes:
                yield bytes(buffer)
                buffer.clear()

    buffer += encoder.finish()

    yield bytes(buffer)


def _arrow(column: CopyColumn) -> pa.DataType:
    kind = column.type

    if kind in _FIXED:
        return _FIXED[kind]

    if kind.startswith("numeric"):
        digits = re.search(r"\((\d+),(\d+)\)", kind)
        precision, scale = (38, 9) if digits is None else (int(digits[1]), int(digits[2]))

        return pa.decimal128(38, 0 if precision > 38 else scale)

    if kind.startswith("timestamp"):
        return pa.timestamp("us") if "without" in kind else pa.timestamp("us", "UTC")

    if kind.startswith("time"):
        return pa.time64("us")

    return pa.string()


def _cast(array: pa.Array[Any], kind: pa.DataType) -> pa.Array[Any]:
    return array if array.type == kind else array.cast(kind)


def _builder(field: pa.Field[Any], column: CopyColumn) -> Any:
    if column.type == "jsonb":
        return encoders.StringEncoderBuilder.new_with_output(field, types.Jsonb())

    return pgpq.ArrowToPostgresBinaryEncoder.infer_encoder(field)
