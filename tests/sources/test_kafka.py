"""Topics of Tansu, a stand-in for a Kafka broker: what is committed is there once, whoever reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import asyncelt
from tests.sources.brokers import Tansu
from tests.sources.consumers import KAFKA, numbers_in, pipeline_in, streamed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]
ROLL = asyncelt.Roll(seconds=0.05)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tansu]:
    started = Tansu(tmp_path_factory.mktemp("tansu"))
    started.start()
    yield started
    started.kill()


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


async def create(server: Tansu, *names: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1) for name in names])
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
        topic, bootstrap_servers=server.url, group_id="g", enable_auto_commit=False, **KAFKA
    ) as meddler:
        assert [await meddler.committed(each) for each in (one, other)] == [10, 10]
        await meddler.commit({one: 2, other: 13})

    await publish(producer, topic, range(20, 30))
    second = await streamed(tmp_path, "kafka", server.url, topic, 30)
    assert await numbers_in(tmp_path) == list(range(30))
    assert (second.rows, second.repeated) == (10, 0)
    positions = await ask(tmp_path, "SELECT partition, epoch, position FROM _asyncelt_positions ORDER BY 1")
    assert positions == [(f"{topic}:0", 2, "..14"), (f"{topic}:1", 2, "..14")]
