"""Streams through the public API: what is acknowledged when, and what is loaded of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    ConfigError,
    PipelineStepFailed,
)
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import required_stream_side
from tests.engine.streamed import LONG, Log, ask, make


async def test_messages_are_acknowledged_after_their_commit_and_positions_go_with_it(tmp_path: Path) -> None:
    log = Log([[1, 2], [4, 5]])
    pipeline = make(tmp_path)
    stats = await pipeline.stream(log, roll=asyncelt.Roll(rows=2, seconds=3600))

    assert log.acked == [1, 2, 4, 5]
    assert log.nacked == []
    assert log.is_closed
    assert stats.messages == 4
    found = await ask(pipeline, "SELECT source, partition, epoch, position FROM _asyncelt_positions")
    assert found == [("log", "p", 0, "1-2;4-5")]


async def test_messages_that_are_delivered_again_are_left_out_and_acknowledged_again(tmp_path: Path) -> None:
    await make(tmp_path).stream(Log([[1, 2, 4]]))
    log = Log([[2, 3], [3, 3], [4]])
    pipeline = make(tmp_path)
    stats = await pipeline.stream(log)

    assert log.told == {"p": Intervals(None, ((1, 2), (4, 4)))}
    assert await ask(pipeline, "SELECT n FROM log ORDER BY n") == [(1,), (2,), (3,), (4,)]
    assert sorted(log.acked) == [2, 3, 3, 3, 4]
    assert stats.repeated == 4


async def test_what_a_source_says_is_complete_prunes_the_positions(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.stream(Log([[10], [20], [30]], floor=20, in_step=True), roll=asyncelt.Roll(rows=1, seconds=3600))
    found = await ask(pipeline, "SELECT position FROM _asyncelt_positions")

    assert found == [("..20;30",)]


async def test_a_message_is_not_acknowledged_when_its_package_was_not_sealed(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        await started.wait()
        raise OSError("gone")
        yield asyncelt.checkpoint()

    started = anyio.Event()
    log = Log([[1, 2]], waits=True)
    real = log.fetch

    async def fetch(most: int) -> Sequence[asyncelt.Message]:
        if not log.batches:
            started.set()

        return await real(most)

    class Telling(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            return await fetch(most)

        async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
            await log.nack(receipts)

    with pytest.raises(PipelineStepFailed, match="gone"):
        await make(tmp_path).stream([asyncelt.sources.events(Telling([])), rows()], roll=LONG)

    assert log.acked == []
    assert log.nacked in ([], [1, 2])


async def test_a_source_that_cannot_be_told_is_told_about(tmp_path: Path) -> None:
    class Deaf(Log):
        async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
            raise OSError("no")

    pipeline = make(tmp_path)

    with pytest.warns(AsynceltWarning, match="could not be acknowledged"):
        stats = await pipeline.stream(Deaf([[1]]))

    assert stats.rows == 1
    assert stats.messages == 0


async def test_a_source_that_cannot_take_leave_does_not_fail_the_stream(tmp_path: Path) -> None:
    class Gone(Log):
        async def close(self) -> None:
            await Log.close(self)
            raise ConnectionError("the broker is away")

    gone, other = Gone([[1]]), Log([[1]], name="other")
    pipeline = make(tmp_path)

    with pytest.warns(AsynceltWarning, match="could not take leave of its broker: the broker is away"):
        stats = await pipeline.stream([gone, other])

    assert (stats.rows, stats.messages) == (2, 2)
    assert other.is_closed


async def test_a_message_that_somebody_else_has_committed_refuses_the_package(tmp_path: Path) -> None:
    class Racing(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            if len(self.batches) == 1:
                other = asyncelt.pipeline(
                    "stream",
                    destination=asyncelt.destinations.duckdb(str(tmp_path / "data.duckdb")),
                    dataset_name="data",
                    pipelines_dir=tmp_path / "work",
                    member="b",
                )
                await other.stream(Log([[1]]))

            return await Log.fetch(self, most)

    racing = Racing([[1], []])

    pipeline = make(tmp_path, member="a")

    with (
        pytest.warns(AsynceltWarning, match="were given up"),
        pytest.raises(PipelineStepFailed, match="position 1 has been committed by somebody else"),
    ):
        await pipeline.stream(racing)

    assert racing.acked == []
    assert racing.nacked == [1]
    assert not pipeline.has_pending_data
    again = Log([[1, 2]])
    await pipeline.stream(again)
    assert sorted(again.acked) == [1, 2]
    assert await ask(pipeline, "SELECT n FROM log ORDER BY n") == [(1,), (2,)]


@pytest.mark.filterwarnings("ignore:.*were given up")
async def test_what_others_commit_after_it_was_accepted_is_not_doubled(tmp_path: Path) -> None:
    """Also when this stream hears of it before its package ends."""

    class Racing(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            if len(self.batches) != 2:
                return await Log.fetch(self, most)

            await make(tmp_path, member="b").stream(Log([[1]]))
            self.batches.pop(0)

            return [asyncelt.Message({"n": 2}, asyncelt.Receipt(self.partition, 2, 2, again=True), self)]

    pipeline = make(tmp_path, member="a")
    racing = Racing([[1], [2], []])

    with pytest.raises(PipelineStepFailed, match="position 1 has been committed by somebody else"):
        await pipeline.stream(racing, roll=LONG)

    await pipeline.stream(Log([[1, 2]]))
    assert await ask(pipeline, "SELECT n FROM log ORDER BY n") == [(1,), (2,)]


async def test_a_message_that_is_yielded_twice_is_there_once(tmp_path: Path) -> None:
    log = Log([])
    message = asyncelt.Message({"n": 1}, asyncelt.Receipt("p", 1, 1), log)

    @asyncelt.resource(name="log")
    async def twice() -> AsyncIterator[object]:
        yield message
        yield message

    pipeline = make(tmp_path)
    await pipeline.stream(twice(), roll=LONG, safe_points=True)
    await pipeline.stream(Log([[1]]))
    assert await ask(pipeline, "SELECT n FROM log") == [(1,)]


@pytest.mark.filterwarnings("ignore:.*were given up")
async def test_a_source_that_can_be_opened_again_goes_on_after_it_was_overtaken(tmp_path: Path) -> None:
    class Racing(Log):
        """Shared with another member, which commits a message that both have been given."""

        can_reopen = True
        opened = 0

        async def position(self, committed: Mapping[str, Intervals]) -> None:
            await Log.position(self, committed)
            self.opened += 1
            self.batches = [[1, 2], []] if self.opened == 1 else [[1, 2], [3], []]

        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            if self.opened == 1 and len(self.batches) == 1:
                await make(tmp_path, member="b").stream(Log([[1]]))

            return await Log.fetch(self, most)

    racing = Racing([])
    pipeline = make(tmp_path, member="a")
    stats = await pipeline.stream(racing)

    assert (stats.overtaken, stats.repeated, stats.rows, stats.messages) == (1, 1, 2, 3)
    assert racing.nacked == [1, 2]
    assert sorted(racing.acked) == [1, 2, 3]
    assert racing.told["p"].text() == "1"
    assert await ask(pipeline, "SELECT n FROM log ORDER BY n") == [(1,), (2,), (3,)]


async def test_poison_goes_to_its_table_and_is_acknowledged(tmp_path: Path) -> None:
    class Bytes(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            bodies = {1: b'{"n": 1,\n "m": [1]}', 2: b"{broken", 3: b'[{"n": 3}, {"n": 4}]', 4: b"\xff"}
            found = await Log.fetch(self, most)

            return [asyncelt.Message(bodies[one.receipt.position or 0], one.receipt, self, topic="t") for one in found]

    log = Bytes([[1, 2, 3, 4]])
    pipeline = make(tmp_path)

    with pytest.warns(AsynceltWarning, match="are in _asyncelt_quarantine"):
        stats = await pipeline.stream(log, primary_key="n", write_disposition="merge")

    assert await ask(pipeline, "SELECT n FROM log ORDER BY n") == [(1,), (3,), (4,)]
    found = "SELECT origin, position, payload, payload_form FROM _asyncelt_quarantine ORDER BY position"
    assert await ask(pipeline, found) == [("t/p", "2", "{broken", "text"), ("t/p", "4", "/w==", "base64")]
    assert sorted(log.acked) == [1, 2, 3, 4]
    assert stats.dead_letters == 2


async def test_a_row_that_breaks_the_contract_goes_to_quarantine_and_can_be_replayed(tmp_path: Path) -> None:
    class Mixed(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            bodies = {1: b'{"n": 1}', 2: b'{"n": "no number"}', 3: b'{"n": 3}'}
            found = await Log.fetch(self, most)

            return [asyncelt.Message(bodies[one.receipt.position or 0], one.receipt, self) for one in found]

    pipeline = make(tmp_path)
    log = Mixed([[1, 2, 3]])
    frozen = {"data_type": "freeze"}

    with pytest.warns(AsynceltWarning, match="are in _asyncelt_quarantine"):
        stats = await pipeline.stream(log, columns={"n": {"data_type": "bigint"}}, schema_contract=frozen)

    assert await ask(pipeline, "SELECT n FROM log ORDER BY n") == [(1,), (3,)]
    assert sorted(log.acked) == [1, 2, 3]
    assert stats.dead_letters == 1

    lenient = asyncelt.resource([], name="log", schema_contract="evolve")
    await asyncelt.replay(pipeline, lenient)
    assert await ask(pipeline, "SELECT n, n__v_text FROM log ORDER BY n") == [(1, None), (3, None), (None, "no number")]


async def test_json_messages_count_as_rows(tmp_path: Path) -> None:
    class Bytes(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            found = await Log.fetch(self, most)

            return [asyncelt.Message(b'{"n": %d}' % (one.receipt.position or 0), one.receipt, self) for one in found]

    pipeline = make(tmp_path)
    stats = await pipeline.stream(Bytes([[1, 2], [3, 4], [5]]), roll=asyncelt.Roll(rows=2, seconds=3600))

    assert stats.packages == 3
    assert await ask(pipeline, "SELECT count(*), sum(n) FROM log") == [(5, 15)]


async def test_tables_and_columns_by_message(tmp_path: Path) -> None:
    source = asyncelt.sources.events(
        Log([[1, 2, 3]]),
        table_name=lambda message: f"t{(message.receipt.position or 0) % 2}",
        metadata=["position", "partition"],
    )
    pipeline = make(tmp_path)
    await pipeline.stream(source)

    assert await ask(pipeline, "SELECT n, _position, _partition FROM t1 ORDER BY n") == [(1, 1, "p"), (3, 3, "p")]
    assert await ask(pipeline, "SELECT n FROM t0") == [(2,)]


async def test_a_decoder_makes_several_rows_or_none(tmp_path: Path) -> None:
    def decode(message: asyncelt.Message) -> object:
        n = message.receipt.position or 0

        return None if n == 2 else [{"n": n}, {"n": -n}]

    log = Log([[1, 2, 3], [2]])
    pipeline = make(tmp_path)
    stats = await pipeline.stream(asyncelt.sources.events(log, decode=decode, metadata=["position"]))

    assert await ask(pipeline, "SELECT n, _position FROM log ORDER BY ALL") == [(-3, 3), (-1, 1), (1, 1), (3, 3)]
    assert log.acked == [1, 2, 3, 2]
    assert (stats.messages, stats.repeated) == (4, 1)


async def test_the_known_is_not_asked_about_again(tmp_path: Path) -> None:
    """A broker that comes back may deliver thousands again, each of which would cost a look at the database."""

    class Repeating(Log):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            found = await Log.fetch(self, most)

            return [replace(one, receipt=replace(one.receipt, again=True)) for one in found]

    pipeline = make(tmp_path)
    await pipeline.stream(Log([[1, 2, 3]]))
    looks: list[str] = []

    class Watched(Repeating):
        async def position(self, committed: Mapping[str, Intervals]) -> None:
            side = required_stream_side()
            look = side.refresh

            async def counted() -> None:
                looks.append("look")
                await look()

            side.refresh = counted  # type: ignore[method-assign]
            await Repeating.position(self, committed)

    stats = await pipeline.stream(Watched([[1, 2], [3], [4], [4]]))

    assert (stats.rows, stats.repeated, looks) == (1, 4, ["look"])


async def test_an_event_source_is_only_for_streams(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can only be read by a stream"):
        await make(tmp_path).run(asyncelt.sources.events(Log([[1]])))
