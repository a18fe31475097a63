"""Runs into a bucket: nothing blocks the event loop, and a cancel leaves nothing that is in the next one's way."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

import asyncelt
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
POINTS = tuple(f"filesystem.{name}" for name in ("before_complete", "loaded", "before_marker", "after_marker"))


@asyncelt.resource(name="rows")
async def rows(noise=0, last=asyncelt.sources.incremental("id", initial_value=0)):
    """Five more than at the last time, of which one is large."""
    first = (last.last_value or 0) + 1

    yield [
        {"id": number, "noise": os.urandom(noise).hex() if number == first else "-"}
        for number in range(first, first + 5)
    ]


def pipeline_into(destination, folder):
    return asyncelt.pipeline("lake", destination=destination, dataset_name="raw", pipelines_dir=folder, on_busy="raise")


async def left_over(destination):
    """Open uploads, announced and staged files, data files that do not count, and who holds the pipeline."""
    prefix = f"{destination.site.config.prefix}/raw/"

    async with destination.connect(Target(pipeline_name="", dataset_name="raw")) as session:
        bucket, dataset = session._place.carrier._bucket, session._dataset
        counted = await asyncio.to_thread(
            lambda: dataset.finish() and {path for paths in dataset.table_files().values() for path in paths}
        )
        keys = [key.removeprefix(prefix) for key in await bucket.keys(prefix)]
        uploads = await bucket.uploads(prefix)
        lease = await bucket.read(f"{prefix}_asyncelt_leases/lake__.json")

    found = {key for key in keys if key.startswith(("_asyncelt_uploads/", "_asyncelt_staged/"))}
    orphans = {key for key in keys if key.endswith(".parquet") and key not in counted}

    return uploads, found | orphans, b'"released":true' in (lease or b'"released":true')


async def test_a_pipeline_loads_restores_and_reads_back(s3, tmp_path):
    pipeline = pipeline_into(s3, tmp_path / "one")

    for _ in range(2):
        await pipeline.run(rows(), loader_file_format="parquet")

    elsewhere = pipeline_into(s3, tmp_path / "two")
    await elsewhere.sync_destination()
    assert elsewhere.state == pipeline.state
    sizes = [chunk.num_rows async for chunk in elsewhere.dataset()["rows"].select("id").iter_arrow(4)]
    assert sizes == [4, 4, 2]
    assert await left_over(s3) == ([], set(), True)


async def test_a_cancelled_run_leaves_nothing_that_is_in_the_way(s3, tmp_path):
    """Within an upload in parts, before and after the marker. The next run does not wait, and has every row once."""
    destination = replace(s3, site=replace(s3.site, config=replace(s3.site.config, part_bytes=5 * MIB)))
    pipeline = pipeline_into(destination, tmp_path)
    loop, last, reached = asyncio.get_running_loop(), 0, []

    for point in POINTS:
        task = None

        def cancel(name, point=point):
            nonlocal task

            if name == point and task is not None:
                loop.call_soon_threadsafe(task.cancel)
                reached.append(name)
                task = None

        with installed(cancel):
            running = task = asyncio.create_task(pipeline.run(rows(6 * MIB), loader_file_format="parquet"))
            await asyncio.wait([running])

        uploads, _, is_released = await left_over(destination)
        assert (uploads, is_released) == ([], True), point

        await pipeline.run(loader_file_format="parquet")
        ids = await pipeline.dataset()["rows"].select("id").order_by("id").fetchall()
        last = len(ids)
        assert [number for (number,) in ids] == list(range(1, last + 1)), point

    assert tuple(reached) == POINTS
    await pipeline.run(rows(6 * MIB), loader_file_format="parquet")
    assert await left_over(destination) == ([], set(), True)
    assert await pipeline.dataset()["rows"].select("id").max().fetchall() == [(last + 5,)]
