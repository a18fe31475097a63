"""Connections that break, and servers that die, while a package is being committed: it is there once, or not yet."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import asyncpg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asyncelt import destinations
from asyncelt.config import Retry, Settings
from asyncelt.destinations.postgres_impl.copying import copy_files
from asyncelt.destinations.postgres_impl.query import CopyReader
from asyncelt.destinations.postgres_impl.results import Result
from asyncelt.failpoints import installed
from asyncelt.load.committing import load_bundle
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit
from tests.support.postgres import left_behind
from tests.support.proxy import Fault, FaultProxy

COMMIT = b"COMMIT\x00"
"""In the statement, and in the answer to it."""
COPY = b"PGCOPY\n"
ROWS = 300
PATIENT = Settings(retry=Retry(attempts=8, first_s=0.02, max_s=1.0))


@pytest.fixture
async def proxy(postgres_dsn):
    async with FaultProxy(postgres_dsn) as started:
        yield started


def impatient(dsn):
    """A destination that gives up waiting for the answer to a COMMIT soon."""
    made = destinations.postgres(dsn)

    return replace(made, config=replace(made.config, commit_timeout_s=0.2))


@pytest.fixture
def owner(proxy, tmp_path):
    return Owner(impatient(proxy.dsn), tmp_path / "packages", "parquet")


@asynccontextmanager
async def about_to_load(owner):
    """Everything up to the load of a package, the tables of which are there."""
    if owner.last is None:
        await owner.run({"one": pa.table({"id": [-1]})})

    package = await owner.make({"one": pa.table({"id": list(range(ROWS))})}, replaced=["one"])

    async with owner.destination.connect(owner.target) as session:
        lease = await session.acquire(owner.target.pipeline_name, owner.target.member)

        yield session, make_commit(owner.target, lease, package)

    owner.last = package


async def load(session, commit):
    """As the engine does; returns how often it was tried again."""
    with anyio.fail_after(200):
        report = await load_bundle(session, commit, PATIENT, lambda event: None, max_parallel=None)

    return report.retries


async def check(raw, commit):
    """The package is there, once, and nothing else."""
    assert [row["id"] for row in await raw.fetch("SELECT id FROM data.one ORDER BY id")] == list(range(ROWS))
    load_id = commit.packages[-1].load_id
    assert await raw.fetchval("SELECT count(*) FROM data._dlt_loads WHERE load_id = $1", load_id) == 1
    assert await raw.fetchval("SELECT head_load_id FROM data._asyncelt_lease") == load_id


@pytest.mark.slow
@pytest.mark.parametrize("do", ["cut", "half_close", "stall"])
@pytest.mark.parametrize("direction, further", [("up", 0), ("up", 3), ("up", 7), ("down", 0), ("down", 4)])
async def test_a_commit_in_doubt_is_settled(proxy, owner, raw, do, direction, further):
    """What is lost is the COMMIT, half of it, or the answer."""
    async with about_to_load(owner) as (session, commit):
        proxy.next_fault = Fault(direction=direction, at=COMMIT, further=further, do=do)
        retries = await load(session, commit)

    assert len(proxy.done) == 1
    # Where the answer was lost, the package is found and not written again.
    assert retries == (0 if direction == "down" else retries)
    await check(raw, commit)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_connection_may_break_at_any_byte(proxy, owner, raw, direction):
    async with about_to_load(owner) as (session, commit):
        proxy.passed[direction] = 0
        await load(session, commit)
        total = proxy.passed[direction]

    for at in range(1, total, total // 8):
        async with about_to_load(owner) as (session, commit):
            proxy.passed[direction] = 0
            proxy.next_fault = Fault(direction=direction, at=at, do="cut")
            await load(session, commit)

        proxy.next_fault = None
        await check(raw, commit)

    assert len(proxy.done) > 6


async def test_a_copy_that_falls_silent_can_be_cancelled(proxy, owner, raw, monkeypatch):
    monkeypatch.setattr("asyncelt.destinations.postgres_impl.connections._CLEANUP_S", 0.1)

    async with about_to_load(owner) as (session, commit):
        proxy.next_fault = Fault(direction="up", at=COPY, further=40, do="stall")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, session, commit)

            while not proxy.done:
                await asyncio.sleep(0)

            tasks.cancel_scope.cancel()

        await load(session, commit)

    await check(raw, commit)


async def copy_in(connection, path):
    threads = anyio.CapacityLimiter(1)
    await copy_files(connection, [path], {"id": "bigint"}, target="one", schema=None, threads=threads)


async def copy_out(connection, _path):
    reader = CopyReader(connection, Result("SELECT 1", ()), 10)

    try:
        await reader.next_batch()
    finally:
        await reader.close()


@pytest.mark.parametrize("copy", [copy_in, copy_out])
async def test_a_goodbye_before_a_copy_leaves_no_future_that_nobody_asks(proxy, raw, tmp_path, copy):
    """The server has said that it ends the connection, and it has not ended yet: the driver then lets one go."""
    forgotten = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: forgotten.append(context))
    pq.write_table(pa.table({"id": [1]}), tmp_path / "rows.parquet")
    connection = await asyncpg.connect(proxy.dsn)
    await connection.execute("BEGIN; CREATE TABLE one (id bigint)")
    proxy.next_fault = Fault(direction="down", at=b"57P01", further=10_000, do="linger")
    await raw.execute("SELECT pg_terminate_backend($1, 60000)", connection.get_server_pid())

    while not proxy.done:
        await asyncio.sleep(0)

    # Now it is on its way to the driver, in this very loop.
    for _ in range(10):
        await asyncio.sleep(0)

    with pytest.raises(asyncpg.InternalClientError):
        await copy(connection, tmp_path / "rows.parquet")

    connection.terminate()
    await asyncio.sleep(0)
    del connection
    gc.collect()
    loop.set_exception_handler(None)
    assert forgotten == []


# ------------------------------------------------------------------------------------------- the server itself


@pytest.fixture
def direct(postgres_dsn, tmp_path):
    return Owner(destinations.postgres(postgres_dsn), tmp_path / "packages", "parquet")


@pytest.fixture
def staging(postgres_dsn, tmp_path):
    return Owner(destinations.postgres(postgres_dsn, staging_threshold=0), tmp_path / "packages", "parquet")


async def check_anew(dsn, commit):
    connection = await asyncpg.connect(dsn)
    await check(connection, commit)
    await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "way, point, end",
    [
        ("direct", "postgres.copying", "kill"),
        ("direct", "postgres.after_package", "stop_at_once"),
        ("direct", "postgres.before_commit", "kill"),
        ("staging", "postgres.before_stage_commit", "kill"),
        ("staging", "load.before_commit", "kill"),
        ("staging", "postgres.after_package", "kill"),
    ],
)
async def test_a_server_that_dies_and_comes_back_has_the_package_once(
    postgres_server, postgres_dsn, way, point, end, request
):
    """A crash empties staging tables and their ledger alike: what was staged is then copied by the commit."""
    owner = request.getfixturevalue(way)
    passed = []

    def crash(name):
        if name == point and not passed:
            passed.append(name)
            getattr(postgres_server, end)()
            postgres_server.start()

    async with about_to_load(owner) as (session, commit):
        with installed(crash):
            assert await load(session, commit) > 0

        # The lock of the owner went with the server; the session takes it again.
        assert (await session.acquire(owner.target.pipeline_name, "")).head_load_id == commit.packages[0].load_id

    await check_anew(postgres_dsn, commit)
    assert left_behind(postgres_dsn) == []


@pytest.mark.slow
async def test_a_server_that_dies_during_commit_has_the_package_once(postgres_server, postgres_dsn, direct):
    """It waits for a standby that never comes: the commit is in its log, the answer is never sent."""
    overrides = postgres_server.data / "postgresql.auto.conf"
    before = overrides.read_text()

    async def crash(watcher):
        while not await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
            pass

        # The connections of the watcher and of the test break as well.
        overrides.write_text(before)
        postgres_server.kill()
        postgres_server.start()

    async with about_to_load(direct) as (session, commit):
        watcher = await asyncpg.connect(postgres_dsn)

        try:
            await watcher.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            await watcher.execute("SELECT pg_reload_conf()")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(crash, watcher)
                retries = await load(session, commit)
        finally:
            overrides.write_text(before)
            watcher.terminate()

    assert retries <= 1
    await check_anew(postgres_dsn, commit)
