"""Topics of Tansu, a stand-in for a Kafka broker: what is committed is there once, whoever reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

import asyncelt
from asyncelt.errors import DestinationUnavailable, ExtractError
from asyncelt.failpoints import installed
from asyncelt.sources.kafka_holding import Holding
from asyncelt.sources.kafka_records import message_of
from tests.sources.brokers import Proxy, Tansu, free_port
from tests.sources.consumers import KAFKA, numbers_in, pipeline_in, streamed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]
ROLL = asyncelt.Roll(seconds=0.05)
QUICK = asyncelt.Settings(retry=asyncelt.Retry(first_s=0.05, max_s=0.2))


def test_a_source_is_made_where_no_loop_runs() -> None:
    assert asyncelt.sources.kafka("orders", group="g").name


@pytest.fixture
def server(kafka_server: Tansu) -> Tansu:
    return kafka_server


@pytest.fixture
async def topic(request: pytest.FixtureRequest, server: Tansu) -> str:
    """A topic of this test's own, with two partitions."""
    name = f"t{abs(hash(request.node.nodeid))}"
    await create(server, name)

    return name


@pytest.fixture
async def producer(server: Tansu) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=server.url) as started:
        yield started


async def behind_a_proxy(folder: Path) -> tuple[Tansu, Proxy]:
    """A server that clients reach only through the proxy, both running."""
    server = Tansu(folder / "tansu", advertised=free_port())
    proxy = Proxy(server.advertised)
    server.start()
    await proxy.start(server.port)

    return server, proxy


async def create(server: Tansu, *names: str, partitions: int = 2) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1) for name in names])
    await admin.close()


async def publish(producer: AIOKafkaProducer, topic: str, numbers: Sequence[int]) -> None:
    for n in numbers:
        value = b'{"n": %d, "who": {"name": "x"}}' % n
        await producer.send_and_wait(topic, value, partition=n % 2)


async def until_messages(stream: asyncelt.Stream, count: int) -> None:
    while stream.stats.messages < count:
        await asyncio.sleep(0.01)


async def ask(folder: Path, sql: str) -> list[tuple[object, ...]]:
    async with pipeline_in(folder).sql_client() as client:
        return [tuple(row.values()) for row in (await client.query(sql)).to_pylist()]


async def test_messages_are_loaded_once_and_positions_win_over_the_group(
    server: Tansu, topic: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    await publish(producer, topic, range(20))
    first = await streamed(tmp_path, "kafka", server.url, topic, 20)
    assert (first.rows, first.messages, first.repeated) == (20, 20, 0)

    # Somebody moves the offsets of the group: of one partition back, of the other far ahead.
    one, other = TopicPartition(topic, 0), TopicPartition(topic, 1)

    async with AIOKafkaConsumer(
        topic, bootstrap_servers=server.url, group_id=topic, enable_auto_commit=False, **KAFKA
    ) as meddler:
        assert [await meddler.committed(each) for each in (one, other)] == [10, 10]
        await meddler.commit({one: 2, other: 13})

    await publish(producer, topic, range(20, 30))
    second = await streamed(tmp_path, "kafka", server.url, topic, 30)
    assert await numbers_in(tmp_path) == list(range(30))
    assert (second.rows, second.repeated) == (10, 0)
    positions = await ask(tmp_path, "SELECT partition, epoch, position FROM _asyncelt_positions ORDER BY 1")
    assert positions == [(f"{topic}:0", 2, "..14"), (f"{topic}:1", 2, "..14")]


async def test_topics_are_tables_and_columns_say_where_a_message_came_from(
    server: Tansu, topic: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    other = f"{topic}.other"
    await create(server, other)
    await producer.send_and_wait(topic, b'{"n": 1}', key=b"k", partition=1, headers=[("kind", b"x")], timestamp_ms=2500)
    await producer.send_and_wait(other, b'{"m": [{"a": 1}]}', partition=0)
    await producer.send_and_wait(other, b"[{}, {}]", partition=0)
    await producer.send_and_wait(other, None, key=b"gone", partition=0)
    source = asyncelt.sources.kafka([topic, other], group=topic, servers=server.url, **KAFKA)
    described = asyncelt.sources.events(
        source, metadata=["topic", "partition", "position", "key", "timestamp", "headers"]
    )

    async with pipeline_in(tmp_path).stream(described, roll=ROLL) as stream:
        await until_messages(stream, 4)

    columns = "n, _topic, _partition, _position, _key, _timestamp, _headers__kind"
    assert await ask(tmp_path, f"SELECT {columns} FROM {topic}") == [(1, topic, 1, 0, "k", 2.5, "x")]
    assert await ask(tmp_path, f"SELECT _position FROM {topic}_other") == [(0,), (1,), (1,)]
    assert await ask(tmp_path, f"SELECT a FROM {topic}_other__m") == [(1,)]


@pytest.mark.filterwarnings("ignore:.*are in _asyncelt_quarantine")
async def test_a_decoder_makes_rows_and_what_it_cannot_read_is_put_aside(
    server: Tansu, topic: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    def decode(message: asyncelt.Message) -> object:
        key = message.key.decode() if isinstance(message.key, bytes) else ""

        if message.value is None:
            return {"key": key, "is_gone": True}

        return {"key": key, "n": int(message.value), "raw": message.value}

    for key, value in ((b"a", b"1"), (b"b", b"no number"), (b"a", b"2"), (b"b", b"3"), (b"b", None)):
        await producer.send_and_wait(topic, value, key=key, partition=0)

    source = asyncelt.sources.kafka(topic, group=topic, servers=server.url, **KAFKA)
    decoded = asyncelt.sources.events(source, table_name="numbers", decode=decode)
    hints: dict[str, object] = {
        "primary_key": "key",
        "write_disposition": "merge",
        "columns": {"is_gone": {"hard_delete": True, "data_type": "bool"}},
    }

    async with pipeline_in(tmp_path).stream(decoded, roll=ROLL, **hints) as stream:
        await until_messages(stream, 5)

    # Messages of a partition keep their order, so the last one wins.
    assert stream.stats.dead_letters == 1
    assert await ask(tmp_path, "SELECT key, n, raw FROM numbers") == [("a", 2, b"2")]
    refused = await ask(tmp_path, "SELECT origin, position, payload FROM _asyncelt_quarantine")
    assert refused == [(f"{topic}/{topic}:0", "1", "no number")]


async def test_a_partition_changes_hands_and_nothing_is_lost_or_doubled(
    server: Tansu, topic: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    """The first member has messages in flight, which nothing but the rebalance makes it commit."""

    sources = [asyncelt.sources.kafka(topic, group=topic, servers=server.url, **KAFKA) for _ in range(2)]

    def member(number: int, roll: asyncelt.Roll) -> asyncelt.Stream:
        read = asyncelt.sources.events(sources[number], table_name="numbers")

        return pipeline_in(tmp_path, str(number)).stream(read, roll=roll)

    await publish(producer, topic, range(20))

    async with member(0, asyncelt.Roll(rows=1_000_000, seconds=3600)) as first:
        while sum(holding.open for holding in sources[0]._held.values()) < 20:
            await asyncio.sleep(0.01)

        async with member(1, ROLL) as second:
            await until_messages(first, 20)
            await publish(producer, topic, range(20, 60))
            await until_messages(second, 20)
            await first.drain()
            await publish(producer, topic, range(60, 80))
            await until_messages(second, 60 - (first.stats.messages - 20))

    assert (first.stats.overtaken, second.stats.overtaken) == (0, 0)
    assert first.stats.messages + second.stats.messages == 80
    assert await numbers_in(tmp_path) == list(range(80))


@pytest.mark.filterwarnings("ignore:.*(Trying again|were given up)")
async def test_an_owner_that_is_too_late_is_refused_and_reads_on(
    server: Tansu, topic: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    """The destination is away for the first member while its partition goes to another one, which commits it."""
    is_away = True

    def away(point: str) -> None:
        if point == "duckdb.before_commit" and is_away:
            raise DestinationUnavailable("away, for the first member only")

    def member(name: str) -> asyncelt.Stream:
        source = asyncelt.sources.kafka(topic, group=topic, servers=server.url, revoke_deadline_s=0.1, **KAFKA)
        pipeline = pipeline_in(tmp_path, name, settings=QUICK)

        return pipeline.stream(asyncelt.sources.events(source, table_name="numbers"), roll=ROLL)

    await publish(producer, topic, range(20))

    with installed(away):
        first = member("a")
        running = asyncio.create_task(first.run())

    while not first.stats.queued:
        await asyncio.sleep(0.01)

    async with member("b") as second:
        # One of the two partitions is its own by now, the other one is still the first member's.
        await until_messages(second, 10)
        is_away = False

        while first.stats.overtaken == 0 or first.stats.messages + second.stats.messages < 20:
            await asyncio.sleep(0.01)

        await publish(producer, topic, range(20, 40))

        while first.stats.messages + second.stats.messages < 40:
            await asyncio.sleep(0.01)

        await first.drain()

    await running
    assert await numbers_in(tmp_path) == list(range(40))


@pytest.mark.filterwarnings("ignore:.*(could not be acknowledged|broker is away)")
async def test_a_broker_that_is_away_comes_back_and_nothing_is_lost_or_doubled(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    server, proxy = await behind_a_proxy(tmp_path)

    try:
        await create(server, "t")

        async with AIOKafkaProducer(bootstrap_servers=server.url) as producer:
            await publish(producer, "t", range(20))

        source = asyncelt.sources.kafka("t", group="g", servers=server.url, **KAFKA)
        read = asyncelt.sources.events(source, table_name="numbers")

        async with pipeline_in(tmp_path).stream(read, roll=ROLL) as stream:
            await until_messages(stream, 20)
            await proxy.stop()

            # Its client has tried and failed again and again.
            while sum(one.name.startswith("aiokafka") for one in caplog.records) < 12:
                await asyncio.sleep(0.01)

            await proxy.start(server.port)

            async with AIOKafkaProducer(bootstrap_servers=server.url) as producer:
                await publish(producer, "t", range(20, 40))

            await until_messages(stream, 40)

        assert await numbers_in(tmp_path) == list(range(40))
        await proxy.stop()
    finally:
        server.kill()


async def test_partitions_that_are_added_meanwhile_are_read_from_their_beginning(tmp_path: Path) -> None:
    """Although the stream began with the latest messages. The stand-in comes back with more, since it cannot add any."""
    server = Tansu(tmp_path / "tansu")
    server.start()

    async def fill(first: Sequence[int], second: Sequence[int] = ()) -> None:
        async with AIOKafkaProducer(bootstrap_servers=server.url) as producer:
            for partition, numbers in enumerate((first, second)):
                for n in numbers:
                    await producer.send_and_wait("t", b'{"n": %d}' % n, partition=partition)

    try:
        await create(server, "t", partitions=1)
        options = {**KAFKA, "metadata_max_age_ms": 200}
        source = asyncelt.sources.kafka("t", group="g", servers=server.url, start="latest", **options)
        read = asyncelt.sources.events(source, table_name="numbers")

        async with pipeline_in(tmp_path).stream(read, roll=ROLL) as stream:
            while not source._held:
                await asyncio.sleep(0.01)

            await fill(range(5))
            await until_messages(stream, 5)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await create(server, "t", partitions=2)
            await fill(range(6), range(100, 103))
            await until_messages(stream, 9)

        assert await numbers_in(tmp_path) == [*range(6), *range(100, 103)]
    finally:
        server.kill()


async def test_a_source_that_is_opened_again_waits_for_its_brokers(tmp_path: Path) -> None:
    server, proxy = await behind_a_proxy(tmp_path)

    try:
        await create(server, "t")
        source = asyncelt.sources.kafka("t", group="g", servers=server.url, **KAFKA)
        was_told = asyncio.Event()
        source.report_to(lambda error: was_told.set() if error else None)
        await source.position({})
        await source.close()
        await proxy.stop()
        opening = asyncio.create_task(source.position({}))
        await was_told.wait()
        await proxy.start(server.port)
        await opening
        await source.close()
        await proxy.stop()
    finally:
        server.kill()


async def test_answers_that_do_not_come_in_time_are_waited_for() -> None:
    source = asyncelt.sources.kafka("t", group="g")
    told: list[str | None] = []
    source.report_to(told.append)
    await source._endure(KafkaTimeoutError("no offsets in 50000 ms"))
    assert told == ["KafkaTimeoutError: no offsets in 50000 ms"]

    with pytest.raises(ExtractError, match="TopicAuthorizationFailedError"):
        await source._endure(TopicAuthorizationFailedError())


def test_what_producers_leave_out_is_left_out() -> None:
    def record(timestamp: int | None) -> ConsumerRecord[bytes, bytes]:
        headers = (("empty", None), ("text", "\u00e4".encode()), ("bytes", b"\xff"))

        return ConsumerRecord("t", 1, 7, timestamp, 0, None, None, None, -1, -1, headers)  # type: ignore[arg-type]

    source = asyncelt.sources.kafka("t", group="g")
    holding = Holding(TopicPartition("t", 1), "t:1", 0)
    found = [message_of(record(timestamp), holding, source) for timestamp in (None, -1, 0, 1500)]
    assert [one.timestamp for one in found] == [None, None, 0, 1.5]
    assert found[0].headers == {"empty": "", "text": "\u00e4", "bytes": "\ufffd"}
    assert (found[0].key, found[0].value, found[0].partition) == (None, None, 1)
    assert found[0].receipt == asyncelt.Receipt("t:1", 7, holding)
