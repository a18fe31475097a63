"""Several at one PostgreSQL dataset: readers see whole packages, and of two owners one waits or has lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import asyncpg
import pytest

import asyncelt
from asyncelt.failpoints import installed
from tests.robustness.kill import Scenario, Tally
from tests.robustness.targets import PostgresTarget
from tests.robustness.worker import PAGES, ROWS, numbers_from_state, run_once
from tests.support.killing import Doomed, Nursery

ROUNDS = int(os.environ.get("ASYNCELT_ROUNDS", "10"))
"""How often two processes run one pipeline at once; ``ASYNCELT_ROUNDS=50`` is the long form."""
TABLES = [f"t{number:02}" for number in range(20)]
PACKAGES = 4
READERS = 8


def pipeline_into(dsn: str, folder: Path, name: str = "state") -> asyncelt.Pipeline:
    """A pipeline of a machine of its own, as far as its files say."""
    return asyncelt.pipeline(
        name, destination=asyncelt.destinations.postgres(dsn), dataset_name="data", pipelines_dir=folder / "work"
    )


@pytest.mark.slow
async def test_readers_see_whole_packages(postgres_dsn: str, tmp_path: Path) -> None:
    """Half of the tables grow, half are replaced; within a snapshot all are of the same package."""
    pipeline = pipeline_into(postgres_dsn, tmp_path)

    async def package(number: int) -> None:
        await pipeline.run(
            [
                asyncelt.resource([{"version": number}], name=name, write_disposition="append" if at % 2 else "replace")
                for at, name in enumerate(TABLES)
            ]
        )

    seen: set[int] = set()

    async def read() -> None:
        connection = await asyncpg.connect(postgres_dsn)

        try:
            while True:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    versions = {await connection.fetchval(f"SELECT max(version) FROM data.{name}") for name in TABLES}

                assert len(versions) == 1, versions
                seen.update(versions)
        finally:
            connection.terminate()

    await package(0)

    async with anyio.create_task_group() as readers:
        for _ in range(READERS):
            readers.start_soon(read)

        for number in range(1, PACKAGES + 1):
            await package(number)

            while number not in seen:
                await asyncio.sleep(0)

        readers.cancel_scope.cancel()

    assert seen >= set(range(1, PACKAGES + 1))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_that_run_one_pipeline_take_turns(
    postgres_dsn: str, tmp_path: Path, nurseries: Callable[[int], list[Nursery]]
) -> None:
    """Neither knows the files of the other: what the first has committed reaches the second by the destination."""
    homes = [tmp_path / "one", tmp_path / "two"]

    for home in homes:
        home.mkdir()

    one, two = nurseries(2)

    for number in range(ROUNDS):
        both = [
            nursery.start(run_once, "state", home, number, postgres_dsn, environment={})
            for nursery, home in zip((one, two), homes, strict=True)
        ]
        assert [process.wait() for process in both] == [0, 0]

    scenario = Scenario("state", homes[0], PostgresTarget(postgres_dsn), Tally(), one)
    scenario.check()
    assert len(scenario.query("SELECT id FROM data.numbers")[0]) == 2 * ROUNDS * PAGES * ROWS


def run_and_stop(point: str, folder: str, dsn: str) -> None:
    """A run that is stopped where it passes a failpoint, and goes on when somebody says so."""

    def stop(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGSTOP)

    with installed(stop):
        asyncio.run(_run_once(Path(folder), dsn))


async def _run_once(folder: Path, dsn: str) -> None:
    await pipeline_into(dsn, folder).run(numbers_from_state())


async def until_stopped(process: Doomed) -> None:
    """Wait until the process has been stopped."""
    status = Path(f"/proc/{process.pid}/stat")

    while (await asyncio.to_thread(status.read_text)).rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.01)


@pytest.fixture
async def raw(postgres_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection of somebody who looks."""
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "point, is_new",
    [
        pytest.param("load.before_commit", True, id="idle on an empty dataset"),
        pytest.param("postgres.before_commit", False, id="in its transaction"),
    ],
)
async def test_an_owner_that_was_stopped_cannot_commit_after_another_took_over(
    postgres_dsn: str,
    tmp_path: Path,
    raw: asyncpg.Connection[asyncpg.Record],
    nursery: Nursery,
    point: str,
    *,
    is_new: bool,
) -> None:
    """Its connections have been ended by the server, as after a failure of the network."""
    home = tmp_path / "stopped"
    home.mkdir()

    if not is_new:
        await _run_once(tmp_path, postgres_dsn)

    process = nursery.start(run_and_stop, point, home, postgres_dsn, environment={})

    with anyio.fail_after(120):
        await until_stopped(process)

    await raw.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'asyncelt%'"
    )
    await _run_once(tmp_path, postgres_dsn)
    os.kill(process.pid, signal.SIGCONT)

    with pytest.raises(AssertionError, match="LeaseLost"):
        await asyncio.to_thread(process.wait)

    found = [row["id"] for row in await raw.fetch("SELECT id FROM data.numbers ORDER BY id")]
    assert found == list(range(1, (1 if is_new else 2) * PAGES * ROWS + 1))
