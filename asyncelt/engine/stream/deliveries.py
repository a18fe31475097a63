"""What was delivered and is neither acknowledged nor given back, under the numbers that go with the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from asyncelt.extract.messages import EventSource, Receipt
from asyncelt.extract.receipts import Columns, Receipts
from asyncelt.extract.tickets import Tickets

__all__ = ["Deliveries"]

_BLOCK: Final = 1024
"""Deliveries of one source that are let go of together, when the last of them is settled."""


class _Block:
    """Some deliveries of one source, under numbers that follow each other."""

    __slots__ = ("columns", "first", "left", "repeated", "settled", "source")

    def __init__(self, source: EventSource | None, first: int) -> None:
        self.source = source
        self.first = first
        self.columns = Columns()
        self.repeated = bytearray()
        """Whether its rows are not wanted."""
        self.settled = bytearray()
        self.left = 0
        """Not settled."""


class Deliveries:
    """Belongs to the event loop, which alone changes it; tickets that are not settled may be read in threads."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        """By number: the tickets of a block are its number times the size of blocks, and those after it."""
        self._begun: dict[int, _Block] = {}
        """By the identity of their source: those that are not full."""
        self._following = 0
        """Number of the next block."""

    def note(self, source: EventSource | None, receipt: Receipt, *, is_repeated: bool) -> int:
        """Take one.

        Returns:
            Its ticket.
        """
        block = self._begun.get(id(source)) or self._begin(source)
        at = len(block.settled)
        block.columns.append(receipt)
        block.repeated.append(is_repeated)
        block.settled.append(False)
        block.left += 1

        if at + 1 == _BLOCK:
            del self._begun[id(source)]

        return block.first + at

    def note_all(self, source: EventSource | None, receipts: Columns) -> list[int]:
        """Take several whose rows are wanted.

        Returns:
            Their tickets.
        """
        tickets: list[int] = []

        while (done := len(tickets)) < len(receipts):
            block = self._begun.get(id(source)) or self._begin(source)
            at = len(block.settled)
            count = min(_BLOCK - at, len(receipts) - done)
            block.columns.extend(receipts, done, done + count)
            block.repeated.extend(bytes(count))
            block.settled.extend(bytes(count))
            block.left += count
            tickets.extend(range(block.first + at, block.first + at + count))

            if at + count == _BLOCK:
                del self._begun[id(source)]

        return tickets

    def by_source(self, tickets: Tickets) -> list[tuple[EventSource | None, Tickets]]:
        """The same, sorted by where they come from."""
        found: dict[int, tuple[EventSource | None, Tickets]] = {}

        for block, first, end in self._pieces(tickets):
            _, of_source = found.setdefault(id(block.source), (block.source, Tickets()))
            of_source.add(block.first + first, end - first)

        return list(found.values())

    def receipts(self, tickets: Tickets) -> Receipts:
        """What was delivered under these, of which none is settled."""
        return Receipts(block.columns.part(first, end) for block, first, end in self._pieces(tickets))

    def wanted(self, tickets: Tickets) -> Iterator[tuple[EventSource, str, list[int]]]:
        """Positions of those whose rows are wanted, a few of one partition at a time."""
        for block, first, end in self._pieces(tickets):
            if block.source is None:
                continue

            columns, repeated = block.columns, block.repeated
            found: dict[str, list[int]] = {}
            each = zip(columns.partitions[first:end], columns.positions[first:end], repeated[first:end], strict=True)

            for partition, position, is_repeated in each:
                if position is not None and not is_repeated:
                    found.setdefault(partition, []).append(position)

            for partition, wanted in found.items():
                yield block.source, partition, wanted

    def open(self) -> list[tuple[EventSource | None, Tickets]]:
        """All that are not settled, by where they come from."""
        found = Tickets()

        for block in self._blocks.values():
            if block.left == len(block.settled):
                found.add(block.first, block.left)
                continue

            for at, is_settled in enumerate(block.settled):
                if not is_settled:
                    found.add(block.first + at)

        return self.by_source(found)

    def settle(self, tickets: Tickets) -> Iterator[int]:
        """Let go of these, some with each step; what is settled already is passed over.

        Yields:
            How many it was.
        """
        for block, first, end in self._pieces(tickets):
            count = end - first
            block.left -= count - block.settled.count(1, first, end)
            block.settled[first:end] = b"\1" * count
            block.columns.forget(first, end)

            if not block.left and len(block.settled) == _BLOCK:
                del self._blocks[block.first // _BLOCK]

            yield count

    def _begin(self, source: EventSource | None) -> _Block:
        number, self._following = self._following, self._following + 1
        block = self._begun[id(source)] = self._blocks[number] = _Block(source, number * _BLOCK)

        return block

    def _pieces(self, tickets: Tickets) -> Iterator[tuple[_Block, int, int]]:
        """Within a block each: where it begins there, and where it ends."""
        for first, end in tickets.runs():
            for number in range(first // _BLOCK, -(-end // _BLOCK)):
                if block := self._blocks.get(number):
                    yield block, max(first - block.first, 0), min(end - block.first, _BLOCK)
