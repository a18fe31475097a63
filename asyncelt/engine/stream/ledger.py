"""Which messages of a stream are where: delivered, on their way in a package, committed. Belongs to the event loop."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio

from asyncelt._async import CLEANUP_S, in_thread, shielded
from asyncelt.engine.steps import one_error
from asyncelt.engine.stream.deliveries import Deliveries
from asyncelt.errors import ConfigError, warn
from asyncelt.extract.intervals import EMPTY, Intervals
from asyncelt.extract.messages import (
    Accepted,
    EventSource,
    Positioned,
    Receipt,
    ReportsOutages,
    SharesPartitions,
    SupportsReopening,
)
from asyncelt.extract.receipts import Columns, Receipts
from asyncelt.extract.tickets import Tickets
from asyncelt.failpoints import failpoint
from asyncelt.flow import PositionClaim, PositionMove
from asyncelt.load.protocol import StoredPosition

__all__ = ["Ledger", "Standing"]

_ACKNOWLEDGE_S = 60.0
"""How long a source may take for what a package has of its messages, even if the stream is cancelled meanwhile."""
_GIVE_BACK_S = 5.0
_Key = tuple[str, str]
"""Name of the source, and partition."""
Look = Callable[[], Awaitable[Sequence[StoredPosition]]]
Claim = Callable[[Sequence[PositionClaim]], Awaitable[Sequence[StoredPosition]]]
Standing = Mapping[_Key, tuple[int | None, int]]
"""Floor and epoch of each partition."""
_PIECE = 1000
"""Messages, or positions, until others have their turn."""


@dataclass(slots=True)
class _Partition:
    """What is known of one partition."""

    committed: Intervals = EMPTY
    epoch: int = 0
    """With which its messages are committed."""
    claimed: int = 0
    """The epoch under which this stream has it; 0: it has not claimed it."""
    in_flight: set[int] = field(default_factory=set)
    """Delivered to this stream, and not committed."""
    floor: int | None = None
    """The newest that the source has told, not committed yet."""

    def knows(self, position: int) -> bool:
        """Whether it is committed, or on its way."""
        return position in self.in_flight or position in self.committed

    def take(self, position: int) -> bool:
        """Whether it is new; then it is on its way from here on."""
        if self.knows(position):
            return False

        self.in_flight.add(position)

        return True

    def take_all(self, positions: array[int]) -> bool:
        """Whether all of them are new, and each is there once; then they are on their way from here on."""
        new = set(positions)

        if len(new) < len(positions) or not self.in_flight.isdisjoint(new):
            return False

        between = Intervals(None, ((min(new), max(new)),))

        if self.committed.overlap(between) is not None and any(one in self.committed for one in new):
            return False

        self.in_flight |= new

        return True


class Ledger:
    """Decides which deliveries are wanted, and acknowledges what has committed.

    What it holds is bounded by the data in flight, and by the gaps between committed messages.

    Args:
        stored: What is committed.
        look: Reads again what is committed; None: the destination keeps no positions.
        claim: Takes partitions over; None likewise.
    """

    def __init__(self, stored: Sequence[StoredPosition], look: Look | None, claim: Claim | None = None) -> None:
        self._look = look
        self._claim = claim
        self.hurry: Callable[[], None] = _nothing
        """Ends the package that is being filled at the next safe points."""
        self.tell: Callable[[str, str | None], None] = _nothing
        """Hears of each source what is wrong with its broker, or that nothing is any more."""
        self._partitions: dict[_Key, _Partition] = {
            (one.source, one.partition): _Partition(Intervals.parse(one.position), one.epoch) for one in stored
        }
        self._sources: dict[int, EventSource] = {}
        self._deliveries = Deliveries()
        self.repeated = 0
        """Deliveries of messages that this stream had, or that were committed."""

    @property
    def can_reopen(self) -> bool:
        """Whether every source that has delivered something can be opened anew."""
        return all(isinstance(one, SupportsReopening) and one.can_reopen for one in self._sources.values())

    async def open(self, source: EventSource) -> None:
        """See `StreamSide.open`."""
        if self._look is None and isinstance(source, Positioned) and source.has_positions:
            raise _keeps_no_positions(source.name)

        self._sources[id(source)] = source

        if isinstance(source, SharesPartitions):
            source.entrust(_Custody(self, source.name))

        if isinstance(source, ReportsOutages):
            source.report_to(partial(self.tell, source.name))

        await source.position({key[1]: one.committed for key, one in self._partitions.items() if key[0] == source.name})

    def knows(self, source: EventSource, receipt: Receipt) -> bool:
        """See `StreamSide.knows`."""
        partition, position = self._partitions.get((source.name, receipt.partition)), receipt.position

        return partition is not None and position is not None and partition.knows(position)

    async def refresh(self) -> None:
        """See `StreamSide.refresh`."""
        if self._look is None:
            return

        for one in await self._look():
            partition = self._partition(one.source, one.partition)
            partition.committed = partition.committed.union(Intervals.parse(one.position))

    async def claim(self, source: str, starts: Mapping[str, int | None]) -> Mapping[str, Intervals]:
        """See `Custody.claim`."""
        if self._claim is None:
            raise _keeps_no_positions(source)

        claims = [
            PositionClaim(source=source, partition=name, epoch=self._partition(source, name).claimed, start=start)
            for name, start in starts.items()
        ]
        found: dict[str, Intervals] = {}

        for one in await self._claim(claims):
            partition = self._partition(source, one.partition)
            partition.committed = partition.committed.union(Intervals.parse(one.position))
            partition.epoch = partition.claimed = one.epoch
            found[one.partition] = partition.committed.union(Intervals.of(partition.in_flight))

        return found

    def accept(self, source: EventSource | None, receipts: Sequence[Receipt]) -> Accepted:
        """See `StreamSide.accept`."""
        if source is not None:
            self._sources.setdefault(id(source), source)

        tickets: list[int] = []
        repeated: set[int] = set()

        if isinstance(receipts, Receipts):
            for some in receipts.columns:
                if source is not None and self._takes_all(source.name, some):
                    tickets += self._deliveries.note_all(source, some)
                else:
                    self._accept_each(source, Receipts([some]), tickets, repeated)
        else:
            self._accept_each(source, receipts, tickets, repeated)

        self.repeated += len(repeated)

        return Accepted(tickets, repeated)

    def _takes_all(self, source: str, receipts: Columns) -> bool:
        """Whether they are of one partition, and all of them new."""
        positions, partitions = receipts.positions, receipts.partitions

        if self._look is None or not isinstance(positions, array) or not positions:
            return False

        if partitions.count(partitions[0]) < len(partitions):
            return False

        return self._partition(source, partitions[0]).take_all(positions)

    def _accept_each(
        self, source: EventSource | None, receipts: Sequence[Receipt], tickets: list[int], repeated: set[int]
    ) -> None:
        name = None if source is None else source.name

        for receipt in receipts:
            is_repeated = False

            if name is not None and receipt.position is not None:
                if self._look is None:
                    raise _keeps_no_positions(name)

                is_repeated = not self._partition(name, receipt.partition).take(receipt.position)

            ticket = self._deliveries.note(source, receipt, is_repeated=is_repeated)
            tickets.append(ticket)

            if is_repeated:
                repeated.add(ticket)

    def standing(self) -> Standing:
        """Floors and epochs as of now."""
        return {key: (one.floor, one.epoch) for key, one in self._partitions.items()}

    def moves(self, taken: Tickets, standing: Standing) -> tuple[PositionMove, ...]:
        """How positions move when a package with these messages commits. For a thread: there may be many.

        That is by the messages whose rows are in the package, whatever has become known since they were accepted: if
        another process has committed one of them meanwhile, the package must be refused.

        Args:
            taken: Of the package, repetitions included.
            standing: When it was closed.
        """
        found: dict[_Key, set[int]] = {}

        for source, partition, positions in self._deliveries.wanted(taken):
            found.setdefault((source.name, partition), set()).update(positions)

        return tuple(
            PositionMove(
                source=key[0],
                partition=key[1],
                taken=Intervals.of(positions).text(),
                floor=standing[key][0],
                epoch=standing[key][1],
            )
            for key, positions in found.items()
        )

    async def committed(self, moves: Sequence[PositionMove], threads: anyio.CapacityLimiter) -> None:
        """A package with these moves has committed.

        Args:
            moves: Of the package.
            threads: Where sets of positions are joined, which may be long.
        """
        for move in moves:
            partition = self._partitions[move.source, move.partition]
            taken = await _briefly(partial(Intervals.parse, move.taken), len(move.taken), threads)
            is_joined = False

            while not is_joined:
                known = partition.committed
                join = partial(_joined, known, taken, move.floor)
                joined = await _briefly(join, len(known.ranges) + len(taken.ranges), threads)

                # Unless more has become known meanwhile.
                if is_joined := partition.committed is known:
                    partition.committed = joined

            passed = 0

            for first, last in taken.ranges:
                for start in range(first, last + 1, _PIECE):
                    some = range(start, min(start + _PIECE, last + 1))
                    partition.in_flight.difference_update(some)
                    passed += len(some)

                    if passed >= _PIECE:
                        passed = 0
                        await anyio.lowlevel.checkpoint()

    async def acknowledge(self, taken: Tickets) -> int:
        """Tell the sources, beside each other, that these have been committed.

        One that cannot be told, or does not answer, will deliver them again.

        Returns:
            How many were acknowledged.
        """
        counts: list[int] = []

        async def tell(source: EventSource, tickets: Tickets) -> None:
            counts.append(await self._tell(source, tickets))

        with one_error():
            async with anyio.create_task_group() as tasks:
                for source, tickets in self._deliveries.by_source(taken):
                    if source is None:
                        await self._settle(tickets)
                    else:
                        tasks.start_soon(tell, source, tickets)

        return sum(counts)

    async def _tell(self, source: EventSource, tickets: Tickets) -> int:
        failpoint("stream.before_ack")
        floors: Mapping[str, int] | None = None
        why = "it does not answer"

        try:
            with anyio.move_on_after(_ACKNOWLEDGE_S):
                floors = await source.ack(self._deliveries.receipts(tickets))
        except Exception as error:  # whatever a broker's client raises: nothing is lost by it
            why = f"{type(error).__name__}: {error}"
        finally:
            await self._settle(tickets)

        if floors is None:
            _warn(
                f"{len(tickets)} messages of {source.name!r} have been committed, but could not be acknowledged: "
                f"{why}. They will be delivered again, and left out then."
            )

            return 0

        failpoint("stream.after_ack")
        self._raise_floors(source, floors)

        return len(tickets)

    async def close(self) -> None:
        """Give back what was delivered and not committed, and close the sources."""
        left = {id(source): tickets for source, tickets in self._deliveries.open()}

        for key, source in self._sources.items():
            # A broker that is away may use up the time for giving back, but not the time for taking leave.
            if tickets := left.get(key):
                await _leave(
                    partial(source.nack, self._deliveries.receipts(tickets)),
                    _GIVE_BACK_S,
                    f"{len(tickets)} messages of {source.name!r} could not be given back",
                )

            await _leave(source.close, CLEANUP_S, f"Source {source.name!r} could not take leave of its broker")

    async def _settle(self, tickets: Tickets) -> None:
        """Let go of them: some while others have their turn; all of them, if that is not to be."""
        passed = 0

        try:
            for some in self._deliveries.settle(tickets):
                passed += some

                if passed >= _PIECE:
                    passed = 0
                    await anyio.lowlevel.checkpoint()
        except BaseException:
            for _ in self._deliveries.settle(tickets):
                pass

            raise

    def _raise_floors(self, source: EventSource, floors: Mapping[str, int]) -> None:
        for name, floor in floors.items():
            partition = self._partition(source.name, name)
            partition.floor = floor if partition.floor is None else max(floor, partition.floor)

    def _partition(self, source: str, name: str) -> _Partition:
        found = self._partitions.get((source, name))

        if found is None:
            found = self._partitions[source, name] = _Partition()

        return found


@dataclass(frozen=True, slots=True)
class _Custody:
    """See `Custody`."""

    ledger: Ledger
    source: str

    async def claim(self, starts: Mapping[str, int | None]) -> Mapping[str, Intervals]:
        """See `Custody.claim`."""
        return await self.ledger.claim(self.source, starts)

    def hurry(self) -> None:
        """See `Custody.hurry`."""
        self.ledger.hurry()


async def _briefly(work: Callable[[], Intervals], size: int, threads: anyio.CapacityLimiter) -> Intervals:
    """In a thread, if it is not little."""
    return work() if size < _PIECE else await in_thread(work, threads)


def _joined(known: Intervals, taken: Intervals, floor: int | None) -> Intervals:
    return known.union(taken).raised(floor)


def _nothing(*_: object) -> None:
    """Before there is anything to hurry, or anybody to hear."""


def _keeps_no_positions(source: str) -> ConfigError:
    return ConfigError(
        f"Source {source!r} delivers messages more than once, and the destination keeps no positions, by "
        "which they are told apart. Use one that does: DuckDB, for instance."
    )


async def _leave(step: Callable[[], Awaitable[None]], seconds: float, failed: str) -> None:
    """Do the step, whatever has failed and whatever it raises: what was committed is; others have their turn."""
    with shielded(seconds) as scope:
        try:
            await step()
        except Exception as error:  # whatever a broker's client raises; it will find out by itself
            _warn(f"{failed}: {error}")

    if scope.cancelled_caught:
        _warn(f"{failed}: it does not answer")


def _warn(message: str) -> None:
    warn(message, stacklevel=2)
