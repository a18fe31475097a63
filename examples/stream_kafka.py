"""A service that loads Kafka topics into a database for as long as it runs, each message once.

    python examples/stream_kafka.py serve     # the service, until SIGTERM or Ctrl-C
    python examples/stream_kafka.py           # makes topics, starts the service, stops it, shows the tables

Needs a broker at KAFKA_SERVERS, or at 127.0.0.1:9092, and `asyncelt[kafka]`. Each topic becomes a table. On SIGTERM the
service commits what it has and leaves the group. Killed without warning, it loses and doubles nothing either: the
offsets are committed with the rows. Start several of it, each with a MEMBER of its own and a database server as
destination, and they share the partitions.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import asyncelt

SERVERS = os.environ.get("KAFKA_SERVERS", "127.0.0.1:9092")
TOPICS = ["paid", "sent"]

pipeline = asyncelt.pipeline("orders", destination="duckdb", dataset_name="shop", member=os.environ.get("MEMBER", ""))


async def serve() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    source = asyncelt.sources.kafka(TOPICS, group="loader", servers=SERVERS)
    orders = asyncelt.sources.events(source, metadata=["partition", "position"])

    async with pipeline.stream(orders, roll=asyncelt.Roll(seconds=0.2)) as stream:
        print("loading", flush=True)
        await stopped.wait()

    # The end of the block has drained the stream.
    print(stream.stats, flush=True)


async def publish(count: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVERS)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1) for topic in TOPICS])
    await admin.close()

    async with AIOKafkaProducer(bootstrap_servers=SERVERS) as producer:
        for number in range(count):
            order = {"id": number, "items": [{"sku": f"sku-{number % 7}", "count": 1 + number % 3}]}
            await producer.send_and_wait(TOPICS[number % 2], orjson.dumps(order), key=b"%d" % number)


async def rows() -> int:
    async with pipeline.sql_client() as sql:
        try:
            found = await sql.query("SELECT (SELECT count(*) FROM paid) + (SELECT count(*) FROM sent) AS rows")
        except (asyncelt.errors.LoadError, asyncelt.errors.QueryError):  # there are no tables yet
            return 0

    return int(found.to_pylist()[0]["rows"])


async def loaded(count: int) -> None:
    while True:
        if await rows() >= count:
            return

        await asyncio.sleep(0.2)


def demonstrate() -> None:
    asyncio.run(publish(50))
    service = subprocess.Popen([sys.executable, __file__, "serve"])

    try:
        asyncio.run(asyncio.wait_for(loaded(50), 60))
    finally:
        service.send_signal(signal.SIGTERM)
        print("the service ended with", service.wait(30))


async def show() -> None:
    async with pipeline.sql_client() as sql:
        print(await sql.query("SELECT count(*) AS paid, count(DISTINCT id) AS different FROM paid"))
        print(await sql.query("SELECT _partition, max(_position) AS last FROM paid GROUP BY _partition ORDER BY 1"))
        print(await sql.query("SELECT sku, sum(count) AS sold FROM paid__items GROUP BY sku ORDER BY sku"))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        demonstrate()
        asyncio.run(show())
