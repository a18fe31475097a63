"""Columns of Arrow out of the fields of a COPY stream; the inverse of `lowering`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from asyncelt.destinations.postgres_impl.copy.arrays import Array, Bools, Bytes, Positions, array_of
from asyncelt.destinations.postgres_impl.copy.numeric import decimals_from_wire, number_from_wire
from asyncelt.destinations.postgres_impl.copy.types import FIXED_BYTES, Kind, Refused, WireType

__all__ = ["Fields", "lift"]

_SINCE_1970: Final[dict[Kind, int]] = {
    "date": 10_957,
    "timestamp": 10_957 * 86_400_000_000,
    "timestamptz": 10_957 * 86_400_000_000,
}
_HEX: Final = np.array([list(f"{byte:02x}".encode()) for byte in range(256)], np.uint8)
_JSONB_VERSION: Final = 1
_LONG: Final = 512
"""Bytes of an average value from which on values are copied one by one, not byte by byte."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of one column in a buffer: where they start and how long they are; -1 is NULL."""

    data: Bytes
    starts: Positions
    lengths: Positions


def lift(fields: Fields, wire: WireType, target: pa.DataType) -> Array:
    """The column as an Arrow array of type ``target`` (see `arrow_type_of`).

    Raises:
        Refused: Arrow's type cannot hold a value.
    """
    is_valid = fields.lengths >= 0

    if wire.kind == "numeric":
        return _numeric(fields, is_valid, target)

    if wire.kind == "uuid":
        return _uuid(fields, is_valid)

    if wire.kind == "jsonb":
        return _variable(_without_version(fields, is_valid), is_valid, target)

    if wire.kind not in FIXED_BYTES:
        return _variable(fields, is_valid, target)

    return _fixed(fields, is_valid, wire.kind, target)


def _fixed(fields: Fields, is_valid: Bools, kind: Kind, target: pa.DataType) -> Array:
    starts = np.where(is_valid, fields.starts, 0)

    if kind == "bool":
        bits = np.packbits(fields.data[starts] != 0, bitorder="little")
        return array_of(target, is_valid, [bits])

    code = f">{'f' if kind in {'float4', 'float8'} else 'i'}{FIXED_BYTES[kind]}"
    item = np.dtype(code)
    everywhere = np.ndarray((len(fields.data) - item.itemsize + 1,), item, fields.data, strides=(1,))
    values = everywhere[starts].astype(item.newbyteorder("="))

    if epoch := _SINCE_1970.get(kind):
        values = _moved(values, is_valid, epoch)

    return array_of(target, is_valid, [values])


def _moved(values: npt.NDArray[Any], is_valid: Bools, epoch: int) -> npt.NDArray[Any]:
    """Counts since 2000 as counts since 1970. Infinity becomes the ends of the type, as DuckDB has them."""
    ends = np.iinfo(values.dtype)
    is_end = (values == ends.max) | (values == ends.min)

    for index in np.flatnonzero(is_valid & ~is_end & (values > ends.max - epoch))[:1]:
        raise Refused(int(index), "is too late for Arrow; cast the column to text")

    moved = np.where(is_end, values, values + values.dtype.type(epoch))
    moved[values == ends.min] = -ends.max

    return moved


def _variable(fields: Fields, is_valid: Bools, target: pa.DataType) -> Array:
    lengths = np.maximum(fields.lengths, 0)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    total = int(offsets[-1])

    if total > np.iinfo(np.int32).max:
        raise Refused(int(np.searchsorted(offsets, 2**31) - 1), "does not fit into one batch with those before it")

    if total > _LONG * len(lengths):
        view = fields.data.data
        ends = (fields.starts + lengths).tolist()
        content = b"".join([view[start:end] for start, end in zip(fields.starts.tolist(), ends, strict=True)])
    else:
        where = np.repeat(fields.starts - offsets[:-1], lengths) + np.arange(total)
        content = fields.data[where].tobytes()

    return array_of(target, is_valid, [offsets.astype(np.int32), content])


def _without_version(fields: Fields, is_valid: Bools) -> Fields:
    version = fields.data[np.where(is_valid, fields.starts, 0)]

    for index in np.flatnonzero(is_valid & (version != _JSONB_VERSION))[:1]:
        raise Refused(int(index), f"is jsonb of version {version[index]}, which is not known")

    return Fields(fields.data, fields.starts + 1, np.where(is_valid, fields.lengths - 1, -1))


def _numeric(fields: Fields, is_valid: Bools, target: pa.DataType) -> Array:
    if pa.types.is_decimal(target):
        return array_of(target, is_valid, [decimals_from_wire(fields.data, fields.starts, is_valid, target)])

    raw = _variable(fields, is_valid, pa.binary()).to_pylist()

    return pa.array([None if value is None else number_from_wire(value) for value in raw], target)


def _uuid(fields: Fields, is_valid: Bools) -> Array:
    starts = np.where(is_valid, fields.starts, 0)
    digits = _HEX[fields.data[starts[:, None] + np.arange(16)]].reshape(-1, 32)
    text = np.full((len(starts), 36), ord("-"), np.uint8)

    for source, target, count in ((0, 0, 8), (8, 9, 4), (12, 14, 4), (16, 19, 4), (20, 24, 12)):
        text[:, target : target + count] = digits[:, source : source + count]

    offsets = np.arange(len(starts) + 1, dtype=np.int32) * 36

    return array_of(pa.string(), is_valid, [offsets, text.tobytes()])
