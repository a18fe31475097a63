"""Rows of a query as a stream: one state of the dataset, bounded memory, and an end whenever one likes."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import anyio
import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.errors import DestinationRejected, UndefinedRelation, Unsupported
from asyncelt.load.protocol import SupportsStream
from asyncelt.testing.fixture import Owner

MANY = pa.table({"id": range(30_000)})
# The first rows come at once; then it searches for hours.
ENDLESS = "SELECT range AS n FROM range(100000000000000) WHERE range < 500000"


@pytest.fixture(params=["duckdb", "filesystem"])
def owner(request, tmp_path):
    place = (
        destinations.duckdb(tmp_path / "d.duckdb") if request.param == "duckdb" else destinations.filesystem(tmp_path)
    )

    return Owner(place, tmp_path / "packages", "parquet")


@pytest.fixture
async def session(owner):
    await owner.run({"many": MANY})

    async with owner.destination.connect(owner.target) as session:
        assert isinstance(session, SupportsStream)
        yield session


async def test_values_are_passed(session):
    async with session.stream("SELECT id FROM many WHERE id < ?", [3]) as stream:
        assert sum([batch.num_rows async for batch in stream]) == 3


async def test_a_table_that_is_replaced_meanwhile_is_never_read_by_halves(owner, session):
    """In a database the old rows stay readable; files may be gone, which is an error and not fewer rows."""
    for _ in range(5):
        await owner.run({"many": MANY})

    seen = 0

    try:
        async with session.stream("SELECT id FROM many", batch_rows=2048) as stream:
            async for batch in stream:
                if not seen:
                    await owner.run({"many": pa.table({"id": [1]})}, replaced=["many"])

                seen += batch.num_rows
    except DestinationRejected:
        assert owner.destination.destination_name == "filesystem"
    else:
        assert seen == 180_000

    assert (await session.query("SELECT count(*) AS n FROM many")).to_pydict() == {"n": [1]}


async def test_a_stream_that_is_left_early_leaves_nothing_behind(owner, session, tmp_path):
    async with session.stream("SELECT id FROM many", batch_rows=2048) as stream:
        await anext(aiter(stream))

    await owner.run({"many": MANY})

    if (tmp_path / "d.duckdb").exists():
        # Another process can open the file.
        code = "import sys, duckdb; print(duckdb.connect(sys.argv[1]).execute('SELECT count(*) FROM data.many').fetchone()[0])"
        found = await anyio.run_process([sys.executable, "-c", code, str(tmp_path / "d.duckdb")])
        assert found.stdout.decode().strip() == "60000"


async def test_a_cancel_interrupts_the_query(session):
    """In its first piece of work, and while a later one is waited for."""
    with anyio.move_on_after(0.1) as scope:
        async with session.stream(f"SELECT * FROM ({ENDLESS}) ORDER BY 1"):
            pytest.fail("there is no end to that")

    assert scope.cancelled_caught

    with anyio.CancelScope() as scope:
        async with session.stream(ENDLESS, batch_rows=2048) as stream:
            async for batch in stream:
                assert batch.num_rows
                scope.deadline = anyio.current_time() + 0.1

    assert scope.cancelled_caught
    assert (await session.query("SELECT count(*) AS n FROM many")).to_pydict() == {"n": [30_000]}


async def test_a_query_that_fails_in_the_middle_says_so(session):
    sql = "SELECT CASE WHEN range < 900000 THEN 1 ELSE CAST('x' || range AS INT) END AS n FROM range(1000000)"
    seen = 0

    async with session.stream(sql, batch_rows=2048) as stream:
        with pytest.raises(DestinationRejected, match="Could not convert"):  # noqa: PT012 - which batch is not known
            async for batch in stream:
                seen += batch.num_rows

    assert 0 < seen <= 900_000


@pytest.mark.parametrize(
    "sql, error", [("SELECT * FROM nope", UndefinedRelation), ("SELEC", DestinationRejected), ("", Exception)]
)
async def test_a_wrong_query_fails_at_the_beginning(session, sql, error):
    with pytest.raises(error):
        async with session.stream(sql):
            pytest.fail("it began")


async def test_files_are_not_changed_by_a_stream(tmp_path):
    owner = Owner(destinations.filesystem(tmp_path), tmp_path / "packages", "parquet")
    await owner.run({"many": MANY})

    async with owner.destination.connect(owner.target) as session:
        with pytest.raises(Unsupported):
            async with session.stream("DROP VIEW many"):
                pytest.fail("it began")


async def test_the_event_loop_goes_on_while_rows_are_computed(session):
    ticks = 0
    done = asyncio.Event()

    async def tick():
        nonlocal ticks

        while not done.is_set():
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())

    async with session.stream("SELECT md5(range::TEXT) AS m FROM range(200000)", batch_rows=50_000) as stream:
        async for batch in stream:
            assert batch.num_rows
            before = ticks

    done.set()
    await ticking
    assert ticks > before > 10


MEMORY = """
import asyncio, resource, sys
from asyncelt import destinations
from asyncelt.load.protocol import Target

async def main():
    async with destinations.duckdb(":memory:", memory_limit="200MB").connect(Target(pipeline_name="p", dataset_name="d")) as session:
        rows, before = 0, None
        sql = "SELECT range AS n, repeat('x', 200) || range AS t FROM range($1)"
        async with session.stream(sql, [int(sys.argv[1])]) as stream:
            async for batch in stream:
                rows += batch.num_rows
                before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_result():
    """Two million rows are 450 MB."""
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, "2000000"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(found[0]) == 2_000_000
    assert int(found[1]) < 120_000, "KiB"
