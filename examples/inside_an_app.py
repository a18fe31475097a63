"""Ingest inside an application that has other work: side by side, bounded, watched, and cancelled cleanly.

The application's own task keeps its rhythm while three pipelines share the loop and one memory budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import asyncelt
from asyncelt.observe import Advanced, Event


class RowCounter:
    """An observer of our own: called on the loop for every step forward, so it does next to nothing."""

    def __init__(self) -> None:
        self.rows = 0

    def on_event(self, event: Event, /) -> None:
        if isinstance(event, Advanced) and event.stage == "extract":
            self.rows += event.rows


async def measurements(sensor: int, pages: int) -> AsyncIterator[list[dict]]:
    for page in range(pages):
        await asyncio.sleep(0.001)
        yield [{"sensor": sensor, "n": page * 200 + n, "value": n / 7, "ok": True} for n in range(200)]


async def heartbeat(delays: list[float]) -> None:
    """What the application does all the time; notes how late each beat came."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        delays.append(time.perf_counter() - before - 0.001)


async def main() -> None:
    budget = asyncelt.ByteBudget(64 * 1024 * 1024)
    counter = RowCounter()
    delays: list[float] = []
    pipelines = [
        asyncelt.pipeline(
            f"sensor_{number}", destination="duckdb", dataset_name="raw", max_memory=budget, progress=counter
        )
        for number in range(3)
    ]

    beating = asyncio.create_task(heartbeat(delays))

    async with asyncio.TaskGroup() as tasks:
        for number, pipeline in enumerate(pipelines):
            tasks.create_task(pipeline.run(measurements(number, pages=30), table_name="measurements"))

    # A run that takes too long is cancelled like any coroutine; nothing of it is left behind.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await pipelines[0].run(measurements(0, pages=10_000), table_name="measurements")

    beating.cancel()

    async with pipelines[0].sql_client() as sql:
        rows = (await sql.query("SELECT count(*) AS n FROM measurements")).to_pylist()[0]["n"]

    print(f"{rows} rows of sensor 0 are there: the whole first run, nothing of the cancelled one")
    print(f"{counter.rows} rows were read; the application's heartbeat was at most {max(delays) * 1000:.0f} ms late")


if __name__ == "__main__":
    asyncio.run(main())
