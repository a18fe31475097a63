"""Arrow batches as one binary COPY stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from asyncelt.destinations.postgres_impl.copy.arrays import Array, nulls
from asyncelt.destinations.postgres_impl.copy.lowering import carrier, lower
from asyncelt.destinations.postgres_impl.copy.types import (
    CopyColumn,
    CopyValueError,
    Refused,
    WireType,
    wire_type,
)
from asyncelt.errors import Unsupported

if TYPE_CHECKING:
    from pgpq import ArrowToPostgresBinaryEncoder

__all__ = ["encode"]

_PIECE_VALUES: Final = 25_000
_PIECE_BYTES: Final = 1 << 23
"""What is lowered at a time: values of one column, and bytes of all. Each column has its price per piece, which counts
in tables of some hundreds of columns; the interpreter lock is free between columns."""
_SLICE_VALUES: Final = 25_000
_SLICE_BYTES: Final = 1 << 19
"""What is made into rows at a time, values of all columns: one or two milliseconds during which the interpreter lock is
held."""


def encode(
    batches: Iterable[pa.RecordBatch], columns: Sequence[CopyColumn], *, chunk_bytes: int = 1 << 20
) -> Iterator[bytes]:
    """Yield the stream from header to trailer; without rows it is a valid stream of no rows.

    Columns are found by name; one that a batch does not have is NULL in its rows. No more than a piece of a batch and
    one chunk are held. Blocking: to be consumed in a worker thread. Between two slices others get the interpreter lock.

    Args:
        batches: The rows, of any Arrow types that fit the columns; types may differ from batch to batch.
        columns: The columns of the COPY statement, in its order.
        chunk_bytes: About how long a chunk is; the last one is shorter, one with a huge value longer.

    Yields:
        Chunks that cut rows anywhere.

    Raises:
        CopyValueError: A value does not fit its column.
        Unsupported: A type has no counterpart, or a batch has a column that the table lacks.
    """
    lanes = [_Lane(column, wire_type(column.type)) for column in columns]
    schema = pa.schema([pa.field(str(index), carrier(lane.wire)) for index, lane in enumerate(lanes)])
    encoder = _interleaver(schema, lanes)
    names = {column.name for column in columns}
    done = 0
    parts: list[bytes] = [encoder.write_header()]
    held = len(parts[0])

    for batch in batches:
        _refuse_unknown(batch, names)

        for piece in _slices(batch, _PIECE_VALUES, _PIECE_BYTES):
            arrays = [lane.lowered(piece, done) for lane in lanes]
            lowered = pa.RecordBatch.from_arrays(arrays, schema=schema)
            done += piece.num_rows

            for few in _slices(lowered, _SLICE_VALUES // max(len(lanes), 1), _SLICE_BYTES):
                parts.append(encoder.write_batch(few))
                held += len(parts[-1])

                if held >= chunk_bytes:
                    yield b"".join(parts)
                    parts, held = [], 0

    parts.append(encoder.finish())
    yield b"".join(parts)


@dataclass(frozen=True, slots=True)
class _Lane:
    column: CopyColumn
    wire: WireType

    def lowered(self, piece: pa.RecordBatch, first_row: int) -> Array:
        index = piece.schema.get_field_index(self.column.name)

        if index < 0:
            return nulls(piece.num_rows, carrier(self.wire))

        try:
            return lower(piece.column(index), self.wire)
        except Refused as refused:
            raise CopyValueError(self.column.name, first_row + refused.index, refused.reason) from None
        except Unsupported as error:
            raise Unsupported(f"Column {self.column.name!r}: {error}.") from None


def _interleaver(schema: pa.Schema, lanes: Sequence[_Lane]) -> ArrowToPostgresBinaryEncoder:
    """What makes rows of lowered columns; it has its own idea of a column's type only for ``jsonb``."""
    from pgpq import ArrowToPostgresBinaryEncoder
    from pgpq.encoders import LargeStringEncoderBuilder
    from pgpq.schema import Jsonb

    builders = {
        field.name: LargeStringEncoderBuilder.new_with_output(field, Jsonb())
        if lane.wire.kind == "jsonb"
        else ArrowToPostgresBinaryEncoder.infer_encoder(field)
        for field, lane in zip(schema, lanes, strict=True)
    }

    return ArrowToPostgresBinaryEncoder.new_with_encoders(schema, builders)


def _refuse_unknown(batch: pa.RecordBatch, names: set[str]) -> None:
    unknown = [name for name in batch.schema.names if name not in names]

    if unknown:
        raise Unsupported(f"The rows have columns that are not copied: {', '.join(map(repr, unknown))}.")


def _slices(batch: pa.RecordBatch, most_rows: int, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of so many rows and bytes, by the average size of its rows."""
    size: Any = batch.nbytes
    by_bytes = most_bytes * batch.num_rows // max(size, 1)
    rows = max(min(most_rows, by_bytes), 1)

    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
