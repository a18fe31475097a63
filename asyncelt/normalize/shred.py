"""Arrow data to tables of lanes: structs flatten, lists become child tables. The columnar twin of `walk`.

Refuses (returns None) what columns cannot tell: two keys that become one name, tables that several paths fill, values
that stay whole as JSON. The row road takes those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.lib import (
    Type_BINARY,
    Type_BOOL,
    Type_DATE32,
    Type_DECIMAL128,
    Type_DECIMAL256,
    Type_DOUBLE,
    Type_INT64,
    Type_LIST,
    Type_NA,
    Type_STRING,
    Type_STRUCT,
    Type_TIME64,
    Type_TIMESTAMP,
)

from asyncelt.normalize.tables import Array, Indices, Lane, TablePart
from asyncelt.normalize.walk import LIST, VALUE, Nesting, Rule
from asyncelt.types import DataType

__all__ = ["Names", "shred"]

KINDS: Final[dict[int, DataType]] = {
    Type_STRING: "text",
    Type_INT64: "bigint",
    Type_DOUBLE: "double",
    Type_BOOL: "bool",
    Type_BINARY: "binary",
    Type_TIMESTAMP: "timestamp",
    Type_DATE32: "date",
    Type_TIME64: "time",
    Type_DECIMAL128: "decimal",
    Type_DECIMAL256: "decimal",
}
DECIMALS: Final = frozenset({Type_DECIMAL128, Type_DECIMAL256})
NESTED: Final = frozenset({Type_STRUCT, Type_LIST})
CACHED_NAMES: Final = 65_536
EXACT_INTEGERS: Final = float(2**53)
UTC: Final = pa.timestamp("us", tz="UTC")
MICROSECONDS: Final = pa.time64("us")


class Names:
    """Names of keys by table and level, kept from page to page for one rule."""

    __slots__ = ("levels", "rule", "tables")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.tables: dict[tuple[str, ...], str] = {}
        self.levels: dict[tuple[str, ...], Nesting] = {}

    def table(self, path: tuple[str, ...]) -> str:
        """Name of the table at a path."""
        found = self.tables.get(path)

        if found is None:
            found = self.tables[path] = self.rule.naming.join(*path)

        return found

    def level(self, path: tuple[str, ...]) -> Nesting:
        """Names of the keys of a table's rows."""
        found = self.levels.get(path)

        if found is None:
            found = self.levels[path] = Nesting(())

        return found

    def name(self, key: str, level: Nesting, table: str) -> tuple[str, bool, str]:
        """Column, whether it stays whole, and the key's own name."""
        if len(level.names) >= CACHED_NAMES:
            level.names.clear()

        own = self.rule.naming.path(key)
        column = self.rule.naming.join(*level.path, own) if level.path else own
        found = level.names[key] = (column, self.rule.keeps_json(table, column), own)

        return found


class _Refused(Exception):
    """Columns cannot tell what the rows say."""


def shred(
    fields: Iterable[tuple[str, Array]], rows: int, root: str, names: Names, *, ambiguous: bool
) -> list[TablePart] | None:
    """Tables of a page, parents before children; None where the row road has to be taken.

    Args:
        fields: Top-level columns by raw key.
        rows: Length of each.
        root: Name of the root table.
        names: Of the rule in force.
        ambiguous: Whether integers may have become part of a double column.
    """
    worker = _Shredder(names, ambiguous=ambiguous)

    try:
        worker.table(fields, (root,), rows, names.rule.max_nesting)
    except _Refused:
        return None

    return worker.tables


class _Shredder:
    __slots__ = ("_ambiguous", "_known", "_names", "tables")

    def __init__(self, names: Names, *, ambiguous: bool) -> None:
        self.tables: list[TablePart] = []
        self._known: set[str] = set()
        self._names = names
        self._ambiguous = ambiguous

    def table(self, fields: Iterable[tuple[str, Array]], path: tuple[str, ...], rows: int, levels: int) -> None:
        part = self._start(path, rows)
        self._rows(fields, part, levels)

    def _start(self, path: tuple[str, ...], rows: int) -> TablePart:
        name = self._names.table(path)

        if name in self._known or self._names.rule.excludes is not None:
            raise _Refused

        self._known.add(name)
        part = TablePart(name=name, path=path, rows=rows)
        self.tables.append(part)

        return part

    def _rows(self, fields: Iterable[tuple[str, Array]], part: TablePart, levels: int) -> None:
        lists: dict[tuple[str, ...], Array] = {}
        self._struct(fields, part, self._names.level(part.path), levels, set(), lists)

        for below, array in lists.items():
            self._list(array, part, part.path + below, levels - 1)

    def _struct(
        self,
        fields: Iterable[tuple[str, Array]],
        part: TablePart,
        level: Nesting,
        left: int,
        seen: set[str],
        lists: dict[tuple[str, ...], Array],
    ) -> None:
        names = level.names
        lanes = part.lanes

        for key, array in fields:
            column, whole, own = names.get(key) or self._names.name(key, level, part.name)
            code = array.type.id

            # Objects and lists count too: where they are missing, a key with None takes the place of another one.
            if column in seen:
                raise _Refused

            seen.add(column)

            if code in NESTED:
                if whole or left <= 0:
                    raise _Refused

                if code == Type_STRUCT:
                    below = level.below.get(own)

                    if below is None:
                        below = level.below[own] = Nesting((*level.path, own))

                    self._struct(_children(array), part, below, left - 1, seen, lists)
                else:
                    place = (*level.path, own)

                    if place in lists:
                        raise _Refused

                    lists[place] = array

                continue

            if code != Type_NA and array.null_count < len(array):
                lanes[column] = [self._leaf(array, code)]

    def _leaf(self, array: Array, code: int) -> Lane:
        kind = KINDS.get(code)

        if kind is None:
            raise _Refused

        if code == Type_DOUBLE:
            if self._ambiguous and _is_wide(array):
                raise _Refused

            return Lane(kind, array, self._ambiguous)

        if code in DECIMALS:
            # One scale for all of them: text made of one would not show the places it came with.
            return Lane(kind, array, ambiguous=True)

        if code == Type_TIMESTAMP:
            # As text a time shows the zone it came with, and Arrow has kept that of the first.
            if cast("pa.TimestampType", array.type).unit != UTC.unit:
                raise _Refused

            if array.type != UTC:
                # Times without a zone are UTC; another zone is only another way to show the same instant.
                array = cast("Array", array.cast(UTC))

            return Lane(kind, array, ambiguous=True)

        if code == Type_TIME64 and array.type != MICROSECONDS:
            raise _Refused

        return Lane(kind, array)

    def _list(self, array: Array, parent: TablePart, path: tuple[str, ...], levels: int) -> None:
        values = cast("Array", array.flatten())  # type: ignore[attr-defined]
        rows = len(values)

        if rows == 0:
            return

        lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0))
        part = self._start(path, rows)
        part.parent = parent
        part.parent_rows = cast("Indices", np.repeat(np.arange(parent.rows, dtype=np.int64), lengths))
        ends = np.cumsum(lengths, dtype=np.int64)
        part.list_idx = np.arange(rows, dtype=np.int64) - np.repeat(ends - lengths, lengths)
        part.root_rows = part.parent_rows if parent.root_rows is None else parent.root_rows[part.parent_rows]
        code = values.type.id

        if code == Type_STRUCT:
            self._rows(_children(values), part, levels)
        elif code == Type_LIST:
            self._rows([(LIST, values)], part, levels - 1)
        elif code != Type_NA and values.null_count < rows:
            part.lanes[VALUE] = [self._leaf(values, code)]


def _is_wide(array: Array) -> bool:
    """Whether a float may have been an integer that has lost digits."""
    bounds = cast("pa.StructScalar", pc.min_max(array))
    low, high = bounds["min"].as_py(), bounds["max"].as_py()

    return low is not None and (low <= -EXACT_INTEGERS or high >= EXACT_INTEGERS)


def _children(array: Array) -> Iterable[tuple[str, Array]]:
    struct = cast("pa.StructArray", array)
    names = struct.type.names
    # Flattening also gives the nulls of the struct to its fields.
    arrays: Sequence[Array] = struct.flatten() if struct.null_count else [struct.field(i) for i in range(len(names))]

    return zip(names, arrays, strict=True)
