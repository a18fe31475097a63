"""Receipts in columns: however many messages wait for their commit, a garbage collector has hardly anything to visit.

Receipts that are held as objects are as many as there are messages, all of which live until the commit; each full
collection stops the program until it has visited them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import overload

from asyncelt.extract.messages import Receipt

__all__ = ["Columns", "Receipts", "parts_of"]


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

    def extend(self, others: Columns, first: int, end: int) -> None:
        """Take some of others, from one place to before another."""
        positions = others.positions[first:end]

        if isinstance(self.positions, array) and isinstance(positions, array):
            self.positions.extend(positions)
        else:
            self.positions = [*self.positions, *positions]

        self.partitions.extend(others.partitions[first:end])
        self.tokens.extend(others.tokens[first:end])
        self.again.extend(others.again[first:end])

    def part(self, first: int, end: int) -> Columns:
        """Some of them, from one place to before another."""
        found = Columns()
        found.partitions, found.positions = self.partitions[first:end], self.positions[first:end]
        found.tokens, found.again = self.tokens[first:end], self.again[first:end]

        return found

    def forget(self, first: int, end: int) -> None:
        """Their sources have had their tokens back, which may be large."""
        self.tokens[first:end] = [None] * (end - first)

    def receipt(self, at: int) -> Receipt:
        """One of them, made anew."""
        return Receipt(self.partitions[at], self.positions[at], self.tokens[at], bool(self.again[at]))


class Receipts(Sequence[Receipt]):
    """Columns as one sequence of receipts, each of which is made when it is asked for.

    Args:
        parts: In order; nothing is added to them any more.
    """

    __slots__ = ("_count", "_parts")

    def __init__(self, parts: Iterable[Columns]) -> None:
        self._parts = tuple(parts)
        self._count = sum(map(len, self._parts))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Receipt]:
        return (part.receipt(at) for part in self._parts for at in range(len(part)))

    @overload
    def __getitem__(self, index: int) -> Receipt: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Receipt]: ...

    def __getitem__(self, index: int | slice) -> Receipt | Sequence[Receipt]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)

            return Receipts(self._between(start, stop)) if step == 1 else [self[at] for at in range(start, stop, step)]

        at = index + self._count if index < 0 else index

        for part in self._between(at, at + 1) if 0 <= at < self._count else ():
            return part.receipt(0)

        raise IndexError(f"There are {self._count} receipts, and no number {index}.")

    @classmethod
    def fresh(cls, partition: str, positions: array[int], tokens: Sequence[object]) -> Receipts:
        """Of messages of one partition, none of which was delivered before."""
        columns = Columns()
        columns.partitions, columns.positions = [partition] * len(tokens), positions
        columns.tokens, columns.again = list(tokens), bytearray(len(tokens))

        return cls([columns])

    @property
    def columns(self) -> Sequence[Columns]:
        """They are these, one after the other."""
        return self._parts

    @property
    def are_fresh(self) -> bool:
        """Whether none of them was delivered before."""
        return not any(1 in part.again for part in self._parts)

    def parts(self) -> Iterator[tuple[str, int | None, object]]:
        """See `parts_of`."""
        return chain.from_iterable(
            zip(part.partitions, part.positions, part.tokens, strict=True) for part in self._parts
        )

    def _between(self, start: int, stop: int) -> Iterator[Columns]:
        passed = 0

        for part in self._parts:
            first, end = max(start - passed, 0), min(stop - passed, len(part))
            passed += len(part)

            if first < end:
                yield part.part(first, end)

            if passed >= stop:
                return


def parts_of(receipts: Sequence[Receipt]) -> Iterator[tuple[str, int | None, object]]:
    """Partition, position and token of each, without an object for it where there is none."""
    if isinstance(receipts, Receipts):
        return receipts.parts()

    return ((one.partition, one.position, one.token) for one in receipts)
