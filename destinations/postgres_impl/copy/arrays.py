"""Arrow arrays out of numpy's, where the stubs of pyarrow do not know that this is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Array", "Bools", "Bytes", "Positions", "array_of", "concatenated", "nulls"]

Array: TypeAlias = "pa.Array[Any]"
Bools: TypeAlias = "npt.NDArray[np.bool_]"
Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Positions: TypeAlias = "npt.NDArray[np.int64]"

_arrow: Final[Any] = pa


def nulls(count: int, kind: pa.DataType) -> Array:
    """An array of nulls of this type."""
    found: Array = _arrow.nulls(count, kind)

    return found


def array_of(kind: pa.DataType, is_valid: Bools, buffers: Sequence[npt.NDArray[Any] | bytes]) -> Array:
    """An array of this type over these buffers, without a copy; null where it is not valid."""
    bits = None if is_valid.all() else _arrow.py_buffer(np.packbits(is_valid, bitorder="little"))
    found: Array = _arrow.Array.from_buffers(kind, len(is_valid), [bits, *map(_arrow.py_buffer, buffers)])

    return found


def concatenated(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as one."""
    found: pa.RecordBatch = _arrow.concat_batches(batches)

    return found
