"""A job through asyncelt: the whole ``run()``, from the first page to the commit, at its defaults."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

import asyncelt
from asyncelt.types import FileFormat
from benchmarks.data import Pool
from benchmarks.job import WARM, Job, Measured, Meter, cpu_seconds
from tests.support.seaweed import KEY, SECRET

__all__ = ["SETTINGS", "measure"]

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "1 worker": {"normalize_workers": 1},
    "4 workers": {"normalize_workers": 4},
}


def measure(job: Job, pool: Pool) -> Measured:
    """Run the job once, after a small warm-up run elsewhere."""
    return anyio.run(_measure, job, pool)


async def _measure(job: Job, pool: Pool) -> Measured:
    warm = replace(job, folder=str(Path(job.folder) / WARM), rows=5 * pool.shape.page_rows)
    await _run(warm, list(pool.pages(job.form, warm.rows)))
    pages = pool.pages(job.form, job.rows, fresh=True) if job.fresh else _held(pool, job)
    meter, cpu, start = Meter(), cpu_seconds(), time.perf_counter()
    await _run(job, pages)

    return Measured(
        wall=time.perf_counter() - start,
        cpu=cpu_seconds() - cpu,
        rss_before=meter.before,
        rss_peak=meter.peak(),
        settings={"normalize_workers": 2, **SETTINGS[job.settings]},
    )


def _held(pool: Pool, job: Job) -> Iterable[Any]:
    pages = list(pool.pages(job.form, len(pool.bodies) * pool.shape.page_rows))
    count = job.rows // pool.shape.page_rows

    return (pages[number % len(pages)] for number in range(count))


async def _run(job: Job, pages: Iterable[Any]) -> None:
    folder = Path(job.folder)
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    settings = asyncelt.Settings(limits=asyncelt.Limits(**SETTINGS[job.settings]))
    pipeline = asyncelt.pipeline(
        "bench",
        destination=_destination(job),
        dataset_name=job.dataset,
        pipelines_dir=str(folder / "pipelines"),
        settings=settings,
    )
    loader_file_format: FileFormat | None = "parquet" if job.is_files else None
    table_format = job.target if job.target in {"delta", "iceberg"} else None
    await pipeline.run(
        _source(pages), table_name=job.shape, loader_file_format=loader_file_format, table_format=table_format
    )


def _destination(job: Job) -> Any:
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
