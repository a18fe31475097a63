"""How fast is a stream into Postgres, and how soon is a message visible? Beside a loop that only fetches, and by hand.

Throughput: a topic is full when the clock starts, and each consumer reads it to its end, in a process of its own. The
tables are compared with what was published before a figure is shown. Latency: messages are published at a steady
rate, each says when, and another connection looks for new rows again and again.

Aims: at least 60 % of the bare loop, at least twice executemany, and p99 within the time of a roll and half a second.
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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine
from benchmarks.stream_consumers import SIDES, Figures, Job
from benchmarks.stream_data import BROKERS, Broker, broker_in, expected, found
from tests.support.postgres import PostgresServer

__all__ = ["Latency", "Speed", "latency", "speed"]

_ROOT = Path(__file__).resolve().parents[1]
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One consumer that has read a full topic."""

    broker: str
    side: str
    messages: int
    roll_s: float
    per_second: float
    cpu_s: float
    rss: int
    is_equal: bool
    """Whether the tables hold what was published, once; True for the loop that writes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """From publishing to being visible, in seconds."""

    broker: str
    side: str
    roll_s: float
    messages: int
    per_second: int
    p50: float
    p99: float
    worst: float
    is_equal: bool


def _start(job: Job) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.stream_consumers", json.dumps(dataclasses.asdict(job))]

    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_ROOT)


def _figures(process: subprocess.Popen[str]) -> Figures:
    printed, errors = process.communicate()

    if process.returncode:
        raise RuntimeError(errors.strip()[-800:] or f"exit code {process.returncode}")

    return Figures(**json.loads(printed.strip().splitlines()[-1]))


def speed(broker: Broker, server: PostgresServer, side: str, count: int, roll_s: float) -> Speed:
    """Fill a topic and let one consumer read it."""
    dsn = server.new_database()
    topic = f"speed_{side}_{next(server.numbers)}"
    asyncio.run(broker.fill(topic, count))
    job = Job(side=side, broker=broker.kind, url=broker.server.url, topic=topic, count=count, roll_s=roll_s, dsn=dsn)
    took = _figures(_start(job))
    is_equal = side == "bare" or found(dsn, f"{side}_{topic}", side) == expected(count)

    return Speed(
        broker=broker.kind,
        side=side,
        messages=count,
        roll_s=roll_s,
        per_second=count / took.seconds,
        cpu_s=took.cpu_s,
        rss=took.rss,
        is_equal=is_equal,
    )


def latency(
    broker: Broker, server: PostgresServer, side: str, *, count: int, per_second: int, roll_s: float
) -> Latency:
    """Publish at a steady rate to one consumer, and look when rows are there."""
    dsn = server.new_database()
    topic = f"latency_{side}_{next(server.numbers)}"
    asyncio.run(broker.make(topic))
    job = Job(side=side, broker=broker.kind, url=broker.server.url, topic=topic, count=count, roll_s=roll_s, dsn=dsn)
    process = _start(job)
    delays = asyncio.run(_watched(broker, topic, dsn, f"{side}_{topic}", count, per_second))
    _figures(process)
    cuts = statistics.quantiles(delays, n=100, method="inclusive")

    return Latency(
        broker=broker.kind,
        side=side,
        roll_s=roll_s,
        messages=count,
        per_second=per_second,
        p50=cuts[49],
        p99=cuts[98],
        worst=max(delays),
        is_equal=found(dsn, f"{side}_{topic}", side) == expected(count),
    )


async def _watched(broker: Broker, topic: str, dsn: str, schema: str, count: int, per_second: int) -> list[float]:
    """Delays of all messages but the first, which shows that the consumer has started: the others follow then."""
    connection = await asyncpg.connect(dsn)
    newer = f"SELECT id, sent FROM {schema}.orders WHERE id > $1"
    delays: list[float] = []
    last = -1
    await broker.pace(topic, range(1), per_second)
    publishing: asyncio.Task[None] | None = None

    while last < count - 1:
        await asyncio.sleep(_LOOK_EVERY_S)

        try:
            rows = await connection.fetch(newer, last)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            continue

        now = time.time()
        delays += [now - row["sent"] for row in rows if row["id"]]
        last = max((row["id"] for row in rows), default=last)

        if rows and publishing is None:
            publishing = asyncio.create_task(broker.pace(topic, range(1, count), per_second))

    await connection.close()

    return delays


def print_results(console: Console, speeds: Sequence[Speed], latencies: Sequence[Latency]) -> None:
    """Two tables."""
    table = Table(title="messages per second, a full topic to its end")

    for name in ("consumer", "messages/s", "of bare", "over executemany", "peak MB", "tables"):
        table.add_column(name, justify="left" if name == "consumer" else "right")

    for one in speeds:
        same = {other.side: other for other in speeds if other.broker == one.broker}
        told = f"{one.per_second:,.0f}" if one.is_equal else "-"
        of_bare = f"{one.per_second / same['bare'].per_second:.0%}" if "bare" in same else ""
        over = f"{one.per_second / same['executemany'].per_second:.1f}x" if "executemany" in same else ""
        verdict = "" if one.side == "bare" else "equal" if one.is_equal else "DIFFERENT"
        table.add_row(f"{one.broker}, {one.side}", told, of_bare, over, f"{one.rss / 2**20:.0f}", verdict)

    console.print(table)
    table = Table(title="seconds from publishing to being visible")

    for name in ("consumer", "roll", "messages/s", "p50", "p99", "worst", "tables"):
        table.add_column(name, justify="left" if name == "consumer" else "right")

    for seen in latencies:
        figures = [f"{value:.2f}" for value in (seen.p50, seen.p99, seen.worst)]
        verdict = "equal" if seen.is_equal else "DIFFERENT"
        where = f"{seen.broker}, {seen.side}"
        table.add_row(where, f"{seen.roll_s:g}", str(seen.per_second), *figures, verdict)

    console.print(table)


def write_plot(path: Path, speeds: Sequence[Speed], latencies: Sequence[Latency]) -> None:
    """Write a PNG; figures of consumers whose tables differ are left out."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4))
    held = [one for one in speeds if one.is_equal]
    left.barh([f"{one.broker}, {one.side}" for one in held], [one.per_second for one in held], color="#1b7f5c")
    left.set_xlabel("messages per second")
    seen = [one for one in latencies if one.is_equal]
    names = [f"{one.broker}, {one.side}, {one.roll_s:g} s" for one in seen]
    right.barh(names, [one.p99 for one in seen], color="#b9b9b9", label="p99")
    right.barh(names, [one.p50 for one in seen], color="#1b7f5c", label="p50")
    right.set_xlabel("seconds until visible")

    if seen:
        right.legend()

    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_stream", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="for throughput")
    parser.add_argument("--brokers", nargs="+", choices=BROKERS, default=BROKERS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--rolls", nargs="+", type=float, default=(1.0, 5.0), help="the first one for throughput")
    parser.add_argument("--rate", type=int, default=500, help="messages per second, for latency")
    parser.add_argument("--seconds", type=float, default=60.0, help="of publishing, for latency")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()

    if "faststream" in options.sides and find_spec("faststream") is None:
        parser.error("The peer is not installed: pip install 'asyncelt[bench]'; or name the others with --sides.")

    speeds: list[Speed] = []
    latencies: list[Latency] = []

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = stack.enter_context(PostgresServer(home / "server"))

        for kind in options.brokers:
            broker = broker_in(home, kind)
            broker.server.start()
            stack.callback(broker.server.kill)
            # The peer is read through JetStream, one broker is enough to see where it stands.
            sides = [side for side in options.sides if kind == "nats" or side != "faststream"]
            speeds += [speed(broker, server, side, options.messages, options.rolls[0]) for side in sides]

            for roll_s in options.rolls if options.seconds else ():
                latencies += [
                    latency(
                        broker,
                        server,
                        side,
                        count=round(options.rate * options.seconds),
                        per_second=options.rate,
                        roll_s=roll_s,
                    )
                    for side in sides
                    if side != "bare"
                ]

    print_results(Console(width=None if Console().is_terminal else 160), speeds, latencies)

    if options.json is not None:
        document: dict[str, Any] = {
            "machine": machine(),
            "speeds": [dataclasses.asdict(one) for one in speeds],
            "latencies": [dataclasses.asdict(one) for one in latencies],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")

    if options.plot is not None:
        write_plot(options.plot, speeds, latencies)


if __name__ == "__main__":
    main()
