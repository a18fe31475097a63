"""Which rows with the last value of a cursor have been loaded, so that the next run does not load them again.

Up to `CEILING` of them the state holds a digest of each, as the reference's does. Beyond, it holds their number and
the sum of their digests: the next run takes the first so many rows with this value for those of the last one, in
whatever order they come, and fails, before anything is committed, if the sum says that they are not. So the state
stays small and no row is lost or loaded twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, MutableMapping, Sequence
from typing import Final, TypeAlias, cast

from asyncelt.errors import AsynceltWarning, IncrementalBoundaryChanged
from asyncelt.extract.incremental.digests import digest, is_legacy, legacy_digest, number_of

__all__ = ["CEILING", "Boundary", "CursorState", "KeyOf"]

CEILING: Final = 10_000
"""Most digests that the state holds for one cursor."""
WARN_ABOVE: Final = 200
PENDING: Final = 1_000
"""Keys that wait to be digested; most are outdated by a newer last value before that."""
CROWD: Final = "boundary"
"""Key of the number and sum in a cursor's state; the reference leaves it alone."""
_WRAP: Final = 1 << 128

CursorState: TypeAlias = MutableMapping[str, object]
KeyOf: TypeAlias = Callable[[object], object]
"""What tells a row from others: the value or values of its key, or the row."""


class Boundary:
    """Rows at the last value of a cursor, of the run before and of this one.

    Args:
        where: Resource and cursor, for messages.
        state: The cursor's state as of the last run.
        key_of: What tells a row from others.
        skips: Whether rows of the last run must be dropped. Where they are merged by their key, a crowd may come again.
    """

    def __init__(self, where: str, state: CursorState, key_of: KeyOf, *, skips: bool) -> None:
        stored = cast("list[str]", state.get("unique_hashes") or [])
        crowd = state.get(CROWD)
        self._where = where
        self._key_of = key_of
        self._start = frozenset(stored)
        self._start_digest = legacy_digest if is_legacy(stored) else digest
        self._crowd = _Crowd(0, 0)
        self._seen_crowd = _Crowd(0, 0)
        self._hashes: set[str] = set(stored)
        self._digest = self._start_digest
        self._pending: list[object] = []
        self._now = _Crowd(0, 0)
        self._is_crowded = False
        self._has_warned = len(stored) > WARN_ABOVE

        # A library that does not know the crowd may have moved the last value since it was written.
        if isinstance(crowd, MutableMapping) and crowd.get("last_value") == state.get("last_value"):
            self._is_crowded = True
            self._crowd = (
                _Crowd(cast("int", crowd["rows"]), int(cast("str", crowd["sum"]), 16)) if skips else self._crowd
            )

    def was_loaded(self, row: object) -> bool:
        """Whether this row, whose cursor is at the start value, was loaded by the run before."""
        if self._seen_crowd.rows < self._crowd.rows:
            self._seen_crowd = self._seen_crowd.plus(self._digest(self._key_of(row)))

            if self._seen_crowd.rows == self._crowd.rows and self._seen_crowd != self._crowd:
                raise self._changed()

            return True

        if not self._start:
            return False

        found = self._start_digest(self._key_of(row))

        if found not in self._start:
            return False

        self._now = self._now.plus(found)

        return True

    def has(self, row: object) -> bool:
        """Whether this row is one of those that were loaded by the run before, as far as each is known."""
        return bool(self._start) and self._start_digest(self._key_of(row)) in self._start

    def restart(self) -> None:
        """The last value has moved: nothing is at it yet."""
        self._hashes.clear()
        self._pending.clear()
        self._now = _Crowd(0, 0)
        self._digest = digest
        self._is_crowded = False

    def add(self, rows: Sequence[object]) -> None:
        """Take rows whose cursor is at the last value."""
        self._pending += map(self._key_of, rows)

        if len(self._pending) > PENDING:
            self._settle()

    def store(self, state: CursorState) -> None:
        """Write into the cursor's state what the next run has to know."""
        self._settle()
        state["unique_hashes"] = sorted(self._hashes)

        if self._is_crowded:
            # With nothing at this value in this run, what is known of it has not changed.
            crowd = _Crowd(self._crowd.rows + self._now.rows, (self._crowd.total + self._now.total) % _WRAP)
            state[CROWD] = {"last_value": state.get("last_value"), "rows": crowd.rows, "sum": f"{crowd.total:x}"}
        else:
            state.pop(CROWD, None)

    def finish(self) -> None:
        """The source has given all it has.

        Raises:
            IncrementalBoundaryChanged: Of a crowd only a part has come again, so nobody knows whether some are new.
        """
        if 0 < self._seen_crowd.rows < self._crowd.rows:
            raise self._changed()

    def _settle(self) -> None:
        for key in self._pending:
            found = self._digest(key)
            self._now = self._now.plus(found)

            if not self._is_crowded:
                self._hashes.add(found)

        self._pending.clear()

        if len(self._hashes) > WARN_ABOVE and not self._has_warned:
            self._has_warned = True
            self._warn(f"{self._where}: many rows ({len(self._hashes)}) share the last value of the cursor.")

        if len(self._hashes) > CEILING:
            self._hashes.clear()
            self._is_crowded = True
            self._warn(
                f"{self._where}: more than {CEILING} rows share the last value of the cursor. Their number and the sum "
                "of their digests are kept in place of each digest: the next run expects them again before any other "
                "row with this value, and fails if they are not the same."
            )

    def _warn(self, message: str) -> None:
        warnings.warn(
            f"{message} A cursor of a higher resolution, a primary key with write_disposition='merge', or "
            "range_start='open' needs less state.",
            AsynceltWarning,
            stacklevel=2,
        )

    def _changed(self) -> IncrementalBoundaryChanged:
        return IncrementalBoundaryChanged(
            f"{self._where}: {self._crowd.rows} rows with the last value were loaded by earlier runs, too many to "
            f"remember each, and the first {self._seen_crowd.rows} rows with this value are not those. Nothing has "
            "been loaded. Use a cursor of a higher resolution, write_disposition='merge' with a primary key, or a "
            "source that gives older rows first."
        )


class _Crowd:
    """Rows known by their number and the sum of their digests."""

    __slots__ = ("rows", "total")

    def __init__(self, rows: int, total: int) -> None:
        self.rows = rows
        self.total = total

    def plus(self, found: str) -> _Crowd:
        return _Crowd(self.rows + 1, (self.total + number_of(found)) % _WRAP)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Crowd) and (self.rows, self.total) == (other.rows, other.total)

    __hash__ = None  # type: ignore[assignment]
