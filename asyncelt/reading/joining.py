"""Joins of a draft: along references, or by a condition. Imports the SQL builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlglot import exp

from asyncelt.errors import InvalidQuery, UnknownColumn
from asyncelt.reading.draft import Draft, Output, column, identifier, subquery
from asyncelt.reading.parsing import parse_condition, parse_query
from asyncelt.reading.plan import Catalog, JoinTable, Plan, QuerySource, TableSource
from asyncelt.reading.references import Reference, references_between
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName

__all__ = ["Joiner"]


@dataclass(frozen=True, slots=True)
class Joiner:
    """Adds joins to drafts."""

    catalog: Catalog
    draft_of: Callable[[Plan], Draft]
    """Drafts a plan that is joined."""

    def joined(self, draft: Draft, step: JoinTable, plan: Plan) -> Draft:
        """The draft, with the columns of another relation beside its own.

        Args:
            draft: What stands so far.
            step: The join.
            plan: Of the draft.

        Raises:
            InvalidQuery: The two have nothing to do with each other, or two sources or columns have the same name.
            UnknownColumn: The condition names a column that is not there.
        """
        is_chosen_before = draft.conditions and step.kind in {"right", "full"}

        if draft.limit is not None or is_chosen_before:
            # These rows are chosen before the join, not after it.
            draft = draft.sealed()

        draft, name = self._along_references(draft, step, plan) if step.on is None else self._by(step.on, draft, step)
        columns = draft.scope[name]
        chosen = columns if step.only is None else {key: columns[key] for key in step.only}
        renamed = {f"{step.prefix}__{key}": (key, one) for key, one in chosen.items()}

        return draft.with_outputs(
            {
                output: Output(replace(one, name=ColumnName(output)), column(key, name))
                for output, (key, one) in renamed.items()
            }
        )

    def _along_references(self, draft: Draft, step: JoinTable, plan: Plan) -> tuple[Draft, str]:
        """Join what leads from one table to the other; tables that are there already are not joined again."""
        left, right = plan.table_name, step.other.table_name

        if left is None or right is None or left not in draft.tables:
            raise InvalidQuery("This join needs on=: only relations of tables have references to follow.")

        at = draft.tables[left]

        for reference in references_between(self.catalog, left, right):
            if reference.table not in draft.tables:
                draft = self._with_reference(draft, reference, step, at)

            at = draft.tables[reference.table]

        return draft, at

    def _with_reference(self, draft: Draft, reference: Reference, step: JoinTable, at: str) -> Draft:
        """Join one table to the source ``at``."""
        is_target = reference.table == step.other.table_name
        name = reference.table if is_target and reference.table not in draft.scope else _free(draft)
        source, columns = self._source(step.other if is_target else Plan(TableSource(reference.table)), name)
        pairs = [
            exp.EQ(this=draft.qualified(mine, at), expression=_of(theirs, columns, name))
            for mine, theirs in reference.pairs
        ]

        return draft.with_source(name, columns, table=reference.table).joined(_join(source, exp.and_(*pairs), step))

    def _by(self, on: str | exp.Expr, draft: Draft, step: JoinTable) -> tuple[Draft, str]:
        """Join by a condition of the user."""
        name = self._name_of(step.other)

        if name in draft.scope:
            raise InvalidQuery(
                f"There is a {name!r} here already, so conditions could not tell the two apart: join a query in which "
                "it has another name, by FROM ... AS other."
            )

        source, columns = self._source(step.other, name)
        draft = draft.with_source(name, columns, table=step.other.table_name)
        condition = draft.resolved(parse_condition(on, self.catalog))

        return draft.joined(_join(source, condition, step)), name

    def _source(self, other: Plan, name: str) -> tuple[exp.Expr, Mapping[str, Column]]:
        """What stands after JOIN, and its columns."""
        if isinstance(other.source, TableSource) and not other.steps:
            columns = {str(key): one for key, one in self.catalog.columns(other.source.name).items()}
            alias = None if name == other.source.name else exp.TableAlias(this=identifier(name))

            return exp.Table(this=identifier(other.source.name), alias=alias), columns

        draft = self.draft_of(other)

        if draft.star:
            raise InvalidQuery("The joined query has columns that are not known before it runs: name them in it.")

        return subquery(draft.build(), name), {key: one.column for key, one in draft.outputs.items()}

    def _name_of(self, other: Plan) -> str:
        """What conditions call the columns of another relation by."""
        if other.table_name is not None:
            return other.table_name

        if isinstance(other.source, QuerySource):
            return _alias_in(parse_query(other.source.query, self.catalog, other.source.dialect).query) or "other"

        return "row_counts"


def _join(source: exp.Expr, condition: exp.Expr, step: JoinTable) -> exp.Join:
    return exp.Join(this=source, kind=step.kind.upper(), on=condition)


def _of(name: str, columns: Mapping[str, Column], qualifier: str) -> exp.Column:
    if name not in columns:
        raise UnknownColumn(f"{qualifier!r} has to have the column {name!r} to be joined by it.")

    return column(name, qualifier)


def _free(draft: Draft) -> str:
    """A name for a table that is only on the way."""
    number = 1

    while (name := f"_between_{number}") in draft.scope:
        number += 1

    return name


def _alias_in(query: exp.Query) -> str | None:
    """What the user calls the first table of a query."""
    source = query.args.get("from_") or query.args.get("from")

    return source.this.alias_or_name or None if isinstance(source, exp.From) else None
