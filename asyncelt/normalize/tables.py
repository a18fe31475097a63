"""What stands between shredding and conforming: tables whose columns are lanes, and the way back to the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from asyncelt.types import DataType

__all__ = ["Array", "Collisions", "Indices", "Lane", "Part", "Source", "TablePart"]

Array: TypeAlias = "pa.Array[pa.Scalar[pa.DataType]]"
Indices: TypeAlias = npt.NDArray[np.int64]
Collisions: TypeAlias = dict[tuple[str, str], int]
"""(table, column) to the number of rows in which a later key took the place of an earlier one."""


class Lane(NamedTuple):
    """Values of one kind of one column, null where a row has none of that kind.

    A row has a value in at most one lane of a column.
    """

    kind: DataType
    values: Array
    ambiguous: bool = False
    """Something was lost: integers and floats were merged into a double, decimals brought to one scale, times to one
    zone. Whoever needs it asks the source."""


class Source(NamedTuple):
    """The rows that a part was made of."""

    item: Callable[[int], object]
    """The row by its number, as a dict of plain or wrapped values."""
    rows: int


@dataclass(slots=True, kw_only=True)
class TablePart:
    """The rows of one table that came out of one part, in the reference's order.

    Shapes:
        parent_rows, list_idx, root_rows: (rows,). None for the root table, whose rows are the part's rows.
    """

    name: str
    path: tuple[str, ...]
    rows: int
    lanes: dict[str, list[Lane]] = field(default_factory=dict)
    parent: TablePart | None = None
    parents: list[TablePart] | None = None
    """One per row, only where rows of several tables nest rows in this one; `parent` is then the first."""
    parent_rows: Indices | None = None
    list_idx: Indices | None = None
    root_rows: Indices | None = None

    def root_of(self, row: int) -> int:
        """Number of the root row that ``row`` came with."""
        return row if self.root_rows is None else int(self.root_rows[row])

    def first_of(self, root: int) -> int:
        """The first row that came with this root row."""
        return root if self.root_rows is None else int(np.searchsorted(self.root_rows, root))


@dataclass(slots=True, kw_only=True)
class Part:
    """A piece of a page in columns: the root table first, parents before their children."""

    tables: list[TablePart]
    source: Source
    collisions: Collisions = field(default_factory=dict)
