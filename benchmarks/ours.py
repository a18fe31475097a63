"""A job through asyncelt: the whole ``run()``, from the first page to the commit, at its defaults."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

import asyncelt
from benchmarks.data import KEY as ID, Pool
from benchmarks.job import WARM, Job, Measured, Meter, cpu_seconds
from tests.support.seaweed import KEY, SECRET

__all__ = ["destination_of", "measure", "run"]


def measure(job: Job, pool: Pool) -> Measured:
    """Run the job once, after a small warm-up run elsewhere."""
    return anyio.run(_measure, job, pool)


async def _measure(job: Job, pool: Pool) -> Measured:
    warm = replace(job, folder=str(Path(job.folder) / WARM), rows=5 * pool.shape.page_rows, fresh=False)
    await run(warm, warm.pages(pool))
    pages = job.pages(pool)
    meter, cpu, start = Meter(), cpu_seconds(), time.perf_counter()
    pipeline = await run(job, pages)
    measured = Measured(
        wall=time.perf_counter() - start, cpu=cpu_seconds() - cpu, rss_before=meter.before, rss_peak=meter.peak()
    )

    return replace(measured, found=await _count(pipeline, job.shape)) if job.fresh else measured


async def run(job: Job, pages: Iterable[Any]) -> asyncelt.Pipeline:
    """The run alone: whatever is measured around it, its imports included, is the caller's."""
    folder = Path(job.folder)
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    pipeline = asyncelt.pipeline(
        "bench", destination=destination_of(job), dataset_name=job.dataset, pipelines_dir=str(folder / "pipelines")
    )
    await pipeline.run(
        _source(pages),
        table_name=job.shape,
        write_disposition=job.write_disposition,
        primary_key=None if job.write == "append" else ID,
        loader_file_format="parquet" if job.is_files else None,
        table_format=job.table_format,
    )

    return pipeline


async def _count(pipeline: asyncelt.Pipeline, table: str) -> int:
    async with pipeline.sql_client() as sql:
        found = await sql.query(f"SELECT count(*) AS rows, count(DISTINCT {ID}) AS ids FROM {table}")

    counted = found.to_pylist()[0]

    if counted["rows"] != counted["ids"]:
        raise RuntimeError(f"{table} has rows twice: {counted}")

    return int(counted["rows"])


def destination_of(job: Job) -> Any:
    """Where the rows of a job go."""
    if job.target == "duckdb":
        return asyncelt.destinations.duckdb(str(job.output))

    if job.target == "postgres":
        return asyncelt.destinations.postgres(job.dsn)

    if job.target == "s3":
        credentials = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}

        return asyncelt.destinations.filesystem(job.bucket_url, endpoint_url=job.dsn, credentials=credentials)

    return asyncelt.destinations.filesystem(job.output.as_uri())


async def _source(pages: Iterable[Any]) -> AsyncIterator[Any]:
    for page in pages:
        yield page
