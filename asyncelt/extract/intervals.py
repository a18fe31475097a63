"""Sets of positions in one partition: a floor, and ranges above it. Immutable, and small however many positions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asyncelt.errors import StorageError

__all__ = ["EMPTY", "Intervals"]


@dataclass(frozen=True, slots=True)
class Intervals:
    """Whole numbers: everything up to ``floor``, and what lies in ``ranges``, which are sorted and do not touch."""

    floor: int | None = None
    """The watermark; None: nothing is known to be complete from the start."""
    ranges: tuple[tuple[int, int], ...] = ()
    """First and last of each."""

    @classmethod
    def of(cls, positions: Iterable[int]) -> Intervals:
        """Exactly these positions, in any order."""
        return cls(None, tuple(_runs(sorted(set(positions)))))

    def __contains__(self, position: int) -> bool:
        if self.floor is not None and position <= self.floor:
            return True

        at = bisect_right(self.ranges, (position, _LAST)) - 1

        return at >= 0 and self.ranges[at][1] >= position

    def __bool__(self) -> bool:
        return self.floor is not None or bool(self.ranges)

    def union(self, other: Intervals) -> Intervals:
        """What is in either."""
        floors = [one for one in (self.floor, other.floor) if one is not None]

        return _above(max(floors, default=None), sorted((*self.ranges, *other.ranges)))

    def raised(self, floor: int | None) -> Intervals:
        """With everything up to ``floor`` as well; None: as it is."""
        return self if floor is None else self.union(Intervals(floor))

    def overlap(self, other: Intervals) -> int | None:
        """A position that both have; None where there is none. ``other`` has no floor."""
        for first, last in other.ranges:
            if first in self:
                return first

            at = bisect_right(self.ranges, (first, _LAST))

            if at < len(self.ranges) and self.ranges[at][0] <= last:
                return self.ranges[at][0]

        return None

    def text(self) -> str:
        """For a table: ``..100;103;105-107`` is everything up to 100, 103, and 105 to 107."""
        parts = [] if self.floor is None else [f"..{self.floor}"]
        parts += [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges]

        return ";".join(parts)

    @classmethod
    def parse(cls, text: str) -> Intervals:
        """What `text` has written.

        Raises:
            StorageError: It has not.
        """
        floor: int | None = None
        ranges = []

        try:
            for part in filter(None, text.split(";")):
                if part.startswith(".."):
                    floor = int(part[2:])
                    continue

                first, _, last = part.partition("-")
                ranges.append((int(first), int(last or first)))
        except ValueError as error:
            raise StorageError(
                f"A stored position reads {text[:100]!r}, which is none. Was _asyncelt_positions edited?"
            ) from error

        return _above(floor, sorted(ranges))


EMPTY = Intervals()
_LAST = float("inf")


def _runs(positions: Iterable[int]) -> Iterator[tuple[int, int]]:
    first: int | None = None
    last = 0

    for position in positions:
        if first is not None and position == last + 1:
            last = position
            continue

        if first is not None:
            yield first, last

        first = last = position

    if first is not None:
        yield first, last


def _above(floor: int | None, ranges: Iterable[tuple[int, int]]) -> Intervals:
    """Ranges, sorted by their first position, joined where they touch, and swallowed by the floor they reach."""
    joined: list[tuple[int, int]] = []

    for first, last in ranges:
        if floor is not None and first <= floor + 1:
            floor = max(floor, last)
        elif joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))

    return Intervals(floor, tuple(joined))
