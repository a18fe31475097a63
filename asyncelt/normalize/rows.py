"""The row road: items to a part through `Walker`. Exact for everything, and the slower of the roads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from asyncelt.errors import BadRecord
from asyncelt.normalize.gating import Gate
from asyncelt.normalize.lanes import Refused, lanes_of
from asyncelt.normalize.tables import Part, Source, TablePart
from asyncelt.normalize.walk import Rule, TableRows, Walker

__all__ = ["part_of_rows"]


def part_of_rows(items: Sequence[object], root: str, rule: Rule, *, wei_digits: int, gate: Gate) -> Part:
    """Take items apart one by one.

    Raises:
        BadRecord: A value that no column can hold.
    """
    walker = Walker(root, rule)

    gate.run(map(walker.feed, items, range(len(items))))
    made: dict[str, TablePart] = {}

    for table in walker.tables.values():
        if table.rows:
            part = made[table.name] = TablePart(name=table.name, path=table.path, rows=len(table.rows))
            gate.run(_columns(part, table, wei_digits))

    for table in walker.tables.values():
        _link(table, made)

    return Part(
        tables=_parents_first(made),
        source=Source(items.__getitem__, len(items)),
        collisions=walker.collisions,
    )


def _columns(part: TablePart, table: TableRows, wei_digits: int) -> Iterator[None]:
    rows = table.rows

    for column in dict.fromkeys(chain.from_iterable(rows)):
        values = [row.get(column) for row in rows]

        try:
            lanes = lanes_of(values, wei_digits=wei_digits)
        except Refused as error:
            row = None if error.row is None else table.root_rows[error.row]
            raise BadRecord(error.reason, table=table.name, column=column, row=row, value=error.value) from error

        if lanes:
            part.lanes[column] = lanes

        yield


def _link(table: TableRows, made: dict[str, TablePart]) -> None:
    part = made.get(table.name)

    if part is None or not table.parents:
        return

    part.parent_rows = np.array(table.parent_rows, dtype=np.int64)
    part.list_idx = np.array(table.list_idx, dtype=np.int64)
    part.root_rows = np.array(table.root_rows, dtype=np.int64)
    part.parent = made[table.parents[0].name]

    if len(set(map(id, table.parents))) > 1:
        part.parents = [made[parent.name] for parent in table.parents]


def _parents_first(made: dict[str, TablePart]) -> list[TablePart]:
    # A child's path is longer than the path of each of its parents, whichever of several led to it.
    return sorted(made.values(), key=lambda table: len("__".join(table.path)))
