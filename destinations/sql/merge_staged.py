"""What a merge does to the rows that have arrived, before they meet the target.

Of several root rows with one key one is kept, rows are left out that ``source_filter`` or ``hard_delete`` exclude, and
nested rows go with the very root row they came with: ids alone do not tell, since root rows of one key have one id
where ids are made of the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sqlglot import exp

from asyncelt.destinations.sql.merge_plan import STAGED, MergePlan, Step, is_set, link_of, row_key_of
from asyncelt.destinations.sql.names import all_of, column, identifier
from asyncelt.flow import ROOT_ROW
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName

__all__ = ["drop_filtered", "drop_flagged", "keep_nested", "keep_one_per", "keep_one_per_key"]

_ARRIVAL: Final = "_asyncelt_arrival"
_RANK: Final = "_asyncelt_rank"


def drop_filtered(plan: MergePlan) -> Iterator[Step]:
    """Delete staged root rows that ``source_filter`` leaves out."""
    source_filter = plan.condition("x-merge-source-filter")

    if source_filter is None:
        return

    kept = exp.Is(this=source_filter, expression=exp.true())
    yield plan.root.name, exp.delete(plan.staged_root).where(exp.Not(this=exp.Paren(this=kept))), ()


def keep_one_per_key(plan: MergePlan) -> Iterator[Step]:
    """Of staged root rows with one primary key keep one: the first by ``dedup_sort``, else the last to arrive."""
    keys = plan.root.keys("primary_key")

    if keys and not plan.root.hints.get("x-stage-data-deduplicated"):
        yield from keep_one_per(plan, keys)


def keep_one_per(plan: MergePlan, keys: Sequence[ColumnName]) -> Iterator[Step]:
    """Delete from the root's staging table all but one row per value of ``keys``.

    The strategy ``insert-only`` keeps the first to arrive, as it would if the rows came in loads of their own.
    """
    sorts = [
        exp.Ordered(this=column(name), desc=one.dedup_sort == "desc", nulls_first=False)
        for name, one in plan.root.columns.items()
        if one.dedup_sort and one.data_type is not None
    ]
    last_wins = plan.strategy != "insert-only"
    yield plan.root.name, _keep_first(plan, plan.staged_root, keys, sorts, last_wins=last_wins), ()


def drop_flagged(plan: MergePlan) -> Iterator[Step]:
    """Delete staged root rows that are flagged by ``hard_delete``."""
    flag = flag_of(plan)

    if flag is not None:
        yield plan.root.name, exp.delete(plan.staged_root).where(is_set(flag)), ()


def flag_of(plan: MergePlan) -> Column | None:
    """The ``hard_delete`` column; None until it has had a value, since nobody has such a column before."""
    columns = plan.root.columns.values()

    return next((one for one in columns if one.hard_delete and one.data_type is not None), None)


def keep_nested(plan: MergePlan) -> Iterator[Step]:
    """Delete staged nested rows whose root row is not staged any more, parents first; keep the others once per id."""
    for one in plan.nested:
        if one.name not in plan.staged:
            continue

        link, owner = link_of(plan, one)
        source = plan.staged.get(owner.name)
        nested = plan.staged[one.name].copy()

        if source is None:
            yield one.name, exp.delete(nested), ()
            continue

        if (row_key := one.keys("row_key")) and _has_doubles(plan):
            yield one.name, _keep_first(plan, nested, (*row_key, ROOT_ROW), [], last_wins=True), ()

        source = source.copy()
        source.set("alias", exp.TableAlias(this=identifier(STAGED)))
        same = all_of(
            [
                exp.EQ(this=column(row_key_of(plan, owner), STAGED), expression=column(link, nested.name)),
                exp.EQ(this=_root_row(STAGED), expression=_root_row(nested.name)),
            ]
        )
        owned = exp.Exists(this=exp.select(exp.Literal.number(1)).from_(source).where(same))
        yield one.name, exp.delete(nested).where(exp.Not(this=owned)), ()


def _has_doubles(plan: MergePlan) -> bool:
    """Whether root rows are told apart, so that nested rows of one id can only be the same row again."""
    told_apart = plan.strategy == "scd2" or bool(plan.root.keys("primary_key"))

    return told_apart and not plan.root.hints.get("x-stage-data-deduplicated")


def _root_row(of: str) -> exp.Expression:
    """The number of the root row; rows that have none count as rows of one root row, so that only ids decide."""
    return exp.Coalesce(this=column(ROOT_ROW, of), expressions=[exp.Literal.number(-1)])


def _keep_first(
    plan: MergePlan, staged: exp.Table, keys: Sequence[ColumnName], sorts: Sequence[exp.Ordered], *, last_wins: bool
) -> exp.Expression:
    rank = exp.Window(
        this=exp.RowNumber(),
        partition_by=[column(key) for key in keys],
        order=exp.Order(expressions=[*sorts, exp.Ordered(this=plan.arrival(), desc=last_wins, nulls_first=False)]),
    )
    ranked = exp.select(exp.alias_(plan.arrival(), _ARRIVAL, quoted=True), exp.alias_(rank, _RANK, quoted=True)).from_(
        staged.copy()
    )
    losers = (
        exp.select(column(_ARRIVAL))
        .from_(ranked.subquery("_asyncelt_ranked"))
        .where(exp.GT(this=column(_RANK), expression=exp.Literal.number(1)))
    )

    return exp.delete(staged.copy()).where(exp.In(this=plan.arrival(), query=losers.subquery()))
