"""Streams from NATS into DuckDB, in a process of its own that may be killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import nats.js.errors
from nats.aio.client import Client

import asyncelt

__all__ = ["pipeline_in", "stream_all", "streamed"]


def pipeline_in(folder: Path, member: str = "") -> asyncelt.Pipeline:
    return asyncelt.pipeline(
        "killed",
        destination=asyncelt.destinations.duckdb(str(folder / "data.duckdb")),
        dataset_name="data",
        pipelines_dir=folder / "work",
        member=member,
    )


async def acknowledged(client: Client, stream: str) -> int:
    """Up to which message the server has heard of the commit."""
    try:
        info = await client.jetstream().consumer_info(stream, "d")
    except nats.js.errors.NotFoundError:
        return 0

    return info.ack_floor.stream_seq if info.ack_floor is not None else 0


async def streamed(folder: Path, url: str, stream: str, until: int, member: str = "") -> asyncelt.StreamStats:
    """Stream until the message with this number has been committed, once for all or by an earlier process."""
    source = asyncelt.sources.nats(stream, durable="d", servers=url)
    pipeline = pipeline_in(folder, member)
    running = pipeline.stream(asyncelt.sources.events(source, table_name="numbers"), roll=asyncelt.Roll(seconds=0.05))

    async def all_there() -> None:
        client = await nats.connect(url)

        while await acknowledged(client, stream) < until:
            await asyncio.sleep(0.02)

        await client.close()

    async with running:
        await all_there()

    return running.stats


def stream_all(folder: str, url: str, stream: str, until: int, member: str = "") -> None:
    """The process that is killed."""
    asyncio.run(streamed(Path(folder), url, stream, until, member))
