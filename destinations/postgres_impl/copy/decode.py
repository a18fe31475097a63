"""One binary COPY stream as Arrow batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from asyncelt.destinations.postgres_impl.copy.arrays import Array, Bytes, Positions, concatenated
from asyncelt.destinations.postgres_impl.copy.frames import PADDING, Framer
from asyncelt.destinations.postgres_impl.copy.lifting import Fields, lift
from asyncelt.destinations.postgres_impl.copy.types import (
    CopyColumn,
    CopyValueError,
    Refused,
    arrow_type_of,
    wire_type,
)
from asyncelt.errors import LoadError

__all__ = ["decode"]

_SLICE_BYTES: Final = 1 << 18
"""A few milliseconds of work; the interpreter lock is free between slices."""
_BATCH_BYTES: Final = 32 << 20


def decode(chunks: Iterable[bytes], columns: Sequence[CopyColumn], *, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a stream as batches of ``batch_rows`` rows; none for a stream without rows.

    The types are those of `arrow_type_of`. Batches of large rows end earlier, so that memory stays bounded; the last
    may be shorter. Blocking: to be consumed in a worker thread.

    Args:
        chunks: The stream, cut anywhere.
        columns: The columns of the COPY statement, in its order.
        batch_rows: Most rows of a batch.

    Raises:
        CopyValueError: A value that Arrow's type cannot hold: NaN in a decimal, for instance.
        LoadError: The stream is broken: no COPY stream, other columns, or it ends too early.
        Unsupported: The codec does not know a type.
    """
    held: list[pa.RecordBatch] = []
    rows = size = 0

    for piece in _pieces(chunks, columns, batch_rows):
        if held and (rows + piece.num_rows > batch_rows or size + piece.nbytes > _BATCH_BYTES):
            # The remainder of a piece fills the batch to its brim.
            brim = batch_rows - rows if size + piece.nbytes <= _BATCH_BYTES else 0
            yield concatenated([*held, piece.slice(0, brim)])
            held, piece = [], piece.slice(brim)  # noqa: PLW2901 - what is left of it
            rows = size = 0

        held.append(piece)
        rows += piece.num_rows
        size += piece.nbytes

    if rows:
        yield concatenated(held)


def _pieces(chunks: Iterable[bytes], columns: Sequence[CopyColumn], most_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows in pieces as they come in; rows that are not whole wait for the next chunk."""
    framer = Framer(columns)
    reader = _Reader(columns)
    buffer = bytearray()
    wanted = _SLICE_BYTES
    done = 0
    in_header = True
    source = iter(chunks)
    is_open = True

    while True:
        while is_open and len(buffer) < wanted:
            chunk = next(source, None)
            is_open = chunk is not None
            buffer += chunk or b""

        if in_header:
            skipped = framer.header_bytes(buffer)

            if skipped is None:
                raise _ended(done)

            del buffer[:skipped]
            in_header = False

        taken = bytes(buffer[:wanted])
        padded = np.frombuffer(taken + bytes(PADDING), np.uint8)
        frames = framer.frames(padded, done, most_rows)
        count = len(frames.starts[0]) if frames.starts else 0

        if count:
            yield reader.batch(padded, frames.starts, frames.lengths, done)

        done += count
        del buffer[: frames.end]

        if frames.is_last:
            return

        if not count:
            if not is_open and len(taken) >= len(buffer):
                raise _ended(done)

            wanted *= 2  # a row longer than a slice
        else:
            wanted = _SLICE_BYTES


class _Reader:
    """Lifts the columns out of framed rows."""

    def __init__(self, columns: Sequence[CopyColumn]) -> None:
        self._columns = tuple(columns)
        self._wires = [wire_type(column.type) for column in columns]
        self._schema = pa.schema([pa.field(column.name, arrow_type_of(column.type)) for column in columns])

    def batch(
        self,
        data: Bytes,
        starts: Sequence[Positions],
        lengths: Sequence[Positions],
        first_row: int,
    ) -> pa.RecordBatch:
        arrays: list[Array] = []

        for index, column in enumerate(self._columns):
            fields = Fields(data, starts[index], lengths[index])

            try:
                arrays.append(lift(fields, self._wires[index], self._schema.field(index).type))
            except Refused as refused:
                raise CopyValueError(column.name, first_row + refused.index, refused.reason) from None

        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _ended(rows: int) -> LoadError:
    return LoadError(f"The COPY stream ended before its trailer, after {rows} whole rows; the connection was cut.")
