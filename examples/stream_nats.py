"""A service that loads a NATS JetStream stream into a database for as long as it runs, each message once.

    python examples/stream_nats.py serve     # the service, until SIGTERM or Ctrl-C
    python examples/stream_nats.py           # publishes orders, starts the service, stops it, and shows the tables

Needs a server with JetStream (``nats-server -js``) at NATS_URL, or at nats://127.0.0.1:4222, and `asyncelt[nats]`.
On SIGTERM the service commits and acknowledges what it has. Killed without warning, it loses and doubles nothing
either: the positions of messages are committed with their rows. Start several of it, each with a MEMBER of its own and
a database server as destination, and they share the messages.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import nats
import orjson

import asyncelt

URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
STREAM = "orders"

pipeline = asyncelt.pipeline("orders", destination="duckdb", dataset_name="shop", member=os.environ.get("MEMBER", ""))


async def serve() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    source = asyncelt.sources.nats(STREAM, durable="loader", servers=URL)
    # orders.paid goes to the table "paid", orders.sent to "sent".
    orders = asyncelt.sources.events(
        source, table_name=lambda message: str(message.topic).partition(".")[2], metadata=["position"]
    )

    async with pipeline.stream(orders, roll=asyncelt.Roll(seconds=0.2)) as stream:
        print("loading", flush=True)
        await stopped.wait()

    # The end of the block has drained the stream.
    print(stream.stats, flush=True)


async def publish(count: int) -> None:
    client = await nats.connect(URL)
    jetstream = client.jetstream()
    await jetstream.add_stream(name=STREAM, subjects=[f"{STREAM}.*"])

    for number in range(count):
        order = {"id": number, "items": [{"sku": f"sku-{number % 7}", "count": 1 + number % 3}]}
        subject = f"{STREAM}.{'paid' if number % 2 else 'sent'}"
        await jetstream.publish(subject, orjson.dumps(order))

    await client.close()


async def acknowledged(number: int) -> None:
    """Wait until so many messages have been committed and acknowledged."""
    client = await nats.connect(URL)

    while True:
        try:
            floor = (await client.jetstream().consumer_info(STREAM, "loader")).ack_floor
        except nats.js.errors.NotFoundError:  # the service is about to make it
            floor = None

        if floor is not None and floor.stream_seq >= number:
            break

        await asyncio.sleep(0.05)

    await client.close()


def demonstrate() -> None:
    asyncio.run(publish(50))
    service = subprocess.Popen([sys.executable, __file__, "serve"])

    try:
        asyncio.run(asyncio.wait_for(acknowledged(50), 60))
    finally:
        service.send_signal(signal.SIGTERM)
        print("the service ended with", service.wait(30))


async def show() -> None:
    async with pipeline.sql_client() as sql:
        print(await sql.query("SELECT count(*) AS paid, count(DISTINCT id) AS different FROM paid"))
        print(await sql.query("SELECT sku, sum(count) AS sold FROM paid__items GROUP BY sku ORDER BY sku"))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        demonstrate()
        asyncio.run(show())
