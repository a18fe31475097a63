"""Where the rows and fields of a COPY stream are.

A row starts with its number of fields, and each field with its length, so a row can only be found from the one before.
To avoid a loop over fields, the rows of a whole buffer are found at once: every position that *could* start a row (the
right number of fields, lengths that fit the types) is followed through its fields together with all others, which gives
the position of the row after it; then the chain from the first row on says which of the positions are rows. Positions
that only look like rows are never reached, so the result is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from asyncelt.destinations.postgres_impl.copy.arrays import Bytes, Positions
from asyncelt.destinations.postgres_impl.copy.types import FIXED_BYTES, CopyColumn, CopyValueError, wire_type
from asyncelt.errors import LoadError

__all__ = ["PADDING", "Framer", "Frames"]

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_FIXED_HEADER: Final = len(_SIGNATURE) + 8
PADDING: Final = 16
"""Bytes behind a buffer, so that a fixed-width read may start at every position in it."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The whole rows at the start of a buffer.

    Attributes:
        starts: For each column, where its values start.
        lengths: For each column, how long its values are; -1 is NULL.
        end: Where the first row starts that is not whole.
        is_last: The trailer stands there.
    """

    starts: tuple[Positions, ...]
    lengths: tuple[Positions, ...]
    end: int
    is_last: bool


class Framer:
    """Finds rows of these columns."""

    def __init__(self, columns: Sequence[CopyColumn]) -> None:
        self._columns = tuple(columns)
        self._fixed = tuple(FIXED_BYTES.get(wire_type(column.type).kind) for column in columns)

    def header_bytes(self, data: bytes | bytearray) -> int | None:
        """Length of the header at the start of the stream, or None while it is not whole.

        Raises:
            LoadError: It is no binary COPY stream, or one with object ids.
        """
        if data[: len(_SIGNATURE)] != _SIGNATURE[: len(data)]:
            raise LoadError("The server's answer is no binary COPY stream; COPY needs (FORMAT binary).")

        if len(data) < _FIXED_HEADER:
            return None

        if int.from_bytes(data[11:15], "big") >> 16:
            raise LoadError("The COPY stream has critical flags that are not known (object ids, for instance).")

        size = _FIXED_HEADER + int.from_bytes(data[15:19], "big")

        return size if len(data) >= size else None

    def frames(self, padded: Bytes, first_row: int, most_rows: int) -> Frames:
        """The whole rows of a buffer that starts with a row and ends with `PADDING`.

        Raises:
            CopyValueError: A value has a length that its type cannot have.
            LoadError: The rows have another number of fields than there are columns.
        """
        size = len(padded) - PADDING
        lengths_at = np.ndarray((len(padded) - 3,), ">i4", padded, strides=(1,))
        rows, end = self._rows(padded, size, lengths_at)
        is_cut = len(rows) > most_rows

        if is_cut:
            rows, end = rows[:most_rows], int(rows[most_rows])

        starts: list[Positions] = []
        lengths: list[Positions] = []
        at = rows + 2

        for _ in self._columns:
            length = lengths_at[at].astype(np.int64)
            starts.append(at + 4)
            lengths.append(length)
            at = at + 4 + np.maximum(length, 0)

        is_last = not is_cut and self._check_end(padded[:size], end, first_row + len(rows))

        return Frames(tuple(starts), tuple(lengths), end, is_last)

    def _rows(self, padded: Bytes, size: int, lengths_at: npt.NDArray[np.int32]) -> tuple[Positions, int]:
        """Starts of the whole rows, and where the last of them ends."""
        high, low = divmod(len(self._columns), 256)
        could = np.flatnonzero((padded[:size] == high) & (padded[1 : size + 1] == low))
        at = could + 2

        for fixed in self._fixed:
            inside = at <= size - 4
            length = lengths_at[np.where(inside, at, 0)].astype(np.int64)
            plausible = length >= -1 if fixed is None else (length == fixed) | (length == -1)
            at = at + 4 + np.maximum(length, 0)
            keep = inside & plausible & (at <= size)

            if not keep.all():
                could, at = could[keep], at[keep]

        return _chain(could, at)

    def _check_end(self, data: Bytes, at: int, row: int) -> bool:
        """Whether the trailer stands at ``at``; if a row does, it must be one that only lacks bytes."""
        rest = data[at:]

        if len(rest) < 2:
            return False

        count = int.from_bytes(rest[:2].tobytes(), "big", signed=True)

        if count == -1:
            return True

        if count != len(self._columns):
            raise LoadError(f"Row {row} of the COPY stream has {count} fields, not {len(self._columns)}.")

        place = 2

        for column, fixed in zip(self._columns, self._fixed, strict=True):
            if len(rest) < place + 4:
                return False

            length = int.from_bytes(rest[place : place + 4].tobytes(), "big", signed=True)

            if length < -1 or (fixed is not None and length not in {-1, fixed}):
                raise CopyValueError(column.name, row, f"has {length} bytes, which is no {column.type}")

            place += 4 + max(length, 0)

        return False


def _chain(could: Positions, following: Positions) -> tuple[Positions, int]:
    """Those of the positions that are reached from position 0, from one row to the following."""
    if not len(could) or could[0] != 0:
        return could[:0], 0

    if np.array_equal(following[:-1], could[1:]):
        return could, int(following[-1])

    index = np.searchsorted(could, following)
    index[index == len(could)] = 0
    successors = np.where(could[index] == following, index, 0).tolist()
    reached = [0]

    # One step a row, and only where something else looks like a row.
    while successors[reached[-1]]:
        reached.append(successors[reached[-1]])

    return could[reached], int(following[reached[-1]])
