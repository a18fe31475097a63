"""A run into Postgres that is cancelled, or loses its connection: nothing is left, and the next goes on."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import anyio
import asyncpg
import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.errors import AsynceltWarning
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target
from asyncelt.testing.fixture import Owner
from tests.destinations.postgres_runs import leave_endless_query, numbers, pipeline_on


@pytest.fixture
def destination(postgres_dsn):
    return destinations.postgres(postgres_dsn)


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


@pytest.mark.slow
async def test_a_cancelled_copy_leaves_no_transaction_behind(owner, raw):
    """The fixture looks for transactions and staging tables that are left."""
    await owner.run({"one": pa.table({"id": [1]})})
    package = await owner.make({"one": pa.table({"id": list(range(200_000))})})

    with anyio.CancelScope() as scope:

        def stop(point):
            if point == "postgres.after_lease":
                scope.cancel()

        with installed(stop):
            await owner.commit(package)

    assert scope.cancelled_caught
    assert await raw.fetchval("SELECT count(*) FROM data.one") == 1
    await owner.commit(package)
    assert await raw.fetchval("SELECT count(*) FROM data.one") == 200_001


async def test_a_commit_that_was_sent_is_awaited(owner, raw):
    package = await owner.make({"one": pa.table({"id": [1]})})

    with anyio.CancelScope() as scope:

        def stop(point):
            if point == "postgres.before_commit":
                asyncio.get_running_loop().call_soon(scope.cancel)

        with installed(stop):
            await owner.commit(package)

    assert await owner.committed(package.load_id) == {package.load_id}


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["postgres.before_migrate_commit", "postgres.copying", "postgres.staged", "postgres.after_package"]
)
async def test_a_run_that_is_cancelled_anywhere_leaves_its_package_and_nothing_else(destination, tmp_path, raw, point):
    run = partial(
        pipeline_on(destination, tmp_path).run, table_name="items", write_disposition="merge", primary_key="id"
    )

    with anyio.CancelScope() as scope:

        def stop(passed):
            if passed == point:
                scope.cancel()

        with installed(stop):
            await run(numbers(20))

    assert scope.cancelled_caught
    busy = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert await raw.fetchval(busy) == 0
    await run(on_pending="load_then_run", data=numbers(20))
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 20


@pytest.mark.slow
async def test_the_server_ends_a_query_that_nobody_waits_for(destination, tmp_path, raw):
    pipeline = pipeline_on(destination, tmp_path)
    await pipeline.run(numbers(10), table_name="items")
    await leave_endless_query(pipeline, raw)


@pytest.mark.slow
async def test_waiting_for_an_owner_can_be_cancelled(destination, tmp_path, raw):
    pipeline = pipeline_on(destination, tmp_path)

    async with destination.connect(Target(pipeline_name="pg", dataset_name="raw")) as session:
        await session.acquire("pg", "")

        with anyio.move_on_after(0.2) as scope:
            await pipeline.run(numbers(20), table_name="items")

        assert scope.cancelled_caught
        held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncelt pg'"

        # One connection holds the lease, another has looked for its row. The server ends a third when it notices.
        with anyio.fail_after(200):
            while await raw.fetchval(held) != 2:
                await asyncio.sleep(0.01)

    await pipeline.run(numbers(20), table_name="items")
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 20


@pytest.mark.slow
@pytest.mark.parametrize("point", ["postgres.before_begin", "postgres.after_lease", "postgres.before_commit"])
async def test_a_connection_that_breaks_is_made_anew(postgres_dsn, destination, tmp_path, raw, point):
    pipeline = pipeline_on(destination, tmp_path)
    passed = []

    async def kill():
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'asyncelt pg'"
        )
        await connection.close()

    def end(name):
        if name == point and not passed:
            passed.append(name)
            # In a thread, so that nothing else happens in between.
            killer = threading.Thread(target=asyncio.run, args=[kill()])
            killer.start()
            killer.join()

    with installed(end), pytest.warns(AsynceltWarning, match="Trying again"):
        info = await pipeline.run(numbers(20), table_name="items")

    assert not info.has_failed_jobs
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 20
    assert await raw.fetchval("SELECT count(*) FROM raw._dlt_loads") == 1
