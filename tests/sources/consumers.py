"""Streams from brokers into DuckDB, in a process of its own that may be killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncelt
from asyncelt.extract.messages import EventSource
from asyncelt.sources.kafka_partitions import Holding

__all__ = ["NUMBERS", "held_by", "numbers_in", "pipeline_in", "source_of", "stream_all", "streamed"]

NUMBERS = "numbers"


def pipeline_in(folder: Path, member: str = "", **options: object) -> asyncelt.Pipeline:
    return asyncelt.pipeline(
        "killed",
        destination=asyncelt.destinations.duckdb(str(folder / "data.duckdb")),
        dataset_name="data",
        pipelines_dir=folder / "work",
        member=member,
        **options,  # type: ignore[arg-type]
    )


QUICKLY_S = 0.2
KAFKA = {"session_timeout_ms": 1000, "heartbeat_interval_ms": 200}
"""Rebalances are noticed soon, dead members as soon as brokers allow."""
PATIENTLY_S = 3600.0


def held_by(source: asyncelt.sources.KafkaSource) -> list[Holding]:
    """The partitions that it has claimed."""
    return [] if source._partitions is None else list(source._partitions.held.values())


def source_of(kind: str, url: str, topic: str, claim_after_s: float = QUICKLY_S) -> EventSource:
    """The source of this kind, quick to take over what a dead one has left, or what it has itself, if it is slow."""
    if kind == "kafka":
        return asyncelt.sources.kafka(topic, group=topic, servers=url, **KAFKA)

    return asyncelt.sources.redis_stream(topic, group="g", url=url, field="data", claim_after_s=claim_after_s)


async def numbers_in(folder: Path) -> list[int]:
    """What is in the table, in order; nothing if there is none yet."""
    async with pipeline_in(folder).sql_client() as client:
        try:
            found = await client.query(f"SELECT n FROM {NUMBERS} ORDER BY n")
        except (asyncelt.errors.LoadError, asyncelt.errors.QueryError):
            return []

    return [int(row["n"]) for row in found.to_pylist()]


async def streamed(
    folder: Path,
    kind: str,
    url: str,
    topic: str,
    until: int,
    member: str = "",
    claim_after_s: float = QUICKLY_S,
) -> asyncelt.StreamStats:
    """Stream until so many different numbers have been committed, by whomever, and acknowledge them."""
    pipeline = pipeline_in(folder, member)
    source = asyncelt.sources.events(source_of(kind, url, topic, claim_after_s), table_name=NUMBERS)

    async with pipeline.stream(source, roll=asyncelt.Roll(seconds=0.05)) as running:
        while len(set(await numbers_in(folder))) < until:
            await asyncio.sleep(0.05)

    return running.stats


def stream_all(folder: str, kind: str, url: str, topic: str, until: int, member: str = "") -> None:
    """The process that is killed."""
    asyncio.run(streamed(Path(folder), kind, url, topic, until, member))
