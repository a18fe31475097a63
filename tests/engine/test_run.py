"""Whole runs through the public API: what commits, what is pending, what is returned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    BadRecord,
    ConfigError,
    PipelineBusy,
    PipelineConfigMissing,
    PipelineStepFailed,
)
from asyncelt.failpoints import installed
from asyncelt.observe import StageDone, StageStarted

Row = dict[str, object]


def make(folder: Path, name: str = "p", **options: object) -> asyncelt.Pipeline:
    """A pipeline into a DuckDB file of its own."""
    return asyncelt.pipeline(
        name,
        destination=asyncelt.destinations.duckdb(str(folder / f"{name}.duckdb")),
        dataset_name="data",
        pipelines_dir=folder / "work",
        **options,  # type: ignore[arg-type]
    )


async def ask(pipeline: asyncelt.Pipeline, sql: str) -> list[tuple[object, ...]]:
    """Rows of a query."""
    async with pipeline.sql_client() as client:
        table = await client.query(sql)

    return [tuple(row.values()) for row in table.to_pylist()]


async def test_rows_become_tables(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    info = await pipeline.run([{"id": 1, "tags": ["a", "b"]}, {"id": 2, "who": {"name": "x"}}], table_name="items")

    assert info.row_counts["items"] == 2
    assert info.row_counts["items__tags"] == 2
    assert await ask(pipeline, "SELECT id, who__name FROM items ORDER BY id") == [(1, None), (2, "x")]
    assert info.first_run is True
    assert pipeline.first_run is False
    assert "1 load package(s) were loaded to destination duckdb and into dataset data" in str(info)


async def test_a_second_run_appends_and_keeps_its_schema(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.run([{"id": 1}], table_name="t")
    await make(tmp_path).run([{"id": 2, "new": True}], table_name="t")

    assert await ask(pipeline, "SELECT id, new FROM t ORDER BY id") == [(1, None), (2, True)]
    assert await ask(pipeline, "SELECT count(*) FROM _dlt_loads") == [(2,)]


async def test_state_survives_and_is_restored_on_an_empty_machine(tmp_path: Path) -> None:
    @asyncelt.resource
    async def counter() -> AsyncIterator[Row]:
        state = asyncelt.current.resource_state()
        state["runs"] = int(state.get("runs", 0)) + 1  # type: ignore[call-overload]
        yield {"run": state["runs"]}

    await make(tmp_path).run(counter())
    (tmp_path / "work").rename(tmp_path / "lost")
    pipeline = make(tmp_path)
    await pipeline.run(counter())

    assert await ask(pipeline, "SELECT run FROM counter ORDER BY run") == [(1,), (2,)]


async def test_a_failing_resource_leaves_everything_as_it_was(tmp_path: Path) -> None:
    @asyncelt.resource
    async def broken() -> AsyncIterator[Row]:
        asyncelt.current.resource_state()["seen"] = 1
        yield {"id": 1}
        raise ZeroDivisionError("boom")

    pipeline = make(tmp_path)
    await pipeline.run([{"id": 0}], table_name="t")
    before = pipeline.state

    with pytest.raises(PipelineStepFailed, match="broken") as caught:
        await pipeline.run([broken()])

    assert caught.value.step == "extract"
    assert caught.value.load_id is not None
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)  # type: ignore[union-attr]
    assert pipeline.state == before
    assert pipeline.has_pending_data is False
    assert await ask(pipeline, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'broken'") == [(0,)]


async def test_killed_after_the_seal_the_next_run_commits_and_says_so(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(point: str) -> None:
        if point == "load.before_commit":
            raise Killed

    pipeline = make(tmp_path)

    with installed(kill), pytest.raises(BaseException):  # noqa: B017 - BaseExceptionGroup or Killed
        await pipeline.run([{"id": 1}], table_name="t")

    pipeline = make(tmp_path)
    assert pipeline.has_pending_data is True

    with pytest.warns(AsynceltWarning, match="NOT taken"):
        info = await pipeline.run([{"id": 2}], table_name="t")

    assert info.data_taken is False
    assert "NOT taken" in str(info)
    assert await ask(pipeline, "SELECT id FROM t") == [(1,)]


@pytest.mark.covers("Pipeline.run")
@pytest.mark.parametrize(("on_pending", "expected"), [("load_then_run", [(1,), (2,)]), ("load_only", [(1,)])])
async def test_on_pending(tmp_path: Path, on_pending: str, expected: list[tuple[int]]) -> None:
    def fail(point: str) -> None:
        if point == "load.before_commit":
            raise OSError("out of order")

    pipeline = make(tmp_path)

    with installed(fail), pytest.raises(PipelineStepFailed) as caught:
        await pipeline.run([{"id": 1}], table_name="t")

    assert caught.value.step == "load"

    if on_pending == "load_only":
        with pytest.warns(AsynceltWarning, match="NOT taken"):
            await pipeline.run([{"id": 2}], table_name="t")
    else:
        await pipeline.run([{"id": 2}], table_name="t", on_pending="load_then_run")

    assert await ask(pipeline, "SELECT id FROM t ORDER BY id") == expected


async def test_aborted_packages_never_load(tmp_path: Path) -> None:
    def fail(point: str) -> None:
        if point == "load.before_commit":
            raise OSError("out of order")

    pipeline = make(tmp_path)

    with installed(fail), pytest.raises(PipelineStepFailed):
        await pipeline.run([{"id": 1}], table_name="t")

    (aborted,) = await pipeline.abort_packages()
    assert (await pipeline.get_load_package_info(aborted)).state == "aborted"
    await pipeline.run([{"id": 2}], table_name="t")

    assert await ask(pipeline, "SELECT id FROM t") == [(2,)]


async def test_a_repeated_run_id_does_nothing_again(tmp_path: Path) -> None:
    first = await make(tmp_path).run([{"id": 1}], table_name="t", run_id="monday")
    pipeline = make(tmp_path)
    again = await pipeline.run([{"id": 1}], table_name="t", run_id="monday")

    assert again.already_committed is True
    assert again.loads_ids == first.loads_ids
    assert await ask(pipeline, "SELECT id FROM t") == [(1,)]


async def test_replace_replaces_even_with_nothing(tmp_path: Path) -> None:
    @asyncelt.resource(write_disposition="replace")
    def things(rows: list[Row]) -> Iterator[Row]:
        yield from rows

    pipeline = make(tmp_path)
    await pipeline.run(things([{"id": 1, "tags": [1, 2]}]))
    await pipeline.run(things([{"id": 2, "tags": [3]}]))
    assert await ask(
        pipeline, "SELECT t.id, g.value FROM things t JOIN things__tags g ON g._dlt_parent_id = t._dlt_id"
    ) == [(2, 3)]

    await pipeline.run(things([]))
    assert await ask(pipeline, "SELECT (SELECT count(*) FROM things), (SELECT count(*) FROM things__tags)") == [(0, 0)]


async def test_merge_by_key_with_children(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    options = {"table_name": "t", "write_disposition": "merge", "primary_key": "id"}
    await pipeline.run([{"id": 1, "v": 1, "l": [1]}, {"id": 2, "v": 1, "l": [2]}], **options)  # type: ignore[arg-type]
    await pipeline.run([{"id": 2, "v": 2, "l": [3, 4]}, {"id": 3, "v": 2, "l": []}], **options)  # type: ignore[arg-type]

    assert await ask(pipeline, "SELECT id, v FROM t ORDER BY id") == [(1, 1), (2, 2), (3, 2)]
    rows = await ask(pipeline, "SELECT t.id, l.value FROM t JOIN t__l l ON l._dlt_parent_id = t._dlt_id ORDER BY 1, 2")
    assert rows == [(1, 1), (2, 3), (2, 4)]


@pytest.mark.covers("probe.10.several")
async def test_pipelines_run_side_by_side_in_one_loop(tmp_path: Path) -> None:
    async def source(name: str) -> AsyncIterator[Row]:
        for number in range(50):
            await asyncio.sleep(0)
            yield {"who": name, "nr": number}

    async def one(name: str) -> None:
        pipeline = make(tmp_path, name)
        await pipeline.run(source(name), table_name="t")
        assert await ask(pipeline, "SELECT DISTINCT who FROM t") == [(name,)]
        assert asyncelt.pipeline() is pipeline

    async with anyio.create_task_group() as tasks:
        for name in ("a", "b", "c", "d"):
            tasks.start_soon(one, name)


@pytest.mark.covers("probe.10.same")
async def test_two_runs_of_one_pipeline_take_turns(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            pipeline = make(tmp_path)

            async def one(pipeline: asyncelt.Pipeline = pipeline, number: int = number) -> None:
                await pipeline.run([{"id": number}], table_name="t")

            tasks.start_soon(one)

    assert await ask(make(tmp_path), "SELECT id FROM t ORDER BY id") == [(0,), (1,), (2,)]


@pytest.mark.covers("probe.10.same")
async def test_a_busy_pipeline_raises_when_told_so(tmp_path: Path) -> None:
    entered = anyio.Event()
    leave = anyio.Event()

    async def slow() -> AsyncIterator[Row]:
        yield {"id": 1}
        entered.set()
        await leave.wait()

    async with anyio.create_task_group() as tasks:

        async def first() -> None:
            await make(tmp_path).run(slow(), table_name="t")

        tasks.start_soon(first)
        await entered.wait()

        with pytest.raises(PipelineBusy, match="another task or process"):
            await make(tmp_path, on_busy="raise").run([{"id": 2}], table_name="t")

        leave.set()


@pytest.mark.parametrize("workers", [2, 4])
async def test_workers_never_change_the_result(tmp_path: Path, workers: int) -> None:
    """Types change from page to page, so pages depend on each other's schema."""

    async def pages() -> AsyncIterator[list[Row]]:
        for page in range(40):
            yield [{"id": page, f"c{page % 7}": page, "mixed": page if page % 3 else str(page) + "x"}]

    found = []

    for count in (1, workers):
        limits = asyncelt.Limits(gather_rows=2, normalize_workers=count, buffer_max_items=3)
        pipeline = make(tmp_path, f"p{count}", settings=asyncelt.Settings(limits=limits))
        await pipeline.run(pages(), table_name="t")
        columns = await ask(
            pipeline, "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 't' ORDER BY column_index"
        )
        found.append((columns, await ask(pipeline, "SELECT * EXCLUDE (_dlt_id, _dlt_load_id) FROM t")))

    assert found[0] == found[1]
    assert [row[0] for row in found[0][1]] == list(range(40))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pipeline_name": "a/b"}, "cannot be a pipeline name"),
        ({"pipeline_name": "p", "destination": "duckbd"}, "duckdb"),
        ({"pipeline_name": "p", "max_memory": 0}, "bytes from 1"),
        ({"pipeline_name": "p", "workers": 0}, "whole number from 1"),
        ({"pipeline_name": "p", "progress": "loud"}, "loud"),
        ({"pipeline_name": "p", "on_busy": "never"}, "on_busy"),
    ],
)
async def test_wrong_arguments_fail_before_any_io(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asyncelt.pipeline(pipelines_dir=tmp_path / "work", **wrong)  # type: ignore[arg-type]

    assert not (tmp_path / "work").exists()


async def test_a_run_without_a_destination_says_what_to_do(tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline("p", pipelines_dir=tmp_path)

    with pytest.raises(PipelineConfigMissing, match="destination='duckdb'"):
        await pipeline.run([{"id": 1}], table_name="t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "table_name"),
        ({"table_name": "t", "write_disposition": "apend"}, "append"),
        ({"table_name": "t", "loader_file_format": "csv"}, "parquet"),
    ],
)
async def test_wrong_run_arguments_touch_nothing(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await make(tmp_path).run([{"id": 1}], **options)  # type: ignore[arg-type]

    assert not (tmp_path / "p.duckdb").exists()
    assert not (tmp_path / "work").exists()


async def test_memory_stays_in_the_budget_and_all_is_returned(tmp_path: Path) -> None:
    budget = asyncelt.ByteBudget(200_000)

    async def pages() -> AsyncIterator[list[Row]]:
        for page in range(60):
            yield [{"id": page * 100 + n, "text": "x" * 50} for n in range(100)]

    settings = asyncelt.Settings(limits=asyncelt.Limits(gather_bytes=12_500))
    pipeline = make(tmp_path, max_memory=budget, settings=settings)
    info = await pipeline.run(pages(), table_name="t")

    assert info.row_counts["t"] == 6000
    assert budget.used == 0
    # Converting a page may take more than was guessed for it: a page and a half for each of the two workers.
    assert budget.peak < 200_000 + 4 * 50_000


class Body(bytes):
    """One that says when it goes."""

    when_gone: Callable[[], object]

    def __del__(self) -> None:
        self.when_gone()


async def test_nobody_keeps_a_body_whose_rows_are_columns(tmp_path: Path) -> None:
    """Not even while the next page does not come: five pages of 12 MiB each would be kept that way."""
    loop = asyncio.get_running_loop()

    async def pages() -> AsyncIterator[asyncelt.JsonPage]:
        for number in range(4):
            gone = asyncio.Event()
            body = Body(b'[{"id": %d}]' % number)
            body.when_gone = partial(loop.call_soon_threadsafe, gone.set)
            page = asyncelt.JsonPage(body)
            del body
            yield page
            del page

            async with asyncio.timeout(60):
                await gone.wait()

    settings = asyncelt.Settings(limits=asyncelt.Limits(gather_bytes=1))
    info = await make(tmp_path, settings=settings).run(pages(), table_name="t")

    assert info.row_counts["t"] == 4


async def test_what_is_reported_is_the_step_that_failed_first(tmp_path: Path) -> None:
    """A value that cannot be kept fails normalize; the source, which then has nobody to give pages to, is not blamed."""

    async def pages() -> AsyncIterator[list[Row]]:
        for number in range(200):
            yield [{"id": number, "bad": {1, 2} if number == 3 else None}]

    settings = asyncelt.Settings(limits=asyncelt.Limits(gather_rows=1))

    with pytest.raises(PipelineStepFailed) as caught:
        await make(tmp_path, settings=settings).run(pages(), table_name="t")

    assert caught.value.step == "normalize"
    assert isinstance(caught.value.__cause__, BadRecord)
    assert caught.value.__cause__.table == "t"


@pytest.mark.covers("probe.2.liveness")
async def test_the_loop_turns_in_every_stage(tmp_path: Path) -> None:
    """Other tasks of the loop get their turns while rows are read, shaped and committed."""
    turns = 0
    at: dict[tuple[str, str], int] = {}

    class Watching:
        def on_event(self, event: object) -> None:
            if isinstance(event, StageStarted | StageDone):
                at[event.stage, type(event).__name__] = turns

    async def tick() -> None:
        nonlocal turns

        while True:
            turns += 1
            await asyncio.sleep(0)

    async def rows() -> AsyncIterator[object]:
        for page in range(10):
            yield [{"id": page * 100 + n, "l": [n, {"deep": [n]}]} for n in range(100)]

    pipeline = make(tmp_path, progress=Watching())
    ticking = asyncio.create_task(tick())
    await pipeline.run(asyncelt.resource(rows, name="rows"))
    ticking.cancel()

    for stage in ("extract", "normalize", "load"):
        assert at[stage, "StageDone"] - at[stage, "StageStarted"] > 5, stage
