"""What a merge works on: the chain of tables, where its rows stand, and the pieces that all strategies are made of.

Staging tables have the columns of their target and one more, `ROOT_ROW` (:mod:`asyncelt.flow`), and may be changed by
the statements. The target is never given an alias: a user's condition may name it in full, which an alias would hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import sqlglot
from sqlglot import exp

from asyncelt.destinations.sql.names import Dataset, all_of, column, identifier, table
from asyncelt.errors import SchemaError
from asyncelt.schema.model import Column, Table
from asyncelt.types import ColumnName, MergeStrategy, TableName

__all__ = [
    "STAGED",
    "Bounds",
    "MergePlan",
    "Step",
    "delete_root_rows",
    "insert_staged",
    "is_set",
    "is_staged",
    "link_of",
    "row_key_of",
    "same_key",
    "staged_exists",
    "within_bounds",
]

Bounds: TypeAlias = Mapping[ColumnName, tuple[exp.Expression, exp.Expression]]
"""The smallest and the largest value of columns."""
Step = tuple[TableName, exp.Expression, "tuple[object, ...]"]
"""A table's name, a statement on it, and the statement's parameters."""
STAGED: Final = "_asyncelt_staged"
"""Alias of a staging table inside a condition on another table."""
DOOMED: Final = "_asyncelt_doomed"
"""Temporary table of the row keys of target root rows that go."""
_ONE: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """One chain to merge.

    ``staged`` names the staging table of each table of the chain that has rows in the package; ``existing``
    are the tables of the chain that the dataset has, and ``foreign`` the columns that their targets have and the
    schema does not know. ``arrival`` is an expression that orders the rows of a staging table as they arrived.
    ``created_at`` is when the package was made, in unix time.
    """

    dataset: Dataset
    chain: tuple[Table, ...]
    staged: Mapping[TableName, exp.Table]
    existing: frozenset[TableName]
    arrival: Callable[[], exp.Expression]
    keeps_order: bool = False
    analyzes: bool = False
    """Whether the planner has to be told what a temporary table holds."""
    dialect: str
    strategy: MergeStrategy
    created_at: float
    foreign: Mapping[TableName, tuple[str, ...]] = field(default_factory=dict)
    bounds: Callable[[], Bounds] = dict
    """Of the keys of the staged root rows, where they are known; asked when those are staged."""

    @property
    def root(self) -> Table:
        """The table whose keys decide."""
        return self.chain[0]

    @property
    def nested(self) -> tuple[Table, ...]:
        """The tables below it, parents before children."""
        return self.chain[1:]

    @property
    def staged_root(self) -> exp.Table:
        """Staging table of the root table, which has one."""
        return self.staged[self.root.name].copy()

    def target(self, one: Table) -> exp.Table:
        """The table in the dataset."""
        return table(one.name, self.dataset)

    def parent_of(self, one: Table) -> Table:
        """The table of the chain that a nested table is nested in."""
        return next(spec for spec in self.chain if spec.name == one.parent)

    def condition(self, hint: str) -> exp.Expression | None:
        """A condition in SQL that the user gave as a hint of the root table.

        Raises:
            SchemaError: It cannot be read.
        """
        text = self.root.hints.get(hint)

        if not isinstance(text, str) or not text:
            return None

        names = {"table": self.target(self.root).sql(dialect=self.dialect)}

        if self.root.name in self.staged:
            names["staging_table"] = self.staged_root.sql(dialect=self.dialect)

        try:
            condition = sqlglot.parse_one(text.format(**names), dialect=self.dialect)
        except sqlglot.ParseError as error:
            raise SchemaError(
                f"Table {self.root.name!r}: the SQL of {hint} cannot be read: {text!r} ({error}). Correct it in the "
                "write disposition, abort the package and run again."
            ) from error

        return exp.Paren(this=condition)


def same_key(root: Table, keys: Sequence[ColumnName]) -> exp.Expression:
    """A row of the target and one of the staging table have the same values in ``keys``. Nulls are never the same."""
    return all_of(exp.EQ(this=column(key, root.name), expression=column(key, STAGED)) for key in keys)


def staged_exists(plan: MergePlan, condition: exp.Expression) -> exp.Expression:
    """Some staged root row, known as `STAGED` in the condition, fulfils it."""
    source = plan.staged_root
    source.set("alias", exp.TableAlias(this=identifier(STAGED)))

    return exp.Exists(this=exp.select(exp.Literal.number(_ONE)).from_(source).where(condition))


def is_staged(plan: MergePlan, keys: Sequence[ColumnName]) -> exp.Expression:
    """A row of the target has the same key as a staged root row."""
    return all_of([staged_exists(plan, same_key(plan.root, keys)), *within_bounds(plan, keys)])


def within_bounds(plan: MergePlan, keys: Sequence[ColumnName]) -> list[exp.Expression]:
    """What every row of the target fulfils that has the key of a staged one, and that a planner can count with.

    It does not see by itself that a load which brings the newest keys has nothing to do with all older rows.
    """
    known = plan.bounds()

    return [
        exp.Between(this=column(key, plan.root.name), low=known[key][0].copy(), high=known[key][1].copy())
        for key in keys
        if key in known
    ]


def is_set(flag: Column, of: str | None = None) -> exp.Expression:
    """A ``hard_delete`` column says that the row is deleted: true for a bool, anything but null for other types."""
    if flag.data_type == "bool":
        return exp.EQ(this=column(flag.name, of), expression=exp.true())

    return exp.Not(this=exp.Is(this=column(flag.name, of), expression=exp.Null()))


def delete_root_rows(
    plan: MergePlan,
    conditions: Sequence[exp.Expression],
    parameters: tuple[object, ...] = (),
    *,
    keep: exp.Expression | None = None,
    within: Sequence[exp.Expression] = (),
) -> Iterator[Step]:
    """Delete target rows that fulfil any of the conditions, and before them everything that hangs below them.

    One query per condition, joined by UNION: one condition with OR could only be answered by comparing all pairs.

    Args:
        plan: The merge.
        conditions: On the root table in the target.
        parameters: Of the conditions.
        keep: Root rows that stay although their nested rows go.
        within: What all rows fulfil that fulfil any of the conditions.
    """
    root = plan.root
    nested = [one for one in plan.nested if one.name in plan.existing]

    if not conditions or root.name not in plan.existing:
        return

    if not nested:
        for condition in conditions:
            yield root.name, exp.delete(plan.target(root)).where(*_narrowed(condition, keep)), parameters

        return

    row_key = row_key_of(plan, root)
    selects = [exp.select(column(row_key)).from_(plan.target(root)).where(one.copy()) for one in conditions]
    doomed = selects[0].distinct() if len(selects) == 1 else exp.union(*selects)
    properties = exp.Properties(expressions=[exp.TemporaryProperty()])
    yield root.name, exp.Create(this=table(DOOMED), kind="TABLE", properties=properties, expression=doomed), parameters

    if plan.analyzes:
        yield root.name, exp.Analyze(tables=[table(DOOMED)]), ()

    for one in reversed(nested):
        yield one.name, exp.delete(plan.target(one)).where(_hangs_below_doomed(plan, one)), ()

    gone = all_of([_within(row_key, _keys_of(table(DOOMED), row_key)), *(one.copy() for one in within)])
    yield root.name, exp.delete(plan.target(root)).where(*_narrowed(gone, keep)), ()
    yield root.name, exp.Drop(tables=[table(DOOMED)], kind="TABLE"), ()


def insert_staged(
    plan: MergePlan, one: Table, given: Mapping[ColumnName, exp.Expression] | None = None
) -> exp.Expression:
    """INSERT of all staged rows of a table in the order in which they arrived; some columns may be given."""
    values = given or {}
    names = [name for name, spec in one.columns.items() if spec.data_type is not None]
    names += [ColumnName(name) for name in plan.foreign.get(one.name, ())]
    rows = exp.select(*(values.get(name, column(name)) for name in names)).from_(plan.staged[one.name].copy())
    into = exp.Schema(this=plan.target(one), expressions=[identifier(name) for name in names])

    return exp.Insert(this=into, expression=rows if plan.keeps_order else rows.order_by(plan.arrival()))


def row_key_of(plan: MergePlan, one: Table) -> ColumnName:
    """The column that identifies a row: the row key, a row version, a unique column, or a primary key of one column."""
    for names in (one.keys("row_key"), _versions(one), one.keys("unique"), one.keys("primary_key")):
        if len(names) == _ONE:
            return names[0]

    raise SchemaError(
        f"Table {one.name!r} has nested tables but no column that identifies a row (a row key such as _dlt_id, a "
        f"unique column, or a primary key of one column), so its nested rows cannot be merged by {plan.strategy}."
    )


def link_of(plan: MergePlan, one: Table) -> tuple[ColumnName, Table]:
    """The column that connects a nested row with another table of the chain, and that table.

    The root table, where the rows have a root key; else the parent table. Where the chain's root is itself nested in
    another table, root keys may lead to that one.
    """
    if (root_key := one.keys("root_key")) and not plan.root.keys("root_key"):
        return root_key[0], plan.root

    if parent_key := one.keys("parent_key"):
        return parent_key[0], plan.parent_of(one)

    raise SchemaError(
        f"Table {one.name!r} cannot be merged: it has neither a root key (_dlt_root_id) nor a parent key "
        f"(_dlt_parent_id) that connects its rows with {plan.root.name!r}."
    )


def _versions(one: Table) -> tuple[ColumnName, ...]:
    return tuple(name for name, spec in one.columns.items() if spec.extra.get("x-row-version"))


def _narrowed(condition: exp.Expression, keep: exp.Expression | None) -> Iterable[exp.Expression]:
    return (condition.copy(),) if keep is None else (condition.copy(), exp.Not(this=exp.Paren(this=keep.copy())))


def _hangs_below_doomed(plan: MergePlan, one: Table) -> exp.Expression:
    """A nested row of the target belongs to a root row that goes; without a root key, parent by parent."""
    link, owner = link_of(plan, one)

    if owner is plan.root:
        return _within(link, _keys_of(table(DOOMED), row_key_of(plan, owner)))

    upper = _keys_of(plan.target(owner), row_key_of(plan, owner))

    return _within(link, upper.where(_hangs_below_doomed(plan, owner)))


def _keys_of(source: exp.Table, key: str) -> exp.Select:
    return exp.select(column(key)).from_(source)


def _within(name: str, query: exp.Select) -> exp.Expression:
    return exp.In(this=column(name), query=query.subquery())
