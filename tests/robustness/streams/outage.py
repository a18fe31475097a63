"""A destination that stands still, and one that is gone, while messages come in: memory stays bounded, all arrive once.

``python -m tests.robustness.streams.outage --seconds 60`` is the long form; the suite runs one of seconds. PostgreSQL
is stopped (SIGSTOP) in the midst of a stream, and later killed; after so many seconds it goes on, or is started again.
Meanwhile a producer offers more than the memory budget holds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import asyncelt
from asyncelt.errors import AsynceltWarning
from asyncelt.observe import DestinationAway, DestinationBack, Event, Warned
from tests.robustness.streams.brokers import BROKERS, Broker, broker_in, source_of
from tests.robustness.streams.counting import counted
from tests.robustness.streams.producer import Producer
from tests.robustness.streams.worker import BATCH, pipeline_in
from tests.support.postgres import PostgresServer

__all__ = ["Figures", "report", "through_outages"]

_BUDGET = 2 * 2**20
_HANGS_S = 120.0
_A_TIME = 100
"""Messages at a time, twenty times a second: enough to fill the budget."""


@dataclass
class Figures:
    """What was seen."""

    outages: dict[str, float] = field(default_factory=dict)
    """Seconds of each."""
    budget: int = _BUDGET
    peak: int = 0
    """Bytes of the budget in use at most."""
    rss: list[int] = field(default_factory=list)
    """Of this process, about ten times a second."""
    rss_before: int = 0
    warnings: int = 0
    retries: int = 0
    backs: int = 0
    waited_s: float = 0.0
    numbers: int = 0

    def on_event(self, event: Event, /) -> None:
        """Count what a user would hear."""
        self.warnings += isinstance(event, Warned)
        self.retries += isinstance(event, DestinationAway)
        self.backs += isinstance(event, DestinationBack)


async def through_outages(broker: Broker, server: PostgresServer, folder: Path, seconds: float) -> Figures:
    """Stream while the server is stopped, and while it is dead, for so many seconds each.

    Args:
        broker: Has been started.
        server: Gets a database.
        folder: For everything that lies on the disk; its name is the topic's.
        seconds: Of each outage.
    """
    address = await asyncio.to_thread(server.new_database)
    await broker.make(folder.name)
    figures = Figures()
    budget = asyncelt.ByteBudget(figures.budget)
    source = source_of(broker.kind, broker.server.url, folder.name)
    numbers = asyncelt.sources.events(source, table_name="numbers", batch=BATCH)
    pipeline = pipeline_in(folder, address, max_memory=budget, progress=figures)

    with Producer(broker, folder.name, a_time=_A_TIME) as producer:
        async with pipeline.stream(numbers, roll=asyncelt.Roll(seconds=0.2)) as stream, sampled(figures):
            await until(lambda: stream.stats.packages >= 3)
            figures.rss_before = psutil.Process().memory_info().rss

            async with outage(figures, "stopped", seconds):
                _signal(server, signal.SIGSTOP)
            _signal(server, signal.SIGCONT)
            await until(_more(stream))

            async with outage(figures, "down", seconds):
                await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await until(_more(stream))
            published = await asyncio.to_thread(producer.stop)
            rows = stream.stats.rows

            # What has gathered meanwhile may take many minutes.
            while rows < published:
                await until(_beyond(stream, rows))
                rows = stream.stats.rows

    figures.waited_s = stream.stats.waited_s
    figures.peak = budget.peak
    figures.numbers = published
    await asyncio.to_thread(counted, address, published)
    assert figures.peak <= figures.budget, f"{figures.peak} bytes of {figures.budget}"

    return figures


def _more(stream: asyncelt.Stream, packages: int = 3) -> Callable[[], bool]:
    before = stream.stats.packages

    return lambda: stream.stats.packages >= before + packages


def _beyond(stream: asyncelt.Stream, rows: int) -> Callable[[], bool]:
    return lambda: stream.stats.rows > rows


def _signal(server: PostgresServer, how: signal.Signals) -> None:
    """To the server and the processes of its connections."""
    assert server.process is not None
    parent = psutil.Process(server.process.pid)

    for one in (parent, *parent.children(recursive=True)):
        os.kill(one.pid, how)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something of the stream."""
    with_patience = time.monotonic() + _HANGS_S

    while not condition():
        assert time.monotonic() < with_patience, "nothing happens"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def outage(figures: Figures, name: str, seconds: float) -> AsyncIterator[None]:
    """The block begins it; so long it lasts."""
    yield
    began = time.monotonic()
    await asyncio.sleep(seconds)
    figures.outages[name] = time.monotonic() - began


@asynccontextmanager
async def sampled(figures: Figures) -> AsyncIterator[None]:
    """Take the size of this process beside the block."""
    process = psutil.Process()

    async def sample() -> None:
        while True:
            figures.rss.append(process.memory_info().rss)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(sample())

    try:
        yield
    finally:
        task.cancel()


def report(figures: Figures) -> str:
    """One paragraph."""
    mib = 2**20
    outages = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in figures.outages.items())

    return (
        f"PostgreSQL {outages}: {figures.numbers} messages there once; budget {figures.budget / mib:.1f} MiB, at most "
        f"{figures.peak / mib:.2f} MiB of it in use; process {figures.rss_before / mib:.0f} MiB before, at most "
        f"{max(figures.rss) / mib:.0f} MiB; sources waited {figures.waited_s:.0f} s; {figures.retries} attempts failed, "
        f"{figures.warnings} warnings, back {figures.backs} times."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=BROKERS, default="nats")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each outage")
    given = parser.parse_args()
    warnings.simplefilter("ignore", AsynceltWarning)

    with tempfile.TemporaryDirectory(prefix="outage-") as folder, PostgresServer(Path(folder) / "server") as server:
        broker = broker_in(Path(folder), given.broker)
        broker.server.start()

        try:
            print(report(asyncio.run(through_outages(broker, server, Path(folder) / "numbers", given.seconds))))
        finally:
            broker.server.kill()


if __name__ == "__main__":
    main()
