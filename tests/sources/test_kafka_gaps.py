"""Messages that are gone, brokers that are away, and what is refused: the mock cluster of librdkafka, and Tansu."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

import asyncelt
from asyncelt.errors import AsynceltWarning, ConfigError, PipelineStepFailed
from asyncelt.flow import PositionClaim
from asyncelt.load.protocol import SupportsPositions, Target
from tests.sources.consumers import held_by

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]
ROLL = asyncelt.Roll(seconds=0.05)
BIG = 900_000
"""So many bytes that a partition keeps five messages."""


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """Address of a mock cluster."""
    program = [sys.executable, str(Path(__file__).with_name("mock_kafka.py"))]

    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


async def publish(url: str, topic: str, values: Sequence[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=url) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def read_up_to(destination: object, source: asyncelt.sources.KafkaSource, topic: str, position: int) -> None:
    """Make the destination believe that so much of the first partition has been committed."""
    target = Target(pipeline_name="gaps", dataset_name="data", member="")
    claim = PositionClaim(source=source.name, partition=f"{topic}:0", start=position)

    async with destination.connect(target) as session:  # type: ignore[attr-defined]
        assert isinstance(session, SupportsPositions)
        await session.claim("gaps", [claim])


async def test_messages_that_are_gone_are_missed_or_left_out(mock: str, tmp_path: Path) -> None:
    """The partition begins at offset 3 by now; one group was at 2, another one as well, the third at 500."""
    await publish(mock, "t", [b'{"n": %d, "pad": "%s"}' % (n, b"x" * BIG) for n in range(8)])
    destinations = []

    async def reads(group: str, position: int, until: int, **options: object) -> asyncelt.StreamStats:
        source = asyncelt.sources.kafka("t", group=group, servers=mock, **options)  # type: ignore[arg-type]
        destination = asyncelt.destinations.memory()
        destinations.append(destination)
        await read_up_to(destination, source, "t", position)
        pipeline = asyncelt.pipeline(
            "gaps", destination=destination, dataset_name="data", pipelines_dir=tmp_path / group
        )

        async with pipeline.stream(source, roll=ROLL) as stream:
            while stream.stats.messages < until:
                await asyncio.sleep(0.01)

        return stream.stats

    with pytest.warns(AsynceltWarning, match="'t:0': offsets 1 to 2 were deleted before they were read"):
        failed, skipped, anew = await asyncio.gather(
            reads("fails", 0, 1),
            reads("skips", 0, 5, on_gap="skip"),
            reads("anew", 500, 1, on_gap="skip"),
            return_exceptions=True,
        )

    assert isinstance(failed, PipelineStepFailed)
    assert "'t:0': the messages from offset 1 to 2 were deleted before they were read" in str(failed)
    assert isinstance(anew, PipelineStepFailed)
    assert "'t:0': it has no offset 501, up to which it was read. Was the topic made anew?" in str(anew)
    assert isinstance(skipped, asyncelt.StreamStats)
    assert destinations[1].tables("data")["t"].column("n").to_pylist() == [3, 4, 5, 6, 7]
    assert destinations[1].tables("data")["t"].column_names[0] == "n"


async def test_the_start_is_the_earliest_the_latest_or_where_the_group_stands(mock: str, tmp_path: Path) -> None:
    await publish(mock, "starts", [b'{"n": %d}' % n for n in range(10)])
    found: dict[str, list[int]] = {}

    async def reads(start: str, until: int) -> None:
        source = asyncelt.sources.kafka("starts", group=start, servers=mock, start=start)  # type: ignore[arg-type]
        destination = asyncelt.destinations.memory()
        pipeline = asyncelt.pipeline("p", destination=destination, dataset_name="data", pipelines_dir=tmp_path / start)

        async with pipeline.stream(source, roll=ROLL) as stream:
            while not held_by(source):
                await asyncio.sleep(0.01)

            everywhere[start].set()
            await published.wait()

            while stream.stats.messages < until:
                await asyncio.sleep(0.01)

        found[start] = destination.tables("data")["starts"].column("n").to_pylist()

    async with AIOKafkaConsumer(bootstrap_servers=mock, group_id="group", enable_auto_commit=False) as consumer:
        consumer.assign([TopicPartition("starts", 0)])
        await consumer.commit({TopicPartition("starts", 0): 4})

    published = asyncio.Event()
    expected = {"earliest": list(range(11)), "latest": [10], "group": list(range(4, 11))}
    everywhere = {start: asyncio.Event() for start in expected}
    readers = [asyncio.create_task(reads(start, len(numbers))) for start, numbers in expected.items()]
    await asyncio.gather(*(one.wait() for one in everywhere.values()))
    await publish(mock, "starts", [b'{"n": 10}'])
    published.set()
    await asyncio.gather(*readers)
    assert found == expected


async def test_what_cannot_work_is_said_in_one_line(mock: str, tmp_path: Path) -> None:
    await publish(mock, "here", [b"{}"])

    def streamed(destination: object, topics: list[str], servers: str) -> asyncelt.Stream:
        source = asyncelt.sources.kafka(topics, group="g", servers=servers)

        return asyncelt.pipeline("wrong", destination=destination, dataset_name="data", pipelines_dir=tmp_path).stream(
            source
        )

    with pytest.raises(PipelineStepFailed, match=r"cannot connect to 127\.0\.0\.1:1: .*Is the address right"):
        await streamed(asyncelt.destinations.memory(), ["here"], "127.0.0.1:1")

    with pytest.raises(ConfigError, match="there is no topic 'absent', 'gone' at"):
        await streamed(asyncelt.destinations.memory(), ["here", "absent", "gone"], mock)


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="both names"):
        asyncelt.sources.kafka("", group="g")

    with pytest.raises(ConfigError, match="start is one of earliest, latest, group"):
        asyncelt.sources.kafka("t", group="g", start="now")  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"auto_offset_reset=.*start= says where a partition starts"):
        asyncelt.sources.kafka("t", group="g", auto_offset_reset="latest")


async def test_a_missing_package_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiokafka", None)

    with pytest.raises(ConfigError, match=r"needs the package 'aiokafka': pip install 'asyncelt\[kafka\]'"):
        await asyncelt.sources.kafka("t", group="g").position({})
