"""A web application that takes events, answers queries meanwhile, and loses nothing when it is told to stop.

    python examples/fastapi_events.py serve     # the application, until SIGTERM or Ctrl-C
    python examples/fastapi_events.py           # starts it, sends events, stops it, and shows what is in the database

Needs `pip install fastapi uvicorn httpx`.

Webhooks are answered when their event is committed; the application's own events go through a channel. Both are one
stream, which lives as long as the application: when uvicorn gets SIGTERM it finishes its requests, then the lifespan
ends, and with it the stream, which commits what it has read. Only what `send` has answered for is sure to be there:
with `until="accepted"` that is a place in the channel's queue.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI

import asyncelt

pipeline = asyncelt.pipeline("shop_events", destination="duckdb", dataset_name="events")
orders = asyncelt.sources.webhook("orders", dedup_key="Idempotency-Key")
visits = asyncelt.sources.channel("visits")
ROLL = asyncelt.Roll(seconds=0.2)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with pipeline.stream([asyncelt.sources.events(orders), asyncelt.sources.events(visits)], roll=ROLL) as stream:
        app.state.stream = stream

        yield


app = FastAPI(lifespan=lifespan)
app.mount("/hooks", orders)


@app.get("/visit/{page}")
async def visit(page: str) -> dict[str, str]:
    await visits.send({"page": page, "at": time.time()}, until="accepted")  # nobody waits for its commit

    return {"page": page}


@app.get("/stats")
async def stats() -> dict[str, int]:
    return {"committed_rows": app.state.stream.stats.rows}


def demonstrate() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    server = subprocess.Popen([sys.executable, __file__, "serve"], env={**os.environ, "PORT": str(port)})

    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            until_it_answers(client)

            for number in (1, 2, 2):  # the last one is sent again, as if its answer had been lost
                key = {"Idempotency-Key": f"order-{number}"}
                answer = client.post("/hooks/", json={"id": number, "items": [{"sku": "a"}]}, headers=key)
                print("order", number, answer.status_code)

            for page in ("home", "cart"):
                client.get(f"/visit/{page}")

            print(client.get("/stats").json())
    finally:
        server.send_signal(signal.SIGTERM)
        print("the application ended by signal", -server.wait(30))  # uvicorn passes it on when all is done


def until_it_answers(client: httpx.Client) -> None:
    for _ in range(300):
        try:
            client.get("/stats")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return

    raise RuntimeError("the application does not answer")


async def show() -> None:
    async with pipeline.sql_client() as sql:
        print(await sql.query("SELECT id, _dedup_key FROM orders ORDER BY id"))
        print(await sql.query("SELECT page FROM visits ORDER BY page"))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), log_level="warning")
    else:
        import asyncio

        demonstrate()
        asyncio.run(show())
