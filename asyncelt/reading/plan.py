"""What a relation is made of: a source and the steps that were called on it. Values only.

A relation is compiled when it is read (`compiling`); until then it is one of these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from asyncelt.errors import InvalidQuery, UnknownColumn, UnknownTable
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.types import ColumnName, SqlValue, TableName

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = [
    "OPERATORS",
    "Aggregate",
    "Catalog",
    "CountsSource",
    "InRange",
    "JoinKind",
    "JoinTable",
    "Limit",
    "Operator",
    "OrderBy",
    "Plan",
    "QuerySource",
    "Select",
    "SortOrder",
    "Step",
    "TableSource",
    "Where",
    "WhereExpression",
    "catalog_of",
    "check_limit",
    "counts_columns",
    "known_columns",
    "operand",
]

Operator: TypeAlias = Literal["eq", "ne", "gt", "lt", "gte", "lte", "in", "not_in"]
JoinKind: TypeAlias = Literal["inner", "left", "right", "full"]
SortOrder: TypeAlias = Literal["asc", "desc"]

OPERATORS: tuple[Operator, ...] = ("eq", "ne", "gt", "lt", "gte", "lte", "in", "not_in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What the dataset has, as far as its schemas say."""

    dataset_name: str
    dialect: str
    tables: Mapping[TableName, Table]

    def table(self, name: str) -> Table:
        """One table.

        Raises:
            UnknownTable: No schema has it.
        """
        found = self.tables.get(TableName(name))

        if found is None:
            raise UnknownTable(
                f"Dataset {self.dataset_name!r} has no table {name!r}. It has: {', '.join(self.tables) or 'none'}."
            )

        return found

    def columns(self, name: str) -> dict[ColumnName, Column]:
        """The columns of a table that exist at the destination: those that have a type."""
        return {key: one for key, one in self.table(name).columns.items() if one.data_type is not None}


@dataclass(frozen=True, slots=True)
class TableSource:
    """All columns of one table."""

    name: str


@dataclass(frozen=True, slots=True)
class QuerySource:
    """A query of the user."""

    query: str | exp.Expr
    dialect: str | None = None
    """None: the destination's."""
    parameters: tuple[SqlValue, ...] = ()


@dataclass(frozen=True, slots=True)
class CountsSource:
    """Number of rows per table, as columns ``table_name`` and ``row_count``."""

    tables: tuple[str, ...]
    load_id: str | None = None
    load_id_columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Select:
    """Only these columns, in this order."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Where:
    """A comparison of one column with a value."""

    column: str
    operator: Operator
    value: SqlValue | tuple[SqlValue, ...]


@dataclass(frozen=True, slots=True)
class WhereExpression:
    """A condition in SQL."""

    condition: str | exp.Expr
    parameters: tuple[SqlValue, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderBy:
    """Sort by this column, after those of earlier calls."""

    column: str
    direction: SortOrder


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many rows."""

    rows: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One value: the least or the greatest of the one column."""

    function: Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class JoinTable:
    """Columns of another relation beside ours, under ``<prefix>__<column>``."""

    other: Plan
    on: str | exp.Expr | None
    kind: JoinKind
    prefix: str
    only: tuple[str, ...] | None = None
    """Columns to add; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InRange:
    """Rows whose cursor lies in a range."""

    column: str
    table: str | None = None
    """The table that the column is of, joined for it along references; None: a column of the relation."""
    bounds: tuple[tuple[Operator, SqlValue], ...] = ()
    """What the cursor is compared with; all must hold."""
    keeps_missing: bool = False
    """Whether rows without a value are in the range."""
    moves: bool = False
    """Whether reading the rows moves the cursor, so that what a limit cuts off has to come after them."""
    limit_order: SortOrder | None = None
    """Order by the cursor in which a limit cuts off only that; None: there is none."""


Source: TypeAlias = TableSource | QuerySource | CountsSource
Step: TypeAlias = Select | Where | WhereExpression | OrderBy | Limit | Aggregate | JoinTable | InRange


@dataclass(frozen=True, slots=True)
class Plan:
    """A source, and steps in the order of their calls."""

    source: Source
    steps: tuple[Step, ...] = ()

    def then(self, *steps: Step) -> Plan:
        """The plan with more steps."""
        return replace(self, steps=(*self.steps, *steps))

    @property
    def table_name(self) -> str | None:
        """The table it begins with, if it begins with one."""
        return self.source.name if isinstance(self.source, TableSource) else None


def catalog_of(dataset_name: str, dialect: str, schemas: Sequence[Schema]) -> Catalog:
    """All tables of all schemas; of a table that several have, the columns of all, the first schema's first."""
    tables: dict[TableName, Table] = {}

    for schema in schemas:
        for name, table in schema.tables.items():
            known = tables.get(name)
            tables[name] = table if known is None else replace(known, columns={**table.columns, **known.columns})

    return Catalog(dataset_name=dataset_name, dialect=dialect, tables=tables)


def known_columns(plan: Plan, catalog: Catalog) -> dict[str, Column] | None:
    """Columns of the result where no SQL has to be read for it; else None.

    Raises:
        UnknownTable: The table is not in the catalog.
        UnknownColumn: A column that is selected is not there.
    """
    if isinstance(plan.source, QuerySource):
        return None

    if isinstance(plan.source, CountsSource):
        columns = counts_columns()
    else:
        columns = {str(name): column for name, column in catalog.columns(plan.source.name).items()}

    source = columns

    for step in plan.steps:
        if isinstance(step, Select):
            columns = {name: column_named(name, {**source, **columns}) for name in step.columns}
        elif isinstance(step, JoinTable):
            joined = known_columns(step.other, catalog)

            if joined is None:
                return None

            chosen = joined if step.only is None else {name: joined[name] for name in step.only}
            columns = {**columns, **prefixed(step.prefix, chosen)}

    return columns


def operand(operator: Operator, value: SqlValue | Collection[SqlValue]) -> SqlValue | tuple[SqlValue, ...]:
    """What a column is compared with.

    Raises:
        InvalidQuery: The operator does not go with the value.
    """
    several = isinstance(value, Collection) and not isinstance(value, str | bytes)

    if operator in {"in", "not_in"}:
        return tuple(cast("Collection[SqlValue]", value)) if several else (cast(SqlValue, value),)

    if several:
        raise InvalidQuery(f"{operator!r} compares with one value; several go with 'in' and 'not_in'.")

    if value is None and operator not in {"eq", "ne"}:
        raise InvalidQuery(f"{operator!r} needs a value; None goes with 'eq' and 'ne'.")

    return cast(SqlValue, value)


def check_limit(plan: Plan) -> None:
    """Refuse a limit that would let a cursor move past rows that were never read.

    Raises:
        InvalidQuery: The rows are not ordered by the cursor, or rows at its last value could not be read later.
    """
    moving = next((step for step in plan.steps if isinstance(step, InRange) and step.moves), None)

    if moving is None or not any(isinstance(step, Limit) for step in plan.steps):
        return

    first = next((step for step in plan.steps if isinstance(step, OrderBy)), None)

    if moving.limit_order is None:
        raise InvalidQuery(
            f"limit() on a range of the cursor {moving.column!r} would leave out rows that no later run reads. Leave "
            "it out, or give the cursor range_start='closed' and read it by incremental()."
        )

    if first is None or (first.column.lower(), first.direction) != (moving.column.lower(), moving.limit_order):
        raise InvalidQuery(
            f"limit() on a range of the cursor {moving.column!r} would leave out rows that no later run reads: order "
            f"them by the cursor first, order_by({moving.column!r}, {moving.limit_order!r})."
        )


def counts_columns() -> dict[str, Column]:
    """Columns of a `CountsSource`."""
    return {
        "table_name": Column(name=ColumnName("table_name"), data_type="text", nullable=False),
        "row_count": Column(name=ColumnName("row_count"), data_type="bigint", nullable=False),
    }


def column_named(name: str, columns: Mapping[str, Column]) -> Column:
    """One of the columns.

    Raises:
        UnknownColumn: It is none of them.
    """
    if name not in columns:
        raise UnknownColumn(f"There is no column {name!r}. There are: {', '.join(columns) or 'none'}.")

    return columns[name]


def prefixed(prefix: str, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns of a joined relation under the names that they have in the result."""
    named = {f"{prefix}__{name}": column for name, column in columns.items()}

    return {name: replace(column, name=ColumnName(name)) for name, column in named.items()}
