"""Row ids: random ones by the batch, and the hashed ones bit for bit as the reference computes them."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import shake_128
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa

from asyncelt.normalize.tables import Array

__all__ = ["ID_BYTES", "nested_ids", "random_ids", "row_hash"]

ID_BYTES: Final = 10
ID_LENGTH: Final = 14
PADDED_BYTES: Final = 12
PADDED_LENGTH: Final = 16


def random_ids(count: int) -> Array:
    """``count`` ids from the system's random source: 80 random bits each, base64 without padding.

    Shapes:
        Returns (count,) of string.
    """
    if count == 0:
        return cast("Array", pa.array([], pa.string()))

    noise = np.frombuffer(os.urandom(count * ID_BYTES), np.uint8).reshape(count, ID_BYTES)

    # Twelve bytes become sixteen letters without padding; the last two letters belong to the added zeros.
    padded = np.zeros((count, PADDED_BYTES), np.uint8)
    padded[:, :ID_BYTES] = noise
    letters = np.frombuffer(b64encode(padded.tobytes()), np.uint8).reshape(count, PADDED_LENGTH)
    data = np.ascontiguousarray(letters[:, :ID_LENGTH])
    offsets = np.arange(0, (count + 1) * ID_LENGTH, ID_LENGTH, dtype=np.int32)

    return cast(
        "Array", pa.StringArray.from_buffers(count, pa.py_buffer(cast("Any", offsets)), pa.py_buffer(cast("Any", data)))
    )


def row_hash(data: bytes) -> str:
    """The id that belongs to these bytes."""
    return b64encode(shake_128(data).digest(ID_BYTES)).rstrip(b"=").decode("ascii")


def nested_ids(parents: Iterable[str], table: str, list_idx: Sequence[int]) -> Array:
    """Ids of nested rows whose parents have ids that come again."""
    return cast(
        "Array",
        pa.array(
            [row_hash(f"{parent}_{table}_{idx}".encode()) for parent, idx in zip(parents, list_idx, strict=True)],
            pa.string(),
        ),
    )
