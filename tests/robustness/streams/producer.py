"""Numbered messages without end: each number once, in order, whatever happens to the broker meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType
from typing import Self

from tests.robustness.streams.brokers import Broker

__all__ = ["CHILDREN", "Producer", "body_of"]

CHILDREN = 2
_NEW_COLUMN_AFTER = 1000
_PAUSE_S = 0.05


def body_of(number: int) -> bytes:
    """A message with children that name their parent; now and then there is a new column."""
    parts = [{"of": number, "nr": nr} for nr in range(CHILDREN)]

    return json.dumps({"n": number, "parts": parts, f"c{number // _NEW_COLUMN_AFTER}": "x" * 20}).encode()


class Producer:
    """Publishes from a thread of its own, as a context manager.

    A message whose confirmation was lost may be there or not. So after an error the broker is asked which number it
    has last, and the next one follows.

    Args:
        broker: Running, or coming back.
        topic: Which exists.
        a_time: Messages at a time, about twenty times a second.
    """

    def __init__(self, broker: Broker, topic: str, a_time: int = 10) -> None:
        self._broker = broker
        self._topic = topic
        self._a_time = a_time
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._produce()), name="producer")
        self.published = 0
        """Numbers below this one are with the broker."""

    def __enter__(self) -> Self:
        self._thread.start()

        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Publish no more.

        Returns:
            How many there are.
        """
        self._is_over.set()
        self._thread.join()

        return self.published

    async def _produce(self) -> None:
        while not self._is_over.is_set():
            try:
                await self._publish()
            except Exception:  # whatever a client raises when its server is killed: it is coming back
                await asyncio.sleep(_PAUSE_S)

        while True:
            try:
                self.published = await self._broker.last(self._topic) + 1
            except Exception:  # as above
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def _publish(self) -> None:
        async with self._broker.publishing(self._topic) as publish:
            self.published = await self._broker.last(self._topic) + 1

            while not self._is_over.is_set():
                for _ in range(self._a_time):
                    await publish(body_of(self.published))
                    self.published += 1

                await asyncio.sleep(_PAUSE_S)
