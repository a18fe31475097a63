"""A source inside the program: rows are sent to it, and whoever sends can wait until they are committed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Final, Literal, TypeAlias

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncelt.arguments import COUNT, TEXT, expect
from asyncelt.errors import ConfigError, MessageNotCommitted, warn
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import Message, Receipt

__all__ = ["Channel", "Until", "channel"]

Until: TypeAlias = Literal["committed", "accepted"]

_GATHER_S: Final = 0.005
"""How long a fetch goes on while each turn of the loop brings another message."""


class Channel:
    """A queue in memory that is an `EventSource`. Made by `channel`. Belongs to one event loop.

    Streams may read it one after the other. What is sent after one has ended, and before the next one is described, is
    refused.
    """

    def __init__(self, name: str, capacity: int) -> None:
        self._name = name
        self._capacity = capacity
        self._send: MemoryObjectSendStream[Message]
        self._receive: MemoryObjectReceiveStream[Message]
        self._send, self._receive = anyio.create_memory_object_stream[Message](capacity)
        self._taken: list[Message] = []
        """Out of the queue, and not fetched yet."""
        self._is_ended = False
        self._has_reader = True
        """Whether a stream reads it, or is to."""

    @property
    def name(self) -> str:
        """See `EventSource.name`."""
        return self._name

    async def send(self, row: object, *, until: Until = "committed", table_name: str | None = None) -> None:
        """Send one row, or a list of rows that stay together.

        Waits while the channel is full, and then until the row is committed, or not at all.

        Args:
            row: What a resource may yield: a dict, a model, JSON bytes, a list of rows.
            until: ``committed``: returns when the row is in the destination; ``accepted``: when it is in the queue,
                from which it is lost if the process dies.
            table_name: The table it goes to; None: the stream's for this channel.

        Raises:
            MessageNotCommitted: The stream has ended without committing it. If its package was sealed, the next stream
                or run of the pipeline commits it all the same.
            ConfigError: ``until`` is neither.

        Cancellation:
            A row that is in the queue stays there: it will be committed, and nobody is told.
        """
        sent = _sent(until)

        await self._put(Message(row, Receipt(token=sent), self, table_name), sent)

    async def deliver(self, message: Message, *, until: Until = "committed") -> None:
        """Send a message with all that is known of it; its receipt and origin become the channel's. As `send`.

        Raises:
            MessageNotCommitted: See `send`.
            ConfigError: ``until`` is neither.
        """
        sent = _sent(until)

        await self._put(replace(message, receipt=Receipt(token=sent), origin=self), sent)

    async def _put(self, message: Message, sent: _Sent | None) -> None:
        try:
            await self._send.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise self._not_committed() from None

        if sent is None:
            return

        await sent.done.wait()

        if not sent.is_committed:
            raise self._not_committed()

    def end(self) -> None:
        """Nothing more will be sent: the stream ends when it has committed what is here."""
        self._is_ended = True
        self._send.close()

    # ------------------------------------------------------------------ for the stream

    def renew(self) -> None:
        """See `Renewable.renew`."""
        if not self._has_reader and not self._is_ended:
            self._send, self._receive = anyio.create_memory_object_stream[Message](self._capacity)
            self._has_reader = True

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`."""
        del committed
        self.renew()

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`. Rows that are sent one after the other are gathered, which is cheaper."""
        if not self._taken:
            try:
                self._taken.append(await self._receive.receive())
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                return ()

        due = perf_counter() + _GATHER_S

        self._take(most)

        while len(self._taken) < most and perf_counter() < due:
            await anyio.lowlevel.checkpoint()

            if not self._take(most):
                break

        found, self._taken = self._taken[:most], self._taken[most:]

        return found

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`."""
        for receipt in receipts:
            if isinstance(receipt.token, _Sent):
                receipt.token.finish(is_committed=True)

        return {}

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`."""
        self._give_up(receipts)

    async def close(self) -> None:
        """See `EventSource.close`. What is still in the queue is not taken any more."""
        if not self._has_reader:
            return

        self._has_reader = False
        self._take(None)
        left, self._taken = self._taken, []
        self._receive.close()
        self._send.close()
        self._give_up([one.receipt for one in left])

    def _take(self, most: int | None) -> bool:
        """Take what is in the queue: all, or until ``most`` are taken. False: there is nothing."""
        before = len(self._taken)

        with contextlib.suppress(anyio.WouldBlock, anyio.EndOfStream):
            while most is None or len(self._taken) < most:
                self._taken.append(self._receive.receive_nowait())

        return len(self._taken) > before

    def _give_up(self, receipts: Sequence[Receipt]) -> None:
        unheard = 0

        for receipt in receipts:
            if isinstance(receipt.token, _Sent):
                receipt.token.finish(is_committed=False)
            else:
                unheard += 1

        if unheard:
            warn(
                f"Channel {self._name!r}: {unheard} messages that were sent with until='accepted' were not committed "
                "before the stream ended.",
                stacklevel=2,
            )

    def _not_committed(self) -> MessageNotCommitted:
        return MessageNotCommitted(
            f"Channel {self._name!r}: the row was not committed, since "
            f"{'it was ended' if self._is_ended else 'its stream has ended'}. Send it again to a channel of a new "
            "stream, which tells repetitions apart only by a primary key."
        )


class _Sent:
    """Somebody who waits for a commit."""

    __slots__ = ("done", "is_committed")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.is_committed = False

    def finish(self, *, is_committed: bool) -> None:
        self.is_committed = is_committed
        self.done.set()


def _sent(until: Until) -> _Sent | None:
    """What the sender waits for; None: nothing.

    Raises:
        ConfigError: There is no such ``until``.
    """
    if until not in ("committed", "accepted"):
        raise ConfigError(f"Channel.send(until=...) is 'committed' or 'accepted', not {until!r}.")

    return _Sent() if until == "committed" else None


def channel(name: str = "channel", *, capacity: int = 1000) -> Channel:
    """A source for `Pipeline.stream` that other code of the same program sends rows to.

    Args:
        name: Of its resource and, unless `events` says otherwise, its table.
        capacity: How many sent rows may wait for the stream; then `Channel.send` waits.

    Raises:
        ConfigError: A capacity below 1.
    """
    expect("channel", TEXT, name=name)
    expect(f"channel({name!r})", COUNT, capacity=capacity)

    return Channel(name, capacity)
