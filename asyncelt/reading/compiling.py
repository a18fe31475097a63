"""From a plan to one statement with parameters. Imports the SQL builder: call it in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from sqlglot import exp

from asyncelt.errors import InvalidQuery
from asyncelt.reading.draft import Draft, Output, column, draft_over, identifier, subquery
from asyncelt.reading.joining import Joiner
from asyncelt.reading.parsing import bind, parse_condition, parse_query
from asyncelt.reading.plan import (
    Aggregate,
    Catalog,
    CountsSource,
    InRange,
    JoinTable,
    Limit,
    OrderBy,
    Plan,
    QuerySource,
    Select,
    Step,
    TableSource,
    Where,
    WhereExpression,
    check_limit,
    counts_columns,
)
from asyncelt.reading.ranges import in_time_of
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName, SqlValue

__all__ = ["Compiled", "compiled", "literal_statement"]

_COMPARISONS = {"eq": exp.EQ, "ne": exp.NEQ, "gt": exp.GT, "lt": exp.LT, "gte": exp.GTE, "lte": exp.LTE}
_CASTS: Mapping[str, str] = {
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
    "time": "TIME",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
}
"""What text that is compared with a column of a type is read as; other types take it as it comes."""
_QUERY = "query"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A statement, ready to be sent."""

    sql: str
    parameters: tuple[SqlValue, ...]
    columns: tuple[Column, ...] | None
    """Columns of the result; None where only the destination can tell."""
    statement: exp.Query
    """What ``sql`` was written from, for display."""


def compiled(plan: Plan, catalog: Catalog) -> Compiled:
    """The statement of a plan.

    Raises:
        InvalidQuery: A query or condition cannot be parsed, or a join has no meaning.
        UnknownTable: A table is not in the catalog.
        UnknownColumn: A column is not there.
    """
    check_limit(plan)
    builder = _Builder(catalog)

    if isinstance(plan.source, QuerySource) and not plan.steps:
        return builder.query_alone(plan.source)

    draft = builder.draft(plan)
    statement = draft.build()
    columns = None if draft.star else tuple(one.column for one in draft.outputs.values())

    return Compiled(statement.sql(dialect=catalog.dialect), tuple(builder.values), columns, statement)


def literal_statement(one: Compiled) -> exp.Query:
    """The statement with its values written out: for people, and to paste elsewhere."""
    statement = bind(one.statement.copy(), lambda position: _literal(one.parameters[position - 1]))
    assert isinstance(statement, exp.Query)  # noqa: S101 - only placeholders were replaced

    return statement


def _literal(value: SqlValue) -> exp.Expr:
    try:
        return exp.convert(value)
    except ValueError:
        # An interval or a UUID: its text is what SQL would be given.
        return exp.Literal.string(str(value))


@dataclass(slots=True)
class _Builder:
    """Compiles a plan and those that it joins; they share the list of values."""

    catalog: Catalog
    values: list[SqlValue] = field(default_factory=list)

    @property
    def _joiner(self) -> Joiner:
        return Joiner(self.catalog, self.draft)

    def query_alone(self, source: QuerySource) -> Compiled:
        """A query without steps: sent as the user wrote it where that is possible."""
        parsed = parse_query(source.query, self.catalog, source.dialect)
        dialect = self.catalog.dialect
        statement = self._bound(parsed.query.copy(), source.parameters)

        if isinstance(source.query, str) and source.dialect in {None, dialect} and not parsed.rewritten:
            return Compiled(source.query, source.parameters, parsed.columns, statement)

        return Compiled(statement.sql(dialect=dialect), tuple(self.values), parsed.columns, statement)

    def draft(self, plan: Plan) -> Draft:
        draft = self._begun(plan)

        for step in plan.steps:
            if draft.aggregated:
                draft = draft.sealed()

            draft = self._after(draft, step, plan)

        return draft

    def value(self, value: SqlValue) -> exp.Expr:
        """A parameter for a value."""
        self.values.append(value)

        return exp.Parameter(this=exp.Literal.number(len(self.values)))

    # ---------------------------------------------------------------------------------------------- sources

    def _begun(self, plan: Plan) -> Draft:
        source = plan.source

        if isinstance(source, TableSource):
            columns = {str(name): one for name, one in self.catalog.columns(source.name).items()}

            return draft_over(exp.Table(this=identifier(source.name)), source.name, columns, table=source.name)

        if isinstance(source, CountsSource):
            return draft_over(subquery(self._counts(source), "row_counts"), "row_counts", counts_columns())

        parsed = parse_query(source.query, self.catalog, source.dialect)
        query = self._bound(parsed.query, source.parameters)
        columns = {str(one.name): one for one in parsed.columns or ()}

        if parsed.columns is not None and len(columns) < len(parsed.columns):
            raise InvalidQuery("The query has two columns of the same name: give them different ones with AS.")

        is_open = parsed.columns is None

        return replace(draft_over(subquery(query, _QUERY), _QUERY, columns), open_ended=is_open, star=is_open)

    def _counts(self, source: CountsSource) -> exp.Query:
        if not source.tables:
            nothing = [exp.alias_(exp.cast(exp.null(), kind), name) for name, kind in _NO_COUNTS.items()]

            return exp.select(*nothing).where(exp.false())

        selects = []

        for name in source.tables:
            select = exp.select(
                exp.alias_(exp.Literal.string(name), identifier("table_name")),
                exp.alias_(exp.Count(this=exp.Star()), identifier("row_count")),
            ).from_(exp.Table(this=identifier(name)))

            if source.load_id is not None:
                own = column(source.load_id_columns[name], name)
                select = select.where(exp.EQ(this=own, expression=self.value(source.load_id)))

            selects.append(select)

        return selects[0] if len(selects) == 1 else exp.union(*selects, distinct=False, copy=False)

    def _bound(self, query: exp.Query, parameters: tuple[SqlValue, ...]) -> exp.Query:
        bound = self._with_values(query, parameters)
        assert isinstance(bound, exp.Query)  # noqa: S101 - only placeholders were replaced

        return bound

    def _with_values(self, parsed: exp.Expr, parameters: tuple[SqlValue, ...]) -> exp.Expr:
        used: set[int] = set()

        def parameter(position: int) -> exp.Expr:
            if not 1 <= position <= len(parameters):
                raise InvalidQuery(f"Parameter {position} has no value; {len(parameters)} were passed.")

            used.add(position)

            return self.value(parameters[position - 1])

        bound = bind(parsed, parameter)

        if len(used) < len(parameters):
            raise InvalidQuery(f"{len(parameters)} values were passed for {len(used)} parameters.")

        return bound

    # ------------------------------------------------------------------------------------------------ steps

    def _after(self, draft: Draft, step: Step, plan: Plan) -> Draft:
        match step:
            case Select(columns):
                return replace(draft, outputs={name: _selected(draft, name) for name in columns}, star=False)
            case Where():
                return draft.where(self._comparison(draft, step))
            case WhereExpression(condition, parameters):
                bound = self._with_values(parse_condition(condition, self.catalog), parameters)

                return draft.where(exp.paren(draft.resolved(bound)))
            case OrderBy(name, direction):
                key = exp.Ordered(this=draft.resolve(name), desc=direction == "desc", nulls_first=False)

                return draft.ordered(key)
            case Limit(rows):
                return replace(draft, limit=rows)
            case Aggregate():
                return _aggregated(draft, step)
            case InRange():
                return self._in_range(draft, step, plan)
            case JoinTable():
                return self._joiner.joined(draft, step, plan)
            case _:
                assert_never(step)

    def _comparison(self, draft: Draft, step: Where) -> exp.Expr:
        own = draft.resolve(step.column)
        known = draft.known(step.column)

        if isinstance(step.value, tuple):
            return self._membership(own, known, step.value, negated=step.operator == "not_in")

        if step.value is None:
            # "= NULL" is never true: what is meant is whether there is a value.
            missing = exp.Is(this=own, expression=exp.null())

            return missing if step.operator == "eq" else exp.not_(missing, copy=False)

        return _COMPARISONS[step.operator](this=own, expression=self._typed(step.value, known))

    def _membership(
        self, own: exp.Expr, known: Column | None, values: tuple[SqlValue, ...], *, negated: bool
    ) -> exp.Expr:
        given = [self._typed(value, known) for value in values if value is not None]
        member: exp.Expr = exp.In(this=own, expressions=given) if given else exp.false()

        if None in values:
            member = exp.paren(exp.or_(member, exp.Is(this=own.copy(), expression=exp.null())))

        return exp.not_(member, copy=False) if negated else member

    def _in_range(self, draft: Draft, step: InRange, plan: Plan) -> Draft:
        if step.table is None:
            own, known = draft.resolve(step.column), draft.known(step.column)
        else:
            join = JoinTable(Plan(TableSource(step.table)), None, "inner", step.table, only=())
            draft = self._joiner.joined(draft, join, plan)
            qualifier = draft.tables[step.table]
            own, known = draft.qualified(step.column, qualifier), draft.scope[qualifier].get(step.column)

        bounds = [
            _COMPARISONS[operator](this=own.copy(), expression=self._typed(in_time_of(known, value), known))
            for operator, value in step.bounds
        ]
        missing = exp.Is(this=own.copy(), expression=exp.null())

        if not step.keeps_missing:
            return draft.where(*bounds, exp.not_(missing, copy=False))

        return draft.where(exp.paren(exp.or_(exp.and_(*bounds), missing))) if bounds else draft

    def _typed(self, value: SqlValue, known: Column | None) -> exp.Expr:
        parameter = self.value(value)
        wanted = None if known is None or not isinstance(value, str) else _CASTS.get(known.data_type or "")

        if wanted == "TIMESTAMPTZ" and known is not None and known.timezone is False:
            wanted = "TIMESTAMP"

        return parameter if wanted is None else exp.cast(parameter, wanted)


_NO_COUNTS = {"table_name": "TEXT", "row_count": "BIGINT"}


def _selected(draft: Draft, name: str) -> Output:
    known = draft.known(name)
    expression = draft.resolve(name)

    return Output(known or Column(name=ColumnName(name)), expression)


def _aggregated(draft: Draft, step: Aggregate) -> Draft:
    if len(draft.outputs) != 1:
        raise InvalidQuery(f"{step.function}() needs exactly one column: select() it first.")

    if draft.limit is not None:
        draft = draft.sealed()

    ((name, output),) = draft.outputs.items()
    function = exp.Min if step.function == "min" else exp.Max
    value = Output(replace(output.column, nullable=True), function(this=output.expression))

    return replace(draft, outputs={name: value}, order=(), aggregated=True)
