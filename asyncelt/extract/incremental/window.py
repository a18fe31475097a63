"""The range of a cursor in one run: which rows are in it, and how far the cursor has come.

`Window.sift` is the rule of the reference, which looks at one row after the other, for many rows at once. It says the
same of each row whatever the rows before it are, so the form and size of pages do not matter.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from typing import Any, Literal, TypeAlias

from asyncelt.errors import (
    AsynceltWarning,
    IncrementalCursorInvalidCoercion,
    IncrementalCursorPathHasValueNone,
    IncrementalCursorPathMissing,
)
from asyncelt.extract.incremental.boundary import Boundary, CursorState
from asyncelt.extract.incremental.paths import MISSING, CursorPath

__all__ = ["LastValueFunc", "OnMissing", "Range", "RangeEnd", "RowOrder", "Window", "WindowRules"]

LastValueFunc: TypeAlias = Callable[[Sequence[Any]], Any]
OnMissing: TypeAlias = Literal["raise", "include", "exclude"]
Range: TypeAlias = Literal["open", "closed"]
RangeEnd: TypeAlias = Range
RowOrder: TypeAlias = Literal["asc", "desc"]
RowAt: TypeAlias = Callable[[int], object]

_NONE = type(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRules:
    """What does not change in a run."""

    resource: str
    path: CursorPath
    func: LastValueFunc
    start: Any
    end: Any
    on_missing: OnMissing
    row_order: RowOrder | None
    range_start: Range
    range_end: RangeEnd
    has_lag: bool

    @property
    def where(self) -> str:
        """Resource and cursor, for messages."""
        return f"Resource {self.resource!r}, cursor {self.path.text!r}"


class Window:
    """A range and the cursor in it.

    Args:
        rules: What does not change.
        state: The cursor's state: written to with every page.
        boundary: Remembers the rows at the last value; None: nothing is remembered, and the range decides alone.
    """

    def __init__(self, rules: WindowRules, state: CursorState, boundary: Boundary | None) -> None:
        self.rules = rules
        self.boundary = boundary
        self.start: Any = rules.start
        self.end: Any = rules.end
        self.last: Any = rules.start
        self.start_out_of_range = False
        self.end_out_of_range = False
        self.is_ordered = True
        """Whether rows have come in the declared order so far."""
        self.has_seen_rows = False
        self.is_advanced = False
        """Whether the range was applied elsewhere: every row is taken."""
        self._state = state
        self._start_of_run = state.get("last_value")
        self.previous: Any = None
        """Cursor of the row before, where an order is to be looked after."""

    # ------------------------------------------------------------------ rows

    def sift(self, values: list[Any], row_at: RowAt) -> list[bool] | None:
        """Which of some rows are in the range. Moves the cursor.

        Args:
            values: The cursor's value in each row; None where there is none.
            row_at: Gives a row by its place in ``values``; asked for few of them.

        Returns:
            A flag for each row; None: all.

        Raises:
            IncrementalError: A value is missing that must be there, or cannot be compared.
        """
        present = self._present(values, row_at)

        if present is not None:
            kept = [self.rules.on_missing == "include"] * len(values)
            found = self.sift([values[place] for place in present], lambda number: row_at(present[number]))

            for number, place in enumerate(present):
                kept[place] = found is None or found[number]

            return kept

        if not values:
            return None

        if self.rules.func in (max, min):
            try:
                return self._sift_ordered(values, row_at)
            except TypeError:
                pass  # values of different types: the slow way finds the row

        return [self._takes(value, place, row_at) for place, value in enumerate(values)]

    def _present(self, values: list[Any], row_at: RowAt) -> list[int] | None:
        """Places of the rows that have a value; None: all. NaN is no value: nothing can be compared with it."""
        kinds = set(map(type, values))

        if _NONE not in kinds and (float not in kinds or not any(map(_is_nan, values))):
            return None

        present = [place for place, value in enumerate(values) if value is not None and not _is_nan(value)]

        if self.rules.on_missing == "raise" and len(present) < len(values):
            missing = set(present)
            raise self.missing(row_at(next(place for place in range(len(values)) if place not in missing)))

        return present

    def missing(self, row: object) -> Exception:
        """What to raise for a row without a value."""
        rules = self.rules
        value = rules.path.find(row)
        excerpt = repr(row)[:200]

        if value is MISSING:
            return IncrementalCursorPathMissing(
                f"{rules.where}: a row does not have this field: {excerpt}. Name fields as in the data, not as in the "
                "table, or choose on_cursor_value_missing='include' or 'exclude'."
            )

        return IncrementalCursorPathHasValueNone(
            f"{rules.where}: a row has {value!r} in this field: {excerpt}. Choose on_cursor_value_missing='include' or "
            "'exclude' if there are such rows."
        )

    def _sift_ordered(self, values: list[Any], row_at: RowAt) -> list[bool] | None:
        rises = self.rules.func is max
        top, bottom = (max(values), min(values)) if rises else (min(values), max(values))
        self.adapt_zone(values[0])
        start, end, last = self.start, self.end, self.last
        before_end: list[bool] | None = None
        kept: list[bool] | None = None
        taken = values

        # Everything is compared before anything is changed, so that the slow way can begin anew.
        if end is not None and not self.is_before_end(top):
            before_end = [self.is_before_end(value) for value in values]
            taken = [value for value, is_in in zip(values, before_end, strict=True) if is_in]
            top = self.rules.func(taken) if taken else None

        if last is not None and top is not None:
            self.rules.func((last, top))

        if start is not None and not (bottom > start if rises else bottom < start):
            kept = self._after_start(values, rises=rises)

        self._verify_order(values, rises=rises)
        is_at_start = kept is not None
        kept = _both(kept, before_end)

        if self.boundary is not None and kept is not None and is_at_start:
            for place, value in enumerate(values):
                if kept[place] and value == start and self.boundary.was_loaded(row_at(place)):
                    kept[place] = False

        self._note_range(values[-1], kept)
        self.has_seen_rows = True

        if taken:
            self._advance(top, values, kept, row_at)

        return None if kept is not None and all(kept) else kept

    def _after_start(self, values: list[Any], *, rises: bool) -> list[bool]:
        start = self.start
        is_open = self.rules.range_start == "open"

        if rises:
            return [value > start for value in values] if is_open else [value >= start for value in values]

        return [value < start for value in values] if is_open else [value <= start for value in values]

    def _advance(self, top: Any, values: list[Any], kept: list[bool] | None, row_at: RowAt) -> None:
        if self.moves_to(top):
            self.last = top

            if self.boundary is not None:
                self.boundary.restart()

        if self.boundary is not None and top == self.last:
            at_last = (place for place, value in enumerate(values) if value == top and (kept is None or kept[place]))
            self.boundary.add([row_at(place) for place in at_last])

    def _verify_order(self, values: list[Any], *, rises: bool) -> None:
        if self.rules.row_order is None or not self.is_ordered:
            return

        falls = rises is (self.rules.row_order == "desc")
        whole = values if self.previous is None else [self.previous, *values]
        is_ordered = whole == sorted(whole, reverse=falls)
        self.previous = values[-1]

        if not is_ordered:
            self.out_of_order()

    @property
    def start_of_run(self) -> Any:
        """Last value of the runs before, without lag."""
        return self._start_of_run

    def advance(self, last: Any, row: object) -> None:
        """Take every row from here on, as the range was applied where they come from.

        Args:
            last: How far the cursor comes in this run; None: as far as it has come.
            row: What the one row with this value looks like, where the value is its key; None: there may be several.
        """
        self.is_advanced = True

        if last is None:
            return

        self.last = last

        if self.boundary is not None:
            self.boundary.restart()

            if row is not None:
                self.boundary.add([row])

    # ------------------------------------------------------------------ one row

    def take(self, row: object) -> bool:
        """Whether a row that came alone is in the range: what `sift` says of one, in less time."""
        value = self.rules.path.find(row)

        if value is MISSING or value is None or _is_nan(value):
            if self.rules.on_missing == "raise":
                raise self.missing(row)

            return self.rules.on_missing == "include"

        return self._takes(value, 0, lambda _: row)

    def _takes(self, value: Any, place: int, row_at: RowAt) -> bool:
        """The rule for one row, for any function and any mix of types."""
        func = self.rules.func
        self.adapt_zone(value)

        if self.end is not None and not self._compared(self.is_before_end, value, self.end, "end_value"):
            self.start_out_of_range, self.end_out_of_range = False, True

            return False

        self.has_seen_rows = True
        self._verify_one(value)
        last = self.last
        new = self._compared(lambda row: func((row,) if last is None else (row, last)), value, last, "start_value")

        if last is not None and last == new:
            own = func((value,))

            if self.start is not None and not self._is_after_start(value, own, place, row_at):
                self.start_out_of_range, self.end_out_of_range = True, False

                return False

            if own == last and self.boundary is not None:
                self.boundary.add([row_at(place)])
        else:
            self.last = new

            if self.boundary is not None:
                self.boundary.restart()
                self.boundary.add([row_at(place)])

        self.start_out_of_range = self.end_out_of_range = False

        return True

    def _is_after_start(self, value: Any, own: Any, place: int, row_at: RowAt) -> bool:
        if own == self.start:
            is_loaded = self.boundary is not None and self.boundary.was_loaded(row_at(place))

            return self.rules.range_start == "closed" and not is_loaded

        return bool(self.rules.func((value, self.start)) != self.start)

    def _compared(self, call: Callable[[Any], Any], value: Any, bound: Any, name: str) -> Any:
        try:
            return call(value)
        except Exception as error:  # a function of the user's, or types that do not compare
            raise self.incomparable(value, bound, name, str(error)) from error

    def incomparable(self, value: object, bound: object, name: str, reason: str) -> IncrementalCursorInvalidCoercion:
        """What to raise for a value that cannot be compared."""
        return IncrementalCursorInvalidCoercion(
            f"{self.rules.where}: the value {value!r} ({type(value).__name__}) of a row cannot be compared with "
            f"{name} {bound!r} ({type(bound).__name__}): {reason}. Give initial_value and end_value the type that the "
            "data has, or convert the field with add_map."
        )

    def _verify_one(self, value: Any) -> None:
        if self.rules.row_order is None or not self.is_ordered:
            return

        previous, self.previous = self.previous, value

        if previous is not None:
            expected = value if self.rules.row_order == "asc" else previous

            if (
                self._compared(lambda row: self.rules.func((previous, row)), value, previous, "the row before")
                != expected
            ):
                self.out_of_order()

    # ------------------------------------------------------------------ rows that are refused before they come here

    def is_new(self, value: Any, row: object) -> bool:
        """Whether a row would be in the range, as far as its value can be compared. Moves nothing."""
        if self.is_advanced:
            return True

        try:
            if self.end is not None and not self.is_before_end(value):
                return False

            if self.start is None or self.rules.func((value, self.start)) != self.start:
                return True
        except TypeError:
            return True

        if value != self.start or self.rules.range_start == "open":
            return False

        return self.boundary is None or not self.boundary.was_loaded(row)

    def pass_over(self, value: Any, rows: Sequence[object]) -> None:
        """Move past rows that are taken care of without being in a table, if their value is of the type of the others.

        Args:
            value: The cursor's value in them.
            rows: Those with this value.
        """
        if self.is_advanced or type(value) is not type(self.last):
            return

        if self.moves_to(value):
            self.last = value

            if self.boundary is not None:
                self.boundary.restart()

        if self.boundary is not None and value == self.last:
            self.boundary.add(rows)

    # ------------------------------------------------------------------ for all forms of pages

    def adapt_zone(self, value: object) -> None:
        """Let the bounds have a zone, or none, as the first value has."""
        if self.has_seen_rows or not isinstance(value, datetime):
            return

        if isinstance(self.start, datetime):
            self.start = self.last = self._in_zone_of(value, self.start, "initial_value, or the last value so far,")

        if isinstance(self.end, datetime):
            self.end = self._in_zone_of(value, self.end, "end_value")

    def _in_zone_of(self, value: datetime, bound: datetime, name: str) -> datetime:
        if (value.tzinfo is None) == (bound.tzinfo is None):
            return bound

        warnings.warn(
            f"{self.rules.where}: {name} {bound} and the value {value} of a row are not both times with a zone. The "
            "data decides; a time without a zone is read as UTC.",
            AsynceltWarning,
            stacklevel=2,
        )

        if value.tzinfo is None:
            return bound.astimezone(UTC).replace(tzinfo=None)

        return bound.replace(tzinfo=UTC).astimezone(value.tzinfo)

    def is_before_end(self, value: Any) -> bool:
        """Whether a value is in the range as far as its end is concerned."""
        func, end = self.rules.func, self.end

        if func((value, end)) != end:
            return False

        return not (self.rules.range_end == "open" and func((value,)) == end)

    def moves_to(self, top: Any) -> bool:
        """Whether ``top`` lies beyond the last value."""
        return self.last is None or bool(top != self.last and self.rules.func((self.last, top)) == top)

    def out_of_order(self) -> None:
        """Rows do not come in the declared order: tell it once, and do not end the source early."""
        self.is_ordered = False
        warnings.warn(
            f"{self.rules.where}: row_order={self.rules.row_order!r} was declared, but rows do not come in this order. "
            "The source is read to its end. Leave row_order out if the order is not certain.",
            AsynceltWarning,
            stacklevel=2,
        )

    def _note_range(self, value: Any, kept: list[bool] | None) -> None:
        """As in the reference, the last row of a page says whether the page has left the range."""
        is_out = kept is not None and not kept[-1]
        self.end_out_of_range = is_out and self.end is not None and not self.is_before_end(value)
        self.start_out_of_range = is_out and not self.end_out_of_range

    @property
    def can_close(self) -> bool:
        """Whether nothing that is still to come can be in the range."""
        if not self.is_ordered:
            return False

        if self.rules.row_order == "asc":
            return self.end_out_of_range

        return self.rules.row_order == "desc" and self.start_out_of_range

    def write(self, *, has_rows: bool, whole: bool) -> None:
        """Bring the state up to date.

        Args:
            has_rows: Whether rows have passed since the last time.
            whole: With the digests of the rows at the last value, which cost time.
        """
        state = self._state
        before = state.get("last_value")

        if self.rules.has_lag and before is not None and self.last is not None:
            self.last = self.rules.func((self.last, before))

        state["last_value"] = self.last

        if has_rows:
            state["start_value"] = self._start_of_run

        if self.boundary is None:
            state["unique_hashes"] = []
            state.pop("boundary", None)
        elif whole:
            self.boundary.store(state)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and isnan(value)


def _both(first: list[bool] | None, second: list[bool] | None) -> list[bool] | None:
    if first is None or second is None:
        return first if second is None else second

    return [one and other for one, other in zip(first, second, strict=True)]
