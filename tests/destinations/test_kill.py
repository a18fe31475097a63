"""kill -9 at each failpoint of a commit: afterwards all of it is there or nothing, and the same commit goes through."""

from __future__ import annotations

import asyncio

import pytest

from tests.destinations import kill_worker
from tests.destinations.kill_worker import LOAD_ID, TARGET, destination_of
from tests.support.killing import KILLED, Nursery

OLD = "1700000001.5"
POINTS = {
    "duckdb": ["before_begin", "after_migrate", "before_commit", "after_commit"],
    "filesystem": [
        "before_rename",
        "loaded",
        "before_commit",
        "before_marker",
        "after_marker",
        "before_remove",
        "before_load_row",
        "finished",
    ],
}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    with Nursery(tmp_path_factory.mktemp("nursery")) as started:
        yield started


async def rows_of(session):
    return [row["load"] for row in (await session.query("SELECT load FROM one")).to_pylist()]


@pytest.mark.covers("probe.3.kill", "probe.3.partial")
@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind, point", [(kind, point) for kind, points in POINTS.items() for point in points])
async def test_a_killed_commit_is_whole_or_absent(kind, point, tmp_path, nursery):
    await kill_worker.commit(kind, tmp_path, load_id=OLD)
    environment = {"ASYNCELT_FAILPOINT": f"{kind}.{point}"}
    doomed = nursery.start(kill_worker.commit_once, kind, tmp_path, environment=environment)
    assert await asyncio.to_thread(doomed.wait) == KILLED

    async with destination_of(kind, tmp_path).connect(TARGET) as session:
        happened = LOAD_ID in await session.committed([LOAD_ID])
        newest = LOAD_ID if happened else OLD
        restored = await session.restore(TARGET.pipeline_name)

        assert await rows_of(session) == [newest] * 3
        assert (restored.state, restored.head_load_id, restored.last_load_id) == (newest, newest, newest)
        assert await session.run_of(TARGET.pipeline_name, LOAD_ID) == ((LOAD_ID,) if happened else ())

    await kill_worker.commit(kind, tmp_path, parent=OLD)

    async with destination_of(kind, tmp_path).connect(TARGET) as session:
        assert await rows_of(session) == [LOAD_ID] * 3
