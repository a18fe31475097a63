"""A channel as an event source: what is fetched of it, and what is left when nobody fetches any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, ConfigError, MessageNotCommitted
from asyncelt.sources import Channel

ROWS = list(range(20))


@asynccontextmanager
async def opened(capacity: int = 1000) -> AsyncIterator[Channel]:
    channel = asyncelt.sources.channel(capacity=capacity)

    try:
        yield channel
    finally:
        await channel.close()


async def send_all(channel: Channel) -> None:
    for number in ROWS:
        await channel.send(number, until="accepted")

    channel.end()


async def fetch_all(channel: Channel, most: int) -> list[object]:
    found: list[object] = []

    while batch := await channel.fetch(most):
        assert len(batch) <= most
        found += [one.value for one in batch]

    return found


@pytest.mark.parametrize("most", [1, 3, 1000])
@pytest.mark.parametrize("capacity", [1, 1000])
async def test_rows_come_in_the_order_in_which_they_were_sent(most: int, capacity: int) -> None:
    async with opened(capacity) as channel, anyio.create_task_group() as tasks:
        tasks.start_soon(send_all, channel)

        assert await fetch_all(channel, most) == ROWS


@pytest.mark.parametrize("turns", range(6))
async def test_a_fetch_that_is_cancelled_takes_nothing_along(turns: int) -> None:
    found: list[object] = []

    async def fetch_once(channel: Channel, scope: anyio.CancelScope) -> None:
        with scope:
            found.extend([one.value for one in await channel.fetch(1000)])

    async with opened() as channel:
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()
            tasks.start_soon(fetch_once, channel, scope)
            tasks.start_soon(send_all, channel)

            for _ in range(turns):
                await anyio.lowlevel.checkpoint()

            scope.cancel()

        assert found + await fetch_all(channel, 1000) == ROWS


async def test_what_was_gathered_and_not_fetched_is_given_up_with_the_rest() -> None:
    channel = asyncelt.sources.channel()

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(send_all, channel)

        with scope:
            scope.cancel()
            await channel.fetch(1000)

    with pytest.warns(AsynceltWarning, match="20 messages that were sent with until='accepted'"):
        await channel.close()


async def test_a_row_can_be_accepted_or_committed_and_nothing_else() -> None:
    async with opened() as channel:
        with pytest.raises(ConfigError, match="'committed' or 'accepted', not 'sent'"):
            await channel.send({}, until="sent")  # type: ignore[arg-type]


async def test_a_channel_serves_one_stream_after_the_other(tmp_path: Path) -> None:
    """An application that is started twice in a process, as its tests do."""
    channel = asyncelt.sources.channel("c")
    pipeline = asyncelt.pipeline("p", tmp_path, destination=asyncelt.destinations.memory(), dataset_name="d")

    for number in (1, 2):
        async with pipeline.stream(channel, roll=asyncelt.Roll(seconds=0.01)):
            await channel.send({"id": number})

        with pytest.raises(MessageNotCommitted, match="its stream has ended"):
            await channel.send({"id": 0})

    assert await pipeline.dataset()["c"].select("id").fetchall() == [(1,), (2,)]


async def test_a_channel_that_was_ended_stays_so(tmp_path: Path) -> None:
    channel = asyncelt.sources.channel("c")
    pipeline = asyncelt.pipeline("p", tmp_path, destination=asyncelt.destinations.memory(), dataset_name="d")
    channel.end()

    for _ in range(2):
        assert (await pipeline.stream(channel)).rows == 0

    with pytest.raises(MessageNotCommitted, match="it was ended"):
        await channel.send({"id": 0})
