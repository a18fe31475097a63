"""Lazy relations: described by chained calls, read by awaiting one of the `Fetches`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from textwrap import indent
from typing import TYPE_CHECKING, Any, Final, get_args, overload

import anyio
import pyarrow as pa

from asyncelt._async import in_thread
from asyncelt.arguments import SIZE
from asyncelt.errors import InvalidQuery, UnknownColumn
from asyncelt.reading.cursor import Cursor, opened_cursor
from asyncelt.reading.fetches import Fetches
from asyncelt.reading.handover import ibis_query, ibis_table
from asyncelt.reading.loads import load_ids_of, with_new_load_id
from asyncelt.reading.plan import (
    OPERATORS,
    Aggregate,
    Catalog,
    InRange,
    JoinKind,
    JoinTable,
    Limit,
    Operator,
    OrderBy,
    Plan,
    QuerySource,
    Select,
    SortOrder,
    Step,
    TableSource,
    Where,
    WhereExpression,
    known_columns,
    operand,
)
from asyncelt.reading.ranges import CursorRange, advanced, located
from asyncelt.schema.model import Column, Table
from asyncelt.types import ColumnName, SqlValue, TableName

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from sqlglot import exp

    from asyncelt.extract.incremental.definition import Incremental
    from asyncelt.reading.compiling import Compiled
    from asyncelt.reading.dataset import Dataset

__all__ = ["Relation"]


class _NotGiven:
    """There is a difference between no value and None."""


_NOT_GIVEN: Final = _NotGiven()


class Relation(Fetches):
    """Rows of a dataset that are still to be read. Never changes: every call returns a new one.

    ``where``, ``order_by`` and ``limit`` are clauses of one SELECT, as in the reference: the order of the calls does
    not matter, and the last limit counts. After ``min``, ``max`` and on queries in SQL they work on the result.

    What can be known to be wrong is refused at once for relations of tables; a query in SQL is looked at when it is
    read, or when its `columns` are asked for.
    """

    def __init__(self, dataset: Dataset, plan: Plan) -> None:
        self._dataset = dataset
        self._plan = plan

    @property
    def dataset(self) -> Dataset:
        """The dataset that it is read from."""
        return self._dataset

    @property
    def plan(self) -> Plan:
        """What it is made of."""
        return self._plan

    # ------------------------------------------------------------------------------------------ describing

    def select(self, *columns: str) -> Relation:
        """Only these columns, in this order.

        Raises:
            UnknownColumn: One of them is not there.
        """
        if not columns:
            raise InvalidQuery("select() needs the name of at least one column.")

        self._check(*columns)

        return self._then(Select(columns))

    def __getitem__(self, columns: str | Sequence[str]) -> Relation:
        """``relation["a"]`` and ``relation[["a", "b"]]``: the same as `select`."""
        if isinstance(columns, str):
            return self.select(columns)

        if not isinstance(columns, Sequence):
            raise TypeError(f"Columns are a name or a list of names, not {type(columns).__name__}.")

        return self.select(*columns)

    @overload
    def where(self, column_or_expr: str | exp.Expr, *, parameters: Sequence[SqlValue] = ()) -> Relation: ...

    @overload
    def where(self, column_or_expr: str, operator: Operator, value: SqlValue | Collection[SqlValue]) -> Relation: ...

    def where(
        self,
        column_or_expr: str | exp.Expr,
        operator: Operator | None = None,
        value: SqlValue | Collection[SqlValue] | _NotGiven = _NOT_GIVEN,
        *,
        parameters: Sequence[SqlValue] = (),
    ) -> Relation:
        """Only rows for which the condition holds; several conditions must all hold.

        Args:
            column_or_expr: A column, with ``operator`` and ``value``; or else a condition in SQL, or of sqlglot.
            operator: ``eq``, ``ne``, ``gt``, ``lt``, ``gte``, ``lte``, ``in`` or ``not_in``.
            value: What the column is compared with, always passed as a parameter. None means no value (``IS NULL``);
                a collection with ``in`` and ``not_in``.
            parameters: Values for ``?`` or ``$1``, ``$2`` of a condition in SQL.

        Raises:
            UnknownColumn: The column is not there.
            InvalidQuery: The operator is none of these, or does not go with the value.
        """
        if operator is None and isinstance(value, _NotGiven):
            return self._then(WhereExpression(column_or_expr, tuple(parameters)))

        if not isinstance(column_or_expr, str) or operator is None or isinstance(value, _NotGiven) or parameters:
            raise InvalidQuery("where() takes a column, an operator and a value; or a condition and its parameters.")

        if operator not in OPERATORS:
            raise InvalidQuery(f"There is no operator {operator!r}; there are: {', '.join(OPERATORS)}.")

        self._check(column_or_expr)

        return self._then(Where(column_or_expr, operator, operand(operator, value)))

    filter = where

    def order_by(self, column_name: str, direction: SortOrder = "asc") -> Relation:
        """Sorted by this column, and by those of earlier calls before it. Rows without a value come last.

        Raises:
            UnknownColumn: It is not there.
            InvalidQuery: The direction is not ``asc`` or ``desc``.
        """
        if direction not in get_args(SortOrder):
            raise InvalidQuery(f"A direction is 'asc' or 'desc', not {direction!r}.")

        self._check(column_name)

        return self._then(OrderBy(column_name, direction))

    def limit(self, limit: int) -> Relation:
        """At most so many rows.

        Raises:
            InvalidQuery: The limit is no whole number, or negative.
        """
        if not SIZE.accepts(limit):
            raise InvalidQuery(f"A limit is a whole number that is not negative, not {limit!r}.")

        return self._then(Limit(limit))

    def head(self, limit: int = 5) -> Relation:
        """The same as `limit`, with five rows unless told otherwise."""
        return self.limit(limit)

    def min(self) -> Relation:
        """The least value of the one column that is selected."""
        return self._then(Aggregate("min"))

    def max(self) -> Relation:
        """The greatest value of the one column that is selected."""
        return self._then(Aggregate("max"))

    def join(
        self,
        other: str | Relation,
        on: str | exp.Expr | None = None,
        *,
        kind: JoinKind = "inner",
        alias: str | None = None,
    ) -> Relation:
        """This relation's columns, and those of another of the same dataset as ``<alias>__<column>``.

        Args:
            other: A table, or a relation.
            on: Condition in SQL, in which columns are named ``table.column``. None: along references, from a nested
                table to those it is nested in, or back.
            kind: ``inner``, ``left``, ``right`` or ``full``.
            alias: Prefix of the other's columns; the name of its table unless given.

        Raises:
            InvalidQuery: The two have nothing to do with each other, or two columns would have the same name.
            UnknownTable: There is no such table.
        """
        if kind not in get_args(JoinKind):
            raise InvalidQuery(f"A join is {', '.join(get_args(JoinKind))}, not {kind!r}.")

        if alias == "" or on == "":
            raise InvalidQuery("alias= and on= of a join cannot be empty.")

        if isinstance(other, Relation):
            if not self._dataset.is_same_dataset(other.dataset):
                raise InvalidQuery(
                    f"A relation is joined with relations of the same dataset; these are of {self._dataset!r} and of "
                    f"{other.dataset!r}. Read one of the two and pass its rows on, or use pipeline.sql_client()."
                )

            plan = other.plan
            known_columns(plan, self._dataset.catalog())
        else:
            plan = self._dataset.table(other.removeprefix(f"{self._dataset.dataset_name}.")).plan

        prefix = alias or plan.table_name or "other"

        return self._then(JoinTable(plan, on, kind, prefix))

    def incremental(self, incremental: Incremental[Any]) -> Relation:
        """Only rows in the range of a cursor, which moves as they pass it.

        In a resource that has the cursor as an argument, what is read here passes it when it is yielded, like rows of
        any other source: those at the last value are told apart, and the cursor is as far as the rows that were
        committed. Elsewhere it is a condition, from ``initial_value`` to ``end_value``.

        Args:
            incremental: Its path is a column of this relation. Outside a resource, or after its own ``advance``, it may
                be ``table.column`` as well: the table is joined along references, and adds no columns.

        Raises:
            UnknownColumn: There is no such column.
            InvalidQuery: The cursor cannot be asked of a query, or its rows cannot pass it: see `advance`.
        """
        return Relation(self._dataset, self._located(incremental).applied_to(self._plan))

    async def advance(self, incremental: Incremental[Any]) -> Relation:
        """Move the cursor of a resource to the last value there is, and take the rows up to it.

        For rows that do not pass the cursor as they are: sums, or a cursor in another table. They are yielded as they
        come, unfiltered. Where the cursor is not the primary key, rows at the last value are left to the next run (a
        warning says so), as more of them may come; ``range_end="closed"`` reads them now, and again.

        Args:
            incremental: Its path is a column of this relation, or ``table.column``.

        Returns:
            The rows of the range. Reading them later or twice gives the same range.

        Raises:
            UsageError: No resource is being read with the cursor.
            InvalidQuery: It has a limit, which would leave out rows that no later run reads.
        """
        place = self._located(incremental)
        plan = await advanced(place, self._plan, lambda plan: Relation(self._dataset, plan).fetchscalar())

        return Relation(self._dataset, plan)

    @property
    def is_incremental(self) -> bool:
        """Whether it is the range of a cursor."""
        return any(isinstance(step, InRange) for step in self._plan.steps)

    def with_load_id_col(self) -> Relation:
        """With the load id of each row, which nested tables take from their root as ``_dlt_root___dlt_load_id``.

        Raises:
            InvalidQuery: This is not a relation of a table, or the root table has no load ids.
        """
        return self._with_load_id()[0]

    def from_loads(self, load_ids: Collection[str], *, add_load_id_column: bool = False) -> Relation:
        """Only rows that these loads have brought.

        Args:
            load_ids: See `Dataset.load_ids`.
            add_load_id_column: Keep the load id beside the columns.

        Raises:
            InvalidQuery: As `with_load_id_col`.
        """
        extended, column = self._with_load_id()
        chosen = extended.where(column, "in", tuple(load_ids))

        return chosen if add_load_id_column else chosen.select(*self.columns)

    def _with_load_id(self) -> tuple[Relation, str]:
        found = load_ids_of(self._plan, self._dataset.catalog())

        if found.column in self.columns:
            return self, found.column

        return self._then(found.join or Select((*self.columns, found.column))), found.column

    # -------------------------------------------------------------------------------------------- looking

    @property
    def columns(self) -> list[str]:
        """Names of the result's columns; of a query in SQL as far as they can be told without running it."""
        return list(self.columns_schema)

    @property
    def columns_schema(self) -> dict[ColumnName, Column]:
        """The result's columns with types and hints."""
        known = known_columns(self._plan, self._dataset.catalog())

        if known is None:
            found = self._compiled().columns or ()

            return {one.name: one for one in found}

        if any(isinstance(step, Aggregate) for step in self._plan.steps):
            return {one.name: one for one in self._compiled().columns or ()}

        return {ColumnName(name): one for name, one in known.items()}

    @property
    def schema(self) -> Table:
        """The result as a table of a schema."""
        return Table(name=TableName(self._plan.table_name or "query"), columns=self.columns_schema)

    def to_ibis(self) -> ir.Table:
        """This relation as an expression of ibis, bound to no connection: build on it, pass it to ``dataset.query``.

        A whole table is a table there; else the query goes along as it is, with its values written out.

        Raises:
            ConfigError: ibis is not installed.
            QueryError: It cannot be read like this, or the types of its columns are not known.
        """
        source = self._plan.source

        if isinstance(source, TableSource) and not self._plan.steps:
            return ibis_table(source.name, self._dataset.catalog().columns(source.name))

        return ibis_query(self.to_sql(), self.columns_schema)

    @property
    def sqlglot_expression(self) -> exp.Query:
        """The query as an expression of sqlglot, with its values written out.

        Raises:
            QueryError: It cannot be read like this.
        """
        from asyncelt.reading.compiling import literal_statement

        return literal_statement(self._compiled())

    @property
    def destination_dialect(self) -> str:
        """SQL dialect of the destination, in which `to_sql` is written."""
        return self._dataset.dialect

    query_dialect = destination_dialect

    def to_sql(self, *, pretty: bool = False) -> str:
        """The query with its values written out, for people and to be pasted elsewhere. What runs has parameters.

        Raises:
            QueryError: It cannot be read like this.
        """
        return self.sqlglot_expression.sql(dialect=self._dataset.dialect, pretty=pretty)

    def _ipython_key_completions_(self) -> list[str]:
        return self.columns

    def __str__(self) -> str:
        listed = "".join(f"  {name} {column.data_type}\n" for name, column in self.columns_schema.items())

        return f"Relation query:\n{indent(self.to_sql(pretty=True), '  ')}\nColumns:\n{listed}"

    def __repr__(self) -> str:
        source = self._plan.source
        what = f"query {str(source.query)!r}" if isinstance(source, QuerySource) else self._plan.table_name or "counts"
        steps = "".join(f" {type(step).__name__}" for step in self._plan.steps)

        return f"<asyncelt.Relation {what} of dataset {self._dataset.dataset_name!r}{steps}>"

    # --------------------------------------------------------------------------------------------- inside

    async def __asyncelt_items__(self) -> AsyncGenerator[pa.Table, None]:
        """Its rows as data of a resource, without the ids of the loads that brought them: another load does now."""
        async with aclosing(self.iter_arrow()) as chunks:
            async for chunk in chunks:
                yield with_new_load_id(chunk)

    def _then(self, step: Step) -> Relation:
        return Relation(self._dataset, self._plan.then(step))

    def _located(self, cursor: Incremental[Any]) -> CursorRange:
        found = located(cursor, self._plan, self._dataset.catalog(), self._dataset.schema)

        if found.table is None:
            self._check(found.column)

        return found

    def _check(self, *columns: str) -> None:
        """Refuse columns that cannot be there, where that is known without reading SQL."""
        catalog = self._dataset.catalog()
        known = known_columns(self._plan, catalog)

        if known is None:
            return

        own = catalog.columns(self._plan.table_name) if self._plan.table_name is not None else {}
        names = {*known, *own, *(name.lower() for name in (*known, *own))}

        for name in columns:
            if name not in names and str(name).lower() not in names:
                raise UnknownColumn(f"There is no column {name!r}. There are: {', '.join(known) or 'none'}.")

    def _compiled(self) -> Compiled:
        return _compile(self._plan, self._dataset.catalog())

    @asynccontextmanager
    async def _cursor(self, rows: int | None = None) -> AsyncIterator[Cursor]:
        statement = await self._compiled_in_thread()

        async with (
            self._dataset.session() as session,
            opened_cursor(session, statement.sql, statement.parameters, batch_rows=rows) as cursor,
        ):
            yield cursor

    async def _table(self) -> pa.Table:
        statement = await self._compiled_in_thread()

        async with self._dataset.session() as session:
            return await session.query(statement.sql, statement.parameters)

    async def _compiled_in_thread(self) -> Compiled:
        return await in_thread(partial(_compile, self._plan, self._dataset.catalog()), anyio.CapacityLimiter(1))


def _compile(plan: Plan, catalog: Catalog) -> Compiled:
    # Importing the SQL builder takes a fifth of a second.
    from asyncelt.reading.compiling import compiled

    return compiled(plan, catalog)
