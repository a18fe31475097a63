"""A SELECT that is being built: what can be named in it, and its clauses. Imports the SQL builder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from asyncelt.errors import InvalidQuery, UnknownColumn
from asyncelt.schema.model import Column

__all__ = ["Draft", "Output", "column", "draft_over", "identifier", "subquery"]


def identifier(name: str) -> exp.Identifier:
    """A name as it is: always quoted."""
    return exp.to_identifier(name, quoted=True)


def column(name: str, of: str) -> exp.Column:
    """A column of one of the sources."""
    return exp.column(identifier(name), table=identifier(of))


@dataclass(frozen=True, slots=True)
class Output:
    """One column of the result."""

    column: Column
    expression: exp.Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One SELECT. Clauses are kept apart and put together at the end, so that every step may add to any of them."""

    source: exp.Expr
    """What stands after FROM."""
    qualifier: str
    """By what name."""
    outputs: Mapping[str, Output]
    """Columns of the result, in order."""
    scope: Mapping[str, Mapping[str, Column]]
    """All that can be named: columns by the name of their source."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """Tables of the dataset that are sources here, and by what name."""
    open_ended: bool = False
    """Whether the first source has columns that nobody knows before the destination is asked."""
    star: bool = False
    """Whether the result has all of them."""
    joins: tuple[exp.Join, ...] = ()
    conditions: tuple[exp.Expr, ...] = ()
    order: tuple[exp.Ordered, ...] = ()
    limit: int | None = None
    aggregated: bool = False

    def where(self, *conditions: exp.Expr) -> Draft:
        """With more conditions, all of which must hold."""
        return replace(self, conditions=(*self.conditions, *conditions))

    def ordered(self, key: exp.Ordered) -> Draft:
        """Sorted by one more key, after those that are there."""
        return replace(self, order=(*self.order, key))

    def with_source(self, name: str, columns: Mapping[str, Column], *, table: str | None) -> Draft:
        """With columns of one more source that can be named, and no join yet."""
        tables = self.tables if table is None or table in self.tables else {**self.tables, table: name}

        return replace(self, scope={**self.scope, name: columns}, tables=tables)

    def joined(self, join: exp.Join) -> Draft:
        """With one more join."""
        return replace(self, joins=(*self.joins, join))

    def with_outputs(self, more: Mapping[str, Output]) -> Draft:
        """With more columns, after those that are there.

        Raises:
            InvalidQuery: A name would be there twice.
        """
        twice = [name for name in more if name in self.outputs]

        if twice:
            raise InvalidQuery(
                f"The join would give two columns the name {', '.join(twice)}: pass another alias= for the joined "
                "relation."
            )

        return replace(self, outputs={**self.outputs, **more})

    def resolve(self, name: str) -> exp.Expr:
        """The expression behind a name: a column of the result, else one of the first source.

        Raises:
            UnknownColumn: It is neither.
        """
        for output in _matches(name, self.outputs):
            return self.outputs[output].expression.copy()

        for own in _matches(name, self.scope[self.qualifier]):
            return column(own, self.qualifier)

        if self.open_ended:
            return column(name, self.qualifier)

        raise UnknownColumn(f"There is no column {name!r}. There are: {', '.join(self.outputs) or 'none'}.")

    def known(self, name: str) -> Column | None:
        """What is known about a column that can be named."""
        for output in _matches(name, self.outputs):
            return self.outputs[output].column

        for own in _matches(name, self.scope[self.qualifier]):
            return self.scope[self.qualifier][own]

        return None

    def qualified(self, name: str, of: str) -> exp.Expr:
        """A column of a named source.

        Raises:
            UnknownColumn: There is no such source, or it has no such column.
        """
        for source in _matches(of, self.scope):
            for found in _matches(name, self.scope[source]):
                return column(found, source)

            if source == self.qualifier and self.open_ended:
                return column(name, source)

            raise UnknownColumn(f"{source!r} has no column {name!r}. It has: {', '.join(self.scope[source])}.")

        raise UnknownColumn(f"{of}.{name}: there is no {of!r} here, only {', '.join(self.scope)}.")

    def resolved(self, condition: exp.Expr) -> exp.Expr:
        """Names of a condition as columns of the sources; those inside of a subquery are its own.

        Raises:
            UnknownColumn: A name is none.
        """

        def replaced(node: exp.Column) -> exp.Expr:
            return self.qualified(node.name, node.table) if node.table else self.resolve(node.name)

        # Not transform(): it would go on into what it has just put there.
        found = [node for node in condition.find_all(exp.Column) if node.find_ancestor(exp.Query) is None]

        if isinstance(condition, exp.Column):
            return replaced(condition)

        for node in found:
            node.replace(replaced(node))

        return condition

    def sealed(self) -> Draft:
        """A fresh SELECT over this one: what comes next works on its rows as they are."""
        columns = {name: output.column for name, output in self.outputs.items()}
        own = {table: name for table, name in self.tables.items() if name == self.qualifier}

        return Draft(
            source=subquery(self.build(), self.qualifier),
            qualifier=self.qualifier,
            outputs={name: Output(one, column(name, self.qualifier)) for name, one in columns.items()},
            scope={self.qualifier: columns},
            tables=own,
            open_ended=self.star,
            star=self.star,
        )

    def build(self) -> exp.Select:
        """The SELECT."""
        if self.star:
            projections: list[exp.Expr] = [exp.Star()]
        else:
            projections = [
                output.expression.copy()
                if isinstance(output.expression, exp.Column) and output.expression.name == name
                else exp.alias_(output.expression.copy(), identifier(name))
                for name, output in self.outputs.items()
            ]

        select = exp.select(*projections, copy=False).from_(self.source.copy(), copy=False)

        for join in self.joins:
            select = select.join(join.copy(), copy=False)

        for condition in self.conditions:
            select = select.where(condition.copy(), copy=False)

        if self.order:
            select.set("order", exp.Order(expressions=[one.copy() for one in self.order]))

        return select if self.limit is None else select.limit(self.limit, copy=False)


def subquery(query: exp.Expr, alias: str) -> exp.Subquery:
    """A query as a source with a name."""
    return exp.Subquery(this=query, alias=exp.TableAlias(this=identifier(alias)))


def draft_over(source: exp.Expr, name: str, columns: Mapping[str, Column], *, table: str | None = None) -> Draft:
    """All columns of one source.

    Args:
        source: What stands after FROM.
        name: By what name.
        columns: Its columns.
        table: The table of the dataset that it is; None: it is none.
    """
    return Draft(
        source=source,
        qualifier=name,
        outputs={key: Output(one, column(key, name)) for key, one in columns.items()},
        scope={name: columns},
        tables={} if table is None else {table: name},
    )


def _matches(name: str, names: Iterable[str]) -> list[str]:
    """The one that is spelled like this; else the one that differs only in case, if there is only one."""
    listed = list(names)

    if name in listed:
        return [name]

    similar = [one for one in listed if one.lower() == name.lower()]

    return similar if len(similar) == 1 else []
