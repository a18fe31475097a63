"""Merge by delete and insert (behaviour.md 7.4), for a chain of a root table and its nested tables.

The rows of the package stand in staging tables, one per table of the chain, which the statements may change:

1. staged root rows that ``source_filter`` leaves out are dropped;
2. rows of the target whose primary key **or** merge key is staged are deleted, with their nested rows;
3. of several staged rows with one primary key one is kept: the first by ``dedup_sort``, else the last to
   arrive; rows flagged ``hard_delete`` go; nested rows are kept once per row key;
4. what is left is inserted, nested rows only where their root row is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from asyncelt.destinations.sql.names import Dataset, all_of, column, identifier, table
from asyncelt.errors import SchemaError
from asyncelt.schema.model import Table
from asyncelt.types import ColumnName, TableName

__all__ = ["DOOMED", "MergePlan", "delete_insert", "has_keys"]

DOOMED = "_asyncelt_doomed"
"""Temporary table of the row keys of target root rows that go. The caller drops it after the chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """One chain to merge.

    ``staged`` names the staging table of each table of the chain that has rows in the package; ``existing``
    are the tables of the chain that the dataset has. ``arrival`` is an expression that orders the rows of a
    staging table as they arrived.
    """

    dataset: Dataset
    chain: tuple[Table, ...]
    staged: Mapping[TableName, exp.Table]
    existing: frozenset[TableName]
    arrival: Callable[[], exp.Expression]
    dialect: str

    @property
    def root(self) -> Table:
        """The table whose keys decide."""
        return self.chain[0]

    def target(self, one: Table, alias: str | None = None) -> exp.Table:
        """The table in the dataset."""
        return table(one.name, self.dataset, alias)

    def condition(self, hint: str) -> exp.Expression | None:
        """A condition in SQL that the user gave as a hint of the root table."""
        text = self.root.hints.get(hint)

        if not isinstance(text, str) or not text:
            return None

        names = {"table": self.target(self.root).sql(dialect=self.dialect)}

        if self.root.name in self.staged:
            names["staging_table"] = self.staged[self.root.name].sql(dialect=self.dialect)

        return exp.Paren(this=sqlglot.parse_one(text.format(**names), dialect=self.dialect))


def has_keys(root: Table) -> bool:
    """Whether anything says which rows of the target are replaced; if not, merging is appending."""
    return bool(root.keys("primary_key") or root.keys("merge_key") or root.hints.get("x-merge-destination-scope"))


def delete_insert(plan: MergePlan) -> Iterator[tuple[str, str]]:
    """Yield (table name, statement) in the order in which they have to run, in one transaction."""
    for name, statement in _statements(plan):
        yield name, statement.sql(dialect=plan.dialect)


def _statements(plan: MergePlan) -> Iterator[tuple[str, exp.Expression]]:
    root = plan.root
    source_filter = plan.condition("x-merge-source-filter")

    if root.name in plan.staged and source_filter is not None:
        kept = exp.Is(this=source_filter, expression=exp.true())
        yield root.name, exp.delete(plan.staged[root.name].copy()).where(exp.Not(this=exp.Paren(this=kept)))

    yield from _delete_matches(plan)

    if root.name in plan.staged:
        yield from _thin_out_root(plan)

    for one in plan.chain[1:]:
        if one.name in plan.staged:
            yield from _thin_out_nested(plan, one)

    for one in plan.chain:
        if one.name in plan.staged:
            yield one.name, _insert(plan, one)


def _delete_matches(plan: MergePlan) -> Iterator[tuple[str, exp.Expression]]:
    """Delete target rows, nested ones first: they are found through the root rows."""
    root = plan.root
    scope = plan.condition("x-merge-destination-scope")
    conditions = [scope] if scope is not None else _key_conditions(plan)

    if not conditions or root.name not in plan.existing:
        return

    # A user's condition may name the table in full, which an alias would hide.
    target = plan.target(root, None if scope is not None else "d")
    nested = [one for one in plan.chain[1:] if one.name in plan.existing]

    if not nested:
        for condition in conditions:
            yield root.name, exp.Delete(this=target.copy(), where=exp.Where(this=condition))

        return

    row_key = _row_key(root)
    selects = [exp.select(column(row_key)).from_(target.copy()).where(condition) for condition in conditions]
    doomed = selects[0].distinct() if len(selects) == 1 else exp.union(*selects)
    properties = exp.Properties(expressions=[exp.TemporaryProperty()])
    yield root.name, exp.Create(this=table(DOOMED), kind="TABLE", properties=properties, expression=doomed)

    for one in reversed(nested):
        yield one.name, exp.delete(plan.target(one)).where(_belongs(plan, one, doomed_keys=True))

    yield root.name, exp.delete(plan.target(root)).where(_within(row_key, _keys_of(table(DOOMED), row_key)))
    yield root.name, exp.Drop(tables=[table(DOOMED)], kind="TABLE")


def _key_conditions(plan: MergePlan) -> list[exp.Expression]:
    """One EXISTS per kind of key. Not one with OR, which databases can only answer by comparing all pairs."""
    staged = plan.staged.get(plan.root.name)

    if staged is None:
        return []

    conditions: list[exp.Expression] = []

    for hint in ("primary_key", "merge_key"):
        keys = plan.root.keys(hint)

        if keys:
            source = staged.copy()
            source.set("alias", exp.TableAlias(this=identifier("s")))
            matches = all_of(exp.EQ(this=column(key, "d"), expression=column(key, "s")) for key in keys)
            conditions.append(exp.Exists(this=exp.select(exp.Literal.number(1)).from_(source).where(matches)))

    return conditions


def _thin_out_root(plan: MergePlan) -> Iterator[tuple[str, exp.Expression]]:
    root, staged = plan.root, plan.staged[plan.root.name]
    keys = root.keys("primary_key")

    if keys and not root.hints.get("x-stage-data-deduplicated"):
        sorts = [
            exp.Ordered(this=column(name), desc=one.dedup_sort == "desc", nulls_first=False)
            for name, one in root.columns.items()
            if one.dedup_sort
        ]
        yield root.name, _keep_first(plan, staged, keys, sorts)

    flag = next((one for one in root.columns.values() if one.hard_delete), None)

    if flag is not None:
        deleted = (
            exp.EQ(this=column(flag.name), expression=exp.true())
            if flag.data_type == "bool"
            else exp.Not(this=exp.Is(this=column(flag.name), expression=exp.Null()))
        )
        yield root.name, exp.delete(staged.copy()).where(deleted)


def _thin_out_nested(plan: MergePlan, one: Table) -> Iterator[tuple[str, exp.Expression]]:
    row_key = one.keys("row_key")

    if row_key and plan.root.keys("primary_key") and not plan.root.hints.get("x-stage-data-deduplicated"):
        yield one.name, _keep_first(plan, plan.staged[one.name], row_key, [])


def _keep_first(
    plan: MergePlan, staged: exp.Table, keys: Sequence[ColumnName], sorts: Sequence[exp.Ordered]
) -> exp.Expression:
    """Delete from a staging table all but one row per key."""
    rank = exp.Window(
        this=exp.RowNumber(),
        partition_by=[column(key) for key in keys],
        order=exp.Order(expressions=[*sorts, exp.Ordered(this=plan.arrival(), desc=True, nulls_first=False)]),
    )
    ranked = exp.select(
        exp.alias_(plan.arrival(), "_asyncelt_arrival", quoted=True), exp.alias_(rank, "_asyncelt_rank", quoted=True)
    ).from_(staged.copy())
    losers = (
        exp.select(column("_asyncelt_arrival"))
        .from_(ranked.subquery("_asyncelt_ranked"))
        .where(exp.GT(this=column("_asyncelt_rank"), expression=exp.Literal.number(1)))
    )

    return exp.delete(staged.copy()).where(exp.In(this=plan.arrival(), query=losers.subquery()))


def _insert(plan: MergePlan, one: Table) -> exp.Expression:
    names = [name for name, spec in one.columns.items() if spec.data_type is not None]
    rows = exp.select(*(column(name) for name in names)).from_(plan.staged[one.name].copy())

    if one is not plan.root:
        # A join may lose the order in which the rows arrived.
        rows = rows.where(_belongs(plan, one, doomed_keys=False)).order_by(plan.arrival())

    into = exp.Schema(this=plan.target(one), expressions=[identifier(name) for name in names])

    return exp.Insert(this=into, expression=rows)


def _belongs(plan: MergePlan, one: Table, *, doomed_keys: bool) -> exp.Expression:
    """A nested row belongs to a root row that goes (``doomed_keys``) or to a staged one that stays.

    Through the root key; a table that has none is followed parent by parent.
    """
    root = plan.root
    root_key = one.keys("root_key")
    parents = {spec.name: spec for spec in plan.chain}
    parent = parents[one.parent] if one.parent is not None else root
    link = root_key or one.keys("parent_key")

    if not link:
        raise SchemaError(
            f"Table {one.name!r} cannot be merged: it has neither a root key (_dlt_root_id) nor a parent key "
            f"(_dlt_parent_id) that connects its rows with {root.name!r}."
        )

    if root_key or parent is root:
        if doomed_keys:
            return _within(link[0], _keys_of(table(DOOMED), _row_key(root)))

        if root.name not in plan.staged:
            return exp.false()

        return _within(link[0], _keys_of(plan.staged[root.name].copy(), _row_key(root)))

    source = plan.target(parent) if doomed_keys else plan.staged.get(parent.name)

    if source is None:
        return exp.false()

    upper = exp.select(column(_row_key(parent))).from_(source.copy())

    return _within(link[0], upper.where(_belongs(plan, parent, doomed_keys=doomed_keys)))


def _keys_of(source: exp.Table, key: str) -> exp.Select:
    return exp.select(column(key)).from_(source)


def _within(name: str, query: exp.Select) -> exp.Expression:
    return exp.In(this=column(name), query=query.subquery())


def _row_key(one: Table) -> ColumnName:
    """The column that identifies a row: the row key, a unique column, or a primary key of one column."""
    for hint in ("row_key", "unique", "primary_key"):
        names = one.keys(hint)

        if names and (hint != "primary_key" or len(names) == 1):
            return names[0]

    raise SchemaError(
        f"Table {one.name!r} has nested tables but no column that identifies a row (a row key such as _dlt_id, a "
        "unique column, or a primary key of one column), so its nested rows cannot be merged."
    )
