"""Runs into Postgres, in which nothing may block the event loop."""

from __future__ import annotations

import pytest

import asyncelt
from asyncelt import destinations


async def numbers(count):
    for start in range(0, count, 10):
        yield [{"id": number, "tags": ["a", "b"]} for number in range(start, start + 10)]


def pipeline_on(dsn, folder, name="pg"):
    return asyncelt.pipeline(name, destination=destinations.postgres(dsn), dataset_name="raw", pipelines_dir=folder)


@pytest.mark.slow
async def test_a_pipeline_loads_merges_restores_and_reads_back(postgres_dsn, tmp_path):
    pipeline = pipeline_on(postgres_dsn, tmp_path / "one")
    await pipeline.run(numbers(20), table_name="items", primary_key="id", write_disposition="merge")
    info = await pipeline.run(numbers(30), table_name="items", primary_key="id", write_disposition="merge")

    assert "The postgres destination used postgresql://127.0.0.1" in str(info)
    assert dict(await pipeline.dataset().row_counts().fetchall()) == {"items": 30, "items__tags": 60}

    elsewhere = pipeline_on(postgres_dsn, tmp_path / "two")
    await elsewhere.sync_destination()
    assert elsewhere.state == pipeline.state
    sizes = [chunk.num_rows async for chunk in elsewhere.dataset()["items"].iter_arrow(12)]
    assert sizes == [12, 12, 6]
