"""Streams through the public API: ends, outages, cancellation."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.engine.stream.roller import RECEIPT_BYTES
from asyncelt.errors import (
    AsynceltWarning,
    DestinationUnavailable,
    MessageNotCommitted,
)
from asyncelt.failpoints import installed
from asyncelt.observe import DestinationAway, DestinationBack, Event, PackageCommitted
from tests.engine.streamed import LONG, Log, ask, make, within


async def test_drain_commits_what_is_in_flight(tmp_path: Path) -> None:
    log = Log([[1, 2]], waits=True)
    pipeline = make(tmp_path)
    channel = asyncelt.sources.channel("rows")

    stream = pipeline.stream([asyncelt.sources.events(log), asyncelt.sources.events(channel)], roll=LONG)

    async with stream, anyio.create_task_group() as tasks:
        tasks.start_soon(channel.send, {"n": 1})
        await log.quiet.wait()
        await anyio.wait_all_tasks_blocked()
        stats = await stream.drain()

    assert log.acked == [1, 2]
    assert stats.is_drained
    assert await ask(pipeline, "SELECT count(*) FROM rows") == [(1,)]

    with pytest.raises(MessageNotCommitted, match="its stream has ended"):
        await channel.send({"n": 2})


async def test_a_drain_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield {"n": 1}
        quiet.set()
        await anyio.sleep_forever()
        yield asyncelt.checkpoint()

    quiet = anyio.Event()
    pipeline = make(tmp_path)

    async with anyio.create_task_group() as tasks:
        stream = pipeline.stream(rows(), roll=LONG)
        tasks.start_soon(stream.run)
        await quiet.wait()
        stats = await stream.drain(0.05)

    assert not stats.is_drained
    assert stats.packages == 0
    assert not pipeline.has_pending_data


class Heard:
    """An observer."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event, /) -> None:
        self.events.append(event)


async def test_an_outage_of_the_destination_is_ridden_out(tmp_path: Path) -> None:
    """It is warned of once, and each attempt is reported."""
    left = [3]
    heard = Heard()

    def fault(step: str) -> None:
        if step == "commit" and left[0]:
            left[0] -= 1
            raise DestinationUnavailable("away")

    destination = asyncelt.destinations.memory(fault=fault)
    pipeline = asyncelt.pipeline(
        "stream",
        destination=destination,
        dataset_name="data",
        pipelines_dir=tmp_path / "work",
        settings=asyncelt.Settings(retry=asyncelt.Retry(attempts=1, first_s=0.001)),
        progress=heard,
    )
    log = Log([[1], [2], [3]])

    with pytest.warns(AsynceltWarning) as said:
        stats = await pipeline.stream(log, roll=asyncelt.Roll(rows=1, seconds=3600))

    assert [str(one.message).count("away Trying again") for one in said] == [1]
    assert [one.retries for one in heard.events if isinstance(one, DestinationAway)] == [1, 2, 3]
    (back,) = [one for one in heard.events if isinstance(one, DestinationBack)]
    assert (back.retries, back.load_id) == (
        3,
        next(one.load_id for one in heard.events if isinstance(one, PackageCommitted)),
    )
    assert (stats.retries, stats.away_s) == (3, None)
    assert log.acked == [1, 2, 3]
    assert destination.tables("data")["log"].column("n").to_pylist() == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:.*away Trying again")
async def test_a_destination_that_is_away_holds_the_source_back(tmp_path: Path) -> None:
    gone = [True]

    def fault(step: str) -> None:
        if step == "commit" and gone[0]:
            raise DestinationUnavailable("away")

    class Endless(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            self.batches.append([self.batches.pop()[0] + 1])
            n = self.batches[0][0]

            return (
                [] if n > 60 else [asyncelt.Message({"n": n, "text": "x" * 10_000}, asyncelt.Receipt("p", n, n), self)]
            )

    budget = asyncelt.ByteBudget(100_000)
    destination = asyncelt.destinations.memory(fault=fault)
    pipeline = within(tmp_path, budget, destination)
    log = Endless([[0]])
    stream = pipeline.stream(log, roll=asyncelt.Roll(rows=1, seconds=3600))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.run)

        while not budget.waiting:
            await anyio.sleep(0.01)

        assert log.batches[0][0] < 60
        assert budget.peak <= 100_000 + 25_000

        while stream.stats.away_s is None:
            await anyio.sleep(0.01)

        assert stream.stats.retries > 0
        gone[0] = False

    assert destination.tables("data")["log"].column("n").to_pylist() == list(range(1, 61))


@pytest.mark.filterwarnings("ignore:.*away Trying again")
async def test_what_waits_for_a_slow_destination_becomes_one_package(tmp_path: Path) -> None:
    gone = [True]

    def fault(step: str) -> None:
        if step == "commit" and gone[0]:
            raise DestinationUnavailable("away")

    class Slowly(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            await anyio.sleep(0.01)
            gone[0] = bool(self.batches)

            return await super().fetch(most)

    destination = asyncelt.destinations.memory(fault=fault)
    pipeline = within(tmp_path, asyncelt.ByteBudget(10_000_000), destination)

    stats = await pipeline.stream(Slowly([[n] for n in range(40)]), roll=asyncelt.Roll(seconds=0.001))

    # One that waits for its commit, one that is packed and one that is open; the others end with the stream.
    assert stats.packages <= 5
    assert destination.tables("data")["log"].column("n").to_pylist() == list(range(40))


@pytest.mark.filterwarnings("ignore:.*away Trying again")
@pytest.mark.parametrize("is_repeated", [False, True])
async def test_what_is_held_of_messages_counts_too(is_repeated: bool, tmp_path: Path) -> None:
    """Rows of a few bytes, or messages that are delivered again and again and have none: what is kept until they are
    acknowledged holds the source back."""
    attempts = [0]

    def fault(step: str) -> None:
        if step == "commit" and attempts[0] < 20:
            attempts[0] += 1
            raise DestinationUnavailable("away")

    class Many(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            first = self.given
            self.given += 100

            return [
                asyncelt.Message({"n": n % 100}, asyncelt.Receipt("p", n % 100 if is_repeated else n, n), self)
                for n in range(first, min(first + 100, 4000))
            ]

        async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
            if not self.acked:
                self.given_meanwhile = self.given

            return await super().ack(receipts)

    budget = asyncelt.ByteBudget(1000 * RECEIPT_BYTES)
    destination = asyncelt.destinations.memory(fault=fault)
    pipeline = within(tmp_path, budget, destination)
    log = Many([])
    stats = await pipeline.stream(log, roll=LONG)

    # Packages that wait, and the one that is filled, and what is read ahead: a thousand messages would fill the budget.
    assert log.given_meanwhile <= 1000
    assert budget.peak <= budget.limit
    assert budget.used == 0
    assert stats.messages == 4000
    assert len(set(log.acked)) == 4000
    assert destination.tables("data")["log"].num_rows == (100 if is_repeated else 4000)


async def test_a_cancelled_stream_leaves_nothing_behind(tmp_path: Path) -> None:
    log = Log([[1, 2]], waits=True)
    pipeline = make(tmp_path)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipeline.stream(log, roll=LONG).run)
        await log.quiet.wait()
        tasks.cancel_scope.cancel()

    assert log.acked == []
    assert log.is_closed
    assert list((tmp_path / "work" / "stream" / "packages" / "building").iterdir()) == []
    await pipeline.stream(Log([[1, 2]]))
    assert await ask(pipeline, "SELECT count(*) FROM log") == [(2,)]


@pytest.mark.slow
@pytest.mark.parametrize("hit", [1, 2])
@pytest.mark.parametrize(
    "point",
    [
        "stream.roll",
        "stream.sealed",
        "load.before_commit",
        "load.after_commit",
        "stream.committed",
        "stream.before_ack",
        "stream.after_ack",
    ],
)
async def test_a_stream_that_is_cancelled_anywhere_loses_and_doubles_nothing(
    point: str, hit: int, tmp_path: Path
) -> None:
    log = Log([[1, 2], [3, 4], [5]])
    left = [hit]

    def cancel(name: str) -> None:
        if name == point:
            left[0] -= 1

            if not left[0]:
                scope.cancel()

    pipeline = make(tmp_path)
    roll = asyncelt.Roll(rows=2, seconds=3600)

    with installed(cancel), anyio.CancelScope() as scope:
        await pipeline.stream(log, roll=roll)

    assert scope.cancelled_caught
    assert log.is_closed
    assert sorted([*log.acked, *log.nacked]) == sorted(set(log.acked) | set(log.nacked))
    again = Log([[1, 2, 3], [4, 5, 6]])
    await pipeline.stream(again, roll=roll)

    assert await ask(pipeline, "SELECT n FROM log ORDER BY n") == [(n,) for n in range(1, 7)]
    assert sorted(again.acked) == [1, 2, 3, 4, 5, 6]
    assert os.listdir(tmp_path / "work" / "stream" / "packages" / "building") == []


async def test_the_file_is_closed_while_nothing_comes(tmp_path: Path) -> None:
    channel = asyncelt.sources.channel("rows")
    pipeline = make(tmp_path)

    async with pipeline.stream(channel, roll=asyncelt.Roll(seconds=0.01)):
        await channel.send({"n": 1})

        # Another session, as another process would have: it waits until the stream has let go of the file.
        assert await ask(pipeline, "SELECT count(*) FROM rows") == [(1,)]
        await channel.send({"n": 2})

    assert await ask(pipeline, "SELECT count(*) FROM rows") == [(2,)]
