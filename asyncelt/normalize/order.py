"""The order in which new tables and columns appear: that of the row that brings them, found in the source.

Columns have lost the order of a row's keys. Only rows that bring something new are looked at, so a page that fits its
tables costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from asyncelt.normalize.place import Introduction
from asyncelt.normalize.tables import Part, TablePart
from asyncelt.normalize.walk import Rule, TableRows, Walker
from asyncelt.schema.model import Column

__all__ = ["introduced", "value_finder"]

Pending = dict[tuple[str, int], list[Introduction]]


def introduced(part: Part, new: Mapping[str, Sequence[Introduction]], rule: Rule) -> list[tuple[str, list[Column]]]:
    """New columns in the reference's order, per table; tables in the order of their first row.

    Args:
        part: Where the rows come from.
        new: New columns per table, with the rows that bring them. System columns have an empty base.
        rule: How items are taken apart.
    """
    tables = {table.name: table for table in part.tables}
    pending: Pending = {}

    for name, columns in new.items():
        for found in columns:
            pending.setdefault((name, found.row), []).append(found)

    ordered: dict[str, list[Column]] = {}
    walker = _walker(part, rule)

    for root in sorted({tables[name].root_of(row) for name, row in pending}):
        for table, row, flat in _rows_of(part, root, tables, walker):
            here = pending.get((table, row))

            if here:
                position = {column: place for place, column in enumerate(flat)}
                here.sort(key=lambda found: position.get(found.base, len(position)))
                ordered.setdefault(table, []).extend(found.column for found in here)

    return list(ordered.items())


def value_finder(part: Part, table: TablePart, rule: Rule) -> Callable[[int, str], object]:
    """A function from (row, column) to the source's own value."""
    tables = {item.name: item for item in part.tables}

    def value_at(row: int, column: str) -> object:
        for name, number, flat in _rows_of(part, table.root_of(row), tables, _walker(part, rule)):
            if name == table.name and number == row:
                return flat.get(column)

        return None

    return value_at


def _walker(part: Part, rule: Rule) -> Walker:
    return Walker(part.tables[0].path[0], rule)


def _rows_of(
    part: Part, root: int, tables: Mapping[str, TablePart], walker: Walker
) -> Iterable[tuple[str, int, dict[str, object]]]:
    """The rows of one root row, in the order of the walk, with their numbers in their tables."""
    log = walker.log = []
    walker.feed(part.source.item(root), root)
    counted: dict[TableRows, int] = {}

    for table, flat in log:
        number = counted.get(table)

        if number is None:
            number = tables[table.name].first_of(root)

        counted[table] = number + 1
        yield table.name, number, flat
