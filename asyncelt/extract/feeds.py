"""From a resource to the transformers that read from it: one reading of the parent feeds all of them.

Items are handed over in batches, and only when the receiver asks for more, so a slow transformer slows its parent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncelt.extract.thread import OwnThread

__all__ = ["Feed", "Offering"]


@dataclass(slots=True)
class Offering:
    """Where a resource leaves its items for its transformers."""

    receivers: list[MemoryObjectSendStream[list[object]]] = field(default_factory=list)

    def feed(self) -> Feed:
        """What one more transformer reads."""
        send, receive = anyio.create_memory_object_stream[list[object]](0)
        self.receivers.append(send)

        return Feed(receive)

    async def send(self, items: list[object]) -> bool:
        """Give items to each transformer.

        Returns:
            Whether anybody is left who wants more.

        Cancellation:
            Safe; some may have received them.
        """
        for receiver in tuple(self.receivers):
            try:
                await receiver.send(items)
            except anyio.BrokenResourceError:  # it has had enough
                receiver.close()
                self.receivers.remove(receiver)

        return bool(self.receivers)

    def close(self) -> None:
        """There is no more."""
        for receiver in self.receivers:
            receiver.close()


@dataclass(frozen=True, slots=True)
class Feed:
    """The items of a parent, for one transformer."""

    receive: MemoryObjectReceiveStream[list[object]]

    async def items(self) -> AsyncIterator[object]:
        """One after the other, on the loop."""
        with self.receive:
            async for batch in self.receive:
                for item in batch:
                    yield item

    def items_in(self, thread: OwnThread) -> Iterator[object]:
        """One after the other, in a thread; the loop is asked for each batch."""
        try:
            while (batch := thread.wait_for(self._next())) is not None:
                yield from batch  # type: ignore[misc]
        finally:
            thread.call_on_loop(self.receive.close)

    def close(self) -> None:
        """Nobody reads any more."""
        self.receive.close()

    async def _next(self) -> list[object] | None:
        try:
            return await self.receive.receive()
        except anyio.EndOfStream:
            return None
