"""Plain rows to tables in one pass, through the compiled extension.

Plain is what JSON can say and columns can hold, whatever the mix: it is the road for nearly all pages. The extension
knows raw keys only; the names of tables and columns are found here, once per page and place. Where there is no
extension (it is optional, see `is_available`), or rows are not plain, the other roads give the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa

from asyncelt.normalize.gating import Gate
from asyncelt.normalize.shred import Names
from asyncelt.normalize.tables import Array, Indices, Lane, Part, Source, TablePart
from asyncelt.normalize.walk import LIST, VALUE, Nesting
from asyncelt.types import DataType

if TYPE_CHECKING:
    from asyncelt.normalize._columns import Columns, Found, Place, Values

try:
    from asyncelt.normalize import _columns
except ImportError:  # no compiler where it was installed
    _columns = cast("Any", None)

__all__ = ["is_available", "part_of_plain_json", "part_of_plain_rows"]

KINDS: Final[tuple[DataType, ...]] = ("bool", "double", "bigint", "text")
"""In the extension's order."""


class _Refused(Exception):
    """Places that become one column or table, or values that stay whole: columns cannot tell what the rows say."""


def is_available() -> bool:
    """Whether the extension was built."""
    return _columns is not None


def part_of_plain_rows(rows: list[object], root: str, names: Names, gate: Gate) -> Part | None:
    """Take rows apart; None where another road has to be taken. Holds the interpreter lock, in slices."""
    columns = _columns.Columns()
    taken = 0

    try:
        while taken < len(rows):
            with gate.lock:
                taken = columns.add_rows(rows, taken, gate.slice_s)
    except _columns.Refused:
        return None

    return _part(columns, Source(rows.__getitem__, len(rows)), root, names)


def part_of_plain_json(
    texts: Sequence[bytes], items: Callable[[Sequence[int]], Callable[[int], object]], root: str, names: Names
) -> Part | None:
    """Take the rows of JSON texts apart; None where another road has to be taken. Lets go of the interpreter lock.

    Args:
        texts: Each an array of objects, lines of objects, or one object.
        items: From the number of rows in each text to the function that finds a row by its number.
        root: Name of the root table.
        names: Of the rule in force.
    """
    columns = _columns.Columns()

    try:
        counts = [columns.add_json(text) for text in texts]
    except _columns.Refused:
        return None

    return _part(columns, Source(items(counts), sum(counts)), root, names)


def _part(columns: Columns, source: Source, root: str, names: Names) -> Part | None:
    try:
        tables = _Tables(columns.finish(), names).all(root)
    except (_columns.Refused, _Refused):
        return None

    return Part(tables=tables, source=source)


class _Tables:
    __slots__ = ("_found", "_known", "_names", "_tables")

    def __init__(self, found: list[Found], names: Names) -> None:
        self._found = found
        self._names = names
        self._known: set[str] = set()
        self._tables: list[TablePart] = []

    def all(self, root: str) -> list[TablePart]:
        """Parents before their children."""
        self._fill(self._start((root,), self._found[0][0]), self._found[0][1], self._names.rule.max_nesting)

        return self._tables

    def _start(self, path: tuple[str, ...], rows: int) -> TablePart:
        name = self._names.table(path)

        if name in self._known:
            raise _Refused

        self._known.add(name)
        part = TablePart(name=name, path=path, rows=rows)
        self._tables.append(part)

        return part

    def _fill(self, part: TablePart, element: Place, levels: int) -> None:
        _, lanes, below, elements = element
        lists: dict[tuple[str, ...], int] = {}
        level = self._names.level(part.path)

        if bool(lanes) + (below is not None) + (elements is not None) > 1:
            # Elements of several forms share names that only the rows can tell apart.
            raise _Refused

        if below is not None:
            self._object(below, part, level, levels, set(), lists)
        elif elements is not None:
            levels -= 1
            self._object([(LIST, [], None, elements)], part, level, levels, set(), lists)
        elif lanes:
            part.lanes[VALUE] = _lanes(lanes)

        for place, number in lists.items():
            self._list(part, part.path + place, number, levels - 1)

    def _object(
        self,
        places: list[Place],
        part: TablePart,
        level: Nesting,
        left: int,
        seen: set[str],
        lists: dict[tuple[str, ...], int],
    ) -> None:
        names = level.names

        for key, lanes, below, elements in places:
            column, whole, own = names.get(key) or self._names.name(key, level, part.name)

            # Objects and lists count too: where they are missing, a key with None takes the place of another one.
            if column in seen:
                raise _Refused

            seen.add(column)

            if below is not None or elements is not None:
                if whole or left <= 0:
                    raise _Refused

                if below is not None:
                    inner = level.below.get(own)

                    if inner is None:
                        inner = level.below[own] = Nesting((*level.path, own))

                    self._object(below, part, inner, left - 1, seen, lists)

                if elements is not None:
                    place = (*level.path, own)

                    if place in lists:
                        raise _Refused

                    lists[place] = elements

            if lanes:
                part.lanes[column] = _lanes(lanes)

    def _list(self, parent: TablePart, path: tuple[str, ...], number: int, levels: int) -> None:
        rows, element, *links = self._found[number]

        if rows == 0:
            return

        part = self._start(path, rows)
        part.parent = parent
        part.parent_rows, part.list_idx = map(_indices, links)
        part.root_rows = part.parent_rows if parent.root_rows is None else parent.root_rows[part.parent_rows]
        self._fill(part, element, levels)


def _lanes(lanes: list[tuple[int, Values]]) -> list[Lane]:
    return [Lane(KINDS[kind], _array(values)) for kind, values in lanes]


def _array(values: Values) -> Array:
    return cast("Array", pa.array(cast("Any", values)))


def _indices(values: Values) -> Indices:
    return cast("Indices", np.asarray(cast("Any", _array(values))))
