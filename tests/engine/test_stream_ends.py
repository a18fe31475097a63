"""How streams end and what they say meanwhile: sources are closed, whoever waits hears the truth, figures count."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.engine.stream import ledger as ledgers
from asyncelt.engine.stream.ledger import Ledger
from asyncelt.errors import AsynceltWarning, ConfigError, DestinationUnavailable, UsageError, warn
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import Tell
from asyncelt.extract.tickets import Tickets
from asyncelt.failpoints import installed
from asyncelt.load.protocol import StoredPosition
from asyncelt.observe import SourceAway, SourceBack

LONG = asyncelt.Roll(seconds=3600)


class Numbers:
    """Numbered messages; ``apart`` says how far their positions are from each other."""

    name = "numbers"

    def __init__(self, count: int, apart: int = 1) -> None:
        self.left = [number * apart for number in range(1, count + 1)]
        self.acked: list[int] = []
        self.is_positioned = self.is_closed = False
        self.has_positions = True

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        self.is_positioned = True

    async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
        given, self.left = self.left[:most], self.left[most:]

        return [asyncelt.Message({"n": n}, asyncelt.Receipt("p", n, n), self) for n in given]

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        self.acked += [int(str(receipt.token)) for receipt in receipts]

        return {}

    async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
        pass

    async def close(self) -> None:
        self.is_closed = True


def memory_pipeline(folder: Path, destination: asyncelt.Destination | None = None, **options: object):
    return asyncelt.pipeline(
        "stream",
        destination=destination or asyncelt.destinations.memory(),
        dataset_name="data",
        pipelines_dir=folder,
        **options,
    )


async def none() -> Sequence[StoredPosition]:
    return ()


async def test_a_broker_that_takes_nothing_back_is_taken_leave_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Numbers):
        async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
            await anyio.sleep_forever()

    monkeypatch.setattr(ledgers, "_GIVE_BACK_S", 0.01)
    source, ledger = Silent(0), Ledger([], none)
    ledger.accept(source, [asyncelt.Receipt("p", 1)])

    with pytest.warns(AsynceltWarning, match="1 messages of 'numbers' could not be given back: it does not answer"):
        await ledger.close()

    assert source.is_closed


async def test_a_source_with_positions_is_refused_before_it_connects(tmp_path: Path) -> None:
    files = asyncelt.destinations.filesystem(str(tmp_path / "files"))
    source = Numbers(3)

    with pytest.raises(ConfigError, match="keeps no positions"):
        await memory_pipeline(tmp_path / "work", files).stream(source)

    assert not source.is_positioned
    answering_late = asyncelt.sources.webhook()
    assert not answering_late.has_positions
    await answering_late.close()
    assert asyncelt.sources.webhook(spool=tmp_path).has_positions


@pytest.mark.parametrize("apart", [1, 2])
async def test_long_lists_of_positions_are_kept(apart: int, tmp_path: Path) -> None:
    source = Numbers(3000, apart)
    threads = anyio.CapacityLimiter(1)
    ledger = Ledger([], none)
    accepted = ledger.accept(source, [asyncelt.Receipt("p", n, n) for n in source.left])
    assert not accepted.repeated
    taken = Tickets(accepted.tickets)
    moves = ledger.moves(taken, ledger.standing())
    assert [Intervals.parse(move.taken) for move in moves] == [Intervals.of(source.left)]
    await ledger.committed(moves, threads)
    assert await ledger.acknowledge(taken) == 3000
    assert source.acked == source.left
    again = ledger.accept(source, [asyncelt.Receipt("p", n, n) for n in (*source.left, 3001 * apart)])
    assert again.repeated == {*again.tickets[:-1]}


async def test_what_becomes_known_while_positions_are_joined_is_kept(tmp_path: Path) -> None:
    known: list[StoredPosition] = []

    async def look() -> Sequence[StoredPosition]:
        return known

    source, ledger, threads = Numbers(3000, 2), Ledger([], look), anyio.CapacityLimiter(1)
    accepted = ledger.accept(source, [asyncelt.Receipt("p", n, n) for n in source.left])
    moves = ledger.moves(Tickets(accepted.tickets), ledger.standing())
    known.append(StoredPosition(source="numbers", partition="p", epoch=0, position="100001"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.committed, moves, threads)
        await anyio.lowlevel.checkpoint()
        await ledger.refresh()

    assert all(ledger.knows(source, asyncelt.Receipt("p", n)) for n in (2, 6000, 100_001))


@pytest.mark.parametrize("point", ["load.after_commit", "stream.committed", "stream.before_ack"])
async def test_what_is_committed_is_acknowledged_although_the_stream_is_cancelled(point: str, tmp_path: Path) -> None:
    class Distant(Numbers):
        async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
            await anyio.lowlevel.checkpoint()

            return await super().ack(receipts)

    source = Distant(1)
    destination = asyncelt.destinations.memory()

    def cancel(passed: str) -> None:
        if passed == point:
            scope.cancel()

    with installed(cancel), anyio.CancelScope() as scope:
        await memory_pipeline(tmp_path, destination).stream(source, roll=asyncelt.Roll(rows=1, seconds=3600))

    assert scope.cancelled_caught
    assert source.acked == [1]
    assert destination.tables("data")["numbers"].num_rows == 1


@pytest.mark.filterwarnings("ignore:.*Trying again")
async def test_the_age_of_what_waits_is_told(tmp_path: Path) -> None:
    is_away = True
    seen = anyio.Event()

    def fault(step: str) -> None:
        if step == "commit" and is_away:
            seen.set()
            raise DestinationUnavailable("away")

    destination = asyncelt.destinations.memory(fault=fault)
    patient = asyncelt.Settings(retry=asyncelt.Retry(first_s=0.01, max_s=0.01))
    pipeline = memory_pipeline(tmp_path, destination, settings=patient)
    stream = pipeline.stream(Numbers(3), roll=LONG)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.run)
        await seen.wait()
        first, began = stream.stats.lag_s, time.time()
        assert first is not None

        while time.time() <= began:
            await anyio.lowlevel.checkpoint()

        later = stream.stats.lag_s
        assert later is not None
        assert later > first
        is_away = False

    assert stream.stats.lag_s is not None
    assert stream.stats.lag_s > later


@pytest.mark.filterwarnings("ignore:.*are in _asyncelt_quarantine")
async def test_dead_letters_are_no_rows(tmp_path: Path) -> None:
    channel = asyncelt.sources.channel("rows")
    await channel.send(b'{"n": 1}', until="accepted")
    await channel.send(b'{"n": 2,', until="accepted")
    channel.end()
    stats = await memory_pipeline(tmp_path).stream(channel)
    assert (stats.rows, stats.dead_letters) == (1, 1)


async def test_a_broker_that_is_away_is_warned_of_once_and_reported(tmp_path: Path) -> None:
    class Broken(Numbers):
        tell: Tell

        def report_to(self, tell: Tell) -> None:
            self.tell = tell

        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            if self.left:
                self.tell("no route")
                self.tell("no route")
                seen.append(stream.stats.sources_away)
                self.tell(None)

            return await super().fetch(most)

    class Heard:
        def on_event(self, event: object, /) -> None:
            if isinstance(event, SourceAway | SourceBack):
                heard.append((type(event), event.source, event.retries))

    seen: list[tuple[str, ...]] = []
    heard: list[object] = []
    stream = memory_pipeline(tmp_path, progress=Heard()).stream(Broken(3))

    with pytest.warns(AsynceltWarning) as said:
        stats = await stream

    assert [str(one.message).count("its broker is away: no route") for one in said] == [1]
    assert heard == [(SourceAway, "numbers", 1), (SourceAway, "numbers", 2), (SourceBack, "numbers", 2)]
    assert (seen, stats.sources_away) == ([("numbers",)], ())


def test_what_is_remembered_of_warnings_stays_small() -> None:
    for number in range(1000):
        with pytest.warns(AsynceltWarning, match=f"number {number}"):
            warn(f"number {number}")

    # Each of these blocks makes Python forget, so without them:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("default")

        for number in range(1000):
            warn(f"number {number}")

    assert len(globals()["__warningregistry__"]) < 250


async def test_a_stream_that_is_left_in_another_task_is_drained_and_says_so(tmp_path: Path):
    """As fixtures of tests do whose set-up and clean-up are tasks of their own."""
    channel, destination = asyncelt.sources.channel("c"), asyncelt.destinations.memory()
    stream = memory_pipeline(tmp_path, destination).stream(channel, roll=asyncelt.Roll(rows=1))
    left: list[str] = []

    async def leave() -> None:
        with pytest.raises(UsageError, match="another task than the one that has entered it; it was drained") as caught:
            await stream.__aexit__(None, None, None)

        left.append(str(caught.value))

    async def enter_and_send() -> None:
        async with anyio.create_task_group() as tasks:
            await stream.__aenter__()

            try:
                await channel.send({"id": 1})
                tasks.start_soon(leave)
                await stream.ended()
            finally:
                assert stream._tasks is not None
                await stream._tasks.__aexit__(None, None, None)

    await enter_and_send()
    assert len(left) == 1
    assert stream.stats.is_drained
