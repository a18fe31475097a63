"""Brokers' sources, and streams, may be described where no event loop runs, at the top of a module for instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import asyncelt


@pytest.mark.parametrize(
    "make",
    [
        lambda: asyncelt.sources.kafka("orders", group="g", servers="127.0.0.1:9"),
        lambda: asyncelt.sources.nats("orders", durable="d", subject="orders", servers="nats://127.0.0.1:9"),
        lambda: asyncelt.sources.redis_stream("orders", group="g", url="redis://127.0.0.1:9"),
    ],
    ids=["kafka", "nats", "redis"],
)
def test_a_source_needs_no_loop_to_be_made(make: Callable[[], asyncelt.EventSource]) -> None:
    assert make().name


def test_a_stream_can_be_made_before_the_loop_that_runs_it(tmp_path: Path) -> None:
    @asyncelt.resource
    async def pages() -> AsyncIterator[object]:
        yield [{"id": 1}]
        yield asyncelt.checkpoint()

    memory = asyncelt.destinations.memory()
    pipeline = asyncelt.pipeline("p", destination=memory, dataset_name="data", pipelines_dir=tmp_path)
    stream = pipeline.stream(pages())
    stats = asyncio.run(stream.run())
    assert stats.rows == 1
    assert memory.tables("data")["pages"].num_rows == 1
