"""Does a stream stay as it is? Messages through a channel, rolls every 0.2 s, thousands of packages in a row.

Every few seconds: resident size, time of a commit, bytes of the working folder and of the database, bytes of state.
Expected: all of them flat but the database, which grows with its rows. The slope is that of a straight line through
the last two thirds, told as growth over them in percent of their mean; it should be within 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

import asyncelt
from asyncelt.observe import Event, PackageCommitted
from benchmarks.harness import machine
from tests.support.postgres import PostgresServer, ask

__all__ = ["Sample", "month", "slope"]

_ROLL_S = 0.2
_IN_FLIGHT = 2_000
_BURST = 100
"""Messages that are sent without looking at the clock."""
_STATE = ("head.json",)
MEASURES = ("rss", "lag_s", "folder", "files", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One moment."""

    seconds: float
    messages: int
    packages: int
    rss: int
    lag_s: float
    """Median age of the packages since the last sample when they were committed."""
    folder: int
    """Bytes of the pipeline's working folder."""
    files: int
    """Files in it."""
    state: int
    """Bytes of the state and the schema that a package carries."""
    database: int


@dataclass(slots=True)
class _Watch:
    """An observer that keeps what a sample needs."""

    lags: list[float] = field(default_factory=list)

    def on_event(self, event: Event, /) -> None:
        """Keep the lag of each package."""
        if isinstance(event, PackageCommitted):
            self.lags.append(event.lag_s)


async def month(
    home: Path,
    count: int,
    *,
    address: str,
    every_s: float,
    within_s: float = math.inf,
    per_second: float = math.inf,
) -> list[Sample]:
    """Send so many messages, and look every so many seconds.

    Args:
        home: For the working folder.
        count: Messages.
        within_s: No more are sent after that.
        address: A database file or a connection string.
        every_s: Between two samples.
        per_second: Messages; endless: as fast as they are accepted.
    """
    watch = _Watch()
    is_server = address.startswith("postgresql:")
    pipeline = asyncelt.pipeline(
        "month",
        destination=(asyncelt.destinations.postgres if is_server else asyncelt.destinations.duckdb)(address),
        dataset_name="raw",
        pipelines_dir=home / "work",
        progress=watch,
    )
    orders = asyncelt.sources.channel("orders", capacity=_IN_FLIGHT)
    samples: list[Sample] = []
    began = time.perf_counter()

    async def send() -> int:
        sent = 0

        for number in range(count):
            if time.perf_counter() - began > within_s:
                break

            if number % _BURST == 0:
                await asyncio.sleep(number / per_second - (time.perf_counter() - began))

            await orders.send(_order(number), until="accepted")
            sent += 1

        orders.end()

        return sent

    def look(stats: asyncelt.StreamStats) -> None:
        lags, watch.lags = watch.lags, []
        sizes = _sizes(home / "work")
        samples.append(
            Sample(
                seconds=time.perf_counter() - began,
                messages=stats.messages,
                packages=stats.packages,
                rss=psutil.Process().memory_info().rss,
                lag_s=statistics.median(lags) if lags else 0.0,
                folder=sum(sizes.values()),
                files=len(sizes),
                state=sum(size for path, size in sizes.items() if path.name in _STATE),
                database=_database_size(address),
            )
        )

    async with pipeline.stream(orders, roll=asyncelt.Roll(seconds=_ROLL_S)) as stream:
        sending = asyncio.create_task(send())
        ended = asyncio.create_task(stream.ended())

        while not ended.done():
            await asyncio.wait([ended], timeout=every_s)
            await asyncio.to_thread(look, stream.stats)

    await _check(pipeline, await sending)

    return samples


def _order(number: int) -> dict[str, object]:
    return {"id": number, "status": "paid", "items": [{"sku": f"s{number % 97}", "count": 1 + number % 3}]}


def _sizes(folder: Path) -> dict[Path, int]:
    found = {}

    # Walking passes over folders that have just gone, and so do we over files.
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                path = Path(place, name)
                found[path] = path.stat().st_size

    return found


def _database_size(address: str) -> int:
    if address.startswith("postgresql:"):
        return int(ask(address, "SELECT pg_database_size(current_database())")[0][0])

    return Path(address).stat().st_size if Path(address).exists() else 0


async def _check(pipeline: asyncelt.Pipeline, count: int) -> None:
    async with pipeline.sql_client() as sql:
        found = await sql.query(
            "SELECT count(*) AS rows, count(DISTINCT id) AS ids, min(id) AS first, max(id) AS last FROM orders"
        )
        items = await sql.query("SELECT count(*) AS items FROM orders__items")

    row = {**found.to_pylist()[0], **items.to_pylist()[0]}

    if row != {"rows": count, "ids": count, "first": 0, "last": count - 1, "items": count}:
        raise RuntimeError(f"not everything is there once: {row} of {count}")


def slope(samples: Sequence[Sample], measure: str) -> float:
    """Growth over the last two thirds, by a straight line through them, as a part of their mean."""
    last = samples[len(samples) // 3 :]
    values = [float(getattr(one, measure)) for one in last]
    mean = statistics.fmean(values)

    if len(last) < 3 or not mean:
        return 0.0

    line = statistics.linear_regression([one.seconds for one in last], values)

    return line.slope * (last[-1].seconds - last[0].seconds) / mean


def write_plot(path: Path, samples: Sequence[Sample]) -> None:
    """Write a PNG: each measure over the messages."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(MEASURES), figsize=(4 * len(MEASURES), 3))

    for axis, measure in zip(axes, MEASURES, strict=True):
        axis.plot([one.messages / 1e6 for one in samples], [getattr(one, measure) for one in samples], color="#1b7f5c")
        axis.set_ylim(bottom=0)
        axis.set_title(f"{measure}, {slope(samples, measure):+.1%}")
        axis.set_xlabel("million messages")

    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_month", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="send no more after that")
    parser.add_argument("--per-second", type=float, default=math.inf, help="messages; as many as are accepted")
    parser.add_argument("--destination", choices=("duckdb", "postgres"), default="duckdb")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="month-")))
        address = str(home / "month.duckdb")

        if options.destination == "postgres":
            address = stack.enter_context(PostgresServer(home / "server")).new_database()

        course = month(
            home,
            options.messages,
            address=address,
            every_s=options.every,
            within_s=options.minutes * 60,
            per_second=options.per_second,
        )
        samples = asyncio.run(course)

    last = samples[-1]
    table = Table(
        title=f"{last.messages:,} messages in {last.packages:,} packages and {last.seconds:,.0f} s into "
        f"{options.destination}, each there once"
    )

    for name in ("measure", "after a third", "at the end", "growth over the last two thirds"):
        table.add_column(name, justify="left" if name == "measure" else "right")

    for measure in MEASURES:
        values = [getattr(samples[len(samples) // 3], measure), getattr(last, measure)]
        table.add_row(measure, *(f"{value:,.3g}" for value in values), f"{slope(samples, measure):+.1%}")

    Console(width=None if Console().is_terminal else 160).print(table)

    if options.json is not None:
        document = {"machine": machine(), "samples": [dataclasses.asdict(one) for one in samples]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")

    if options.plot is not None:
        write_plot(options.plot, samples)


if __name__ == "__main__":
    main()
