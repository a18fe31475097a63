"""One run of one scenario in a process of its own, to be killed at will. See `kill.py`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncelt
from asyncelt.destinations.filesystem_impl import pieces
from asyncelt.load.protocol import Destination
from tests.support.seaweed import KEY, SECRET

PAGES = 6
ROWS = 50
CHILDREN = 3
FOLDED = "ASYNCELT_TEST_FOLDED"
"""Variable of the environment: after how many commits a dataset of files folds them."""

Row = dict[str, object]


def row(number: int, version: int = 0) -> Row:
    """A row with children that name their parent, so that they can be counted by it."""
    return {
        "id": number,
        "version": version,
        "parts": [{"of": number, "version": version, "nr": nr} for nr in range(CHILDREN)],
    }


@asyncelt.resource(name="numbers")
async def numbers_from_state() -> AsyncIterator[list[Row]]:
    """Numbers from where the state says the last run ended."""
    state = asyncelt.current.resource_state()
    last = state.get("last", 0)
    assert isinstance(last, int)

    for _ in range(PAGES):
        yield [row(number) for number in range(last + 1, last + 1 + ROWS)]
        last += ROWS
        state["last"] = last
        await asyncio.sleep(0)


@asyncelt.resource(name="numbers", primary_key="id", write_disposition="merge")
async def numbers_to_merge(version: int) -> AsyncIterator[list[Row]]:
    """All numbers, each time with a new version."""
    for page in range(PAGES):
        yield [row(number, version) for number in range(page * ROWS, (page + 1) * ROWS)]
        await asyncio.sleep(0)


@asyncelt.resource(name="numbers")
async def numbers_of_round(this_round: int) -> AsyncIterator[list[Row]]:
    """The numbers of one round; the source knows nothing of earlier ones."""
    first = this_round * PAGES * ROWS

    for page in range(PAGES):
        yield [row(number) for number in range(first + page * ROWS, first + (page + 1) * ROWS)]
        await asyncio.sleep(0)


def destination_of(address: str) -> Destination:
    """A database file, a connection string, or ``<bucket url> <endpoint> <plain, delta or iceberg> <catalog>``."""
    if address.startswith("postgresql:"):
        return asyncelt.destinations.postgres(address)

    if not address.startswith("s3:"):
        return asyncelt.destinations.duckdb(address)

    url, endpoint, _, catalog = address.split()

    return asyncelt.destinations.filesystem(
        url,
        endpoint_url=endpoint,
        credentials={"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"},
        iceberg_catalog=catalog,
    )


def _table_format_of(address: str) -> str | None:
    kind = address.split()[2] if address.startswith("s3:") else "plain"

    return None if kind == "plain" else kind


def run_once(scenario: str, folder: str, this_round: int, address: str) -> None:
    """One run, from start to end, into a database file or a server."""
    if folded := os.environ.get(FOLDED):
        # Else a journal has to be very long.
        pieces.FOLDED = int(folded)  # type: ignore[misc]

    asyncio.run(_run(scenario, Path(folder), this_round, address))


async def _run(scenario: str, folder: Path, this_round: int, address: str) -> None:
    pipeline = asyncelt.pipeline(
        scenario,
        destination=destination_of(address),
        dataset_name="data",
        pipelines_dir=folder / "work",
    )

    table_format = _table_format_of(address)

    if scenario == "state":
        await pipeline.run(numbers_from_state(), table_format=table_format)
    elif scenario == "steps":
        # What a dead process has left in between comes first, and then a round of its own.
        await pipeline.normalize()
        await pipeline.load()
        await pipeline.extract(numbers_from_state(), table_format=table_format)
        await pipeline.normalize()
        await pipeline.load()
    elif scenario == "merge":
        await pipeline.run(numbers_to_merge(this_round), on_pending="load_then_run", table_format=table_format)
    elif scenario == "replace":
        await pipeline.run(
            numbers_of_round(this_round),
            write_disposition="replace",
            on_pending="load_then_run",
            table_format=table_format,
        )
    else:
        await pipeline.run(
            numbers_of_round(this_round),
            run_id=f"round-{this_round}",
            on_pending="load_then_run",
            table_format=table_format,
        )
