"""Which rows of a data file go, by their place in it: so that whole rows never have to be joined with keys. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Going", "Places", "places_of"]

Places: TypeAlias = "npt.NDArray[np.int64]"
"""Places of rows in a file; the first is 0."""


class Going:
    """A bit for each row of a file."""

    def __init__(self) -> None:
        self._bits = np.zeros(0, np.uint8)

    def __bool__(self) -> bool:
        return bool(self._bits.any())

    def add(self, places: Places) -> None:
        """These rows go."""
        if not len(places):
            return

        wanted = int(places.max()) // 8 + 1

        if wanted > len(self._bits):
            # Doubled, so that few copies are made however they come.
            grown = np.zeros(max(wanted, 2 * len(self._bits)), np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown

        np.bitwise_or.at(self._bits, places >> 3, _bit_of(places))

    def rest_of(self, batch: pa.RecordBatch, places: Places) -> pa.RecordBatch:
        """The rows of a batch that stay, in their order.

        Args:
            batch: Rows of the file.
            places: Where they are in it.
        """
        byte = places >> 3
        known = byte < len(self._bits)
        goes = np.zeros(len(places), np.bool_)
        goes[known] = self._bits[byte[known]] & _bit_of(places[known]) != 0

        return batch.filter(pa.array(~goes)) if goes.any() else batch


def places_of(column: pa.Array[pa.Scalar[pa.DataType]]) -> Places:
    """Numbers that a query has found."""
    return cast("Places", cast("Any", column).to_numpy(zero_copy_only=False))


def _bit_of(places: Places) -> npt.NDArray[np.uint8]:
    return cast("npt.NDArray[np.uint8]", np.left_shift(1, places & 7).astype(np.uint8))
