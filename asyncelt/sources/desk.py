"""Where a webhook's requests wait until they may be answered: in memory for the commit, or on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import orjson

from asyncelt._async import in_thread
from asyncelt.errors import MessageNotCommitted
from asyncelt.extract.intervals import EMPTY, Intervals
from asyncelt.extract.messages import EventSource, Message, Receipt
from asyncelt.sources.channels import Channel
from asyncelt.sources.inbox import SEGMENT_BYTES, Inbox

__all__ = ["CommittedDesk", "Desk", "SpooledDesk"]


class Desk(EventSource, Protocol):
    """An event source that messages are put into."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be taken."""
        ...

    @property
    def has_positions(self) -> bool:
        """Whether messages have positions, and can be read again."""
        ...

    def renew(self) -> None:
        """See `Renewable.renew`."""
        ...

    async def put(self, message: Message) -> None:
        """Returns when the message is safe.

        Raises:
            MessageNotCommitted: It is not, and will not be.
        """
        ...


class CommittedDesk(Channel):
    """A message is safe when it is committed."""

    is_full = False
    """The webhook's limit of requests at a time is the channel's capacity."""
    has_positions = False
    """A message is delivered once."""

    async def put(self, message: Message) -> None:
        """See `Desk.put`."""
        await self.deliver(message)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A message that is not on the disk yet."""

    body: bytes
    is_done: bool = False
    error: MessageNotCommitted | None = None


class SpooledDesk:
    """A message is safe when it is on the disk. Messages of a few moments are written, and synced, together.

    It can be closed and positioned again; meanwhile nothing is taken.

    Args:
        name: Of the source.
        folder: Of the inbox. Belongs to one process.
        most_bytes: The desk is full when its files are this large.
    """

    has_positions = True
    """See `Desk.has_positions`."""

    def __init__(self, name: str, folder: Path, most_bytes: int) -> None:
        self._name = name
        self._folder = folder
        self._most_bytes = most_bytes
        self._limiter = anyio.CapacityLimiter(1)
        self._opening = anyio.Lock()
        self._writing = anyio.Lock()
        self._inbox: Inbox | None = None
        self._is_closed = False
        self._waiting: list[_Waiting] = []
        self._news = anyio.Event()
        self._acknowledged = EMPTY

    @property
    def name(self) -> str:
        """See `EventSource.name`."""
        return self._name

    @property
    def is_full(self) -> bool:
        """See `Desk.is_full`."""
        return self._inbox is not None and self._inbox.nbytes >= self._most_bytes

    async def put(self, message: Message) -> None:
        """See `Desk.put`.

        Cancellation:
            The message may be there all the same.
        """
        inbox = await self._opened()
        mine = _Waiting(_packed(message))
        self._waiting.append(mine)

        async with self._writing:
            # Whoever comes first writes for all that have come meanwhile.
            if not mine.is_done:
                if self._inbox is not inbox:
                    self._waiting.remove(mine)
                    raise self._ended()

                await self._write(inbox)

        if mine.error is not None:
            raise mine.error

    async def _write(self, inbox: Inbox) -> None:
        batch, self._waiting = self._waiting, []

        why: object = "it was interrupted"

        with anyio.CancelScope(shield=True):
            try:
                await in_thread(partial(inbox.append, [one.body for one in batch]), self._limiter)
                why = None
            except Exception as error:  # of the disk, or for want of memory: nobody may be told that it is safe
                why = error
            finally:
                for one in batch:
                    one.is_done = True
                    one.error = None if why is None else self._refusal(why)

        self._news.set()

    def _ended(self) -> MessageNotCommitted:
        return MessageNotCommitted(f"Webhook {self._name!r}: its stream has ended. Send the message again.")

    def _refusal(self, why: object) -> MessageNotCommitted:
        return MessageNotCommitted(f"Webhook {self._name!r}: the spool {self._folder} takes nothing: {why}")

    def renew(self) -> None:
        """See `Renewable.renew`."""
        self._is_closed = False

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`."""
        self.renew()
        inbox = await self._opened()
        self._acknowledged = _from_the_start(committed.get(inbox.identity, EMPTY))
        floor = self._acknowledged.floor or 0

        def go_on() -> None:
            inbox.seek(floor)

            # The process before this one may have died before it could. If the disk is too full, the next ack does it.
            with contextlib.suppress(OSError):
                inbox.drop(floor)

        await in_thread(go_on, self._limiter)

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`."""
        inbox = await self._opened()

        while True:
            self._news = anyio.Event()

            # The thread is waited for in any case, and what it has read is given out.
            if found := await in_thread(partial(inbox.read, most), self._limiter):
                return [self._message(inbox.identity, number, body) for number, body in found]

            await self._news.wait()

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`. Files of which everything is committed go."""
        inbox = await self._opened()
        numbers = Intervals.of(one.position for one in receipts if one.position is not None)
        self._acknowledged = _from_the_start(self._acknowledged.union(numbers))
        floor = self._acknowledged.floor

        if not floor:
            return {}

        await in_thread(partial(inbox.drop, floor), self._limiter)

        return {inbox.identity: floor}

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`. They are on the disk."""

    async def close(self) -> None:
        """See `EventSource.close`."""
        self._is_closed = True

        async with self._writing:
            if self._inbox is not None:
                await in_thread(self._inbox.close, self._limiter)
                self._inbox = None

    async def _opened(self) -> Inbox:
        async with self._opening:
            if self._is_closed:
                raise self._ended()

            if self._inbox is None:
                segment_bytes = min(SEGMENT_BYTES, self._most_bytes // 4)
                self._inbox = await in_thread(partial(Inbox, self._folder, segment_bytes), self._limiter)

            return self._inbox

    def _message(self, partition: str, number: int, body: bytes) -> Message:
        head, _, value = body.partition(b"\n")
        known = orjson.loads(head)

        return Message(
            value,
            Receipt(partition, number),
            self,
            headers=known["headers"],
            key=known["key"],
            topic=known["topic"],
            timestamp=known["timestamp"],
        )


def _from_the_start(numbers: Intervals) -> Intervals:
    """Nothing is below 1."""
    return numbers.union(Intervals(0))


def _packed(message: Message) -> bytes:
    """One line of JSON with what is known of the message, and its body."""
    head = {
        "headers": dict(message.headers),
        "key": message.key,
        "topic": message.topic,
        "timestamp": message.timestamp,
    }
    body = message.value if isinstance(message.value, bytes) else b""

    return orjson.dumps(head) + b"\n" + body
