"""One run of one scenario in a process of its own, to be killed at will. See `kill.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncelt

PAGES = 6
ROWS = 50
CHILDREN = 3

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


def run_once(scenario: str, folder: str, this_round: int, address: str) -> None:
    """One run, from start to end, into a database file or a server."""
    asyncio.run(_run(scenario, Path(folder), this_round, address))


async def _run(scenario: str, folder: Path, this_round: int, address: str) -> None:
    is_server = address.startswith("postgresql:")
    pipeline = asyncelt.pipeline(
        scenario,
        destination=(asyncelt.destinations.postgres if is_server else asyncelt.destinations.duckdb)(address),
        dataset_name="data",
        pipelines_dir=folder / "work",
    )

    if scenario == "state":
        await pipeline.run(numbers_from_state())
    elif scenario == "steps":
        # What a dead process has left in between comes first, and then a round of its own.
        await pipeline.normalize()
        await pipeline.load()
        await pipeline.extract(numbers_from_state())
        await pipeline.normalize()
        await pipeline.load()
    elif scenario == "merge":
        await pipeline.run(numbers_to_merge(this_round), on_pending="load_then_run")
    elif scenario == "replace":
        await pipeline.run(numbers_of_round(this_round), write_disposition="replace", on_pending="load_then_run")
    else:
        await pipeline.run(numbers_of_round(this_round), run_id=f"round-{this_round}", on_pending="load_then_run")
