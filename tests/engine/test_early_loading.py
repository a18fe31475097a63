"""Rows that are written into the commit's transaction while the run still extracts: only the time differs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import duckdb
import pytest

import asyncelt
from asyncelt.destinations.duckdb_impl.instance import Instance
from asyncelt.destinations.duckdb_impl.session import DuckDbSession
from asyncelt.errors import PipelineStepFailed
from asyncelt.failpoints import installed
from asyncelt.load.protocol import EarlyJob

Row = dict[str, object]
WRITTEN = "duckdb.after_early_load"
EARLY = asyncelt.Limits(load_early_bytes=1, gather_rows=2_000)
LATE = replace(EARLY, load_early_bytes=None)


def make(folder: Path, limits: asyncelt.Limits = EARLY, **options: object) -> asyncelt.Pipeline:
    """A pipeline whose files are complete with each page, if they are small enough."""
    return asyncelt.pipeline(
        "p",
        destination=asyncelt.destinations.duckdb(str(folder / "p.duckdb"), **options),  # type: ignore[arg-type]
        dataset_name="data",
        pipelines_dir=folder / "work",
        settings=asyncelt.Settings(limits=limits),
    )


class Written:
    """Counts files that were loaded early; a source can wait for one."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, point: str) -> None:
        self.count += point == WRITTEN

    async def reach(self, count: int) -> None:
        while self.count < count:
            await anyio.sleep(0.002)


def page(first: int, more: Callable[[int], Row] = lambda number: {}, rows: int = 2_000) -> list[Row]:
    """Numbered rows that are large enough for a file of their own."""
    return [{"id": number, "text": f"{number:>64}", **more(number)} for number in range(first, first + rows)]


def everything(folder: Path) -> dict[str, tuple[list[tuple[object, ...]], list[tuple[object, ...]]]]:
    """Columns and rows of each table of the data; ids made at random left out."""
    with duckdb.connect(str(folder / "p.duckdb"), read_only=True) as connection:
        names = [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        found = {}

        for name in names:
            if name.startswith(("_dlt", "_asyncelt")):
                continue

            columns = connection.execute(f"DESCRIBE data.{name}").fetchall()
            kept = [row[0] for row in columns if not str(row[0]).startswith("_dlt") or row[0] == "_dlt_list_idx"]
            listed = ", ".join(f'"{one}"' for one in kept)
            rows = connection.execute(f"SELECT {listed} FROM data.{name} ORDER BY ALL").fetchall()
            found[name] = (columns, rows)

    return found


async def ids(pipeline: asyncelt.Pipeline) -> tuple[int, int]:
    """Rows and distinct ids."""
    async with pipeline.sql_client() as client:
        found = await client.query("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM items")

    return found.to_pylist()[0]["n"], found.to_pylist()[0]["ids"]


async def test_tables_are_the_same_whether_rows_came_early_or_late(tmp_path: Path) -> None:
    """New columns, new nested tables and other dispositions in the middle of the run included."""
    seen = Written()

    def sources(is_early: bool) -> list[asyncelt.Resource]:
        @asyncelt.resource(name="items", columns={"later": {"data_type": "bigint"}, "hinted": {"nullable": True}})
        async def items() -> AsyncIterator[list[Row]]:
            yield page(0)
            yield page(2_000, lambda number: {"new": number, "tags": [number, number + 1]})

            if is_early:
                await seen.reach(2)

            yield page(4_000, lambda number: {"hinted": "x", "who": {"name": str(number)}, "new": str(number)})
            yield page(6_000)

        @asyncelt.resource(name="merged", primary_key="id", write_disposition="merge")
        async def merged() -> AsyncIterator[list[Row]]:
            yield page(0)
            yield page(1_000)

        @asyncelt.resource(name="replaced", write_disposition="replace")
        async def replaced() -> AsyncIterator[list[Row]]:
            yield page(0)
            yield page(2_000)

        return [items, merged, replaced]

    infos = []

    for name, limits in (("early", EARLY), ("late", LATE)):
        for _ in range(2):
            with installed(seen):
                infos.append(await make(tmp_path / name, limits).run(sources(name == "early" and seen.count == 0)))

    assert seen.count > 4
    assert everything(tmp_path / "early") == everything(tmp_path / "late")
    assert [info.row_counts for info in infos[:2]] == [info.row_counts for info in infos[2:]]
    early, late = (info.load_packages[0].schema_update for info in (infos[0], infos[2]))
    assert dict(early) == dict(late)


async def test_a_run_that_fails_leaves_nothing_of_what_was_written(tmp_path: Path) -> None:
    seen = Written()
    pipeline = make(tmp_path)
    await pipeline.run(page(0), table_name="items")

    @asyncelt.resource(name="items")
    async def failing() -> AsyncIterator[list[Row]]:
        yield page(2_000)
        await seen.reach(1)
        raise ValueError("no more")

    with installed(seen), pytest.raises(PipelineStepFailed, match="no more"):
        await pipeline.run(failing)

    assert await ids(pipeline) == (2_000, 2_000)
    await pipeline.run(page(2_000), table_name="items")
    assert await ids(pipeline) == (4_000, 4_000)


async def test_a_cancelled_run_leaves_nothing_of_what_was_written(tmp_path: Path) -> None:
    seen = Written()
    pipeline = make(tmp_path)

    async def endless() -> AsyncIterator[list[Row]]:
        for start in range(0, 10**9, 2_000):
            yield page(start)

    with installed(seen):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: pipeline.run(endless(), table_name="items"))
            await seen.reach(2)
            tasks.cancel_scope.cancel()

    await pipeline.run(page(0), table_name="items")
    assert await ids(pipeline) == (2_000, 2_000)


async def test_what_is_being_read_when_the_run_ends_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package moves to another folder then."""
    load = DuckDbSession.load_early
    answers: list[bool] = []

    async def slowly(self: DuckDbSession, jobs: Sequence[EarlyJob]) -> bool:
        await anyio.sleep(0.1)
        answers.append(await load(self, jobs))

        return answers[-1]

    monkeypatch.setattr(DuckDbSession, "load_early", slowly)

    @asyncelt.resource(name="items")
    async def items() -> AsyncIterator[list[Row]]:
        for first in range(0, 10_000, 2_000):
            yield page(first)

    pipeline = make(tmp_path)
    await pipeline.run(items)

    assert answers
    assert all(answers)
    assert await ids(pipeline) == (10_000, 10_000)


async def test_who_waits_for_the_file_gets_it_in_the_middle_of_the_run(tmp_path: Path) -> None:
    """Another pipeline commits while the first extracts; both have all their rows."""
    seen = Written()
    other = asyncelt.pipeline(
        "other",
        destination=asyncelt.destinations.duckdb(str(tmp_path / "p.duckdb")),
        dataset_name="data",
        pipelines_dir=tmp_path / "work",
    )
    committed = anyio.Event()
    start = 0

    async def rows() -> AsyncIterator[list[Row]]:
        nonlocal start

        while not committed.is_set():
            yield page(start)
            start += 2_000

        yield page(start)
        start += 2_000

    async def second() -> None:
        await seen.reach(1)
        await other.run([{"id": 1}], table_name="others")
        committed.set()

    pipeline = make(tmp_path)

    with installed(seen):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second)
            await pipeline.run(rows(), table_name="items")

    assert await ids(pipeline) == (start, start)
    assert (await other.dataset().others.arrow()).num_rows == 1


async def test_a_source_that_stalls_does_not_keep_the_file(tmp_path: Path) -> None:
    seen = Written()
    pipeline = make(tmp_path)

    async def stalling() -> AsyncIterator[list[Row]]:
        yield page(0)
        await seen.reach(1)

        while True:
            try:
                duckdb.connect(str(tmp_path / "p.duckdb")).close()
                break
            except duckdb.Error:
                await anyio.sleep(0.05)

        yield page(2_000)

    with installed(seen):
        await pipeline.run(stalling(), table_name="items")

    assert await ids(pipeline) == (4_000, 4_000)


async def test_the_file_is_held_for_no_longer_than_others_wait(tmp_path: Path) -> None:
    """Half of the time, after which the commit has to write the rows itself."""
    seen = Written()
    pipeline = make(tmp_path, busy_timeout_s=0.0)

    async def rows() -> AsyncIterator[list[Row]]:
        for start in range(0, 10_000, 2_000):
            yield page(start)

    with installed(seen):
        await pipeline.run(rows(), table_name="items")

    assert seen.count <= 1
    assert await ids(pipeline) == (10_000, 10_000)


async def test_a_file_that_cannot_be_let_go_of_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails as it is given up; the commit attaches the file anew and writes everything."""
    seen = Written()
    pipeline = make(tmp_path, busy_timeout_s=0.0)
    failed = []
    let_go = Instance._let_go

    def fail(self: Instance, cursor: duckdb.DuckDBPyConnection, detach: str) -> None:
        let_go(self, cursor, detach)

        if not failed:
            failed.append(detach)
            raise duckdb.IOException("no space left")

    async def rows() -> AsyncIterator[list[Row]]:
        yield page(0)
        monkeypatch.setattr(Instance, "_let_go", fail)
        await anyio.lowlevel.checkpoint()

        for start in range(2_000, 10_000, 2_000):
            yield page(start)

    with installed(seen):
        await pipeline.run(rows(), table_name="items")

    assert failed
    assert await ids(pipeline) == (10_000, 10_000)


KILLED = """
import anyio, os, sys
from tests.engine.test_early_loading import make, page
from pathlib import Path

async def rows():
    # A process that is to be killed goes on until it is.
    for start in range(0, 10**9 if "ASYNCELT_FAILPOINT" in os.environ else 20_000, 2_000):
        yield page(start)

anyio.run(lambda: make(Path(sys.argv[1])).run(rows(), table_name="items", run_id="only"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("hit", [1, 3])
async def test_a_kill_after_rows_were_written_loses_and_doubles_nothing(tmp_path: Path, hit: int) -> None:
    def run(**environment: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, **environment}, check=False
        ).returncode

    assert await anyio.to_thread.run_sync(lambda: run(ASYNCELT_FAILPOINT=f"{WRITTEN}:{hit}")) == -9
    assert await anyio.to_thread.run_sync(run) == 0
    assert await ids(make(tmp_path)) == (20_000, 20_000)
