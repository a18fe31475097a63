"""The peer of the stream benchmark: FastStream, which hands batches of a JetStream consumer to a function.

As its documentation shows: a pull subscriber with batches, a handler that gets them decoded, an acknowledgement when
the handler has returned. What the handler does is that of the consumer by hand: COPY into two tables, one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

__all__ = ["through_faststream"]

Write: TypeAlias = Callable[[Sequence[Mapping[str, Any]]], Awaitable[None]]


async def through_faststream(url: str, topic: str, durable: str, batch: PullSub, write: Write, count: int) -> None:
    """Hand every message of a topic to ``write``, in batches, and end when so many have been acknowledged."""
    left = count
    broker = NatsBroker(url, logger=None)
    last_written = asyncio.Event()

    @broker.subscriber(  # type: ignore[untyped-decorator]  # the framework's
        f"{topic}.x",
        durable=durable,
        stream=JStream(topic, declare=False),
        pull_sub=batch,
        config=ConsumerConfig(max_ack_pending=-1),
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def load(messages: list[dict[str, Any]]) -> None:
        nonlocal left
        await write(messages)
        left -= len(messages)

        if left <= 0:
            last_written.set()

    async with broker:
        await broker.start()
        await last_written.wait()
        # Leaving waits for the handler, and so for its acknowledgement.
