"""Streams through the public API: when packages end, what is in them, what is acknowledged when."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.engine.stream.roller import RECEIPT_BYTES
from asyncelt.errors import (
    AsynceltWarning,
    ConfigError,
    DestinationUnavailable,
    MessageNotCommitted,
    PipelineStepFailed,
    UsageError,
)
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import required_stream_side
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Destination
from asyncelt.observe import DestinationAway, DestinationBack, Event, PackageCommitted
from asyncelt.storage.state import decode_state

LONG = asyncelt.Roll(seconds=3600)
"""Nothing rolls by time."""


def make(folder: Path, **options: object) -> asyncelt.Pipeline:
    return asyncelt.pipeline(
        "stream",
        destination=asyncelt.destinations.duckdb(str(folder / "data.duckdb")),
        dataset_name="data",
        pipelines_dir=folder / "work",
        **options,  # type: ignore[arg-type]
    )


def within(folder: Path, budget: asyncelt.ByteBudget, destination: Destination) -> asyncelt.Pipeline:
    """A pipeline with so much memory, which does not wait long before it tries again."""
    return asyncelt.pipeline(
        "stream",
        destination=destination,
        dataset_name="data",
        pipelines_dir=folder / "work",
        max_memory=budget,
        settings=asyncelt.Settings(retry=asyncelt.Retry(first_s=0.02, max_s=0.02)),
    )


async def ask(pipeline: asyncelt.Pipeline, sql: str) -> list[tuple[object, ...]]:
    async with pipeline.sql_client() as client:
        table = await client.query(sql)

    return [tuple(row.values()) for row in table.to_pylist()]


@dataclass(slots=True)
class Log:
    """Numbered messages in one partition, which a test hands out; remembers what it is told."""

    batches: list[list[int]]
    name: str = "log"
    partition: str = "p"
    acked: list[int] = field(default_factory=list)
    nacked: list[int] = field(default_factory=list)
    told: dict[str, Intervals] = field(default_factory=dict)
    waits: bool = False
    """Whether it goes on waiting when it has nothing more."""
    quiet: anyio.Event = field(default_factory=anyio.Event)
    """Set when it has nothing more."""
    is_closed: bool = False
    floor: int | None = None
    given: int = 0
    given_meanwhile: int = 0
    """Of these, before anything was acknowledged."""
    in_step: bool = False
    """Whether each batch comes only when the one before has been acknowledged."""

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        self.told = dict(committed)

    async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
        if not self.batches:
            self.quiet.set()

            if self.waits:
                await anyio.sleep_forever()

            return ()

        while self.in_step and len(self.acked) < self.given:
            await anyio.lowlevel.checkpoint()

        self.given += len(self.batches[0])

        return [
            asyncelt.Message({"n": n}, asyncelt.Receipt(self.partition, n, n), self) for n in self.batches.pop(0)[:most]
        ]

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        self.acked += [int(str(receipt.token)) for receipt in receipts]

        return {} if self.floor is None else {self.partition: self.floor}

    async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
        self.nacked += [int(str(receipt.token)) for receipt in receipts]

    async def close(self) -> None:
        self.is_closed = True


# ---------------------------------------------------------------------------------- what can be streamed


async def test_a_source_without_safe_points_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield {"id": 1}

    with pytest.raises(ConfigError, match="has no safe points"):
        await make(tmp_path).stream(rows())

    assert os.listdir(tmp_path) == []


async def test_replace_transformers_and_synchronous_cursors_are_refused(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield asyncelt.checkpoint()

    @asyncelt.transformer
    async def more(item: object) -> AsyncIterator[object]:
        yield item

    @asyncelt.resource
    def ordered(at: object = asyncelt.sources.incremental("at", row_order="asc")) -> object:
        del at
        yield {"at": 1}

    pipeline = make(tmp_path)

    with pytest.raises(ConfigError, match="'replace'"):
        await pipeline.stream(rows(), write_disposition="replace")

    with pytest.raises(ConfigError, match="is a transformer"):
        await pipeline.stream(rows() | more)

    with pytest.raises(ConfigError, match="synchronous generator with row_order='asc'"):
        await pipeline.stream(ordered())


async def test_a_stream_starts_once(tmp_path: Path) -> None:
    stream = make(tmp_path).stream(Log([[1]]))
    await stream

    with pytest.raises(UsageError, match="started once"):
        await stream


async def test_positions_need_a_destination_that_keeps_them(tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline(
        "stream", destination=asyncelt.destinations.filesystem(str(tmp_path / "files")), pipelines_dir=tmp_path / "work"
    )

    with pytest.raises(ConfigError, match="keeps no positions"):
        await pipeline.stream(Log([[1]]))


# ---------------------------------------------------------------------------------- rolling


async def test_packages_end_by_rows_and_schemas_grow_from_one_to_the_next(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        for n in range(6):
            yield {"n": n, f"column_{n}": n, "items": [n]}
            yield asyncelt.checkpoint()

    pipeline = make(tmp_path)
    stats = await pipeline.stream(rows(), roll=asyncelt.Roll(rows=2, seconds=3600))

    assert (stats.packages, stats.rows, stats.queued) == (3, 6, 0)
    assert await ask(pipeline, "SELECT count(DISTINCT _dlt_load_id), count(*), sum(column_5) FROM rows") == [(3, 6, 5)]
    assert await ask(pipeline, "SELECT count(*) FROM rows__items") == [(6,)]
    assert await ask(pipeline, "SELECT load_id FROM _dlt_loads ORDER BY inserted_at") == await ask(
        pipeline, "SELECT load_id FROM _dlt_loads ORDER BY load_id"
    )
    assert not pipeline.has_pending_data


async def test_a_package_ends_only_at_checkpoints_and_its_state_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        state = asyncelt.current.resource_state()

        for page in range(2):
            state["page"] = page
            yield [{"n": 1}, {"n": 2}, {"n": 3}]
            yield {"n": 4}
            yield asyncelt.checkpoint()
            state["page"] = "not yet"

        state["page"] = "the end"

    pipeline = make(tmp_path)
    stats = await pipeline.stream(rows(), roll=asyncelt.Roll(rows=2, seconds=3600))
    found = await ask(pipeline, "SELECT count(*) FROM rows GROUP BY _dlt_load_id ORDER BY _dlt_load_id")

    assert found == [(4,), (4,)]
    assert stats.rows == 8
    kept = [
        decode_state(str(text))["sources"]
        for (text,) in await ask(pipeline, "SELECT state FROM _dlt_pipeline_state ORDER BY version")
    ]
    assert kept == [{"stream": {"resources": {"rows": {"page": page}}}} for page in (0, 1, "the end")]


async def test_a_cursor_in_order_is_cut_anywhere_and_carried_on(tmp_path: Path) -> None:
    @asyncelt.resource(primary_key="n")
    async def rows(
        most: int,
        n: asyncelt.sources.incremental[int] = asyncelt.sources.incremental("n", initial_value=0, row_order="asc"),
    ) -> AsyncIterator[object]:
        for number in range(int(n.last_value or 0), most):
            yield {"n": number}
            await anyio.lowlevel.checkpoint()

        if most == 10:
            raise OSError("gone")

    pipeline = make(tmp_path)

    with pytest.raises(PipelineStepFailed, match="gone"):
        await pipeline.stream(rows(10), roll=asyncelt.Roll(rows=3, seconds=3600))

    before = (await ask(pipeline, "SELECT count(*) FROM rows"))[0][0] if pipeline.schema_names else 0
    assert before in (0, 3, 6, 9)
    again = make(tmp_path)
    await again.stream(rows(20), roll=asyncelt.Roll(rows=3, seconds=3600))

    assert await ask(again, "SELECT count(*), count(DISTINCT n), max(n) FROM rows") == [(20, 20, 19)]


async def test_a_quiet_source_is_committed_when_its_time_has_come(tmp_path: Path) -> None:
    channel = asyncelt.sources.channel("rows")

    async with make(tmp_path).stream(channel, roll=asyncelt.Roll(seconds=0.01)) as stream:
        await channel.send({"n": 1})

        assert stream.stats.packages == 1


async def test_several_resources_are_cut_together(tmp_path: Path) -> None:
    go = anyio.Event()

    @asyncelt.resource
    async def quick() -> AsyncIterator[object]:
        for n in range(4):
            yield {"n": n}
            yield asyncelt.checkpoint()

        go.set()

    @asyncelt.resource
    async def slow() -> AsyncIterator[object]:
        yield {"n": 1}
        yield asyncelt.checkpoint()
        await go.wait()
        yield {"n": 2}

    pipeline = make(tmp_path)
    await pipeline.stream([quick(), slow()], roll=asyncelt.Roll(rows=2, seconds=3600))

    assert await ask(pipeline, "SELECT count(*) FROM quick") == [(4,)]
    assert await ask(pipeline, "SELECT count(*) FROM slow") == [(2,)]


async def test_a_synchronous_source_with_checkpoints_is_streamed(tmp_path: Path) -> None:
    @asyncelt.resource
    def rows() -> object:
        for n in range(4):
            yield {"n": n}
            yield asyncelt.checkpoint()

    pipeline = make(tmp_path)
    stats = await pipeline.stream(rows(), roll=asyncelt.Roll(rows=1, seconds=3600))

    assert stats.rows == 4
    assert stats.packages >= 1


async def test_checkpoints_mean_nothing_to_a_run(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield {"n": 1}
        yield asyncelt.checkpoint()
        yield [asyncelt.Message({"n": 2}), asyncelt.Message([{"n": 3}, {"n": 4}], table_name="others")]

    pipeline = make(tmp_path)
    info = await pipeline.run(rows())

    assert info.row_counts["rows"] == 2
    assert info.row_counts["others"] == 2


# ---------------------------------------------------------------------------------- messages


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


# ---------------------------------------------------------------------------------- ends and outages


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
