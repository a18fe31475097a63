"""The step that filters what a resource gives by its cursor, in whatever form it comes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import cast

import pyarrow as pa

from asyncelt.errors import IncrementalPrimaryKeyMissing
from asyncelt.extract.incremental.bodies import sift_body
from asyncelt.extract.incremental.columns import sift_table
from asyncelt.extract.incremental.definition import Incremental
from asyncelt.extract.incremental.paths import MISSING
from asyncelt.extract.incremental.window import Window
from asyncelt.extract.requests import Offload, Request
from asyncelt.extract.steps import INCREMENTAL, PageStepRun
from asyncelt.flow import JsonBody

__all__ = ["IncrementalStep"]

_SLICE_ROWS = 16_384
"""Rows that are looked at without a pause ..."""
_TABLE_ROWS = 32_768
"""... and rows of a table, where it is not worth a thread."""


@dataclass(frozen=True, slots=True)
class IncrementalStep:
    """Filter by a cursor that is bound to one run.

    Args:
        cursor: As `Incremental.bind` gives it.
        closes: Whether the source may be closed when nothing more can be in the range. Not for transformers, whose
            parent goes on.
    """

    cursor: Incremental[object]
    closes: bool
    affinity = INCREMENTAL

    @property
    def needs_rows(self) -> bool:
        """JSON bodies are looked into without parsing all of them."""
        return False

    def open(self) -> PageStepRun:
        """Start filtering."""
        return _Filter(self.cursor, closes=self.closes)


class _Filter:
    def __init__(self, cursor: Incremental[object], *, closes: bool) -> None:
        self.done = False
        self._cursor = cursor
        self._window = cast("Window", cursor.window)
        self._closes = closes
        self._refused: list[object] = []
        """Rows that were refused, of those with the furthest value, which is ..."""
        self._furthest: object = None

    def pass_by(self, row: object, value_of: Callable[[str], object]) -> bool:
        """Whether a row that was refused before it came here is in the range; it is passed over when all have come."""
        path = self._window.rules.path
        value = path.find(row) if path.column is None else value_of(path.column)

        if value is MISSING or value is None or value != value:  # noqa: PLR0124 - NaN
            return True

        try:
            self._cursor.key_of(row)
            is_new = self._window.is_new(value, row)
            far = value if self._furthest is None else self._window.rules.func((self._furthest, value))
        except (IncrementalPrimaryKeyMissing, TypeError):
            return True

        if is_new and value == far:
            if value != self._furthest:
                self._refused.clear()

            self._refused.append(row)
            self._furthest = value

        return is_new

    def apply(self, item: object) -> object | None:
        """A row, or a page small enough to be looked at in one go."""
        if self._window.is_advanced:
            return item

        if isinstance(item, list):
            kept: object | None = self._sift(item) if item else item
        elif isinstance(item, pa.Table):
            kept = sift_table(self._cursor, self._window, item)
        else:
            kept = item if self._window.take(item) else None

        self._note(item, kept, whole=isinstance(item, list | pa.Table))

        return kept

    def work(self, item: object) -> Generator[Request, object, object | None]:
        """A page of any size, in slices."""
        if self._window.is_advanced:
            return item

        if isinstance(item, JsonBody):
            kept = yield from sift_body(self._window, item)
        elif isinstance(item, pa.Table) and _takes_time(item):
            kept = yield Offload(partial(sift_table, self._cursor, self._window, item))
        elif isinstance(item, list) and len(item) > _SLICE_ROWS:
            kept = yield from self._sift_in_slices(item)
        else:
            return self.apply(item)

        self._note(item, kept, whole=True)

        return kept

    def settle(self) -> None:
        """Write all that the next run has to know into the state."""
        if self._refused:
            self._window.pass_over(self._furthest, self._refused)

        self._window.write(has_rows=False, whole=True)

    def finish(self) -> None:
        """The source has given all it has, and was not closed early.

        Raises:
            IncrementalBoundaryChanged: Rows that should have come again did not all come.
        """
        if self._window.boundary is not None and not self.done:
            self._window.boundary.finish()

    def _sift_in_slices(self, rows: list[object]) -> Generator[Request, object, list[object] | None]:
        kept: list[object] = []

        for start in range(0, len(rows), _SLICE_ROWS):
            kept += self._sift(rows[start : start + _SLICE_ROWS]) or ()
            yield None

        return kept or None

    def _sift(self, rows: list[object]) -> list[object] | None:
        """The rows in the range; None: not one."""
        values = self._window.rules.path.find_all(rows)
        flags = self._window.sift(values, rows.__getitem__)

        if flags is None:
            return rows

        return [row for row, is_in in zip(rows, flags, strict=True) if is_in] or None

    def _note(self, item: object, kept: object | None, *, whole: bool) -> None:
        if isinstance(item, list) and not item:
            return

        self._window.write(has_rows=kept is not None, whole=whole)
        self.done = self._closes and self._window.can_close


def _takes_time(table: pa.Table) -> bool:
    """Whether a table is better looked at in a thread. The first time of a zone is: it reads the zone from the disk."""
    return table.num_rows > _TABLE_ROWS or any(
        pa.types.is_timestamp(kind) and kind.tz is not None for kind in table.schema.types
    )
