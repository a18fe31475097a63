"""P7: a run that is cancelled at any moment leaves nothing behind, and the next run carries on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

import asyncelt
from tests.support.open_files import open_files

ROWS = 40
PAGES = 5

Row = dict[str, object]


@asyncelt.resource(name="numbers")
async def numbers() -> AsyncIterator[list[Row]]:
    """Numbers from where the state says the last run ended."""
    state = asyncelt.current.resource_state()
    last = state.get("last", 0)
    assert isinstance(last, int)

    for _ in range(PAGES):
        yield [{"id": n, "parts": [{"of": n}, {"of": n}]} for n in range(last + 1, last + 1 + ROWS)]
        last += ROWS
        state["last"] = last
        await asyncio.sleep(0)


@asyncelt.resource(name="letters", write_disposition="replace")
def letters() -> Iterator[Row]:
    """A synchronous source, which lives in a thread of its own."""
    for letter in "abcdefghij":
        yield {"letter": letter}


async def cancel_after(steps: int, scope: anyio.CancelScope) -> None:
    """Cancel after so many turns of the event loop."""
    for _ in range(steps):
        await asyncio.sleep(0)

    scope.cancel()


def make(folder: Path, kind: str) -> asyncelt.Pipeline:
    """A pipeline into ``folder``."""
    destination = (
        asyncelt.destinations.duckdb(str(folder / "data.duckdb"))
        if kind == "duckdb"
        else asyncelt.destinations.filesystem(str(folder / "bucket"))
    )

    return asyncelt.pipeline("p", destination=destination, dataset_name="data", pipelines_dir=folder / "work")


async def turns_of_a_run(folder: Path, kind: str) -> int:
    """About how many turns of the loop an undisturbed run takes."""
    turns = 0
    pipeline = make(folder, kind)

    async with anyio.create_task_group() as tasks:

        async def count() -> None:
            nonlocal turns

            while True:
                await asyncio.sleep(0)
                turns += 1

        tasks.start_soon(count)
        await pipeline.run([numbers(), letters()])
        tasks.cancel_scope.cancel()

    return turns


async def check_nothing_is_left(folder: Path, threads_before: set[str], tasks_before: set[object]) -> None:
    """No task, no busy thread of ours, no open file, no unfinished package."""
    assert asyncio.all_tasks() <= tasks_before
    assert open_files(folder) == []
    building = folder / "work" / "p" / "packages" / "building"
    assert not building.exists() or list(building.iterdir()) == []

    with anyio.fail_after(60):  # a thread that has been given back still has to take note of it
        while not {thread.name for thread in threading.enumerate() if not _may_stay(thread.name)} <= threads_before:
            await anyio.sleep(0.005)


def _may_stay(thread_name: str) -> bool:
    """Whether such a thread waits for work for a while, and then ends."""
    return "AnyIO" in thread_name or thread_name == "asyncelt idle"


@pytest.mark.covers("probe.2.cancel")
@pytest.mark.parametrize("kind", ["duckdb", "filesystem"])
@pytest.mark.filterwarnings("ignore:.*NOT taken:asyncelt.AsynceltWarning")
async def test_cancelled_at_any_turn_of_the_loop_nothing_is_left(tmp_path: Path, kind: str) -> None:
    """Cancelled at moments spread over the whole run; then another run brings everything once."""
    (tmp_path / "probe").mkdir()
    turns = await turns_of_a_run(tmp_path / "probe", kind)
    threads_before = {thread.name for thread in threading.enumerate()}
    tasks_before: set[object] = set(asyncio.all_tasks())
    home = tmp_path / "home"
    home.mkdir()
    cancelled = 0

    for at in sorted({*range(12), *range(0, turns, max(turns // 25, 1))}):
        pipeline = make(home, kind)

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel_after, at, scope)
                await pipeline.run([numbers(), letters()])

            cancelled += scope.cancelled_caught
            tasks.cancel_scope.cancel()

        await check_nothing_is_left(home, threads_before, tasks_before)

    assert cancelled > 5
    await make(home, kind).run()
    await make(home, kind).run([numbers(), letters()])

    async with make(home, kind).sql_client() as client:
        ids = (await client.query("SELECT id FROM numbers ORDER BY id")).column("id").to_pylist()
        (parts,) = (await client.query("SELECT count(*) AS n FROM numbers__parts")).column("n").to_pylist()
        (kinds,) = (await client.query("SELECT count(*) AS n FROM letters")).column("n").to_pylist()

    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) % (ROWS * PAGES) == 0
    assert parts == 2 * len(ids)
    assert kinds == 10
    last = make(home, kind).state["sources"]["p"]["resources"]["numbers"]["last"]  # type: ignore[index,call-overload]
    assert last == len(ids)


@pytest.mark.covers("probe.2.cancel")
async def test_steps_that_are_cancelled_at_any_turn_leave_whole_packages_or_nothing(tmp_path: Path) -> None:
    """Each step by itself, cancelled at moments spread over all of them; then every row is there once."""
    threads_before = {thread.name for thread in threading.enumerate()}
    tasks_before: set[object] = set(asyncio.all_tasks())
    cancelled = 0

    async def steps(pipeline: asyncelt.Pipeline) -> None:
        await pipeline.normalize()
        await pipeline.load()
        await pipeline.extract([numbers(), letters()])
        await pipeline.normalize()
        await pipeline.load()

    for at in (*range(0, 20, 3), *range(20, 200, 15)):
        pipeline = make(tmp_path, "duckdb")

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel_after, at, scope)
                await steps(pipeline)

            cancelled += scope.cancelled_caught
            tasks.cancel_scope.cancel()

        await check_nothing_is_left(tmp_path, threads_before, tasks_before)

    assert cancelled > 5
    await steps(make(tmp_path, "duckdb"))

    async with make(tmp_path, "duckdb").sql_client() as client:
        ids = (await client.query("SELECT id FROM numbers ORDER BY id")).column("id").to_pylist()
        (parts,) = (await client.query("SELECT count(*) AS n FROM numbers__parts")).column("n").to_pylist()

    assert ids == list(range(1, len(ids) + 1))
    assert parts == 2 * len(ids)


async def test_a_timeout_in_a_slow_source_leaves_the_destination_as_it_was(tmp_path: Path) -> None:
    """The usual way to give up: a deadline around run()."""

    @asyncelt.resource
    async def slow() -> AsyncIterator[Row]:
        yield {"id": 1}
        await anyio.sleep(60)

    pipeline = make(tmp_path, "duckdb")

    with anyio.move_on_after(0.3) as scope:
        await pipeline.run(slow())

    assert scope.cancelled_caught
    assert open_files(tmp_path) == []
    assert pipeline.has_pending_data is False
    info = await pipeline.run([{"id": 2}], table_name="slow")
    assert info.row_counts["slow"] == 1
