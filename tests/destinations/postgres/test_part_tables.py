"""The staged way: which files go through it, that none is copied twice, and that nothing of it stays."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial

import anyio
import asyncpg
import pyarrow as pa
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.config import Retry, Settings
from asyncelt.destinations.postgres_impl.parts import parts_of
from asyncelt.errors import DestinationRejected
from asyncelt.failpoints import installed
from asyncelt.load.committing import load_bundle
from asyncelt.load.protocol import Lease, Target
from asyncelt.schema.model import Table
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import key, root_table, roots
from asyncelt.testing.packages import make_commit, make_package
from tests.support.killing import KILLED, Nursery
from tests.support.postgres import ask, left_behind

PATIENT = Settings(retry=Retry(attempts=4, first_s=0.01, max_s=0.1))
FILES = 3
ROWS = 50


def file_of(number):
    return pa.table({"id": list(range(number * ROWS, (number + 1) * ROWS))})


@pytest.fixture
def owner(postgres_dsn, tmp_path):
    return Owner(destinations.postgres(postgres_dsn, staging_threshold=0), tmp_path / "packages", "parquet")


async def load(session, commit):
    with anyio.fail_after(200):
        return await load_bundle(session, commit, PATIENT, lambda event: None, max_parallel=None)


async def begun(owner, session, *packages):
    return make_commit(owner.target, await owner.acquire(session), *packages)


async def numbers(raw):
    return [row["id"] for row in await raw.fetch("SELECT id FROM data.one")]


def counting(points):
    """A handler that counts what is passed, and raises where it is told to."""
    seen = Counter()

    def handle(name):
        seen[name] += 1

        if (name, seen[name]) in points:
            raise ConnectionResetError(name)

    return seen, handle


# ------------------------------------------------------------------------------------------------- decisions


TARGET = Target(pipeline_name="p", dataset_name="data")


def commit_of(package):
    return make_commit(TARGET, Lease(epoch=7), package)


async def test_files_of_a_merge_share_a_table_and_others_have_one_each(owner):
    merged = root_table("orders", id=key("id"))
    package = await owner.make(
        {"orders": [roots([{"id": n, "_dlt_id": str(n)}], "l") for n in range(2)], "one": [file_of(0), file_of(1)]},
        tables=[merged],
    )
    parts = parts_of(commit_of(package), 0)
    assert [len(part.jobs) for part in dict.fromkeys(parts.values())] == [2, 1, 1]
    assert len({part.name for part in parts.values()}) == 3
    assert all("_7_" in part.name and len(part.name) <= 63 for part in parts.values())


@pytest.mark.parametrize("threshold, staged", [(None, 0), (10**9, 0), (1, 1)])
async def test_small_runs_and_dropped_tables_are_not_staged(owner, threshold, staged):
    plain = await owner.make({"one": file_of(0)})
    dropped = await owner.make({"one": file_of(0)}, dropped=["one"])
    assert len(parts_of(commit_of(plain), threshold)) == staged
    assert parts_of(commit_of(dropped), threshold) == {}


def test_a_small_table_of_a_large_run_is_left_to_the_commit(tmp_path):
    package = make_package(tmp_path, "1.5", {"one": file_of(0), "two": file_of(0)}, target=TARGET)
    jobs = tuple(replace(job, nbytes=size) for job, size in zip(package.jobs, [10**8, 10**4], strict=True))
    parts = parts_of(commit_of(replace(package, jobs=jobs)), 10**7)
    assert {part.table for part in parts.values()} == {"one"}


# ----------------------------------------------------------------------------------------------------- loading


async def test_files_are_copied_before_the_commit_and_arrive_in_order(owner, raw, postgres_dsn):
    package = await owner.make({"one": [file_of(number) for number in range(FILES)]})
    seen, handle = counting(set())

    async with owner.destination.connect(owner.target) as session:
        commit = await begun(owner, session, package)
        await session.migrate(commit)

        with installed(handle):
            async with anyio.create_task_group() as tasks:
                # The last one first.
                for job in reversed(package.jobs):
                    tasks.start_soon(session.load, commit, package, job)

            copied = seen["postgres.copying"]
            staged = await raw.fetch("SELECT job_id, row_count FROM data._asyncelt_ledger ORDER BY job_id")
            assert [row["row_count"] for row in staged] == [ROWS] * FILES
            assert await raw.fetchval("SELECT count(*) FROM data.one") == 0
            await session.commit(commit)

    assert seen["postgres.copying"] == copied
    assert await numbers(raw) == list(range(FILES * ROWS))
    assert await raw.fetchval("SELECT count(*) FROM data._asyncelt_ledger") == 0
    assert left_behind(postgres_dsn) == []


async def test_a_file_that_has_arrived_is_not_copied_again(owner, raw, postgres_dsn):
    """Neither when another file fails, nor when the commit does."""
    package = await owner.make({"one": [file_of(number) for number in range(FILES)]})
    seen, handle = counting({("postgres.before_stage_commit", 2), ("postgres.after_package", 1)})

    async with owner.destination.connect(owner.target) as session:
        commit = await begun(owner, session, package)

        with installed(handle):
            report = await load(session, commit)

    assert report.retries == 2
    assert seen["postgres.after_stage"] == FILES
    assert seen["postgres.before_stage_commit"] == FILES + 1
    assert await numbers(raw) == list(range(FILES * ROWS))
    assert left_behind(postgres_dsn) == []


async def test_the_next_owner_uses_what_a_dead_one_has_staged(owner, raw, postgres_dsn):
    """And drops what belongs to no package of its own. The session of the dead one is never closed."""
    await owner.run({"one": file_of(0)})
    other = await owner.make({"one": file_of(1)})
    package = await owner.make({"one": [file_of(1), file_of(2)]})
    dead = owner.destination.connect(owner.target)
    session = await dead.__aenter__()

    for one in (other, package):
        commit = await begun(owner, session, one)
        await session.migrate(commit)

        for job in one.jobs:
            await session.load(commit, one, job)

    before = await raw.fetch("SELECT relname FROM pg_class WHERE relname LIKE '\\_asyncelt\\_staging%'")
    # `migrate` has dropped those of the first package already.
    assert len(before) == 2
    await raw.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'asyncelt%'")

    owner.lease = None
    seen, handle = counting(set())

    async with owner.destination.connect(owner.target) as alive:
        with installed(handle):
            await load(alive, await begun(owner, alive, package))

    assert seen["postgres.copying"] == 0
    assert await numbers(raw) == list(range(3 * ROWS))
    assert left_behind(postgres_dsn) == []
    await dead.__aexit__(None, None, None)


@pytest.fixture
async def stage(owner):
    """A session that has staged a file of two, and is never closed before the test ends; its commit."""
    package = await owner.make({"one": [file_of(0), file_of(1)]})
    opened = owner.destination.connect(owner.target)
    session = await opened.__aenter__()
    commit = await begun(owner, session, package)
    await session.migrate(commit)
    await session.load(commit, package, package.jobs[0])
    yield session, commit
    await opened.__aexit__(None, None, None)


def somebody_else(owner, **who):
    return replace(owner, target=replace(owner.target, **who), clock=1_800_000_000, lease=None)


async def staged_now(raw):
    return await raw.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE '\\_asyncelt\\_staging%'")


async def end_all(raw):
    """As a kill of all processes does."""
    await raw.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'asyncelt%'"
    )


@pytest.mark.parametrize("who", [{"member": "b"}, {"pipeline_name": "other"}], ids=["member", "pipeline"])
@pytest.mark.parametrize("crashed", [False, True])
async def test_what_somebody_who_never_comes_back_has_staged_is_dropped_by_others(owner, raw, stage, who, crashed):
    """Not while he is alive. A crash of the server empties the ledger, which then does not say whose it was."""
    other = somebody_else(owner, **who)
    await other.run({"two": file_of(2)})
    assert await staged_now(raw) == 1

    await end_all(raw)

    if crashed:
        await raw.execute("TRUNCATE data._asyncelt_ledger")

    other.lease = None
    await other.run({"two": file_of(2)})
    assert await staged_now(raw) == 0
    assert await raw.fetchval("SELECT count(*) FROM data._asyncelt_ledger") == 0


async def test_somebody_who_was_taken_for_dead_loses_nothing(owner, raw, stage):
    session, commit = stage
    await end_all(raw)
    await somebody_else(owner, member="b").run({"two": file_of(2)})
    assert await staged_now(raw) == 0

    await session.commit(commit)
    assert await numbers(raw) == list(range(2 * ROWS))


async def test_what_is_in_use_is_not_dropped(owner, raw, stage):
    """Its owner is alive, although nobody can see it: behind a pooler, for instance."""
    await end_all(raw)
    name = await raw.fetchval("SELECT relname FROM pg_class WHERE relname LIKE '\\_asyncelt\\_staging%'")

    async with raw.transaction():
        await raw.execute(f"LOCK TABLE data.{name} IN ROW EXCLUSIVE MODE")
        await somebody_else(owner, member="b").run({"two": file_of(2)})

    assert await staged_now(raw) == 1


async def test_behind_a_pooler_nobody_is_taken_for_dead(owner, raw, stage, postgres_dsn):
    await end_all(raw)
    other = somebody_else(owner, member="b")
    other.destination = destinations.postgres(postgres_dsn, staging_threshold=0, pooled=True)
    await other.run({"two": file_of(2)})
    assert await staged_now(raw) == 1


@pytest.mark.slow
@pytest.mark.kill
def test_the_stage_of_a_killed_process_is_dropped_by_another_member(postgres_dsn, tmp_path):
    with Nursery(tmp_path) as nursery:
        killed = nursery.start(
            run_member, "gone", tmp_path, postgres_dsn, environment={"ASYNCELT_FAILPOINT": "postgres.after_stage"}
        )
        assert killed.wait() == KILLED
        assert len(left_behind(postgres_dsn)) == 1
        assert nursery.start(run_member, "here", tmp_path, postgres_dsn).wait() == 0

    assert left_behind(postgres_dsn) == []
    assert ask(postgres_dsn, "SELECT count(*) FROM data._asyncelt_ledger") == [(0,)]
    assert ask(postgres_dsn, "SELECT count(*) FROM data.numbers") == [(ROWS,)]


def run_member(member, folder, dsn):
    """A staged run of a member, in a process of its own."""
    pipeline = asyncelt.pipeline(
        "members",
        member=member,
        destination=destinations.postgres(dsn, staging_threshold=0),
        dataset_name="data",
        pipelines_dir=f"{folder}/work",
    )
    asyncio.run(pipeline.run([{"n": n} for n in range(ROWS)], table_name="numbers"))


@pytest.mark.parametrize("how", ["refused", "cancelled"])
async def test_nothing_stays_when_a_run_ends_without_its_commit(owner, raw, postgres_dsn, how):
    rows = pa.table({"id": ["a\0" if how == "refused" else "a"]})
    package = await owner.make({"one": [file_of(0)], "two": rows})
    ended = asyncio.Event()

    async def run():
        async with owner.destination.connect(owner.target) as session:
            try:
                await load(session, await begun(owner, session, package))
            finally:
                ended.set()

    if how == "refused":
        with pytest.raises((DestinationRejected, ExceptionGroup)):
            await run()
    else:
        async with anyio.create_task_group() as tasks:
            with installed(lambda name: tasks.cancel_scope.cancel() if name == "load.before_commit" else None):
                tasks.start_soon(run)

    assert ended.is_set()
    assert left_behind(postgres_dsn) == []
    assert await raw.fetchval("SELECT count(*) FROM data._asyncelt_ledger") == 0


async def test_staging_that_somebody_has_dropped_is_copied_by_the_commit(owner, raw):
    package = await owner.make({"one": [file_of(0), file_of(1)]})

    async with owner.destination.connect(owner.target) as session:
        commit = await begun(owner, session, package)
        await session.migrate(commit)

        for job in package.jobs:
            await session.load(commit, package, job)

        name = await raw.fetchval("SELECT min(relname) FROM pg_class WHERE relname LIKE '\\_asyncelt\\_staging%'")
        await raw.execute(f"DROP TABLE data.{name}")
        await session.commit(commit)

    assert await numbers(raw) == list(range(2 * ROWS))


async def test_a_column_that_came_since_is_carried_over(owner, raw):
    """What was staged without it is copied again, by the commit."""
    merged = Table(
        **{
            **{n: getattr(root_table(id=key("id")), n) for n in ("name", "columns", "resource", "write_disposition")},
            "hints": {"x-merge-strategy": "upsert"},
        }
    )
    await owner.run({"orders": roots([{"id": 1, "v": "a", "_dlt_id": "k"}], "l1")}, tables=[merged])
    package = await owner.make({"orders": roots([{"id": 1, "v": "b", "_dlt_id": "k"}], "l2")})

    async with owner.destination.connect(owner.target) as session:
        commit = await begun(owner, session, package)
        await session.migrate(commit)
        await session.load(commit, package, package.jobs[0])
        await raw.execute("ALTER TABLE data.orders ADD COLUMN note text; UPDATE data.orders SET note = 'mine'")
        await session.commit(commit)

    assert [tuple(row) for row in await raw.fetch("SELECT id, v, note FROM data.orders")] == [(1, "b", "mine")]


async def test_a_role_that_may_make_no_tables_loads_without_staging(owner, raw, postgres_dsn, tmp_path):
    await owner.run({"one": file_of(0)})
    await raw.execute("DROP ROLE IF EXISTS filler; CREATE ROLE filler LOGIN; GRANT USAGE ON SCHEMA data TO filler")
    await raw.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA data TO filler")
    guest = postgres_dsn.replace("postgres:any@", "filler:any@")
    owner.destination = destinations.postgres(guest, staging_threshold=0)

    try:
        await owner.run({"one": file_of(1)})
        assert await numbers(raw) == list(range(2 * ROWS))
    finally:
        await raw.execute("DROP OWNED BY filler CASCADE; DROP ROLE filler")


@pytest.mark.slow
async def test_more_files_than_connections_wait_for_their_turn(postgres_dsn, tmp_path, raw):
    """Also with a pool of the caller, one connection of which holds the lease."""
    async with asyncpg.create_pool(postgres_dsn, min_size=2, max_size=2) as pool:
        owner = Owner(destinations.postgres(pool, staging_threshold=0), tmp_path / "packages", "parquet")
        package = await owner.make({"one": [file_of(number) for number in range(12)]})

        async with owner.destination.connect(owner.target) as session:
            commit = await begun(owner, session, package)
            await session.migrate(commit)

            async with anyio.create_task_group() as tasks:
                for job in package.jobs:
                    tasks.start_soon(partial(session.load, commit, package, job))

            await session.commit(commit)

    assert await numbers(raw) == list(range(12 * ROWS))
