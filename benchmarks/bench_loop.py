"""Does the loop stay free? Delays of a 1 ms ticker while rows are ingested at full speed in the same loop.

The delay of a tick is how much later than asked the loop woke the task. Beside each figure stands the same ticker in
a loop that does nothing else, measured just before, in the same process: what is below it is the machine's own noise.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import orjson
from rich.console import Console
from rich.table import Table

import asyncelt
from asyncelt.extract.intervals import Intervals
from benchmarks.data import SHAPES, pool
from benchmarks.harness import address_of
from benchmarks.job import WARM, Job
from benchmarks.ours import destination_of

TICK = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One thing that goes on while the ticker ticks."""

    name: str
    shape: str
    form: str
    page_rows: int
    rows: int
    apart: int = 0
    """Of messages of a stream: how far their positions are from each other. 1 is a log; Redis has gaps everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Milliseconds."""

    p50: float
    p99: float
    worst: float
    ticks: int


LOADS = (
    Load(name="pages of 1,000 dicts", shape="flat", form="dict", page_rows=1_000, rows=1_000_000),
    Load(name="pages of 20,000 dicts", shape="flat", form="dict", page_rows=20_000, rows=1_000_000),
    Load(name="bodies of 10 MB", shape="flat", form="bytes", page_rows=50_000, rows=1_000_000),
    Load(name="nested dicts", shape="orders", form="dict", page_rows=1_000, rows=300_000),
    Load(name="nested bodies", shape="orders", form="bytes", page_rows=1_000, rows=300_000),
    Load(name="events, dicts", shape="events", form="dict", page_rows=200, rows=20_000),
    Load(name="events, bodies", shape="events", form="bytes", page_rows=200, rows=20_000),
    Load(name="a stream of messages", shape="flat", form="dict", page_rows=1_000, rows=300_000, apart=1),
    Load(name="messages with gaps", shape="flat", form="dict", page_rows=1_000, rows=300_000, apart=2),
)
TARGETS = {"duckdb": "duckdb", "filesystem": "parquet", "postgres": "postgres", "s3": "s3"}
"""What the other programs call them."""
STREAMED = ("duckdb", "postgres")
"""Those that keep positions."""


async def ticker(delays: list[float], stop: asyncio.Event) -> None:
    """Sleep a millisecond again and again, and note how late each waking was."""
    while not stop.is_set():
        asked = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        delays.append((time.perf_counter() - asked) * 1_000)


async def watched(work: Any) -> tuple[Delays, float]:
    """Delays while ``work`` is awaited, and how long it took."""
    delays: list[float] = []
    stop = asyncio.Event()
    task = asyncio.create_task(ticker(delays, stop))
    start = time.perf_counter()
    await work
    took = time.perf_counter() - start
    stop.set()
    await task

    return _summary(delays), took


def _summary(delays: Sequence[float]) -> Delays:
    ranked = sorted(delays)

    return Delays(
        p50=statistics.median(ranked), p99=ranked[int(len(ranked) * 0.99)], worst=ranked[-1], ticks=len(ranked)
    )


async def measure(load: Load, target: str, folder: Path, *, dsn: str = "") -> dict[str, Any]:
    """The idle loop, then the loop with the load, in this process."""
    made = pool(SHAPES[load.shape], page_rows=load.page_rows)
    held = list(made.pages(load.form, len(made.bodies) * load.page_rows))

    if load.apart:
        held = [[orjson.dumps(row) for row in page] for page in held]

    job = Job(side="ours", shape=load.shape, form=load.form, target=target, rows=load.rows, folder=str(folder), dsn=dsn)
    await _run(held[:1], load, dataclasses.replace(job, folder=str(folder / WARM)))
    idle, _ = await watched(asyncio.sleep(2))
    pages = [held[number % len(held)] for number in range(load.rows // load.page_rows)]
    busy, took = await watched(_run(pages, load, job))

    return {"idle": asdict(idle), "busy": asdict(busy), "rows_per_second": load.rows / took}


async def _run(pages: list[Any], load: Load, job: Job) -> None:
    folder = Path(job.folder)
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    pipeline = asyncelt.pipeline(
        "loop", destination=destination_of(job), dataset_name=job.dataset, pipelines_dir=str(folder / "work")
    )

    if load.apart:
        await pipeline.stream(_Messages(pages, load.apart), table_name=load.shape, loader_file_format="parquet")
        return

    async def source() -> AsyncIterator[Any]:
        for page in pages:
            yield page

    await pipeline.run(source(), table_name=load.shape, loader_file_format="parquet")


class _Messages:
    """Pages of JSON bodies as numbered messages."""

    name = "messages"

    def __init__(self, pages: list[Any], apart: int) -> None:
        self._pages = deque(pages)
        self._apart = apart
        self._last = 0

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        pass

    async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
        del most

        if not self._pages:
            return ()

        await anyio.lowlevel.checkpoint()
        bodies = self._pages.popleft()
        first, self._last = self._last + self._apart, self._last + len(bodies) * self._apart
        numbers = range(first, self._last + 1, self._apart)

        return [
            asyncelt.Message(body, asyncelt.Receipt("p", number), self)
            for body, number in zip(bodies, numbers, strict=True)
        ]

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        del receipts

        return {}

    async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
        pass

    async def close(self) -> None:
        pass


def main() -> None:
    """Each load to each destination, in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_loop", description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the rows")
    parser.add_argument("--destination", choices=TARGETS, nargs="+", default=tuple(TARGETS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    if options.one:
        asked = json.loads(options.one)

        with tempfile.TemporaryDirectory(prefix="asyncelt-bench-") as folder:
            result = asyncio.run(measure(Load(**asked["load"]), asked["target"], Path(folder), dsn=asked["dsn"]))

        print(json.dumps(result))
        return

    results = [
        _in_process(load, name, quick=options.quick)
        for load in LOADS
        for name in options.destination
        if name in STREAMED or not load.apart
    ]
    _print(results)

    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def _in_process(load: Load, destination: str, *, quick: bool) -> dict[str, Any]:
    rows = max(load.rows // (20 if quick else 1), load.page_rows)
    target = TARGETS[destination]
    asked = {"load": {**asdict(load), "rows": rows}, "target": target, "dsn": address_of(target)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_loop", "--one", json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": done.stderr[-400:]}

    return {"load": load.name, "destination": destination, "rows": rows, **found}


def _print(results: Sequence[dict[str, Any]]) -> None:
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title="delay of a 1 ms ticker in the loop of the run, ms (aim: p99 ≤ 20, worst ≤ 100)")

    for heading in ("load", "destination", "rows", "rows/s", "idle p99", "idle worst", "p50", "p99", "worst"):
        table.add_column(heading, justify="left" if heading in {"load", "destination"} else "right")

    for result in results:
        if "error" in result:
            table.add_row(result["load"], result["destination"], result["error"])
            continue

        idle, busy = result["idle"], result["busy"]
        figures = (idle["p99"], idle["worst"], busy["p50"], busy["p99"], busy["worst"])
        shown = [f"{result['rows']:,}", f"{result['rows_per_second']:,.0f}", *(f"{figure:.1f}" for figure in figures)]
        table.add_row(result["load"], result["destination"], *shown)

    console.print(table)


if __name__ == "__main__":
    main()
