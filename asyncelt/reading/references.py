"""How two tables of a schema belong together: nested tables to their parents, and what hints say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from asyncelt.errors import InvalidQuery
from asyncelt.reading.plan import Catalog
from asyncelt.schema.model import Table
from asyncelt.schema.system import DLT_LOAD_ID, LOADS_TABLE

__all__ = ["Reference", "references_between"]

_LOAD_ID: Final = "load_id"
"""The column of the table of loads that the rows' load ids are in."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One step from a table that is there to one that is joined."""

    table: str
    """The joined one."""
    pairs: tuple[tuple[str, str], ...]
    """Columns that are equal: of the table that is there, of the joined one."""


def references_between(catalog: Catalog, left: str, right: str) -> tuple[Reference, ...]:
    """The joins that lead from one table to the other.

    A reference that a hint declares goes first, then that of rows to their load; else one of the two has to be nested
    in the other, at any depth.

    Raises:
        InvalidQuery: They have nothing to do with each other.
    """
    if left == right:
        raise InvalidQuery(
            f"Table {left!r} has no reference to itself. Pass the condition as on=, and the other side as a query with "
            "a name of its own for the table."
        )

    declared = _declared(catalog, left, right) or _swapped(_declared(catalog, right, left))
    declared = declared or _load(catalog, left, right) or _swapped(_load(catalog, right, left))

    if declared:
        return (Reference(right, declared),)

    up = list(_up(catalog, left, right))

    if up:
        return tuple(up)

    down = list(_up(catalog, right, left))

    if down:
        tables = [right, *(step.table for step in down)]

        return tuple(
            Reference(table, _swapped(step.pairs)) for table, step in zip(tables[-2::-1], reversed(down), strict=True)
        )

    raise InvalidQuery(
        f"Tables {left!r} and {right!r} are not nested in each other, and no hint says how they belong together: pass "
        f"the condition, such as on='{left}.id = {right}.{left}_id'."
    )


def _up(catalog: Catalog, table: str, ancestor: str) -> Iterator[Reference]:
    """Steps from a nested table to one it is nested in; none when it is not."""
    chain = list(_ancestors(catalog, table))

    if ancestor not in chain:
        return

    current = catalog.table(table)

    for name in chain[: chain.index(ancestor) + 1]:
        parent = catalog.table(name)
        yield Reference(name, ((_key(current, "parent_key"), _key(parent, "row_key")),))
        current = parent


def _ancestors(catalog: Catalog, table: str) -> Iterator[str]:
    parent = catalog.table(table).parent

    while parent is not None:
        yield parent
        parent = catalog.table(parent).parent


def _key(table: Table, hint: str) -> str:
    names = table.keys(hint)

    if not names:
        raise InvalidQuery(f"Table {table.name!r} has no {hint} column to join by: pass the condition as on=.")

    return names[0]


def _declared(catalog: Catalog, table: str, referenced: str) -> tuple[tuple[str, str], ...]:
    references = catalog.table(table).hints.get("references")

    for reference in references if isinstance(references, list | tuple) else ():
        if isinstance(reference, Mapping) and reference.get("referenced_table") == referenced:
            ours, theirs = reference.get("columns"), reference.get("referenced_columns")

            if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
                return tuple(zip(map(str, ours), map(str, theirs), strict=True))

    return ()


def _load(catalog: Catalog, table: str, loads: str) -> tuple[tuple[str, str], ...]:
    """The load id of a row is that of its load."""
    if loads != LOADS_TABLE or DLT_LOAD_ID not in catalog.table(table).columns:
        return ()

    return ((DLT_LOAD_ID, _LOAD_ID),)


def _swapped(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((right, left) for left, right in pairs)
