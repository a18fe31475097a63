"""Members of a consumer group are added, killed and removed: each message is in the table once. Tansu is a stand-in."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.sources import consumers
from tests.sources.brokers import Tansu
from tests.sources.consumers import numbers_in, streamed
from tests.support.killing import KILLED, ROOT, Nursery

pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.xdist_group("kafka")]


@pytest.fixture
def server(kafka_server: Tansu) -> Tansu:
    return kafka_server


async def create(server: Tansu, topic: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1)])
    await admin.close()


async def publish(server: Tansu, topic: str, numbers: range, partitions: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=server.url) as producer:
        for n in numbers:
            await producer.send_and_wait(topic, b'{"n": %d}' % n, partition=n % partitions)


@pytest.mark.parametrize("point", ["stream.sealed", "duckdb.after_commit", "stream.before_ack"])
async def test_a_killed_process_loses_and_doubles_nothing(
    point: str, server: Tansu, tmp_path: Path, nursery: Nursery
) -> None:
    topic = point.replace(".", "_")
    await create(server, topic, 2)
    await publish(server, topic, range(20), 2)
    environment = {"ASYNCELT_FAILPOINT": f"{point}:1"}
    doomed = nursery.start(consumers.stream_all, tmp_path, "kafka", server.url, topic, 20, environment=environment)
    assert await asyncio.to_thread(doomed.wait) == KILLED
    await publish(server, topic, range(20, 24), 2)
    await streamed(tmp_path, "kafka", server.url, topic, 24)
    assert await numbers_in(tmp_path) == list(range(24))


class Members:
    """Processes that share a topic."""

    def __init__(self, *where: object) -> None:
        program = [sys.executable, str(Path(__file__).with_name("kafka_member.py")), *map(str, where)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._all: dict[str, int] = {}

    async def add(self, name: str) -> None:
        self._all[name] = await asyncio.to_thread(self._ask, f"start {name}")

    async def end(self, name: str, how: signal.Signals) -> None:
        pid = self._all.pop(name)
        os.kill(pid, how)
        assert await asyncio.to_thread(self._ask, f"wait {pid}") == (0 if how == signal.SIGTERM else -how)

    async def end_all(self, how: signal.Signals) -> None:
        for name in list(self._all):
            await self.end(name, how)

    async def close(self) -> None:
        await self.end_all(signal.SIGKILL)
        await asyncio.to_thread(self._parent.communicate)

    def _ask(self, command: str) -> int:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(command + "\n")
        self._parent.stdin.flush()

        return int(self._parent.stdout.readline())


async def test_four_processes_share_a_topic_while_some_come_and_go(
    server: Tansu, postgres_dsn: str, tmp_path: Path
) -> None:
    topic, partitions = "shared", 4
    await create(server, topic, partitions)
    members = Members(tmp_path, postgres_dsn, server.url, topic)
    connection = await asyncpg.connect(postgres_dsn)
    sent = 0

    async def more() -> None:
        nonlocal sent
        await publish(server, topic, range(sent, sent + 100), partitions)
        sent += 100

    async def loaded(until: int) -> int:
        """How many rows there are, once there are as many as that."""
        while True:
            is_there = await connection.fetchval("SELECT to_regclass('data.numbers') IS NOT NULL")
            count = await connection.fetchval("SELECT count(*) FROM data.numbers") if is_there else 0

            if count >= until:
                return int(count)

            await asyncio.sleep(0.05)

    try:
        await more()

        for name in "abcd":
            await members.add(name)

        await loaded(100)
        await more()

        await members.end("a", signal.SIGKILL)
        await more()
        await members.add("e")
        await members.end("b", signal.SIGTERM)
        await more()
        await loaded(400)
        await members.add("a")
        await more()
        await members.end("c", signal.SIGKILL)
        await more()
        await loaded(600)
        await members.end_all(signal.SIGTERM)

        rows = await connection.fetch("SELECT n FROM data.numbers ORDER BY n")
        assert [row["n"] for row in rows] == list(range(sent))
    finally:
        await members.close()
        await connection.close()
