"""Steps between a source and its pages: map, filter, yield map, limit, and the seam for others.

A step describes; `open` makes its state for one run. There are two kinds: *row steps* hold a user's function
of one row, *page steps* see whole items and may say that they have had enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

from asyncelt import current
from asyncelt.arguments import SECONDS, SIZE, Kind, expect_if_given
from asyncelt.errors import UsageError
from asyncelt.extract.functions import RowFunction
from asyncelt.types import OnError

__all__ = [
    "INCREMENTAL",
    "FilterStep",
    "Finishing",
    "ItemStep",
    "LimitStep",
    "MapStep",
    "MetricsStep",
    "PageStep",
    "PageStepRun",
    "Passable",
    "RowStep",
    "SelectStep",
    "Settling",
    "Step",
    "ValidatorStep",
    "YieldMapStep",
    "insert_step",
    "limit_step",
]

USER, VALIDATOR, INCREMENTAL, LIMIT = 0.0, 0.9, 1.0, 1.1
"""Affinities: steps are kept in this order, whatever the order in which they were added."""


@runtime_checkable
class PageStepRun(Protocol):
    """A page step's state in one run."""

    @property
    def done(self) -> bool:
        """True: the source is closed after this item."""
        ...

    def apply(self, item: object) -> object | None:
        """Take a row, a list of rows, a `JsonBody` or an Arrow table; give back what goes on."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A page step that keeps something for the state."""

    def settle(self) -> None:
        """Write it."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """A page step that can tell at the end that something is missing."""

    def finish(self) -> None:
        """Raise if it is; called only when the source has given all it has."""
        ...


@runtime_checkable
class Passable(Protocol):
    """A page step that has a say in rows that leave the chain before it."""

    def pass_by(self, row: object, value_of: Callable[[str], object]) -> bool:
        """Take note of a row that was refused.

        Args:
            row: As it came.
            value_of: Gives a field of it as the rows have it that reach this step; None: it has none that is sound.

        Returns:
            Whether it is new; rows that are not are not refused once more.
        """
        ...


@runtime_checkable
class PageStep(Protocol):
    """A step that sees whole items."""

    @property
    def affinity(self) -> float:
        """Place among the steps."""
        ...

    @property
    def needs_rows(self) -> bool:
        """Whether JSON bodies must be parsed before this step sees them."""
        ...

    def open(self) -> PageStepRun:
        """Start one run."""
        ...


@dataclass(frozen=True, slots=True)
class RowStep:
    """A user's function of one row; base of the steps below."""

    function: RowFunction
    label = "step"
    affinity = USER
    needs_rows = True


@dataclass(frozen=True, slots=True)
class MapStep(RowStep):
    """Replace each row."""

    label = "add_map"


@dataclass(frozen=True, slots=True)
class FilterStep(RowStep):
    """Keep rows for which the function is true."""

    label = "add_filter"


@dataclass(frozen=True, slots=True)
class YieldMapStep(RowStep):
    """Replace each row by the items the function yields."""

    label = "add_yield_map"


@dataclass(frozen=True, slots=True)
class ItemStep:
    """A transformer: a function of a whole item, as it was yielded."""

    function: RowFunction
    name: str
    parallelized: bool = False
    """Whether a function that is not asynchronous may run for several items at a time, in threads."""
    affinity = USER
    needs_rows = False


@dataclass(frozen=True, slots=True)
class SelectStep:
    """Keep what goes to some of a resource's tables."""

    names: tuple[str, ...]
    table_name: RowFunction | None
    """Gives the table of a row that does not bring its own."""
    affinity = USER
    needs_rows = False

    def keeps(self, row: object) -> bool:
        """Whether a row that does not bring its own table goes to one of these."""
        return self.table_name is not None and self.table_name(row) in self.names


@dataclass(frozen=True, slots=True)
class ValidatorStep:
    """Replace each row by what a validator makes of it, before a cursor looks at it."""

    function: RowFunction
    """Gives the row, or None for one that is left out; raises `DataValidationError` for one that is refused."""
    on_error: OnError
    """What a refused row costs."""
    affinity = VALIDATOR
    needs_rows = True


@dataclass(frozen=True, slots=True)
class MetricsStep:
    """Let a function see each item, and count."""

    function: Callable[..., object]
    affinity = USER

    @property
    def needs_rows(self) -> bool:
        """Whoever counts wants rows."""
        return True

    def open(self) -> PageStepRun:
        """Start counting, in the metrics of the run at hand."""
        try:
            metrics = current.resource_metrics()
        except UsageError:
            metrics = {}

        return _MetricsRun(self.function, metrics)


class _MetricsRun:
    done = False

    def __init__(self, function: Callable[..., object], metrics: dict[str, object]) -> None:
        self._function = function
        self._metrics = metrics

    def apply(self, item: object) -> object | None:
        self._function(item, None, self._metrics)

        return item


@dataclass(frozen=True, slots=True)
class LimitStep:
    """End the source after so many items, rows or seconds."""

    max_items: int | None
    max_time: float | None
    count_rows: bool
    affinity = LIMIT

    @property
    def needs_rows(self) -> bool:
        """Rows can only be counted when they are there."""
        return self.count_rows

    def open(self) -> PageStepRun:
        """Start counting."""
        return _LimitRun(self)


def limit_step(where: str, max_items: int | None, max_time: float | None, *, count_rows: bool) -> LimitStep:
    """A limit, checked; -1 items are no limit, as in the reference.

    Raises:
        ConfigError: A number is negative.
    """
    if max_items == -1:
        max_items = None

    expect_if_given(f"{where}: add_limit", SIZE, max_items=max_items)
    expect_if_given(f"{where}: add_limit", SECONDS, max_time=max_time)

    return LimitStep(max_items, max_time, count_rows)


class _LimitRun:
    def __init__(self, step: LimitStep) -> None:
        self._step = step
        self._left = step.max_items
        self._end = None if step.max_time is None else time.monotonic() + step.max_time
        self.done = step.max_items == 0

    def apply(self, item: object) -> object | None:
        if self.done:
            return None

        if self._left is not None:
            if self._step.count_rows:
                item = _first_rows(item, self._left)
                self._left -= _row_count(item)
            else:
                self._left -= 1

        self.done = self._left == 0 or (self._end is not None and time.monotonic() >= self._end)

        return item


Step: TypeAlias = RowStep | ItemStep | SelectStep | ValidatorStep | PageStep


def _row_count(item: object) -> int:
    if isinstance(item, list):
        return len(item)

    return item.num_rows if isinstance(item, pa.Table) else 1


def _first_rows(item: object, count: int) -> object:
    if isinstance(item, list):
        return item[:count] if len(item) > count else item

    return item.slice(0, count) if isinstance(item, pa.Table) else item


_POSITION = Kind("a position among the steps, a whole number", lambda value: isinstance(value, int))


def insert_step(steps: tuple[Step, ...], step: Step, at: int | None = None) -> tuple[Step, ...]:
    """``steps`` with one more: at position ``at``, or after all others of the same or a lower affinity."""
    expect_if_given("A step", _POSITION, insert_at=at)

    if at is None:
        at = sum(1 for other in steps if other.affinity <= step.affinity)

    return (*steps[:at], step, *steps[at:])
