"""The partitions that a member of a consumer group has: claimed, read in order, given back."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Final

import anyio

from asyncelt.errors import AsynceltWarning, ExtractError, UsageError
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import Custody, Receipt
from asyncelt.sources.broker import Patience
from asyncelt.types import OnGap, StartAt

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["Holding", "Partitions", "kafka_errors"]

_NEWS_S: Final = 0.05
"""Until the client tells this source what it knows itself already: not to claim over and over meanwhile."""


@dataclass(slots=True, eq=False)
class Holding:
    """A partition, for as long as this member has it. The token of its messages' receipts."""

    partition: TopicPartition
    name: str
    following: int
    """The offset behind the last message that was handed out."""
    open: int = 0
    """Messages that were handed out, and of which the stream has not said what became of them."""


class Partitions:
    """What the group has given to this member, from when its client connects until it is closed.

    A partition is claimed in the destination before anything is read of it, so nobody who had it before can commit
    any more; it is read on behind what is committed there, whatever the group believes.

    Args:
        source: Name of the source.
        consumer: Its client.
        custody: What claims; None: nobody reads the source.
        known: What has been committed, by name of the partition.
        start: Where a partition starts of which nothing is known.
        on_gap: What happens when messages were deleted before they were read.
    """

    def __init__(
        self,
        source: str,
        consumer: AIOKafkaConsumer,
        custody: Custody | None,
        known: Mapping[str, Intervals],
        *,
        start: StartAt,
        on_gap: OnGap,
    ) -> None:
        self.held: dict[TopicPartition, Holding] = {}
        self.reading: anyio.CancelScope | None = None
        """Around the request that is under way; cancelled when there is something to take over."""
        self.patience = Patience(first_s=0.1)
        self._source = source
        self._consumer = consumer
        self._custody = custody
        self._known = dict(known)
        self._start = start
        self._on_gap = on_gap
        self._assigned: frozenset[TopicPartition] | None = None
        """What the group has given to this member, until it is held or taken away."""
        self._settled = anyio.Event()
        self._is_closed = False

    @property
    def is_up_to_date(self) -> bool:
        """Whether all that is assigned is held, and nothing else."""
        return self._assigned is None

    def assign(self, assigned: set[TopicPartition]) -> None:
        """The group has given these to this member: they are to be taken over."""
        self._assigned = frozenset(assigned)

        if self.reading is not None:
            self.reading.cancel()

    async def take_over(self) -> None:
        """Claim what was assigned, and read on behind what is committed."""
        while (assigned := self._assigned) is not None:
            try:
                starts = await self._starts(assigned)
            except kafka_errors().KafkaError as error:
                await self.endure(error)
                continue

            known = await self._guard.claim(starts)

            # Meanwhile it may have been taken away again.
            if self._assigned is assigned:
                self._known.update(known)

                if not self._hold(assigned, known):
                    await anyio.sleep(_NEWS_S)

    async def give_back(self, revoked: set[TopicPartition], deadline_s: float) -> None:
        """Nothing more is taken of these; what the stream has of them is committed first, if that is quick enough.

        If it is not, the next owner's claim refuses it, and reads it again.
        """
        self._assigned = None
        leaving = [self.held.pop(one) for one in revoked if one in self.held]

        with anyio.move_on_after(deadline_s):
            while any(one.open for one in leaving) and not self._is_closed:
                self._settled = anyio.Event()
                self._guard.hurry()
                await self._settled.wait()

    def settle(self, receipts: Sequence[Receipt]) -> None:
        """The stream has said what became of these messages."""
        for one in receipts:
            if isinstance(one.token, Holding):
                one.token.open -= 1

        self._settled.set()

    def close(self) -> None:
        """Nothing is held any more."""
        self._is_closed = True
        self.held.clear()
        self._settled.set()

    async def bridge(self, gone: Mapping[TopicPartition, int]) -> None:
        """Messages are not there any more: an error, or another one's business.

        Raises:
            ExtractError: They are missed.
        """
        try:
            first = await self._consumer.beginning_offsets(list(gone))
        except kafka_errors().KafkaError as error:
            await self.endure(error)
            return

        for partition, offset in gone.items():
            holding = self.held.get(partition)

            if holding is None:
                continue

            where = f"Kafka source {self._source!r}, partition {holding.name!r}"

            if offset > first[partition]:
                raise ExtractError(
                    f"{where}: it has no offset {offset}, up to which it was read. Was the topic made anew? Then "
                    f"delete this partition's row of source {self._source!r} in _asyncelt_positions, and start the "
                    "stream again."
                )

            if self._on_gap == "fail":
                raise ExtractError(
                    f"{where}: the messages from offset {offset} to {first[partition] - 1} were deleted before they "
                    "were read; the oldest one there is the one after them. If they may stay lost, use on_gap='skip'."
                )

            warnings.warn(
                f"{where}: offsets {offset} to {first[partition] - 1} were deleted before they were read.",
                AsynceltWarning,
                stacklevel=2,
            )
            holding.following = first[partition]
            self._seek(holding)

    async def endure(self, error: Exception) -> None:
        """Wait, if that may help; then go on behind what was handed out.

        Raises:
            ExtractError: It does not.
        """
        if not getattr(error, "retriable", False):
            raise ExtractError(f"Kafka source {self._source!r}: {type(error).__name__}: {error}") from error

        await self.patience.wait()

        for holding in self.held.values():
            self._seek(holding)

    def _hold(self, assigned: frozenset[TopicPartition], known: Mapping[str, Intervals]) -> bool:
        held = {one: Holding(one, _name(one), _end(known[_name(one)]) + 1) for one in assigned}

        if not all(map(self._seek, held.values())):
            return False

        self.held, self._assigned = held, None

        return True

    def _seek(self, holding: Holding) -> bool:
        """Read on there; False if the partition has just been taken away, of which this source is about to hear."""
        try:
            self._consumer.seek(holding.partition, holding.following)
        except kafka_errors().IllegalStateError:
            return False

        return True

    async def _starts(self, assigned: frozenset[TopicPartition]) -> dict[str, int | None]:
        """By partition, what precedes the first message that is wanted, if nothing is known in the destination."""
        fresh = [one for one in assigned if not self._known.get(_name(one))]
        starts: dict[str, int | None] = {_name(one): None for one in assigned}

        if not fresh:
            return starts

        # Of a topic that is read already, a partition that has been added since holds nothing that is old.
        seen = {name.rpartition(":")[0] for name, known in self._known.items() if known}
        late = [one for one in fresh if self._start == "latest" and one.topic not in seen]
        first = await self._consumer.beginning_offsets(fresh)
        last = await self._consumer.end_offsets(late) if late else {}

        for one in fresh:
            offset = last.get(one, first[one])

            if self._start == "group":
                offset = max(await self._consumer.committed(one) or 0, offset)

            starts[_name(one)] = offset - 1

        return starts

    @property
    def _guard(self) -> Custody:
        if self._custody is None:
            raise UsageError(f"Kafka source {self._source!r} is read by nobody. Pass it to pipeline.stream().")

        return self._custody


def kafka_errors() -> ModuleType:
    """The errors of the client, which has been imported before."""
    return importlib.import_module("aiokafka.errors")


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}:{partition.partition}"


def _end(known: Intervals) -> int:
    """The last position before the first that is not known. A partition is read in order, so there is one piece."""
    if known.floor is not None:
        return known.floor

    return known.ranges[0][1] if known.ranges else -1
