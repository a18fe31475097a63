"""Numbers of deliveries, on their way with the rows to the end of the package."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Tickets"]


class Tickets:
    """Numbers, in the order in which they were added. As long as each is the one after, they take no room.

    Args:
        numbers: To begin with.
    """

    __slots__ = ("_bounds", "_count")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._bounds = array("q")
        """The first of each run, and the one behind its last."""
        self._count = 0

        for number in numbers:
            self.add(number)

    def __len__(self) -> int:
        return self._count

    def add(self, first: int, count: int = 1) -> None:
        """Take so many numbers, from the first one up."""
        bounds = self._bounds
        self._count += count

        if bounds and bounds[-1] == first:
            bounds[-1] = first + count
        else:
            bounds.append(first)
            bounds.append(first + count)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Tickets:
        """Of numbers that go up."""
        if numbers and numbers[-1] - numbers[0] + 1 == len(numbers):
            found = cls()
            found.add(numbers[0], len(numbers))

            return found

        return cls(numbers)

    def extend(self, others: Tickets) -> None:
        """Take those of another."""
        for first, end in others.runs():
            self.add(first, end - first)

    def runs(self) -> Iterator[tuple[int, int]]:
        """The first of each run, and the one behind its last."""
        bounds = iter(self._bounds)

        return zip(bounds, bounds, strict=True)
