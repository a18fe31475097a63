"""Orders as messages: nested JSON of more than 300 bytes, made from their number; brokers to put them into."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import orjson
from nats.aio.client import Client
from redis.asyncio import Redis

from tests.sources.brokers import Valkey
from tests.sources.server import NatsServer
from tests.support.postgres import ask

__all__ = ["BROKERS", "FETCH", "GROUP", "Broker", "body_of", "broker_in", "expected", "found", "order"]

BROKERS = ("nats", "redis")
GROUP = "loaders"
FETCH = 1000
"""Messages that every consumer asks for at a time."""
_CITIES = ("Aarhus", "Bergen", "Cadiz", "Dresden", "Evora")


def order(number: int, sent: float = 0.0) -> dict[str, Any]:
    """One message; ``sent`` is when it was published."""
    return {
        "id": number,
        "sent": sent,
        "status": "paid" if number % 3 else "open",
        "customer": {
            "name": f"customer {number % 1009}",
            "city": _CITIES[number % 5],
            "tier": number % 4,
            "email": f"customer.{number % 1009}@example.org",
        },
        "items": [
            {"sku": f"sku-{(number + at) % 211}", "count": 1 + (number + at) % 4, "price": (number + at) % 97 + 0.5}
            for at in range(3)
        ],
        "note": "left at the door, second floor, next to the plant",
    }


def body_of(number: int, sent: float = 0.0) -> bytes:
    """The message as it travels."""
    return orjson.dumps(order(number, sent))


ORDERS = "SELECT id, status, customer__name, customer__city, customer__tier, note FROM {schema}.orders ORDER BY id"
ITEMS = {
    "asyncelt": """
        SELECT o.id, i._dlt_list_idx, i.sku, i.count, i.price FROM {schema}.orders o
        JOIN {schema}.orders__items i ON i._dlt_parent_id = o._dlt_id ORDER BY 1, 2""",
    "by hand": "SELECT order_id, idx, sku, count, price FROM {schema}.orders__items ORDER BY 1, 2",
}


def found(dsn: str, schema: str, side: str) -> tuple[int, int]:
    """Fingerprints of what is in the tables: of the orders, and of their items."""
    items = ITEMS["asyncelt" if side == "asyncelt" else "by hand"]

    return _print(ask(dsn, ORDERS.format(schema=schema))), _print(ask(dsn, items.format(schema=schema)))


def expected(count: int) -> tuple[int, int]:
    """Fingerprints of what should be there."""
    orders, items = [], []

    for number in range(count):
        one = order(number)
        customer = one["customer"]
        orders.append((number, one["status"], customer["name"], customer["city"], customer["tier"], one["note"]))
        items += [(number, at, item["sku"], item["count"], item["price"]) for at, item in enumerate(one["items"])]

    return _print(orders), _print(items)


def _print(rows: Iterable[tuple[Any, ...]]) -> int:
    # Of numbers and texts of this program and of one process: equal rows in equal order have equal hashes.
    return hash(tuple(rows))


@dataclass(frozen=True, slots=True)
class Broker:
    """A server of its own, and how messages get into it."""

    kind: str
    server: NatsServer | Valkey

    async def fill(self, topic: str, count: int) -> None:
        """Make a topic with so many messages."""
        await self.make(topic)

        if isinstance(self.server, NatsServer):
            client = await nats.connect(self.server.url)

            for first in range(0, count, FETCH):
                for number in range(first, min(first + FETCH, count)):
                    await client.publish(f"{topic}.x", body_of(number))

                await client.flush()

            while (await client.jetstream().stream_info(topic)).state.messages < count:  # noqa: ASYNC110 - it only tells when asked
                await asyncio.sleep(0.02)

            await client.close()
            return

        async with Redis.from_url(self.server.url) as redis:
            for first in range(0, count, FETCH):
                together = redis.pipeline(transaction=False)

                for number in range(first, min(first + FETCH, count)):
                    together.xadd(topic, {"data": body_of(number)})

                await together.execute()

    async def make(self, topic: str) -> None:
        """Make an empty topic."""
        if isinstance(self.server, NatsServer):
            client = await nats.connect(self.server.url)
            await client.jetstream().add_stream(name=topic, subjects=[f"{topic}.x"])
            await client.close()

    async def pace(self, topic: str, numbers: range, per_second: int) -> None:
        """Publish at a steady rate; each message says when."""
        began = time.perf_counter()
        client: Client | Redis

        if isinstance(self.server, NatsServer):
            client = await nats.connect(self.server.url)
        else:
            client = Redis.from_url(self.server.url)

        for at, number in enumerate(numbers):
            due = began + at / per_second - time.perf_counter()

            if due > 0:
                await asyncio.sleep(due)

            body = body_of(number, time.time())

            if isinstance(client, Client):
                await client.publish(f"{topic}.x", body)
                await client.flush()
            else:
                await client.xadd(topic, {"data": body})

        await (client.close() if isinstance(client, Client) else client.aclose())


def broker_in(folder: Path, kind: str) -> Broker:
    """A broker of this kind, which has to be started."""
    return Broker(kind, NatsServer(folder / kind) if kind == "nats" else Valkey(folder / kind))
