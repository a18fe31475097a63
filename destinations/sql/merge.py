"""Merging a chain of a root table and its nested tables, by any strategy.

The rows of the package stand in staging tables, one per table of the chain. The statements of a strategy first thin
those out (:mod:`.merge_staged`), then bring target and staging together (:mod:`.merge_keyed`, :mod:`.merge_scd2`).
All of them work on sets of rows; none compares all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from asyncelt.destinations.sql.merge_keyed import delete_insert, insert_only, upsert
from asyncelt.destinations.sql.merge_plan import MergePlan, Step
from asyncelt.destinations.sql.merge_scd2 import scd2
from asyncelt.errors import SchemaError
from asyncelt.schema.model import Table
from asyncelt.types import MergeStrategy, TableName

__all__ = ["MergePlan", "Statement", "appends", "merge_statements"]

KEYED: Final = frozenset({"upsert", "insert-only", "cdc"})
_STRATEGIES: Final[Mapping[MergeStrategy, Callable[[MergePlan], Iterator[Step]]]] = {
    "delete-insert": delete_insert,
    "upsert": upsert,
    "cdc": upsert,
    "insert-only": insert_only,
    "scd2": scd2,
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, on one table of the chain."""

    table: TableName
    sql: str
    parameters: tuple[object, ...] = ()


def appends(root: Table, strategy: MergeStrategy) -> bool:
    """Whether nothing says which rows are replaced or left out, so that merging is appending."""
    if strategy != "delete-insert":
        return False

    keyed = root.keys("primary_key") or root.keys("merge_key") or root.keys("hard_delete")

    return not (keyed or root.hints.get("x-merge-destination-scope") or root.hints.get("x-merge-source-filter"))


def merge_statements(plan: MergePlan) -> Iterator[Statement]:
    """Yield the statements in the order in which they have to run, in one transaction.

    Raises:
        SchemaError: The tables lack the columns that the strategy works with.
    """
    root = plan.root

    if plan.strategy in KEYED and not root.keys("primary_key"):
        raise SchemaError(f"Table {root.name!r}: the merge strategy {plan.strategy} needs a primary_key.")

    if plan.strategy != "delete-insert" and root.name not in plan.staged:
        return

    for name, statement, parameters in _STRATEGIES[plan.strategy](plan):
        yield Statement(name, statement.sql(dialect=plan.dialect), parameters)
