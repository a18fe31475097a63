"""A service that loads a Redis or Valkey stream into a database for as long as it runs, each entry once.

    python examples/stream_redis.py serve     # the service, until SIGTERM or Ctrl-C
    python examples/stream_redis.py           # writes readings, starts the service, stops it, and shows the tables

Needs a server at REDIS_URL, or at redis://127.0.0.1:6379, and `asyncelt[redis]`. On SIGTERM the service commits and
acknowledges what it has. An entry that is no JSON does not stop it: it is put aside in `_asyncelt_quarantine`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import orjson
from redis.asyncio import Redis

import asyncelt

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
STREAM, GROUP = "readings", "loader"

pipeline = asyncelt.pipeline(
    "readings", destination="duckdb", dataset_name="plant", member=os.environ.get("MEMBER", "")
)


async def serve() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    source = asyncelt.sources.redis_stream(STREAM, group=GROUP, field="data", url=URL)

    readings = asyncelt.sources.events(source, name="readings", metadata=["timestamp"])

    async with pipeline.stream(readings, roll=asyncelt.Roll(seconds=0.2)) as stream:
        print("loading", flush=True)
        await stopped.wait()

    # The end of the block has drained the stream.
    print(stream.stats, flush=True)


async def write(count: int) -> None:
    async with Redis.from_url(URL) as client:
        for number in range(count):
            reading = {"id": number, "sensor": f"s{number % 5}", "values": [number / 10, number / 7]}
            await client.xadd(STREAM, {"data": orjson.dumps(reading), "site": "north"})

        await client.xadd(STREAM, {"data": "this is no reading"})


async def acknowledged(count: int) -> None:
    """Wait until the group has been given so many entries, and all of them have been committed and acknowledged."""
    async with Redis.from_url(URL) as client:
        while True:
            groups = await client.xinfo_groups(STREAM)

            if groups and (groups[0]["entries-read"] or 0) >= count and groups[0]["pending"] == 0:
                return

            await asyncio.sleep(0.05)


def demonstrate() -> None:
    asyncio.run(write(50))
    service = subprocess.Popen([sys.executable, __file__, "serve"])

    try:
        asyncio.run(asyncio.wait_for(acknowledged(51), 60))
    finally:
        service.send_signal(signal.SIGTERM)
        print("the service ended with", service.wait(30))


async def show() -> None:
    async with pipeline.sql_client() as sql:
        print(await sql.query("SELECT count(*) AS readings, count(DISTINCT id) AS different FROM readings"))
        print(await sql.query("SELECT payload, count(*) AS times FROM _asyncelt_quarantine GROUP BY payload"))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        demonstrate()
        asyncio.run(show())
