"""Receipts in columns: however many messages wait for their commit, a garbage collector has hardly anything to visit.

Receipts that are held as objects are as many as there are messages, all of which live until the commit; each full
collection stops the program until it has visited them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, overload

from asyncelt.extract.messages import Receipt

__all__ = ["Columns", "Receipts", "Span", "parts_of"]


class Columns:
    """Receipts that are added one after the other, and read by their places."""

    __slots__ = ("again", "partitions", "positions", "tokens")

    def __init__(self) -> None:
        self.partitions: list[str] = []
        self.positions: array[int] | list[int | None] = array("q")
        """A list as soon as one of them is none, or does not fit."""
        self.tokens: list[object] = []
        self.again = bytearray()

    def __len__(self) -> int:
        return len(self.tokens)

    def append(self, receipt: Receipt) -> None:
        """Take one."""
        try:
            self.positions.append(receipt.position)  # type: ignore[arg-type]  # an array refuses what it cannot hold
        except (TypeError, OverflowError):
            self.positions = [*self.positions, receipt.position]

        self.partitions.append(receipt.partition)
        self.tokens.append(receipt.token)
        self.again.append(receipt.again)

    def receipt(self, at: int) -> Receipt:
        """One of them, made anew."""
        return Receipt(self.partitions[at], self.positions[at], self.tokens[at], bool(self.again[at]))


class Span(NamedTuple):
    """Some that follow each other."""

    columns: Columns
    first: int
    end: int


class Receipts(Sequence[Receipt]):
    """Spans as one sequence of receipts, each of which is made when it is asked for.

    Args:
        spans: In order. What is added to their columns later makes no difference.
    """

    __slots__ = ("_count", "_spans")

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = tuple(spans)
        self._count = sum(span.end - span.first for span in self._spans)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Receipt]:
        return (span.columns.receipt(at) for span in self._spans for at in range(span.first, span.end))

    @overload
    def __getitem__(self, index: int) -> Receipt: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Receipt]: ...

    def __getitem__(self, index: int | slice) -> Receipt | Sequence[Receipt]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)

            return Receipts(self._between(start, stop)) if step == 1 else [self[at] for at in range(start, stop, step)]

        at = index + self._count if index < 0 else index

        for span in self._between(at, at + 1) if 0 <= at < self._count else ():
            return span.columns.receipt(span.first)

        raise IndexError(f"There are {self._count} receipts, and no number {index}.")

    def parts(self) -> Iterator[tuple[str, int | None, object]]:
        """See `parts_of`."""
        return chain.from_iterable(
            zip(columns.partitions[first:end], columns.positions[first:end], columns.tokens[first:end], strict=True)
            for columns, first, end in self._spans
        )

    def _between(self, start: int, stop: int) -> Iterator[Span]:
        passed = 0

        for columns, first, end in self._spans:
            low, high = max(first, first + start - passed), min(end, first + stop - passed)
            passed += end - first

            if low < high:
                yield Span(columns, low, high)


def parts_of(receipts: Sequence[Receipt]) -> Iterator[tuple[str, int | None, object]]:
    """Partition, position and token of each, without an object for it where there is none."""
    if isinstance(receipts, Receipts):
        return receipts.parts()

    return ((one.partition, one.position, one.token) for one in receipts)
