"""Brokers that numbered messages go through: how a topic is made, filled, and looked at from outside."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import nats
import nats.js.errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

import asyncelt
from asyncelt.extract.messages import EventSource
from tests.sources.brokers import Tansu, Valkey
from tests.sources.consumers import KAFKA
from tests.sources.server import NatsServer

__all__ = ["BROKERS", "Broker", "Publish", "Server", "broker_in", "source_of", "wrapped"]

Publish: TypeAlias = Callable[[bytes], Awaitable[object]]
_PARTITIONS = 2
"""Of a Kafka topic."""
_NUMBER = re.compile(rb'"n": ?(\d+)')


class Server(Protocol):
    """A process that can be killed and started again."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Broker(Protocol):
    """A server, and the topics on it."""

    kind: str
    server: Server

    async def make(self, topic: str) -> None:
        """Make a topic, which did not exist."""
        ...

    def publishing(self, topic: str) -> AbstractPublishing:
        """A connection that publishes; each call returns when the server has the message."""
        ...

    async def last(self, topic: str) -> int:
        """The number published last; -1: none."""
        ...

    async def is_consumed(self, topic: str) -> bool:
        """Whether every message has been delivered and acknowledged."""
        ...


class AbstractPublishing(Protocol):
    """Context manager of a `Publish`."""

    async def __aenter__(self) -> Publish: ...

    async def __aexit__(self, *of_error: object) -> bool | None: ...


async def _silent(error: Exception) -> None:
    """A broker that is killed on purpose is no news."""


@dataclass(frozen=True, slots=True)
class _Nats:
    server: Server
    kind: str = "nats"

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[nats.NATS]:
        client = await nats.connect(self.server.url, allow_reconnect=False, connect_timeout=20, error_cb=_silent)

        try:
            yield client
        finally:
            await client.close()

    async def make(self, topic: str) -> None:
        async with self._connected() as client:
            await client.jetstream().add_stream(name=topic, subjects=[f"{topic}.x"])

    @asynccontextmanager
    async def publishing(self, topic: str) -> AsyncIterator[Publish]:
        async with self._connected() as client:
            jetstream = client.jetstream(timeout=20)

            yield lambda body: jetstream.publish(f"{topic}.x", body)

    async def last(self, topic: str) -> int:
        async with self._connected() as client:
            try:
                found = await client.jetstream().get_last_msg(topic, f"{topic}.x")
            except nats.js.errors.NotFoundError:
                return -1

            return _number(found.data)

    async def is_consumed(self, topic: str) -> bool:
        async with self._connected() as client:
            jetstream = client.jetstream()
            last = (await jetstream.stream_info(topic)).state.last_seq
            info = await jetstream.consumer_info(topic, "d")

            return info.ack_floor is not None and info.ack_floor.stream_seq == last


@dataclass(frozen=True, slots=True)
class _Valkey:
    server: Server
    kind: str = "redis"

    async def make(self, topic: str) -> None:
        """A stream is there with its first entry."""

    @asynccontextmanager
    async def publishing(self, topic: str) -> AsyncIterator[Publish]:
        async with Redis.from_url(self.server.url, socket_timeout=20) as client:
            yield lambda body: client.xadd(topic, {"data": body})

    async def last(self, topic: str) -> int:
        async with Redis.from_url(self.server.url) as client:
            found = await client.xrevrange(topic, count=1)

            return _number(found[0][1][b"data"]) if found else -1

    async def is_consumed(self, topic: str) -> bool:
        async with Redis.from_url(self.server.url) as client:
            last = (await client.xrevrange(topic, count=1))[0][0]
            (group,) = await client.xinfo_groups(topic)

            return bool(group["last-delivered-id"] == last and group["pending"] == 0)


@dataclass(frozen=True, slots=True)
class _Kafka:
    """A stand-in, which keeps nothing when it is killed."""

    server: Server
    kind: str = "kafka"

    @asynccontextmanager
    async def _looking(
        self, topic: str, group: str | None = None
    ) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[TopicPartition, int]]]:
        """A consumer that takes no part in a group's work, and the ends of the partitions."""
        async with AIOKafkaConsumer(bootstrap_servers=self.server.url, group_id=group, enable_auto_commit=False) as one:
            places = [TopicPartition(topic, at) for at in range(_PARTITIONS)]
            one.assign(places)

            yield one, await one.end_offsets(places)

    async def make(self, topic: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.url)
        await admin.start()
        await admin.create_topics([NewTopic(topic, _PARTITIONS, 1)])
        await admin.close()

    @asynccontextmanager
    async def publishing(self, topic: str) -> AsyncIterator[Publish]:
        async with AIOKafkaProducer(bootstrap_servers=self.server.url) as producer:
            yield lambda body: producer.send_and_wait(topic, body, partition=_number(body) % _PARTITIONS)

    async def last(self, topic: str) -> int:
        found = [-1]

        async with self._looking(topic) as (consumer, ends):
            for place, end in ends.items():
                if end:
                    consumer.seek(place, end - 1)
                    found.append(_number((await consumer.getone(place)).value))

        return max(found)

    async def is_consumed(self, topic: str) -> bool:
        async with self._looking(topic, "g") as (consumer, ends):
            return all([(await consumer.committed(place) or 0) == end for place, end in ends.items()])


def _number(body: bytes | None) -> int:
    found = _NUMBER.search(body or b"")
    assert found is not None, body

    return int(found[1])


BROKERS = ("nats", "redis", "kafka")


def broker_in(folder: Path, kind: str) -> Broker:
    """A broker of this kind, which has not been started, with its files in ``folder``."""
    server: Server = {"nats": NatsServer, "redis": Valkey, "kafka": Tansu}[kind](folder / kind)

    return wrapped(kind, server)


def wrapped(kind: str, server: Server) -> Broker:
    """The broker whose server this is."""
    return {"nats": _Nats, "redis": _Valkey, "kafka": _Kafka}[kind](server)


def source_of(kind: str, url: str, topic: str, again_after_s: float = 1.0) -> EventSource:
    """A topic through its one group. What a dead consumer has left comes again soon, so that tests need not wait."""
    if kind == "nats":
        return asyncelt.sources.nats(topic, durable="d", servers=url, ack_wait_s=again_after_s, error_cb=_silent)

    if kind == "kafka":
        return asyncelt.sources.kafka(topic, group="g", servers=url, **KAFKA)

    return asyncelt.sources.redis_stream(topic, group="g", url=url, field="data", claim_after_s=again_after_s)
