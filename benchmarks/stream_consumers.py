"""The process of one consumer: ``python -m benchmarks.stream_consumers '<job as JSON>'`` prints its figures as JSON.

*bare* only fetches and acknowledges. *executemany* and *copy* are what is written by hand with asyncpg: parse, collect
for the time of a roll, write two tables in one transaction, acknowledge. They keep no positions, so what is delivered
again after a crash is doubled; they know the columns beforehand, and make no ids. *faststream* does the same as *copy*
by way of a framework, a transaction per batch.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import nats
import orjson
from nats.js.api import ConsumerConfig
from redis.asyncio import Redis
from redis.exceptions import ResponseError

import asyncelt
from asyncelt.extract.messages import Bodies
from benchmarks.stream_data import FETCH, GROUP

__all__ = ["SIDES", "Figures", "Job"]

SIDES = ("bare", "asyncelt", "executemany", "copy", "faststream")
Batch: TypeAlias = "tuple[list[bytes], Callable[[], Awaitable[object]]]"
"""Bodies, and how they are acknowledged."""
_ORDERS = ("id", "sent", "status", "customer__name", "customer__city", "customer__tier", "customer__email", "note")
_ITEMS = ("order_id", "idx", "sku", "count", "price")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a consumer does."""

    side: str
    broker: str
    url: str
    topic: str
    count: int
    """Messages; then it ends."""
    roll_s: float
    dsn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What it took."""

    seconds: float
    """From before the connection to after the last acknowledgement."""
    cpu_s: float
    rss: int


Fetching: TypeAlias = Callable[[float], Awaitable[Batch]]
"""Messages, at most `FETCH`; none if none come within so many seconds."""


@asynccontextmanager
async def fetching(job: Job) -> AsyncIterator[Fetching]:
    """Consume through a client library, as its documentation shows."""
    if job.broker == "nats":
        client = await nats.connect(job.url)
        # As many messages may wait for their acknowledgement as asyncelt lets wait: by default it is a thousand.
        subscription = await client.jetstream().pull_subscribe(
            f"{job.topic}.x", durable=GROUP, stream=job.topic, config=ConsumerConfig(max_ack_pending=-1)
        )

        async def from_nats(within_s: float) -> Batch:
            try:
                messages = await subscription.fetch(FETCH, timeout=within_s)
            except TimeoutError:
                messages = []

            async def acknowledge() -> None:
                for one in messages:
                    await one.ack()

                await client.flush()

            return [one.data for one in messages], acknowledge

        yield from_nats
        await client.close()
        return

    # It would give up after as long as it waits at the server.
    async with Redis.from_url(job.url, socket_timeout=30) as redis:
        try:
            await redis.xgroup_create(job.topic, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

        async def from_redis(within_s: float) -> Batch:
            answer: Any = await redis.xreadgroup(
                GROUP, "one", {job.topic: ">"}, count=FETCH, block=max(int(within_s * 1000), 1)
            )
            entries = answer[0][1] if answer else []

            async def acknowledge() -> None:
                if entries:
                    await redis.xack(job.topic, GROUP, *[entry for entry, _ in entries])

            return [fields[b"data"] for _, fields in entries], acknowledge

        yield from_redis


async def bare(job: Job) -> None:
    """Fetch, acknowledge, forget."""
    left = job.count

    async with fetching(job) as fetch:
        while left > 0:
            bodies, acknowledge = await fetch(5.0)
            await acknowledge()
            left -= len(bodies)


async def by_hand(job: Job) -> None:
    """Fetch for the time of a roll, write, acknowledge."""
    left = job.count

    async with tables(job) as write, fetching(job) as fetch:
        while left > 0:
            batches = await _rolled(fetch, job.roll_s, left)
            orders = [orjson.loads(body) for bodies, _ in batches for body in bodies]
            await write(orders)

            for _, acknowledge in batches:
                await acknowledge()

            left -= len(orders)


async def by_faststream(job: Job) -> None:
    """A framework fetches, parses and acknowledges; the rows are written as by hand."""
    from faststream.nats import PullSub

    from benchmarks.stream_peer import through_faststream

    batch = PullSub(batch_size=FETCH, batch=True, timeout=job.roll_s)

    async with tables(job) as write:
        await through_faststream(job.url, job.topic, GROUP, batch, write, job.count)


@asynccontextmanager
async def tables(job: Job) -> AsyncIterator[Callable[[Sequence[Any]], Awaitable[None]]]:
    """Two tables, and how orders are written into them, in one transaction."""
    connection = await asyncpg.connect(job.dsn)
    schema = f"{job.side}_{job.topic}"
    await connection.execute(f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.orders (id bigint, sent double precision, status text, customer__name text,
            customer__city text, customer__tier bigint, customer__email text, note text);
        CREATE TABLE {schema}.orders__items (order_id bigint, idx bigint, sku text, count bigint,
            price double precision);
    """)
    write = _executed if job.side == "executemany" else _copied

    async def written(found: Sequence[Any]) -> None:
        orders, items = _rows(found)

        async with connection.transaction():
            await write(connection, schema, "orders", _ORDERS, orders)
            await write(connection, schema, "orders__items", _ITEMS, items)

    yield written
    await connection.close()


async def _rolled(fetch: Fetching, roll_s: float, most: int) -> list[Batch]:
    found: list[Batch] = []
    ends = None

    while ends is None or (time.perf_counter() < ends and most > 0):
        batch = await fetch(5.0 if ends is None else max(ends - time.perf_counter(), 0.05))

        if batch[0]:
            ends = ends or time.perf_counter() + roll_s
            found.append(batch)
            most -= len(batch[0])

    return found


def _rows(found: Sequence[Any]) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    orders: list[tuple[object, ...]] = []
    items: list[tuple[object, ...]] = []

    for one in found:
        who = one["customer"]
        number = one["id"]
        orders.append(
            (number, one["sent"], one["status"], who["name"], who["city"], who["tier"], who["email"], one["note"])
        )
        items += [(number, at, item["sku"], item["count"], item["price"]) for at, item in enumerate(one["items"])]

    return orders, items


async def _executed(
    connection: asyncpg.Connection, schema: str, table: str, names: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    places = ", ".join(f"${at + 1}" for at in range(len(names)))
    sql = f"INSERT INTO {schema}.{table} ({', '.join(names)}) VALUES ({places})"
    await connection.executemany(sql, rows)


async def _copied(
    connection: asyncpg.Connection, schema: str, table: str, names: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    await connection.copy_records_to_table(table, schema_name=schema, columns=names, records=rows)


def _until_read(source: asyncelt.EventSource, count: int) -> asyncio.Event:
    """Set when so many messages are on their way: those by hand know it too, and their last roll waits for no more."""
    all_read, left = asyncio.Event(), count

    def counting(fetch: Callable[[int], Awaitable[Sequence[Any]]]) -> Callable[[int], Awaitable[Sequence[Any]]]:
        async def fetched(most: int) -> Sequence[Any]:
            nonlocal left

            if left <= 0:
                # Now that it is asked again, the last ones are on their way.
                all_read.set()

            found = await fetch(most)
            left -= sum(len(one.values) if isinstance(one, Bodies) else 1 for one in found)

            return found

        return fetched

    for name in ("fetch", "fetch_bodies"):
        if hasattr(source, name):
            setattr(source, name, counting(getattr(source, name)))

    return all_read


async def streamed(job: Job) -> None:
    """This library: positions, ids, nested tables and schema changes included."""
    if job.broker == "nats":
        source: asyncelt.EventSource = asyncelt.sources.nats(job.topic, durable=GROUP, servers=job.url)
    else:
        source = asyncelt.sources.redis_stream(job.topic, group=GROUP, field="data", url=job.url)

    with tempfile.TemporaryDirectory(prefix="asyncelt-bench-") as folder:
        pipeline = asyncelt.pipeline(
            job.topic,
            destination=asyncelt.destinations.postgres(job.dsn),
            dataset_name=f"asyncelt_{job.topic}",
            pipelines_dir=Path(folder),
        )
        all_read = _until_read(source, job.count)
        orders = asyncelt.sources.events(source, table_name="orders", batch=FETCH)

        async with pipeline.stream(orders, roll=asyncelt.Roll(seconds=job.roll_s)):
            await all_read.wait()


def main() -> None:
    """One job."""
    warnings.simplefilter("ignore")
    job = Job(**json.loads(sys.argv[1]))
    work = {"bare": bare, "asyncelt": streamed, "faststream": by_faststream}.get(job.side, by_hand)
    began = time.perf_counter()
    asyncio.run(work(job))
    used = resource.getrusage(resource.RUSAGE_SELF)
    took = Figures(seconds=time.perf_counter() - began, cpu_s=used.ru_utime + used.ru_stime, rss=used.ru_maxrss * 1024)
    print(json.dumps(asdict(took)))


if __name__ == "__main__":
    main()
