"""From a plan to one statement with parameters. Imports the SQL builder: call it in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from asyncelt.errors import InvalidQuery, UnknownColumn
from asyncelt.reading.draft import Draft, Output, added, column, identifier, subquery
from asyncelt.reading.parsing import bind, check_tables, parse_condition, parse_query
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
from asyncelt.reading.references import references_between
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName, SqlValue

__all__ = ["Compiled", "compiled", "literal_sql"]

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


def literal_sql(one: Compiled, dialect: str, *, pretty: bool) -> str:
    """The statement with its values written out: for people, and to paste elsewhere."""
    statement = bind(one.statement.copy(), lambda position: _literal(one.parameters[position - 1]))

    return statement.sql(dialect=dialect, pretty=pretty)


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

            return _over(exp.Table(this=identifier(source.name)), source.name, columns, table=source.name)

        if isinstance(source, CountsSource):
            return _over(subquery(self._counts(source), "row_counts"), "row_counts", counts_columns())

        parsed = parse_query(source.query, self.catalog, source.dialect)
        query = self._bound(parsed.query, source.parameters)
        columns = {str(one.name): one for one in parsed.columns or ()}

        if parsed.columns is not None and len(columns) < len(parsed.columns):
            raise InvalidQuery("The query has two columns of the same name: give them different ones with AS.")

        draft = _over(subquery(query, _QUERY), _QUERY, columns)
        draft.open_ended = draft.star = parsed.columns is None

        return draft

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
        if isinstance(step, Select):
            draft.outputs = {name: self._selected(draft, name) for name in step.columns}
            draft.star = False
        elif isinstance(step, Where):
            draft.conditions.append(self._comparison(draft, step))
        elif isinstance(step, WhereExpression):
            condition = self._with_values(parse_condition(step.condition, self.catalog.dialect), step.parameters)
            draft.conditions.append(exp.paren(self._resolved(draft, condition)))
        elif isinstance(step, OrderBy):
            key = draft.resolve(step.column)
            draft.order.append(exp.Ordered(this=key, desc=step.direction == "desc", nulls_first=False))
        elif isinstance(step, Limit):
            draft.limit = step.rows
        elif isinstance(step, Aggregate):
            draft = _aggregated(draft, step)
        elif isinstance(step, InRange):
            draft = self._in_range(draft, step, plan)
        else:
            draft = self._joined(draft, step, plan)

        return draft

    def _selected(self, draft: Draft, name: str) -> Output:
        known = draft.known(name)
        expression = draft.resolve(name)

        return Output(known or Column(name=ColumnName(name)), expression)

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
            draft = self._joined(draft, join, plan)
            qualifier = draft.tables[step.table]
            own, known = draft.qualified(step.column, qualifier), draft.scope[qualifier].get(step.column)

        bounds = [
            _COMPARISONS[operator](this=own.copy(), expression=self._typed(in_time_of(known, value), known))
            for operator, value in step.bounds
        ]
        missing = exp.Is(this=own.copy(), expression=exp.null())

        if not step.keeps_missing:
            draft.conditions += [*bounds, exp.not_(missing, copy=False)]
        elif bounds:
            draft.conditions.append(exp.paren(exp.or_(exp.and_(*bounds), missing)))

        return draft

    def _typed(self, value: SqlValue, known: Column | None) -> exp.Expr:
        parameter = self.value(value)
        wanted = None if known is None or not isinstance(value, str) else _CASTS.get(known.data_type or "")

        if wanted == "TIMESTAMPTZ" and known is not None and known.timezone is False:
            wanted = "TIMESTAMP"

        return parameter if wanted is None else exp.cast(parameter, wanted)

    def _resolved(self, draft: Draft, condition: exp.Expr) -> exp.Expr:
        """Names of a condition as columns of the sources; those inside of a subquery are its own."""
        check_tables(condition, self.catalog)

        def replaced(node: exp.Expr) -> exp.Expr:
            if not isinstance(node, exp.Column) or node.find_ancestor(exp.Query) is not None:
                return node

            return draft.qualified(node.name, node.table) if node.table else draft.resolve(node.name)

        # Not transform(): it would go on into what it has just put there.
        found = [node for node in condition.find_all(exp.Column) if node.find_ancestor(exp.Query) is None]

        if condition in found:
            return replaced(condition)

        for node in found:
            node.replace(replaced(node))

        return condition

    # ------------------------------------------------------------------------------------------------ joins

    def _joined(self, draft: Draft, step: JoinTable, plan: Plan) -> Draft:
        before = draft.conditions and step.kind in {"right", "full"}

        if draft.limit is not None or before:
            # These rows are chosen before the join, not after it.
            draft = draft.sealed()

        if step.on is None:
            qualifier = self._follow(draft, step, plan)
        else:
            qualifier = self._attach(draft, step, self._name_of(step.other), step.on)

        joined = draft.scope[qualifier]
        chosen = joined if step.only is None else {name: joined[name] for name in step.only}
        more = {
            f"{step.prefix}__{name}": Output(
                replace(one, name=ColumnName(f"{step.prefix}__{name}")), column(name, qualifier)
            )
            for name, one in chosen.items()
        }
        draft.outputs = added(draft.outputs, more)

        return draft

    def _follow(self, draft: Draft, step: JoinTable, plan: Plan) -> str:
        """Join along references; tables that are there already are not joined again."""
        left, right = plan.table_name, step.other.table_name

        if left is None or right is None or left not in draft.tables:
            raise InvalidQuery("This join needs on=: only relations of tables have references to follow.")

        at = draft.tables[left]

        for reference in references_between(self.catalog, left, right):
            if reference.table in draft.tables:
                at = draft.tables[reference.table]
                continue

            is_target = reference.table == right
            name = right if is_target and right not in draft.scope else _free(draft)
            other = step.other if is_target else Plan(TableSource(reference.table))
            source, columns = self._source(other, name)
            pairs = [
                exp.EQ(this=draft.qualified(mine, at), expression=_of(theirs, columns, name))
                for mine, theirs in reference.pairs
            ]
            _add(draft, source, exp.and_(*pairs), step.kind)
            draft.scope[name] = columns
            draft.tables[reference.table] = at = name

        return at

    def _attach(self, draft: Draft, step: JoinTable, name: str, on: str | exp.Expr) -> str:
        """Join by a condition of the user."""
        if name in draft.scope:
            raise InvalidQuery(
                f"There is a {name!r} here already, so conditions could not tell the two apart: join a query in which "
                "it has another name, by FROM ... AS other."
            )

        source, columns = self._source(step.other, name)
        draft.scope[name] = columns
        condition = self._resolved(draft, parse_condition(on, self.catalog.dialect))
        _add(draft, source, condition, step.kind)

        if step.other.table_name is not None:
            draft.tables.setdefault(step.other.table_name, name)

        return name

    def _source(self, other: Plan, name: str) -> tuple[exp.Expr, dict[str, Column]]:
        if isinstance(other.source, TableSource) and not other.steps:
            columns = {str(key): one for key, one in self.catalog.columns(other.source.name).items()}
            alias = None if name == other.source.name else exp.TableAlias(this=identifier(name))

            return exp.Table(this=identifier(other.source.name), alias=alias), columns

        draft = self.draft(other)

        if draft.star:
            raise InvalidQuery("The joined query has columns that are not known before it runs: name them in it.")

        return subquery(draft.build(), name), {key: one.column for key, one in draft.outputs.items()}

    def _name_of(self, other: Plan) -> str:
        if other.table_name is not None:
            return other.table_name

        if isinstance(other.source, QuerySource):
            return _alias_in(parse_query(other.source.query, self.catalog, other.source.dialect).query) or "other"

        return "row_counts"


_NO_COUNTS = {"table_name": "TEXT", "row_count": "BIGINT"}


def _over(source: exp.Expr, name: str, columns: dict[str, Column], *, table: str | None = None) -> Draft:
    return Draft(
        source=source,
        qualifier=name,
        outputs={key: Output(one, column(key, name)) for key, one in columns.items()},
        scope={name: columns},
        tables={} if table is None else {table: name},
    )


def _aggregated(draft: Draft, step: Aggregate) -> Draft:
    if len(draft.outputs) != 1:
        raise InvalidQuery(f"{step.function}() needs exactly one column: select() it first.")

    if draft.limit is not None:
        draft = draft.sealed()

    ((name, output),) = draft.outputs.items()
    function = exp.Min if step.function == "min" else exp.Max
    draft.outputs = {name: Output(replace(output.column, nullable=True), function(this=output.expression))}
    draft.order = []
    draft.aggregated = True

    return draft


def _add(draft: Draft, source: exp.Expr, condition: exp.Expr, kind: str) -> None:
    draft.joins.append(exp.Join(this=source, kind=kind.upper(), on=condition))


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
