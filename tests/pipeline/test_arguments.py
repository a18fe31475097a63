"""Each argument of the calls, on its own: what it changes, and for how long."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    CannotRestorePipeline,
    ConfigError,
    DataValidationError,
    PipelineStepFailed,
    StorageError,
)
from asyncelt.observe import Event

Make = Callable[..., asyncelt.Pipeline]
LAKE = asyncelt.destinations.filesystem("/nonexistent/lake")
ROWS = [{"id": 1, "v": 1}, {"id": 2, "v": 2}]


class Seen:
    """Notes every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def column(destination: Any, table: str, name: str, dataset: str = "data") -> list[object]:
    return destination.tables(dataset)[table].column(name).to_pylist()  # type: ignore[no-any-return]


async def formats(pipeline: asyncelt.Pipeline, load_id: str) -> set[str]:
    package = await pipeline.get_load_package_info(load_id)

    return {job.job_file_info.file_format for job in package.all_jobs if job.table_name == "t"}


# -------------------------------------------------------------------------------------------- pipelines_dir


@pytest.mark.parametrize("in_the_way", ["work", "work/p/.lock/folder"], ids=["no folder", "no lock"])
async def test_a_working_folder_that_cannot_be_written_is_named(make: Make, tmp_path: Path, in_the_way: str) -> None:
    path = tmp_path / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")

    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "work" / "p")) + ".*ASYNCELT_DATA_DIR"):
        await make().run(ROWS, table_name="t")


# -------------------------------------------------------------------------------------------- run


@pytest.mark.covers("Pipeline.run.destination", "Pipeline.run.dataset_name", "Pipeline.run.table_name")
async def test_run_can_change_destination_and_dataset(make: Make, memory: Any) -> None:
    pipeline, other = make(), asyncelt.destinations.memory()
    await pipeline.run(ROWS, table_name="t", destination=other, dataset_name="elsewhere")
    assert column(other, "t", "id", "elsewhere") == [1, 2]
    assert (pipeline.destination, pipeline.dataset_name) == (other, "elsewhere")
    assert memory.tables("data") == {}


@pytest.mark.covers("Pipeline.run.table_name")
async def test_run_with_a_table_name_renames_the_tables_of_resources(make: Make, memory: Any) -> None:
    resource = asyncelt.resource([{"id": 1}], name="own")
    await make().run(resource, table_name="t")
    assert set(memory.tables("data")) >= {"t"}
    assert "own" not in memory.tables("data")
    assert resource.table_name == "own"


@pytest.mark.covers("Pipeline.run.schema", "Pipeline.extract.schema")
@pytest.mark.parametrize("stepwise", [False, True])
async def test_a_schema_is_used_for_all_sources(make: Make, memory: Any, stepwise: bool) -> None:
    teacher = make("teacher", dataset_name="other")
    await teacher.run([{"id": 1}], table_name="t", columns={"v": {"data_type": "text"}})
    pipeline = make()

    if stepwise:
        await pipeline.extract(ROWS, table_name="t", schema=teacher.default_schema)
        await pipeline.normalize()
        await pipeline.load()
    else:
        await pipeline.run(ROWS, table_name="t", schema=teacher.default_schema)

    assert pipeline.schema_names == ["teacher"]
    assert column(memory, "t", "v") == ["1", "2"]


@pytest.mark.covers("Pipeline.run.loader_file_format", "Pipeline.extract.loader_file_format")
@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
async def test_the_format_of_job_files(make: Make, file_format: Any) -> None:
    pipeline = make()
    info = await pipeline.run(ROWS, table_name="t", loader_file_format=file_format)
    assert await formats(pipeline, info.loads_ids[0]) == {file_format}
    extracted = await pipeline.extract(ROWS, table_name="t", loader_file_format=file_format)
    await pipeline.normalize()
    assert await formats(pipeline, extracted.loads_ids[0]) == {file_format}

    for call in (pipeline.run, pipeline.extract):
        with pytest.raises(ConfigError, match="not 'model'"):
            await call(ROWS, table_name="t", loader_file_format="model")


@pytest.mark.covers("Pipeline.run.table_format", "Pipeline.extract.table_format")
@pytest.mark.parametrize("stepwise", [False, True])
async def test_the_table_format_is_a_hint(make: Make, stepwise: bool) -> None:
    pipeline = make()
    call = pipeline.extract if stepwise else pipeline.run
    await call(ROWS, table_name="t", table_format="delta")
    assert pipeline.default_schema.tables["t"].hints["table_format"] == "delta"  # type: ignore[index]


# -------------------------------------------------------------------------------------------- extract


@pytest.mark.covers("Pipeline.extract.write_disposition", "Pipeline.extract.primary_key", "Pipeline.extract.columns")
async def test_hints_of_extract_reach_the_load(make: Make, memory: Any) -> None:
    pipeline = make()

    for value in (1, 2):
        await pipeline.extract(
            [{"id": 1, "v": value}],
            table_name="t",
            write_disposition="merge",
            primary_key="id",
            columns={"v": {"data_type": "text"}},
        )

    await pipeline.normalize()
    await pipeline.load()
    assert column(memory, "t", "v") == ["2"]


@pytest.mark.covers(
    "Pipeline.extract.parent_table_name", "Resource.apply_hints.parent_table_name", "mark.make_hints.parent_table_name"
)
async def test_a_table_may_be_said_to_be_nested(make: Make, memory: Any) -> None:
    """Rows as they come, in a table that stands below another one. The reference fails in extract (KeyError)."""
    pipeline = make()
    await pipeline.run([{"id": 1}], table_name="t")
    await pipeline.extract([{"n": 1}], table_name="notes", parent_table_name="t")
    more = asyncelt.resource([{"n": 2}], name="more").apply_hints(parent_table_name="t")
    hints = asyncelt.mark.make_hints(table_name="marked", parent_table_name="t")
    marked = asyncelt.mark.with_hints({"n": 3}, hints, create_table_variant=True)
    await pipeline.extract([more, asyncelt.resource([marked], name="marks")])
    await pipeline.normalize()
    await pipeline.load()
    tables = pipeline.default_schema.tables
    assert [tables[name].parent for name in ("notes", "more", "marked")] == ["t"] * 3  # type: ignore[index]
    assert [column(memory, name, "n") for name in ("notes", "more", "marked")] == [[1], [2], [3]]


@pytest.mark.covers(
    "Pipeline.extract.max_parallel_items",
    "Pipeline.extract.workers",
    "Pipeline.normalize.workers",
    "Pipeline.load.workers",
)
async def test_numbers_of_workers_never_change_the_result(make: Make, memory: Any) -> None:
    pipeline = make()

    for number in (1, 3):
        await pipeline.extract(ROWS, table_name="t", max_parallel_items=number, workers=number)
        await pipeline.normalize(workers=number)
        await pipeline.load(workers=number)

    assert column(memory, "t", "id") == [1, 2, 1, 2]


@pytest.mark.covers("Pipeline.extract.max_parallel_items")
@pytest.mark.parametrize("bound", [2, None])
async def test_extract_bounds_calls_that_are_under_way(make: Make, bound: int | None) -> None:
    now = most = 0

    @asyncelt.defer
    async def answer(number: int) -> dict[str, int]:
        nonlocal now, most
        now += 1
        most = max(most, now)

        for _ in range(5):
            await asyncio.sleep(0)

        now -= 1

        return {"id": number}

    calls = asyncelt.resource([answer(number) for number in range(12)], name="calls")
    await make().extract(calls, max_parallel_items=bound)

    assert most <= 3 if bound is not None else most > 3


@pytest.mark.covers("Pipeline.extract.workers")
@pytest.mark.parametrize("workers", [1, 3])
async def test_extract_bounds_the_threads_of_a_resource(make: Make, workers: int) -> None:
    together, lock = threading.Barrier(workers), threading.Lock()
    now = most = 0

    @asyncelt.defer
    def answer(number: int) -> dict[str, int]:
        nonlocal now, most

        with lock:
            now += 1
            most = max(most, now)

        # All of them meet here, so that it cannot be chance.
        together.wait(timeout=60)

        with lock:
            now -= 1

        return {"id": number}

    await make().extract(asyncelt.resource([answer(number) for number in range(6)], name="calls"), workers=workers)

    assert most == workers


# -------------------------------------------------------------------------------------------- load


@pytest.mark.covers("Pipeline.load.dataset_name")
async def test_load_can_change_the_dataset(make: Make, memory: Any) -> None:
    pipeline = make()
    await pipeline.extract(ROWS, table_name="t")
    await pipeline.normalize()

    with pytest.warns(AsynceltWarning, match="is loaded into 'elsewhere'"):
        await pipeline.load(dataset_name="elsewhere")

    assert column(memory, "t", "id", "elsewhere") == [1, 2]
    assert (memory.tables("data"), pipeline.dataset_name) == ({}, "elsewhere")


@pytest.mark.covers("Pipeline.load.credentials")
async def test_load_takes_credentials(tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline("p", pipelines_dir=tmp_path, destination="duckdb", dataset_name="d")
    await pipeline.extract(ROWS, table_name="t")
    await pipeline.normalize()

    with pytest.warns(AsynceltWarning, match=r"x\.duckdb"):
        await pipeline.load(credentials=str(tmp_path / "x.duckdb"))

    assert pipeline.destination is not None
    assert pipeline.destination.location.endswith("x.duckdb")
    assert (tmp_path / "x.duckdb").exists()


# -------------------------------------------------------------------------------------------- sync, refresh


@pytest.mark.covers("Pipeline.sync_destination.staging", "attach.staging", "run.staging")
async def test_staging_is_refused_by_name(make: Make, tmp_path: Path) -> None:
    """Where the destination takes none."""
    pipeline = make()

    for call in (
        lambda: pipeline.sync_destination(staging=LAKE),
        lambda: asyncelt.attach("p", tmp_path / "work", destination="memory", staging=LAKE),
        lambda: asyncelt.run(ROWS, table_name="t", staging=LAKE),
    ):
        with pytest.raises((ConfigError, PipelineStepFailed), match="'filesystem' cannot be one"):
            await call()  # type: ignore[no-untyped-call]


@pytest.mark.covers("Pipeline.refresh", "pipeline.refresh")
async def test_a_pipeline_says_what_it_refreshes(make: Make, memory: Any) -> None:
    assert make().refresh is None
    pipeline = make(refresh="drop_data")
    assert pipeline.refresh == "drop_data"
    await pipeline.run(ROWS, table_name="t")
    await pipeline.run(ROWS[:1], table_name="t")
    assert column(memory, "t", "id") == [1]


# -------------------------------------------------------------------------------------------- attach, asyncelt.run


@pytest.mark.covers("attach.progress", "attach.pipeline_salt")
async def test_attach_takes_what_the_factory_takes(make: Make, tmp_path: Path, memory: Any) -> None:
    await make().run(ROWS, table_name="t")
    seen = Seen()
    found = await asyncelt.attach(
        "p", tmp_path / "work", "salt", destination=memory, dataset_name="data", progress=seen
    )
    assert found.pipeline_salt == "salt"
    await found.run(ROWS, table_name="t")
    assert seen.events

    with pytest.raises(CannotRestorePipeline):
        await asyncelt.attach("other", tmp_path / "work")


@pytest.mark.covers(
    "run.data",
    "run.destination",
    "run.dataset_name",
    "run.table_name",
    "run.write_disposition",
    "run.columns",
    "run.loader_file_format",
    "run.table_format",
    "run.schema_contract",
    "run.refresh",
)
async def test_run_without_a_pipeline_uses_the_active_one(make: Make, memory: Any) -> None:
    pipeline, other = make(), asyncelt.destinations.memory()
    info = await asyncelt.run(
        ROWS,
        destination=other,
        dataset_name="d",
        table_name="t",
        write_disposition="replace",
        columns={"v": {"data_type": "text"}},
        loader_file_format="jsonl",
        table_format="delta",
        schema_contract={"columns": "freeze"},
    )
    assert await formats(pipeline, info.loads_ids[0]) == {"jsonl"}
    table = pipeline.default_schema.tables["t"]  # type: ignore[index]
    assert (table.write_disposition, table.hints["table_format"]) == ("replace", "delta")
    assert column(other, "t", "v", "d") == ["1", "2"]

    with pytest.raises(PipelineStepFailed) as caught:
        await asyncelt.run([{"id": 1, "new": 1}], table_name="t")

    assert isinstance(caught.value.__cause__, DataValidationError)
    await pipeline.abort_packages()
    info = await asyncelt.run(ROWS[:1], table_name="t", refresh="drop_resources")
    assert info.load_packages[0].refresh == "drop_resources"


@pytest.mark.covers("run.schema")
async def test_run_without_a_pipeline_takes_a_schema(make: Make, memory: Any) -> None:
    teacher = make("teacher", dataset_name="other")
    await teacher.run([{"id": 1}], table_name="t", columns={"v": {"data_type": "text"}})
    make()
    await asyncelt.run(ROWS, table_name="t", schema=teacher.default_schema)
    assert column(memory, "t", "v") == ["1", "2"]
