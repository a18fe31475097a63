"""Arrow tables and frames: the same rule as for rows, by kernels over the cursor's column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import ConfigError, IncrementalCursorPathHasValueNone, IncrementalCursorPathMissing
from asyncelt.extract.incremental.window import Window

if TYPE_CHECKING:
    from asyncelt.extract.incremental.definition import Incremental

__all__ = ["sift_table"]

Column: TypeAlias = "pa.ChunkedArray[Any]"
Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Places: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"


def sift_table(cursor: Incremental[Any], window: Window, table: pa.Table) -> pa.Table | None:
    """The rows of a table that are in the range; None: not one. Rows keep their order.

    Raises:
        IncrementalError: The column is missing, has nulls that must not be there, or cannot be compared.
        ConfigError: The cursor's function has no kernel.
    """
    if window.rules.func not in (max, min):
        raise ConfigError(
            f"{window.rules.where}: Arrow tables and frames can be filtered by max and min only, not by a function of "
            "one's own. Yield rows instead."
        )

    _check_key(cursor, table)

    if not table.num_rows:
        return table

    column = _column(window, table)
    valid = _valid(window, column)

    if valid is None:
        kept = _sift(cursor, window, table, column)
    else:
        places = np.flatnonzero(valid)
        found = _sift(cursor, window, table.take(places), column.filter(pa.array(valid)))
        kept = np.full(table.num_rows, window.rules.on_missing == "include")
        kept[places] = True if found is None else found

    if kept is None or kept.all():
        return table

    return table.filter(pa.array(kept)) if kept.any() else None


def _column(window: Window, table: pa.Table) -> Column:
    """The cursor's column, in a type that compares."""
    name = window.rules.path.column

    if name is None or table.schema.get_field_index(name) < 0:
        raise IncrementalCursorPathMissing(
            f"{window.rules.where}: there is no such column in the table; it has {', '.join(table.column_names)}. In "
            "Arrow tables and frames a cursor path is the name of a column."
        )

    column = table.column(name)
    kind = column.type

    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type

    # The state holds microseconds; finer values are compared as what the state can say of them.
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = pc.cast(column, pa.timestamp("us", kind.tz), safe=False)

    return column


def _valid(window: Window, column: Column) -> Mask | None:
    """Which rows have a value; None: all. NaN is no value: nothing can be compared with it."""
    is_float = pa.types.is_floating(column.type)

    if not column.null_count and not (is_float and pc.any(pc.is_nan(column)).as_py()):
        return None

    missing = pc.is_null(column, nan_is_null=is_float)

    if window.rules.on_missing == "raise":
        raise IncrementalCursorPathHasValueNone(
            f"{window.rules.where}: {_mask(missing).sum()} rows of a table have no value in this column. Choose "
            "on_cursor_value_missing='include' or 'exclude' if there are such rows."
        )

    return _mask(pc.invert(missing))


def _sift(cursor: Incremental[Any], window: Window, table: pa.Table, column: Column) -> Mask | None:
    """Flags of rows that have a value; None: all."""
    if not table.num_rows:
        return None

    rises = window.rules.func is max
    top = _top(column, None, rises=rises)
    window.adapt_zone(column[0].as_py())
    kept: Mask | None = None
    end_out = False

    if window.end is not None:
        is_before = _compared(window, column, window.end, "end_value", _END[rises, window.rules.range_end])
        end_out = not is_before.all()
        kept = is_before if end_out else None
        top = _top(column, kept, rises=rises) if end_out else top

    start_out = False

    if window.start is not None:
        is_after = _compared(window, column, window.start, "start_value", _START[rises, window.rules.range_start])
        start_out = not (is_after if kept is None else is_after | ~kept).all()
        kept = is_after if kept is None else kept & is_after
        _drop_loaded(cursor, window, table, column, kept)

    if window.rules.row_order is not None and window.is_ordered:
        _verify_order(window, column, rises=rises)

    window.start_out_of_range, window.end_out_of_range = start_out, end_out
    window.has_seen_rows = True

    if top is not None:
        _advance(cursor, window, table, column, top, kept)

    return kept


def _compared(window: Window, column: Column, bound: Any, name: str, kernel: Any) -> Mask:
    try:
        return _mask(kernel(column, pa.scalar(bound, type=column.type)))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise window.incomparable(column[0].as_py(), bound, name, str(error)) from error


def _drop_loaded(cursor: Incremental[Any], window: Window, table: pa.Table, column: Column, kept: Mask) -> None:
    """Of the rows at the start value, drop those that the run before has loaded."""
    if window.boundary is None:
        return

    at_start = np.flatnonzero(_mask(pc.equal(column, pa.scalar(window.start, type=column.type))) & kept)

    for place, row in zip(at_start, _rows(table.select(_key_columns(cursor, table)), at_start), strict=True):
        if window.boundary.was_loaded(row):
            kept[place] = False


def _advance(
    cursor: Incremental[Any],
    window: Window,
    table: pa.Table,
    column: Column,
    top: Any,
    kept: Mask | None,
) -> None:
    try:
        moves = window.moves_to(top)
    except TypeError as error:
        raise window.incomparable(top, window.last, "the last value", str(error)) from error

    if moves:
        window.last = top

        if window.boundary is not None:
            window.boundary.restart()

    if window.boundary is None or top != window.last:
        return

    at_last = _mask(pc.equal(column, pa.scalar(top, type=column.type)))
    places = np.flatnonzero(at_last if kept is None else at_last & kept)
    window.boundary.add(_rows(table.select(_key_columns(cursor, table)), places))


def _verify_order(window: Window, column: Column, *, rises: bool) -> None:
    falls = rises is (window.rules.row_order == "desc")
    compare = pc.less_equal if falls else pc.greater_equal
    whole = column.combine_chunks()
    first = whole[0].as_py()
    is_ordered = pc.all(compare(whole.slice(1), whole.slice(0, len(whole) - 1))).as_py() is not False
    previous = window.previous

    if previous is not None:
        is_ordered = is_ordered and (first <= previous if falls else first >= previous)

    window.previous = whole[-1].as_py()

    if not is_ordered:
        window.out_of_order()


def _top(column: Column, kept: Mask | None, *, rises: bool) -> Any:
    values = column if kept is None else column.filter(pa.array(kept))

    return (pc.max if rises else pc.min)(values).as_py()


def _rows(table: pa.Table, places: Places) -> list[dict[str, Any]]:
    return table.take(places).to_pylist() if len(places) else []


def _key_columns(cursor: Incremental[Any], table: pa.Table) -> list[str]:
    names = _key_names(cursor, table)

    return table.column_names if names is None or callable(cursor.primary_key) else list(names)


def _key_names(cursor: Incremental[Any], table: pa.Table) -> Sequence[str] | None:
    key = cursor.primary_key
    names = key(table) if callable(key) else key

    return [names] if isinstance(names, str) else names


def _check_key(cursor: Incremental[Any], table: pa.Table) -> None:
    for name in _key_names(cursor, table) or ():
        if name not in table.column_names:
            raise cursor.key_missing(name, table.column_names)


def _mask(flags: Any) -> Mask:
    return cast("Mask", np.array(flags.to_numpy(zero_copy_only=False), dtype=bool))


_END = {
    (True, "open"): pc.less,
    (True, "closed"): pc.less_equal,
    (False, "open"): pc.greater,
    (False, "closed"): pc.greater_equal,
}
_START = {
    (True, "closed"): pc.greater_equal,
    (True, "open"): pc.greater,
    (False, "closed"): pc.less_equal,
    (False, "open"): pc.less,
}
