"""The strategy scd2: a table that keeps every version of its records, with the time in which each was valid.

A record is told by its version column: the row id, which is a hash of the record, or a column that the user names.
Versions that have not arrived again retire; versions that are not active are inserted. Nested rows come with the
version that brings them, once, and stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlglot import exp

from asyncelt.destinations.sql.merge_keyed import partition
from asyncelt.destinations.sql.merge_plan import STAGED, MergePlan, Step, insert_staged, same_key, staged_exists
from asyncelt.destinations.sql.merge_staged import drop_filtered, keep_nested, keep_one_per, keep_one_per_key
from asyncelt.destinations.sql.names import all_of, column, identifier, parameter
from asyncelt.schema.model import Table
from asyncelt.schema.validity import Validity

__all__ = ["scd2"]


def scd2(plan: MergePlan) -> Iterator[Step]:
    """Retire what is absent, insert what is new."""
    root = plan.root
    validity = Validity.of(root)
    boundary = validity.boundary_of(plan.created_at)
    yield from drop_filtered(plan)
    yield from keep_one_per_key(plan)
    yield from keep_one_per(plan, [validity.version])
    yield from _retire(plan, validity, boundary)
    yield from _drop_active(plan, validity)
    yield from keep_nested(plan)
    until = validity.active_until
    given = {validity.valid_from: _timestamp(1), validity.valid_to: exp.Null() if until is None else _timestamp(2)}
    yield root.name, insert_staged(plan, root, given), (boundary,) if until is None else (boundary, until)

    for one in plan.nested:
        if one.name in plan.staged:
            yield from _insert_new(plan, one)


def _retire(plan: MergePlan, validity: Validity, boundary: datetime) -> Iterator[Step]:
    root = plan.root

    if root.name not in plan.existing:
        return

    absent: exp.Expression = exp.Not(this=staged_exists(plan, same_key(root, [validity.version])))
    part = partition(plan)
    active, parameters = _active(plan, validity, first=2)
    update = exp.Update(
        this=plan.target(root),
        expressions=[exp.EQ(this=exp.column(identifier(validity.valid_to)), expression=_timestamp(1))],
        where=exp.Where(this=all_of([active, absent] if part is None else [active, absent, part])),
    )
    yield root.name, update, (boundary, *parameters)


def _drop_active(plan: MergePlan, validity: Validity) -> Iterator[Step]:
    """Delete staged versions that are active in the target."""
    root = plan.root

    if root.name not in plan.existing:
        return

    active, parameters = _active(plan, validity, first=1)
    known = exp.select(exp.Literal.number(1)).from_(plan.target(root)).where(same_key(root, [validity.version]), active)
    yield root.name, exp.delete(_aliased(plan.staged_root)).where(exp.Exists(this=known)), parameters


def _active(plan: MergePlan, validity: Validity, *, first: int) -> tuple[exp.Expression, tuple[object, ...]]:
    """A version of the target is valid now; the condition and its parameters, numbered from ``first``."""
    end = column(validity.valid_to, plan.root.name)

    if validity.active_until is None:
        return exp.Is(this=end, expression=exp.Null()), ()

    return exp.EQ(this=end, expression=_timestamp(first)), (validity.active_until,)


def _insert_new(plan: MergePlan, one: Table) -> Iterator[Step]:
    """Nested rows whose id is not there: a version that comes back finds those it came with before."""
    row_key = one.keys("row_key")

    if row_key and one.name in plan.existing:
        known = exp.select(exp.Literal.number(1)).from_(plan.target(one)).where(same_key(one, row_key))
        yield one.name, exp.delete(_aliased(plan.staged[one.name])).where(exp.Exists(this=known)), ()

    yield one.name, insert_staged(plan, one), ()


def _aliased(staged: exp.Table) -> exp.Table:
    aliased = staged.copy()
    aliased.set("alias", exp.TableAlias(this=identifier(STAGED)))

    return aliased


def _timestamp(position: int) -> exp.Expression:
    # The type of a bare parameter in a SELECT would be left to the driver.
    return exp.cast(parameter(position), exp.DataType.build("TIMESTAMPTZ"))
