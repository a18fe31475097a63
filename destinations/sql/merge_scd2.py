"""The strategy scd2: a table that keeps every version of its records, with the time in which each was valid.

A record is told by its version column: the row id, which is a hash of the record, or a column that the user names.
Versions that have not arrived again retire; versions that are not active are inserted. Nested rows come with the
version that brings them, once, and stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from sqlglot import exp

from asyncelt.destinations.sql.merge_keyed import partition
from asyncelt.destinations.sql.merge_plan import STAGED, MergePlan, Step, insert_staged, same_key, staged_exists
from asyncelt.destinations.sql.merge_staged import drop_filtered, keep_nested, keep_one_per, keep_one_per_key
from asyncelt.destinations.sql.names import all_of, column, identifier, parameter
from asyncelt.errors import SchemaError
from asyncelt.schema.model import Column, Table
from asyncelt.types import ColumnName, JsonValue

__all__ = ["boundary_of", "moment", "scd2", "validity_of"]


def scd2(plan: MergePlan) -> Iterator[Step]:
    """Retire what is absent, insert what is new."""
    root = plan.root
    version, valid_from, valid_to = validity_of(root)
    boundary = boundary_of(root, plan.created_at)
    active = _active(valid_to, root.name)
    yield from drop_filtered(plan)
    yield from keep_one_per_key(plan)
    yield from keep_one_per(plan, [version])
    yield from _retire(plan, version, valid_to, boundary)
    known = exp.select(exp.Literal.number(1)).from_(plan.target(root)).where(same_key(root, [version]), active[0])
    staged = plan.staged_root
    staged.set("alias", exp.TableAlias(this=identifier(STAGED)))

    if root.name in plan.existing:
        yield root.name, exp.delete(staged).where(exp.Exists(this=known)), active[1]

    yield from keep_nested(plan)
    until = moment(valid_to.extra.get("x-active-record-timestamp"))
    given = {valid_from.name: _timestamp(1), valid_to.name: exp.Null() if until is None else _timestamp(2)}
    parameters: tuple[object, ...] = (boundary,) if until is None else (boundary, until)
    yield root.name, insert_staged(plan, root, given), parameters

    for one in plan.nested:
        if one.name in plan.staged:
            yield from _insert_new(plan, one)


def validity_of(root: Table) -> tuple[ColumnName, Column, Column]:
    """The version column, and the columns that say from when to when a version is valid.

    Raises:
        SchemaError: The table has not all of them.
    """
    marked = {
        mark: one
        for one in root.columns.values()
        for mark in ("x-row-version", "x-valid-from", "x-valid-to")
        if one.extra.get(mark)
    }

    try:
        return marked["x-row-version"].name, marked["x-valid-from"], marked["x-valid-to"]
    except KeyError as error:
        raise SchemaError(
            f"Table {root.name!r} cannot be merged by scd2: no column is marked as {error.args[0]}. Give "
            '{"disposition": "merge", "strategy": "scd2"} as its write disposition, which marks them.'
        ) from None


def boundary_of(root: Table, created_at: datetime) -> datetime:
    """When old versions end and new ones begin: ``boundary_timestamp``, else when the package was made."""
    return moment(root.hints.get("x-boundary-timestamp")) or created_at


def moment(value: JsonValue) -> datetime | None:
    """A stored timestamp, in UTC, which it is in if it names no zone."""
    if value is None or isinstance(value, bool):
        return None

    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)

    found = datetime.fromisoformat(str(value))

    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _retire(plan: MergePlan, version: ColumnName, valid_to: Column, boundary: datetime) -> Iterator[Step]:
    root = plan.root

    if root.name not in plan.existing:
        return

    absent: exp.Expression = exp.Not(this=staged_exists(plan, same_key(root, [version])))
    part = partition(plan)
    active, parameters = _active(valid_to, root.name, first=2)
    update = exp.Update(
        this=plan.target(root),
        expressions=[exp.EQ(this=exp.column(identifier(valid_to.name)), expression=_timestamp(1))],
        where=exp.Where(this=all_of([active, absent] if part is None else [active, absent, part])),
    )
    yield root.name, update, (boundary, *parameters)


def _active(valid_to: Column, of: str, *, first: int = 1) -> tuple[exp.Expression, tuple[object, ...]]:
    """A version is valid now; the condition and its parameters, numbered from ``first``."""
    until = moment(valid_to.extra.get("x-active-record-timestamp"))
    end = column(valid_to.name, of)

    if until is None:
        return exp.Is(this=end, expression=exp.Null()), ()

    return exp.EQ(this=end, expression=_timestamp(first)), (until,)


def _insert_new(plan: MergePlan, one: Table) -> Iterator[Step]:
    """Nested rows whose id is not there: a version that comes back finds those it came with before."""
    row_key = one.keys("row_key")

    if row_key and one.name in plan.existing:
        staged = plan.staged[one.name].copy()
        staged.set("alias", exp.TableAlias(this=identifier(STAGED)))
        known = exp.select(exp.Literal.number(1)).from_(plan.target(one)).where(same_key(one, row_key))
        yield one.name, exp.delete(staged).where(exp.Exists(this=known)), ()

    yield one.name, insert_staged(plan, one), ()


def _timestamp(position: int) -> exp.Expression:
    # The type of a bare parameter in a SELECT would be left to the driver.
    return exp.cast(parameter(position), exp.DataType.build("TIMESTAMPTZ"))
