"""What a session has written early is used by the commit that it fits, and by no other."""

from __future__ import annotations

import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.load.protocol import EarlyJob, SupportsEarly
from asyncelt.testing import make_commit
from asyncelt.testing.fixture import Owner

ROWS = pa.table({"id": [1, 2, 3]})


@pytest.fixture
def owner(tmp_path):
    return Owner(destinations.duckdb(tmp_path / "data.duckdb"), tmp_path / "packages", "parquet")


def jobs_of(package):
    """All job files of a package, as they are offered before it is sealed."""
    return [
        EarlyJob(
            load_id=package.load_id,
            table=package.schema.tables[job.table],
            job=job,
            path=package.folder / "jobs" / job.file_name,
        )
        for job in package.jobs
    ]


async def counted(owner, table="t"):
    async with owner.destination.connect(owner.target) as session:
        return (await session.query(f"SELECT count(*) AS n FROM {table}")).to_pylist()[0]["n"]


async def test_rows_that_were_written_early_are_committed_once(owner):
    package = await owner.make({"t": ROWS})

    async with owner.destination.connect(owner.target) as session:
        assert isinstance(session, SupportsEarly)
        assert session.loads_early
        lease = await owner.acquire(session)
        assert await session.load_early(jobs_of(package))
        result = await session.commit(make_commit(owner.target, lease, package))

    assert result.schema_updates[package.load_id]["t"][0] == "id"
    assert await counted(owner) == 3


async def test_a_question_between_ends_what_was_begun_and_the_commit_writes_all(owner):
    await owner.run({"t": ROWS})
    package = await owner.make({"t": ROWS})

    async with owner.destination.connect(owner.target) as session:
        assert await session.load_early(jobs_of(package))
        assert (await session.query("SELECT count(*) AS n FROM t")).to_pylist() == [{"n": 3}]
        await session.commit(make_commit(owner.target, owner.lease, package))

    assert await counted(owner) == 6


@pytest.mark.parametrize("change", ["replaced", "dropped", "truncated"])
async def test_a_commit_that_takes_rows_away_from_the_table_begins_anew(owner, change):
    await owner.run({"t": ROWS})
    package = await owner.make({"t": ROWS}, **{change: ["t"]})

    async with owner.destination.connect(owner.target) as session:
        assert await session.load_early(jobs_of(package))
        await session.commit(make_commit(owner.target, owner.lease, package))

    assert await counted(owner) == 3


async def test_rows_of_a_package_that_is_not_committed_are_not_there(owner):
    await owner.run({"t": ROWS})
    given_up = await owner.make({"t": ROWS, "other": ROWS})
    package = await owner.make({"t": ROWS})

    async with owner.destination.connect(owner.target) as session:
        assert await session.load_early(jobs_of(given_up))
        await session.commit(make_commit(owner.target, owner.lease, package))
        assert (await session.query("SELECT count(*) AS n FROM t")).to_pylist() == [{"n": 6}]

        with pytest.raises(Exception, match="other"):
            await session.query("SELECT * FROM other")


async def test_a_session_that_is_closed_leaves_nothing(owner):
    await owner.run({"t": ROWS})
    package = await owner.make({"t": ROWS})

    async with owner.destination.connect(owner.target) as session:
        assert await session.load_early(jobs_of(package))

    assert await counted(owner) == 3


async def test_a_file_that_cannot_be_read_is_left_to_the_commit_which_says_so(owner):
    package = await owner.make({"t": ROWS})
    (package.folder / "jobs" / package.jobs[0].file_name).write_bytes(b"no Parquet")

    async with owner.destination.connect(owner.target) as session:
        assert not await session.load_early(jobs_of(package))

        with pytest.raises(Exception, match=r"Parquet|parquet|magic"):
            await session.commit(make_commit(owner.target, await owner.acquire(session), package))


async def test_a_database_in_memory_does_not_load_early(tmp_path):
    owner = Owner(destinations.duckdb(":memory:"), tmp_path / "packages", "parquet")

    async with owner.destination.connect(owner.target) as session:
        assert not session.loads_early
