"""Ranges of a cursor as conditions of a query: which column, from where, up to where."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, cast

from asyncelt.errors import AsynceltWarning, ConfigError, InvalidQuery, UnknownColumn, UsageError
from asyncelt.extract.incremental.paths import parse_path
from asyncelt.reading.plan import (
    Aggregate,
    Catalog,
    InRange,
    JoinTable,
    Operator,
    Plan,
    QuerySource,
    Select,
    Step,
    TableSource,
    WhereExpression,
)
from asyncelt.schema.model import Column, Schema
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import convention_of
from asyncelt.types import ColumnName, SqlValue

if TYPE_CHECKING:
    from asyncelt.extract.incremental.definition import Incremental

__all__ = ["CursorRange", "advanced", "in_time_of", "located"]

_CURSOR = "_dlt_cursor"


@dataclass(frozen=True, slots=True)
class CursorRange:
    """A cursor, and the column of a relation that it is."""

    cursor: Incremental[Any]
    column: str
    table: str | None
    """The table that the column is of; None: the relation itself."""
    is_required: bool
    """Whether every row has a value in it."""

    @property
    def is_bound(self) -> bool:
        """Whether the rows still pass the cursor, because a resource that has it is being read."""
        window = self.cursor.window

        return window is not None and not window.is_advanced

    def step(self) -> InRange:
        """The range as the cursor has it now.

        Raises:
            InvalidQuery: The rows would pass the cursor without the column that it looks at.
        """
        if self.is_bound and self.table is not None:
            raise InvalidQuery(
                f"The cursor {self.cursor.cursor_path!r} is no column of the rows, so it cannot follow them: use "
                "'await relation.advance(cursor)', which asks for the last value first."
            )

        start, end = self.cursor.get_current_range()

        if self.is_bound:
            # Rows without a value go on to the cursor, which refuses them.
            end = self.cursor.end_value
            missing = self.cursor.on_cursor_value_missing != "exclude"
        else:
            missing = self.keeps_missing()

        return self._between(start, end, missing=missing, follows=self.is_bound and end is None)

    def applied_to(self, plan: Plan) -> Plan:
        """The rows of a plan that are in the range. Raises as `step`."""
        return plan.then(self.step())

    def pending(self) -> InRange:
        """All that is new, up to whatever the last value is."""
        return self._between(self.cursor.get_current_range()[0], None, missing=False, follows=True, advances=True)

    def up_to(self, last: SqlValue, *, takes_last: bool) -> InRange:
        """What is new, up to the value that the cursor has been moved to."""
        start = self.cursor.get_current_range()[0]

        return self._between(
            start, last, missing=self.keeps_missing(), follows=True, advances=True, takes_end=takes_last
        )

    def values(self) -> tuple[Step, ...]:
        """Steps after which only the column is selected."""
        if self.table is None:
            return (Select((self.column,)),)

        join = JoinTable(Plan(TableSource(self.table)), None, "inner", _CURSOR, only=(self.column,))

        return join, Select((f"{_CURSOR}__{self.column}",))

    def takes_last(self) -> bool:
        """Whether rows at the last value are read by `advance`: they are left for later where more of them may come."""
        cursor = self.cursor

        return cursor.is_unique_cursor() or cursor.range_end == "closed" or cursor.range_start == "open"

    def keeps_missing(self) -> bool:
        """Whether rows without a value are read; warns where they should be refused and cannot be."""
        choice = self.cursor.on_cursor_value_missing

        if choice == "raise" and not self.is_required:
            warnings.warn(
                f"Cursor {self.cursor.cursor_path!r}: a query leaves out rows without a value, and cannot raise for "
                "them. Choose on_cursor_value_missing='include' or 'exclude'.",
                AsynceltWarning,
                stacklevel=5,
            )

        return choice == "include"

    def warn_of_rows_left(self, last: SqlValue) -> None:
        """Tell that rows at the last value are not read by this run."""
        warnings.warn(
            f"Cursor {self.cursor.cursor_path!r}: rows with the last value, {last!r}, are left to the next run, as "
            "more of them may come. incremental() reads them now; a primary key that is the cursor, or "
            "range_end='closed' with write_disposition='merge', does too.",
            AsynceltWarning,
            stacklevel=4,
        )

    def _between(
        self,
        start: SqlValue,
        end: SqlValue,
        *,
        missing: bool,
        follows: bool = False,
        advances: bool = False,
        takes_end: bool | None = None,
    ) -> InRange:
        cursor = self.cursor
        rises = cursor.last_value_func is max
        is_open = cursor.range_start == "open" or (advances and not cursor.lag and cursor.unique_boundary_consumed())
        is_closed = cursor.range_end == "closed" if takes_end is None else takes_end
        bounds: list[tuple[Operator, SqlValue]] = []

        if start is not None:
            bounds.append(((("gt" if is_open else "gte") if rises else ("lt" if is_open else "lte")), start))

        if end is not None:
            bounds.append(((("lte" if is_closed else "lt") if rises else ("gte" if is_closed else "gt")), end))

        can_go_on = not advances and cursor.range_start == "closed"

        return InRange(
            column=self.column,
            table=self.table,
            bounds=tuple(bounds),
            keeps_missing=missing,
            moves=follows,
            limit_order=("asc" if rises else "desc") if can_go_on else None,
        )


def located(cursor: Incremental[Any], plan: Plan, catalog: Catalog, schema: Schema) -> CursorRange:
    """Find the column that a cursor is.

    Raises:
        InvalidQuery: Its path is neither ``column`` nor ``table.column``, or its function is neither min nor max.
        UnknownTable: There is no such table.
        UnknownColumn: The table has no such column.
    """
    if cursor.last_value_func not in (max, min):
        raise InvalidQuery(
            f"Cursor {cursor.cursor_path!r}: only max and min can be asked of a query, not "
            f"{getattr(cursor.last_value_func, '__name__', 'another function')}."
        )

    table, raw = _parts(cursor)
    naming = naming_for(convention_of(schema))

    if table is None or table == plan.table_name:
        own = catalog.columns(plan.table_name) if plan.table_name is not None else {}
        column = raw if ColumnName(raw) in own else naming.identifier(raw)
        known = own.get(ColumnName(column))

        return CursorRange(cursor, column, None, known is not None and not known.nullable)

    if isinstance(plan.source, QuerySource) or plan.table_name is None:
        raise InvalidQuery(
            f"Cursor {cursor.cursor_path!r}: only relations of tables have references to follow to table {table!r}. "
            "Join it in the query, and name the column alone."
        )

    table = table if table in catalog.tables else naming.path(table)
    columns = catalog.columns(table)
    column = raw if ColumnName(raw) in columns else naming.identifier(raw)

    if ColumnName(column) not in columns:
        raise UnknownColumn(f"Table {table!r} has no column {column!r}. It has: {', '.join(columns)}.")

    return CursorRange(cursor, column, table, not columns[ColumnName(column)].nullable)


async def advanced(place: CursorRange, plan: Plan, ask: Callable[[Plan], Awaitable[object]]) -> Plan:
    """Move the cursor of a resource to the last value there is, and plan to read the rows up to it.

    Args:
        place: The cursor, and its column in the plan.
        plan: The rows before the cursor is looked at.
        ask: Reads the only value of a plan.

    Raises:
        UsageError: No resource is being read with the cursor.
        InvalidQuery: The plan has a limit, which would leave out rows that no later run reads.
    """
    cursor = place.cursor

    if cursor.window is None:
        raise UsageError(
            f"advance() moves the cursor {cursor.cursor_path!r} of a resource while it is read: call it in the "
            "resource's function, with the argument that holds the cursor. incremental() takes any."
        )

    if cursor.end_value is not None:
        cursor.advance(cursor.end_value)

        return place.applied_to(plan)

    new = plan.then(place.pending())
    farthest = Aggregate("max" if cursor.last_value_func is max else "min")
    last = cast(SqlValue, await ask(new.then(*place.values(), farthest)))

    if last is None:
        # What comes from now on is left to the next run.
        cursor.advance(None)

        return new.then(WhereExpression("1 = 0"))

    takes_last = place.takes_last()
    chosen = place.up_to(last, takes_last=takes_last)
    cursor.advance(last)

    if not takes_last:
        place.warn_of_rows_left(last)

    return plan.then(chosen)


def in_time_of(column: Column | None, value: SqlValue) -> SqlValue:
    """A bound of a range as the column has it: a date or a time, with a zone or without. A time without is in UTC."""
    if column is None or not isinstance(value, date):
        return value

    if column.data_type == "date":
        return value.date() if isinstance(value, datetime) else value

    if column.data_type != "timestamp":
        return value

    moment = value if isinstance(value, datetime) else datetime.combine(value, time.min)

    if column.timezone is False:
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)

    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _parts(cursor: Incremental[Any]) -> tuple[str | None, str]:
    """Table and column of a cursor path."""
    own = cursor.get_cursor_column_name()

    if own is not None:
        return None, own

    table, _, column = (cursor.cursor_path or "").rpartition(".")

    try:
        names = parse_path(table).column, parse_path(column).column
    except ConfigError:
        names = None, None

    if names[0] is None or names[1] is None:
        raise InvalidQuery(f"A cursor of a query is 'column' or 'table.column', not {cursor.cursor_path!r}.")

    return names[0], names[1]
