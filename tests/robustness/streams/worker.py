"""A service that streams numbered messages into a destination, in a process of its own that may be killed."""

from __future__ import annotations

import asyncio
import signal
import warnings
from pathlib import Path

import asyncelt
from asyncelt.errors import AsynceltWarning
from asyncelt.extract.messages import EventSource
from asyncelt.failpoints import failpoint
from asyncelt.observe import Observer
from tests.robustness.streams.brokers import source_of

__all__ = ["STARTED", "consume", "pipeline_in"]

STARTED = "service.started"
"""In the log of failpoints: from now on SIGTERM drains."""
BATCH = 50


def pipeline_in(
    folder: Path,
    address: str,
    member: str = "",
    *,
    max_memory: int | asyncelt.ByteBudget | None = None,
    progress: Observer | None = None,
) -> asyncelt.Pipeline:
    """The pipeline, into a database file or a server."""
    is_server = address.startswith("postgresql:")

    return asyncelt.pipeline(
        "numbered",
        destination=(asyncelt.destinations.postgres if is_server else asyncelt.destinations.duckdb)(address),
        dataset_name="data",
        pipelines_dir=folder / "work",
        member=member,
        max_memory=max_memory,
        progress=progress,
    )


def consume(
    folder: str, kind: str, url: str, topic: str, address: str, member: str = "", again_after_s: float = 1.0
) -> None:
    """Stream until SIGTERM, then drain."""
    # Killed brokers make acknowledgements fail, and packages of the dead are given up: that is what is tested.
    warnings.simplefilter("ignore", AsynceltWarning)
    asyncio.run(_consume(source_of(kind, url, topic, again_after_s), pipeline_in(Path(folder), address, member)))


async def _consume(source: EventSource, pipeline: asyncelt.Pipeline) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    failpoint(STARTED)
    numbers = asyncelt.sources.events(source, table_name="numbers", batch=BATCH)

    async with pipeline.stream(numbers, roll=asyncelt.Roll(seconds=0.1)):
        await stopped.wait()
