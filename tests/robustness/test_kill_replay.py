"""Replay under kill -9 where it matters."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest

from asyncelt.errors import AsynceltWarning
from tests.support.bad_rows import items, make, rows_of
from tests.support.killing import KILLED, Nursery

ROWS = [{"id": number, "new": number} for number in range(1, 11)]
POINTS = ("storage.job_written", "package.before_seal", "package.sealed", "load.before_commit", "load.after_commit")


def prepare(folder: str) -> None:
    """A dataset with one row, and ten in quarantine."""

    async def run() -> None:
        pipeline = make(Path(folder))
        await pipeline.run(items([[{"id": 0}]], "fail"))
        await pipeline.run(items([ROWS], "quarantine", schema_contract={"columns": "freeze"}))

    with warnings.catch_warnings(action="ignore", category=AsynceltWarning):
        asyncio.run(run())


def replay(folder: str, number: int) -> None:
    """Load one of them again."""
    asyncio.run(_replay(Path(folder), number))


async def _replay(folder: Path, number: int) -> None:
    await make(folder).replay(items([], "fail", schema_contract="evolve"), where=f"payload LIKE '%: {number}}}'")


@pytest.mark.slow
@pytest.mark.kill
async def test_no_row_is_lost_or_doubled_after_kill_9(tmp_path: Path, nursery: Nursery) -> None:
    assert nursery.start(prepare, tmp_path, environment={}).wait() == 0

    for number, point in enumerate(POINTS, 1):
        assert nursery.start(replay, tmp_path, number, environment={"ASYNCELT_FAILPOINT": point}).wait() == KILLED
        assert nursery.start(replay, tmp_path, number, environment={}).wait() == 0

    loaded = sorted(await rows_of(make(tmp_path), "items", "id"))
    assert loaded == [(number,) for number in range(len(POINTS) + 1)]
    assert len(await make(tmp_path).quarantined().fetchall()) == len(ROWS) - len(POINTS)
