"""A dataset that both sides carry on in turn: the cursor's state, digests included, is the same to both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning
from tests.differential.reading import read_dataset
from tests.differential.round_trip_worker import CURSORS, DATASET, PIPELINE, RUNS, main, rows_of

pytestmark = [pytest.mark.differential, pytest.mark.slow, pytest.mark.timeout(600)]

Side = Callable[[Path, str, int], Awaitable[None]]


@pytest.fixture
def theirs(run_dlt: Callable[..., Awaitable[None]]) -> Side:
    """One run by the reference."""
    return lambda folder, kind, run: run_dlt(main, folder, kind, run)


async def _ours(folder: Path, kind: str, run: int) -> None:
    pipeline = asyncelt.pipeline(
        PIPELINE,
        destination=asyncelt.destinations.duckdb(str(folder / "turns.duckdb")),
        dataset_name=DATASET,
        pipelines_dir=str(folder / f"ours-{run}"),
    )
    await pipeline.run(asyncelt.resource(rows_of(run), name="rows", incremental=CURSORS[kind]))


def _loaded(folder: Path) -> Counter[object]:
    data = read_dataset(folder / "turns.duckdb", DATASET).tables["rows"]

    return Counter(row[data.names.index("id")] for row in data.rows)


@pytest.mark.parametrize("kind", CURSORS)
async def test_rows_are_loaded_once_whoever_loads_them(kind: str, tmp_path: Path, theirs: Side) -> None:
    turns = {"ours": (_ours,) * 5, "theirs-first": (theirs, _ours) * 3, "ours-first": (_ours, theirs) * 3}
    found = {}

    for name, sides in turns.items():
        (tmp_path / name).mkdir()

        for run, side in enumerate(sides[: len(RUNS)]):
            await side(tmp_path / name, kind, run)

        found[name] = _loaded(tmp_path / name)

    assert found["theirs-first"] == found["ours"]
    assert found["ours-first"] == found["ours"]

    if kind in ("whole-rows", "by-key", "times"):
        assert found["ours"] == Counter(range(1, 11)) - Counter([5])


async def test_rows_in_quarantine_do_not_disturb_the_reference(tmp_path: Path, theirs: Side) -> None:
    kind, bad = "by-key", {**rows_of(0)[0], "id": 99, "text": {"at": object()}}
    pipeline = asyncelt.pipeline(
        PIPELINE,
        destination=asyncelt.destinations.duckdb(str(tmp_path / "turns.duckdb")),
        dataset_name=DATASET,
        pipelines_dir=str(tmp_path / "ours-0"),
    )
    rows = asyncelt.resource([*rows_of(0), bad], name="rows", incremental=CURSORS[kind], on_error="quarantine")

    with pytest.warns(AsynceltWarning, match="1 row"):
        await pipeline.run(rows)

    await theirs(tmp_path, kind, 1)
    await _ours(tmp_path, kind, 2)

    assert _loaded(tmp_path) == Counter([1, 2, 3, 4, 6, 7])
    lines = read_dataset(tmp_path / "turns.duckdb", DATASET).tables["_asyncelt_quarantine"].rows
    assert len(lines) == 1
