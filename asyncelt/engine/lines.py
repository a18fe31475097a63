"""Work that has an order within a line and none between lines: N workers, each line with one of them at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncelt.errors import UsageError

__all__ = ["Lines"]

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Lines(Generic[Key, Item]):
    """Each item is handled once, after those that were put into its line before it. Belongs to the event loop.

    Any worker takes the next item of any line that nobody works on, so none is idle while a line waits.

    Args:
        handle: Gets one item.
        workers: How many items are handled at the same time.
    """

    def __init__(self, handle: Callable[[Key, Item], Awaitable[None]], *, workers: int) -> None:
        self._handle = handle
        self._workers = workers
        self._waiting: dict[Key, deque[Item]] = {}
        """Of the lines that a worker has or will take."""
        self._held = 0
        """Items that have not been handled to their end."""
        self._moved = anyio.Event()
        """Set, and replaced, when one has."""
        self._ready: MemoryObjectSendStream[Key] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Handle what is put inside the block; after it, all of it has been.

        Cancellation:
            Safe, as are errors of the block: items that nobody has taken are let go of.
        """
        self._ready, taken = anyio.create_memory_object_stream[Key](math.inf)

        with self._ready, taken:
            async with anyio.create_task_group() as tasks:
                for _ in range(self._workers):
                    tasks.start_soon(self._work, self._ready, taken)

                yield

                await self._until_at_most(0)
                self._ready.close()

    async def put(self, key: Key, item: Item) -> None:
        """Add an item to a line, at once; then wait until at most ``workers + 1`` items are held, this one included.

        Only while it is open.
        """
        if self._ready is None:
            raise UsageError("Lines takes items while it is open.")

        self._held += 1
        line = self._waiting.get(key)

        if line is None:
            self._waiting[key] = deque([item])
            self._ready.send_nowait(key)
        else:
            line.append(item)

        # The item belongs to its line alone while this waits, so that whoever handles it frees it.
        del item
        await self._until_at_most(self._workers + 1)

    async def _work(self, ready: MemoryObjectSendStream[Key], taken: MemoryObjectReceiveStream[Key]) -> None:
        async for key in taken:
            line = self._waiting[key]
            await self._handle(key, line.popleft())

            if line:
                ready.send_nowait(key)
            else:
                del self._waiting[key]

            self._held -= 1
            self._moved.set()
            self._moved = anyio.Event()

    async def _until_at_most(self, held: int) -> None:
        while self._held > held:
            await self._moved.wait()
