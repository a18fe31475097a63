"""Strategies that find rows again by their keys: delete-insert, upsert, cdc and insert-only.

Upsert too deletes and inserts: the columns that the schema knows are all new, and what other columns hold is carried
over. Databases that store columns do this ten times as fast as an UPDATE of all columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlglot import exp

from asyncelt.destinations.sql.merge_plan import (
    STAGED,
    MergePlan,
    Step,
    delete_root_rows,
    insert_staged,
    is_set,
    is_staged,
    row_key_of,
    same_key,
    staged_exists,
    within_bounds,
)
from asyncelt.destinations.sql.merge_staged import drop_filtered, drop_flagged, flag_of, keep_nested, keep_one_per_key
from asyncelt.destinations.sql.names import all_of, column, identifier
from asyncelt.schema.model import Table
from asyncelt.types import ColumnName

__all__ = ["delete_insert", "insert_only", "upsert"]

NEVER_COMPARED = ("primary_key", "row_key", "parent_key", "root_key", "hard_delete")
LOAD_ID = "_dlt_load_id"


def delete_insert(plan: MergePlan) -> Iterator[Step]:
    """Rows of the target whose primary key **or** merge key is staged go, or those in ``destination_scope``."""
    staged = plan.root.name in plan.staged
    scope = plan.condition("x-merge-destination-scope")

    if staged:
        yield from drop_filtered(plan)

    if scope is not None:
        yield from delete_root_rows(plan, [scope])
    elif staged:
        keys = [found for hint in ("primary_key", "merge_key") if (found := plan.root.keys(hint))]
        within = within_bounds(plan, keys[0]) if len(keys) == 1 else ()
        yield from delete_root_rows(plan, [is_staged(plan, one) for one in keys], within=within)

    if staged:
        yield from keep_one_per_key(plan)
        yield from drop_flagged(plan)

    yield from _insert_all(plan)


def upsert(plan: MergePlan) -> Iterator[Step]:
    """Rows with a staged primary key are replaced, others inserted; ``cdc`` also deletes rows that are not staged."""
    root = plan.root
    keys = root.keys("primary_key")
    yield from drop_filtered(plan)

    if plan.strategy == "cdc":
        yield from _delete_absent(plan, keys)

    yield from keep_one_per_key(plan)
    yield from _carry_over(plan, root, keys)

    for one in plan.nested:
        if one.name in plan.staged and one.keys("row_key"):
            yield from _carry_over(plan, one, one.keys("row_key"))

    unchanged = _unchanged(plan, same_key(root, keys))
    yield from delete_root_rows(plan, [is_staged(plan, keys)], keep=unchanged, within=within_bounds(plan, keys))
    yield from drop_flagged(plan)
    yield from keep_nested(plan)

    if unchanged is not None:
        yield from _drop_known(plan, keys)

    yield from _insert_tables(plan)


def insert_only(plan: MergePlan) -> Iterator[Step]:
    """Rows whose primary key the target does not have are inserted with what hangs below them."""
    yield from drop_flagged(plan)
    yield from keep_one_per_key(plan)
    yield from _drop_known(plan, plan.root.keys("primary_key"))
    yield from _insert_all(plan)


def partition(plan: MergePlan) -> exp.Expression | None:
    """Which target rows may go because they are absent: ``destination_scope``, else staged merge keys, else all."""
    scope = plan.condition("x-merge-destination-scope")

    if scope is not None:
        return scope

    keys = plan.root.keys("merge_key")

    return staged_exists(plan, same_key(plan.root, keys)) if keys else None


def _insert_all(plan: MergePlan) -> Iterator[Step]:
    yield from keep_nested(plan)
    yield from _insert_tables(plan)


def _insert_tables(plan: MergePlan) -> Iterator[Step]:
    for one in plan.chain:
        if one.name in plan.staged:
            yield one.name, insert_staged(plan, one), ()


def _delete_absent(plan: MergePlan, keys: Sequence[ColumnName]) -> Iterator[Step]:
    absent: exp.Expression = exp.Not(this=staged_exists(plan, same_key(plan.root, keys)))
    part = partition(plan)
    yield from delete_root_rows(plan, [absent if part is None else all_of([absent, part])])


def _drop_known(plan: MergePlan, keys: Sequence[ColumnName]) -> Iterator[Step]:
    """Delete staged root rows whose key the target has."""
    root = plan.root

    if root.name in plan.existing:
        staged = plan.staged_root
        staged.set("alias", exp.TableAlias(this=identifier(STAGED)))
        same = [same_key(root, keys), *within_bounds(plan, keys)]
        known = exp.select(exp.Literal.number(1)).from_(plan.target(root)).where(all_of(same))
        yield root.name, exp.delete(staged).where(exp.Exists(this=known)), ()


def _carry_over(plan: MergePlan, one: Table, keys: Sequence[ColumnName]) -> Iterator[Step]:
    """Copy what the target holds in columns that the schema does not know into the rows that replace it."""
    foreign = plan.foreign.get(one.name, ())

    if not foreign or one.name not in plan.existing:
        return

    staged = plan.staged[one.name].copy()
    update = exp.Update(
        this=staged,
        expressions=[exp.EQ(this=exp.column(identifier(name)), expression=column(name, one.name)) for name in foreign],
        from_=exp.From(this=plan.target(one)),
        where=exp.Where(
            this=all_of(
                [
                    *(exp.EQ(this=column(key, one.name), expression=column(key, staged.name)) for key in keys),
                    *(within_bounds(plan, keys) if one is plan.root else ()),
                ]
            )
        ),
    )
    yield one.name, update, ()


def _unchanged(plan: MergePlan, match: exp.Expression) -> exp.Expression | None:
    """With ``skip_unchanged_rows``: the staged row with this key says nothing new about a row of the target."""
    if not plan.root.hints.get("x-merge-skip-unchanged-rows"):
        return None

    root = plan.root
    known = {name: one for name, one in root.columns.items() if one.data_type is not None}
    versions = [name for name, one in known.items() if one.extra.get("x-row-version")]
    compared = versions or [
        name
        for name, one in known.items()
        if name.lower() != LOAD_ID and not any(getattr(one, p) for p in NEVER_COMPARED)
    ]

    # A root row that gets another id has to be written, or its nested rows would hang below nothing.
    if any(one.name in plan.existing or one.name in plan.staged for one in plan.nested):
        compared = [*compared, row_key_of(plan, root)]

    same: list[exp.Expression] = [
        exp.NullSafeEQ(this=column(name, STAGED), expression=column(name, root.name)) for name in compared
    ]
    flag = flag_of(plan)

    if flag is not None:
        same.append(exp.Not(this=exp.Coalesce(this=exp.Paren(this=is_set(flag, STAGED)), expressions=[exp.false()])))

    return staged_exists(plan, all_of([match, *same]))
