"""Load ids beside the rows of a table: its own, or those of the rows that nested ones belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asyncelt.errors import InvalidQuery
from asyncelt.reading.plan import Catalog, JoinTable, Plan, TableSource
from asyncelt.schema.system import DLT_LOAD_ID

__all__ = ["LoadIds", "load_ids_of"]

_ROOT: Final = "_dlt_root"


@dataclass(frozen=True, slots=True)
class LoadIds:
    """Where the load ids of a relation's rows are."""

    column: str
    """What they are called beside the relation's columns."""
    join: JoinTable | None
    """What brings them; None: they are in a column of its table."""


def load_ids_of(plan: Plan, catalog: Catalog) -> LoadIds:
    """Find the load ids of a relation of a table.

    Raises:
        InvalidQuery: This is not a relation of a table, or the root table has no load ids.
    """
    if not isinstance(plan.source, TableSource):
        raise InvalidQuery("Load ids are known for relations of tables only, not for queries.")

    table = catalog.table(plan.source.name)

    if DLT_LOAD_ID in table.columns:
        return LoadIds(DLT_LOAD_ID, None)

    root = table

    while root.parent is not None:
        root = catalog.table(root.parent)

    if DLT_LOAD_ID not in root.columns:
        raise InvalidQuery(f"Rows of table {root.name!r} have no load ids.")

    join = JoinTable(Plan(TableSource(root.name)), None, "inner", _ROOT, only=(DLT_LOAD_ID,))

    return LoadIds(f"{_ROOT}__{DLT_LOAD_ID}", join)
