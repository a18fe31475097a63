"""A job through the reference library, at its defaults and at settings that make it faster.

Byte pages are parsed by orjson in the source, as its users do; dict and Arrow pages are yielded as they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks.data import KEY as ID, Pool
from benchmarks.job import WARM, Job, Measured, Meter, cpu_seconds, largest_child
from tests.support.seaweed import KEY, SECRET

__all__ = ["SETTINGS", "candidates", "measure"]

PLAIN = {"DATA_WRITER__DISABLE_COMPRESSION": "true"}
ROTATE = "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS"
SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "no gzip": PLAIN,
    "no gzip, 2 workers, file rotation": {**PLAIN, ROTATE: "{quarter}", "NORMALIZE__WORKERS": "2"},
    "no gzip, large buffers": {**PLAIN, "DATA_WRITER__BUFFER_MAX_ITEMS": "50000"},
    "parquet, no gzip": {**PLAIN, "format": "parquet"},
    "parquet, no gzip, 2 workers, file rotation": {
        **PLAIN,
        ROTATE: "{quarter}",
        "NORMALIZE__WORKERS": "2",
        "format": "parquet",
    },
    "csv, no gzip": {**PLAIN, "format": "csv"},
    "csv, no gzip, 2 workers, file rotation": {
        **PLAIN,
        ROTATE: "{quarter}",
        "NORMALIZE__WORKERS": "2",
        "format": "csv",
    },
    "jsonl, no gzip, 2 workers, file rotation": {
        **PLAIN,
        ROTATE: "{quarter}",
        "NORMALIZE__WORKERS": "2",
        "format": "jsonl",
    },
}
"""Environment per name. ``format`` is the loader file format; to files it is Parquet on both sides, always."""


def candidates(target: str) -> list[str]:
    """The settings that make sense for a target."""
    formats = {"parquet": (), "s3": (), "duckdb": ("parquet", "jsonl"), "postgres": ("parquet", "csv")}[target]
    others = tuple({"parquet", "jsonl", "csv"}.difference(formats))

    return [name for name in SETTINGS if not name.startswith(others)]


def measure(job: Job, pool: Pool) -> Measured:
    """Run the job once, after a small warm-up run elsewhere. Must be the only run of its process."""
    settings = {key: value.format(quarter=max(job.rows // 4, 1)) for key, value in SETTINGS[job.settings].items()}
    _environment(settings, Path(job.folder))
    warm = replace(job, folder=str(Path(job.folder) / WARM), rows=5 * pool.shape.page_rows, fresh=False)
    _run(warm, warm.pages(pool), settings)
    pages = job.pages(pool)
    meter, cpu, start = Meter(), cpu_seconds(), time.perf_counter()
    _run(job, pages, settings)
    wall, used = time.perf_counter() - start, cpu_seconds() - cpu

    return Measured(
        wall=wall,
        cpu=used,
        rss_before=meter.before,
        rss_peak=meter.peak(),
        rss_children=largest_child(),
        settings=settings,
    )


def _parsed(pages: Iterable[bytes]) -> Iterator[Any]:
    for page in pages:
        yield orjson.loads(page)


def _environment(settings: dict[str, str], folder: Path) -> None:
    os.environ.update(
        RUNTIME__DLTHUB_TELEMETRY="false",
        RUNTIME__LOG_LEVEL="CRITICAL",
        ENABLE_RUNTIME_TRACE="false",
        DLT_DATA_DIR=str(folder / "home"),
    )
    os.environ.update({key: value for key, value in settings.items() if key != "format"})


def _run(job: Job, pages: Iterable[Any], settings: dict[str, str]) -> None:
    import dlt

    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = dlt.pipeline(
        "bench", destination=_destination(dlt, job), dataset_name=job.dataset, pipelines_dir=str(folder / "pipelines")
    )
    resource = dlt.resource(
        _parsed(pages) if job.form == "bytes" else pages,
        name=job.shape,
        write_disposition=job.write_disposition,
        primary_key=None if job.write == "append" else ID,
        table_format=job.table_format,
    )
    pipeline.run(resource, loader_file_format="parquet" if job.is_files else settings.get("format"))


def _destination(dlt: Any, job: Job) -> Any:
    if job.target == "duckdb":
        return dlt.destinations.duckdb(str(job.output))

    if job.target == "postgres":
        return dlt.destinations.postgres(job.dsn)

    if job.target == "s3":
        credentials = {
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "endpoint_url": job.dsn,
            "region_name": "us-east-1",
        }

        return dlt.destinations.filesystem(job.bucket_url, credentials=credentials)

    return dlt.destinations.filesystem(job.output.as_uri())
