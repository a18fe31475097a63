"""kill -9 at each failpoint of a commit: afterwards all of it is there or nothing, and the same commit goes through."""

from __future__ import annotations

import asyncio

import pytest

from tests.destinations import kill_worker
from tests.destinations.kill_worker import LOAD_ID, TARGET, destination_of
from tests.support.killing import KILLED
from tests.support.seaweed import KEY, SECRET

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
    "delta": [
        "before_marker",
        "before_table",
        "after_table",
        "before_load_row",
    ],
    "iceberg": [
        "before_table",
        "before_table_commit",
        "after_table",
        "before_load_row",
    ],
    "postgres": [
        "before_migrate_commit",
        "after_migrate",
        "before_begin",
        "after_lease",
        "after_package",
        "before_commit",
        "after_commit",
    ],
    "postgres_staged": [
        "before_stage_commit",
        "after_stage",
        "before_begin",
        "after_package",
        "before_commit",
        "after_commit",
    ],
    "s3": [
        "loaded",
        "before_marker",
        "after_marker",
        "before_load_row",
    ],
}
PREFIX = {"s3": "filesystem", "delta": "filesystem", "iceberg": "filesystem", "postgres_staged": "postgres"}
"""Of the failpoints, where it is not the kind."""


@pytest.fixture
def folder(kind, tmp_path, request):
    """Where the data goes, or stands where it goes."""
    if kind.startswith("postgres"):
        (tmp_path / "dsn").write_text(request.getfixturevalue("postgres_dsn"))

    if kind == "s3":
        server, url = request.getfixturevalue("seaweed"), request.getfixturevalue("bucket_url")
        (tmp_path / "s3.txt").write_text(f"{url} {server.url} {KEY} {SECRET}")

    return tmp_path


async def rows_of(session):
    return [row["load"] for row in (await session.query("SELECT load FROM one")).to_pylist()]


@pytest.mark.covers("probe.3.kill", "probe.3.partial")
@pytest.mark.slow
@pytest.mark.parametrize("kind, point", [(kind, point) for kind, points in POINTS.items() for point in points])
async def test_a_killed_commit_is_whole_or_absent(kind, point, folder, nursery):
    await kill_worker.commit(kind, folder, load_id=OLD)
    environment = {"ASYNCELT_FAILPOINT": f"{PREFIX.get(kind, kind)}.{point}"}
    doomed = nursery.start(kill_worker.commit_once, kind, folder, environment=environment)
    assert await asyncio.to_thread(doomed.wait) == KILLED

    async with destination_of(kind, folder).connect(TARGET) as session:
        happened = LOAD_ID in await session.committed([LOAD_ID])
        newest = LOAD_ID if happened else OLD
        restored = await session.restore(TARGET.pipeline_name)

        assert await rows_of(session) == [newest] * 3
        assert (restored.state, restored.head_load_id, restored.last_load_id) == (newest, newest, newest)
        assert await session.run_of(TARGET.pipeline_name, LOAD_ID) == ((LOAD_ID,) if happened else ())

    await kill_worker.commit(kind, folder, parent=OLD)

    async with destination_of(kind, folder).connect(TARGET) as session:
        assert await rows_of(session) == [LOAD_ID] * 3
