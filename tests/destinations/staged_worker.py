"""A run into DuckDB by way of a staging destination, in a process of its own, to be killed. See `test_staging.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncelt
from asyncelt.load.protocol import Destination


def stage_of(folder: Path) -> Destination:
    """The staging destination that the test has made."""
    url, *server = (folder / "stage.txt").read_text().split()

    if not server:
        return asyncelt.destinations.filesystem(url)

    endpoint, key, secret = server
    credentials = {"aws_access_key_id": key, "aws_secret_access_key": secret}

    return asyncelt.destinations.filesystem(url, endpoint_url=endpoint, credentials=credentials)


async def run(folder: Path, this_round: int) -> None:
    """Three rows of a round."""
    pipeline = asyncelt.pipeline(
        "p",
        destination=asyncelt.destinations.duckdb(folder / "d.duckdb"),
        staging=stage_of(folder),
        dataset_name="data",
        pipelines_dir=folder / "work",
    )
    rows = [{"id": this_round * 10 + number, "tags": ["a", "b"]} for number in range(3)]
    await pipeline.run(rows, table_name="rows", run_id=f"round-{this_round}", on_pending="load_then_run")


def run_once(folder: str, this_round: int) -> None:
    """The run that is killed."""
    asyncio.run(run(Path(folder), this_round))
