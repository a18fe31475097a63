"""Payloads in columns go through a stream as messages do one by one; a package is acknowledged beside the next commit."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import orjson
import pytest
from hypothesis import given, strategies as st

import asyncelt
from asyncelt.engine.stream import ledger as ledgers, streaming as streamings
from asyncelt.engine.stream.deliveries import Deliveries
from asyncelt.engine.stream.ledger import Ledger
from asyncelt.errors import AsynceltWarning, DestinationRejected
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import Bodies
from asyncelt.extract.receipts import Receipts
from asyncelt.extract.tickets import Tickets
from asyncelt.failpoints import installed
from asyncelt.load.protocol import StoredPosition
from tests.engine.streamed import Log, ask, make

STORED = [StoredPosition(source="log", partition="p", epoch=0, position="..3;7-9")]


@dataclass
class Silent(Log):
    """Its broker does not answer when it is told of a commit."""

    asked: anyio.Event = field(default_factory=anyio.Event)

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        self.asked.set()
        await anyio.sleep_forever()

        raise AssertionError


async def stored() -> Sequence[StoredPosition]:
    return STORED


@dataclass(slots=True)
class InColumns:
    """Payloads in columns, all of one partition, numbered from the first one up."""

    payloads: list[list[bytes]]
    name: str = "columns"
    acked: list[object] = field(default_factory=list)
    has_bodies: bool = True
    again: bool = False
    given: int = 0

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        pass

    async def fetch_bodies(self, most: int) -> Sequence[Bodies]:
        if not self.payloads:
            return ()

        values = self.payloads.pop(0)
        numbers = range(self.given, self.given + len(values))
        self.given += len(values)
        receipts: Sequence[asyncelt.Receipt] = Receipts.fresh("p", array("q", numbers), list(numbers))

        if self.again:
            receipts = [asyncelt.Receipt("p", number, number, again=True) for number in numbers]

        return [Bodies(values, ["topic"] * len(values), receipts, self)]

    async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
        return [one for bodies in await self.fetch_bodies(most) for one in bodies.messages()]

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        self.acked += [one.token for one in receipts]
        return {}

    async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
        pass

    async def close(self) -> None:
        pass


@given(
    st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), max_size=8),
    st.integers(1, 1500),
)
def test_columns_are_accepted_as_one_by_one(batches: list[list[int]], before: int) -> None:
    together, singly = Ledger(STORED, stored), Ledger(STORED, stored)
    source = Log([])

    for ledger in (together, singly):
        ledger.accept(source, [asyncelt.Receipt("q", number) for number in range(before)])

    for batch in batches:
        tokens = [f"t{number}" for number in batch]
        columns = together.accept(source, Receipts.fresh("p", array("q", batch), tokens))
        each = singly.accept(source, [asyncelt.Receipt("p", n, t) for n, t in zip(batch, tokens, strict=True)])

        assert (list(columns.tickets), columns.repeated) == (list(each.tickets), each.repeated)

    assert together.repeated == singly.repeated
    standing = together.standing()
    taken = Tickets(range(before, before + sum(map(len, batches))))
    assert together.moves(taken, standing) == singly.moves(taken, standing)


@given(st.integers(0, 1100), st.integers(1, 2600))
def test_receipts_noted_together_are_given_back(before: int, count: int) -> None:
    deliveries, source = Deliveries(), Log([])

    for number in range(before):
        deliveries.note(source, asyncelt.Receipt("q", None, number), is_repeated=False)

    receipts = Receipts.fresh("p", array("q", range(count)), [f"t{n}" for n in range(count)])
    tickets = deliveries.note_all(source, receipts.columns[0])

    assert tickets == list(range(before, before + count))
    assert list(deliveries.receipts(Tickets.of(tickets))) == list(receipts)
    assert sum(deliveries.settle(Tickets.of(tickets))) == count


@given(st.lists(st.integers(0, 30), unique=True).map(sorted))
def test_tickets_of_numbers_that_go_up(numbers: list[int]) -> None:
    assert list(Tickets.of(numbers).runs()) == list(Tickets(numbers).runs())


@pytest.mark.parametrize("again", [False, True])
async def test_what_is_no_json_object_is_told_apart_among_columns(again: bool, tmp_path: Path) -> None:
    bad = [b"", b"{", b'{"n":1}{"n":2}', b'{"n":"\xff"}', b"nonsense"]
    good = [b'{"n":1}', b'{"n":\n2}', b'{"n":\r\n3}', b' {"n":4}', b'[{"n":5},{"n":6}]', b'{"s":"a\\n{"}']
    source = InColumns([[one] for one in good] + [[*good[:2], one, b'{"n":9}'] for one in bad], again=again)
    pipeline = make(tmp_path)

    with pytest.warns(AsynceltWarning, match="5 row"):
        await pipeline.stream(asyncelt.sources.events(source, table_name="t"))

    rows = await ask(pipeline, "SELECT n, s FROM t ORDER BY n NULLS FIRST")
    assert [n for n, _ in rows] == [None, *[1] * 6, *[2] * 6, 3, 4, 5, 6, *[9] * 5]
    assert rows[0] == (None, "a\n{")
    dead = await ask(pipeline, "SELECT origin, position FROM _asyncelt_quarantine ORDER BY CAST(position AS INT)")
    assert dead == [("topic/p", str(len(good) + 4 * at + 2)) for at in range(len(bad))]
    assert sorted(source.acked) == list(range(len(good) + 4 * len(bad)))  # type: ignore[type-var]


@pytest.mark.parametrize(
    "broken",
    [
        [b'{"x":', b'{"b":1}}{"c":2}'],
        [b'{"a":1}{"b":2}', b'{"c":', b'{"d":4}}'],
        [b'{"s":"\xed\xa0\x80"}'],
        [b"{", b"}"],
    ],
)
async def test_payloads_are_not_joined_to_something_that_nobody_has_sent(broken: list[bytes], tmp_path: Path) -> None:
    source = InColumns([[b'{"n":1}', *broken, b'{"n":2}']])
    pipeline = make(tmp_path)

    with pytest.warns(AsynceltWarning, match=f"{len(broken)} row"):
        await pipeline.stream(asyncelt.sources.events(source, table_name="t"))

    assert await ask(pipeline, "SELECT COLUMNS(c -> c NOT LIKE '_dlt%') FROM t ORDER BY n") == [(1,), (2,)]
    dead = await ask(pipeline, "SELECT origin, position FROM _asyncelt_quarantine ORDER BY CAST(position AS INT)")
    assert dead == [("topic/p", str(number + 1)) for number in range(len(broken))]


async def test_many_columns_keep_their_order_and_their_receipts(tmp_path: Path) -> None:
    source = InColumns(
        [[orjson.dumps({"n": number}) for number in range(at, at + 1700)] for at in range(0, 5100, 1700)]
    )
    pipeline = make(tmp_path)
    await pipeline.stream(asyncelt.sources.events(source, table_name="t"), roll=asyncelt.Roll(rows=1000))

    assert await ask(pipeline, "SELECT n FROM t ORDER BY rowid") == [(number,) for number in range(5100)]
    assert source.acked == list(range(5100))


async def test_a_package_is_acknowledged_while_the_next_one_is_committed(tmp_path: Path) -> None:
    class Slow(Log):
        async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
            asked.append(len(receipts))
            most.append(committed[0] - len(self.acked))
            await go_on.wait()

            return await super().ack(receipts)

    go_on, asked, committed, most = anyio.Event(), list[int](), [0], list[int]()

    class Seen:
        def on_event(self, event: asyncelt.observe.Event, /) -> None:
            if isinstance(event, asyncelt.observe.PackageCommitted):
                committed[0] += event.messages

    source = Slow([[n] for n in range(6)], waits=True)
    stream = make(tmp_path, progress=Seen()).stream(
        asyncelt.sources.events(source, table_name="t"), roll=asyncelt.Roll(rows=1)
    )

    with anyio.fail_after(20):
        async with stream:
            while committed[0] < 2:
                await anyio.sleep(0.01)

            # The third waits: of what is committed no more than two packages are not acknowledged.
            await anyio.sleep(0.2)
            assert (committed[0], asked) == (2, [1])
            go_on.set()
            await source.quiet.wait()

    assert source.acked == list(range(6))
    assert max(most) <= 2


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_source_that_does_not_answer_keeps_nobody_else_from_hearing(
    is_cancelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_ACKNOWLEDGE_S", 0.3)
    silent, other = Silent([[1]], name="silent", waits=True), Log([[1]], name="other", waits=True)
    sources = [asyncelt.sources.events(one, table_name="t") for one in (silent, other)]

    async def use() -> None:
        async with make(tmp_path).stream(sources, roll=asyncelt.Roll(rows=2)) as stream:
            await silent.asked.wait()
            await anyio.wait_all_tasks_blocked()
            assert other.acked == [1]

            if is_cancelled:
                await stream.drain(deadline=0)

    with pytest.warns(AsynceltWarning, match="1 messages of 'silent'.*it does not answer"), anyio.fail_after(20):
        await use()

    assert (silent.nacked, other.nacked) == ([], [])


async def test_a_stream_that_is_cancelled_waits_for_acknowledgements_no_longer_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamings, "_ACKNOWLEDGE_S", 0.2)
    silent = Silent([[1], [2], [3]])

    with anyio.fail_after(20):
        async with make(tmp_path).stream(
            asyncelt.sources.events(silent, table_name="t"), roll=asyncelt.Roll(rows=1)
        ) as stream:
            await silent.asked.wait()
            await stream.drain(deadline=0)


async def test_senders_hear_of_a_commit_during_which_the_stream_was_cancelled(tmp_path: Path) -> None:
    channel = asyncelt.sources.channel("rows")
    heard: list[int] = []
    loop = asyncio.get_running_loop()

    def cancel(point: str) -> None:
        if point == "duckdb.after_commit":
            loop.call_soon_threadsafe(scope.cancel)
            time.sleep(0.2)

    async def send(number: int) -> None:
        await channel.send({"n": number})
        heard.append(number)

    pipeline = make(tmp_path)

    async with anyio.create_task_group() as senders:
        for number in range(3):
            senders.start_soon(send, number)

        await anyio.wait_all_tasks_blocked()

        with installed(cancel), anyio.CancelScope() as scope:
            await pipeline.stream(asyncelt.sources.events(channel, table_name="t"), roll=asyncelt.Roll(rows=3))

    assert scope.cancelled_caught
    assert sorted(heard) == [0, 1, 2]
    assert len(await ask(pipeline, "SELECT n FROM t")) == 3


async def test_a_commit_that_fails_keeps_nobody_from_hearing_of_the_one_before(tmp_path: Path) -> None:
    class Slow(Log):
        async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
            await has_failed.wait()
            await anyio.sleep(0.05)

            return await super().ack(receipts)

    has_failed, packages = anyio.Event(), 0

    def fail(point: str) -> None:
        nonlocal packages

        if point == "duckdb.before_commit":
            packages += 1

            if packages == 2:
                has_failed.set()
                raise DestinationRejected("no")

    source = Slow([[n] for n in range(2)])
    pipeline = make(tmp_path)

    with installed(fail), pytest.raises(asyncelt.PipelineStepFailed, match="no"), anyio.fail_after(20):
        await pipeline.stream(asyncelt.sources.events(source, table_name="t"), roll=asyncelt.Roll(rows=1))

    assert (source.acked, source.nacked) == ([0], [1])
