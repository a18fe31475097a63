"""The three steps: what each leaves behind, what it refuses, and that the next one carries on from wherever it was left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

import asyncelt
from asyncelt.errors import BadRecord, ConfigError, PackageCorrupt, PipelineConfigMissing, PipelineStepFailed
from asyncelt.failpoints import installed
from tests.support.stepwise import make


@pytest.mark.covers(
    "Pipeline.extract",
    "Pipeline.extract.data",
    "Pipeline.extract.table_name",
    "Pipeline.normalize",
    "Pipeline.load",
    "Pipeline.has_pending_data",
    "Pipeline.list_extracted_load_packages",
    "Pipeline.list_extracted_resources",
    "Pipeline.list_normalized_load_packages",
    "Pipeline.list_completed_load_packages",
    "Pipeline.get_load_package_info",
)
async def test_each_step_says_what_it_did_and_what_is_pending(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    extracted = await pipeline.extract([{"id": 1, "tags": [1, 2]}], table_name="t")
    (load_id,) = extracted.loads_ids

    assert pipeline.has_pending_data
    assert await pipeline.list_extracted_load_packages() == [load_id]
    assert (await pipeline.get_load_package_info(load_id)).state == "extracted"
    assert [name.partition(".")[0] for name in await pipeline.list_extracted_resources()] == [load_id.partition(".")[0]]
    assert pipeline.destination.tables("data") == {}  # type: ignore[union-attr]

    normalized = await pipeline.normalize()
    assert normalized is not None
    assert normalized.row_counts == {"t": 1, "t__tags": 2, "_dlt_pipeline_state": 1}
    assert normalized.loads_ids == (load_id,)
    assert await pipeline.list_extracted_load_packages() == []
    assert await pipeline.list_normalized_load_packages() == [load_id]
    assert (await pipeline.get_load_package_info(load_id)).state == "normalized"

    loaded = await pipeline.load()
    assert loaded is not None
    assert loaded.loads_ids == (load_id,)
    assert loaded.first_run is True
    assert not pipeline.has_pending_data
    assert await pipeline.list_completed_load_packages() == [load_id]
    assert (await pipeline.get_load_package_info(load_id)).state == "loaded"


async def test_several_extractions_build_on_each_others_state_and_load_in_order(tmp_path: Path) -> None:
    @asyncelt.resource
    async def counter() -> AsyncIterator[Mapping[str, object]]:
        state = asyncelt.current.resource_state()
        state["n"] = int(state.get("n", 0)) + 1  # type: ignore[call-overload]
        yield {"n": state["n"]}

    destination = asyncelt.destinations.memory()

    for _ in range(3):
        await make(tmp_path, destination=destination).extract(counter())

    pipeline = make(tmp_path, destination=destination)
    assert pipeline.state["sources"]["p"]["resources"]["counter"]["n"] == 3  # type: ignore[index]
    await pipeline.normalize()
    info = await pipeline.load()

    assert info is not None
    assert len(info.load_packages) == 3
    assert destination.tables("data")["counter"].column("n").to_pylist() == [1, 2, 3]
    assert len(destination.tables("data")["_dlt_loads"]) == 3


async def test_extract_works_without_a_destination_and_the_others_say_what_is_missing(tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline("p", pipelines_dir=tmp_path)
    await pipeline.extract([{"Id": 1}], table_name="Things")

    for step in (pipeline.normalize, pipeline.load):
        with pytest.raises(PipelineConfigMissing, match="destination='duckdb'"):
            await step()

    destination = asyncelt.destinations.memory()
    pipeline = make(tmp_path, destination=destination)
    await pipeline.normalize()
    await pipeline.load()
    assert destination.tables("data")["things"].column("id").to_pylist() == [1]


async def test_nothing_to_do_is_none(tmp_path: Path) -> None:
    pipeline = make(tmp_path)

    assert await pipeline.normalize() is None
    assert await pipeline.load() is None
    assert (await pipeline.run()).is_empty


async def test_run_normalizes_and_loads_what_is_pending_first(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.extract([{"id": 1}], table_name="t")
    info = await pipeline.run([{"id": 2}], table_name="t", on_pending="load_then_run")

    assert len(info.load_packages) == 2
    assert pipeline.destination.tables("data")["t"].column("id").to_pylist() == [1, 2]  # type: ignore[union-attr]


async def test_an_extraction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[Mapping[str, object]]:
        asyncelt.current.resource_state()["n"] = 1
        yield {"id": 1}
        raise ZeroDivisionError

    pipeline = make(tmp_path)
    before = pipeline.state

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.extract(asyncelt.resource(broken, name="broken"))

    assert caught.value.step == "extract"
    assert pipeline.state == before
    assert not pipeline.has_pending_data
    assert list((tmp_path / "p" / "packages").glob("*/*")) == []


async def test_a_value_that_no_column_can_hold_fails_extract(tmp_path: Path) -> None:
    with pytest.raises(PipelineStepFailed) as caught:
        await make(tmp_path).extract([{"id": 1}, {"bad": {1, 2}}], table_name="t")

    assert isinstance(caught.value.__cause__, BadRecord)
    assert (caught.value.__cause__.table, caught.value.__cause__.row) == ("t", 1)


@pytest.mark.covers("Pipeline.extract.schema_contract", "probe.3.poison")
async def test_a_package_that_cannot_be_normalized_stays_extracted_and_says_what_to_do(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.run([{"id": 1}], table_name="t")
    contract = {"columns": "freeze"}
    poison = await pipeline.extract([{"id": 2, "new": 1}], table_name="t", schema_contract=contract)
    later = await pipeline.extract([{"id": 3}], table_name="t")

    with pytest.raises(PipelineStepFailed, match=r"abort_packages\('") as caught:
        await pipeline.normalize()

    assert (caught.value.step, caught.value.load_id) == ("normalize", poison.loads_ids[0])
    assert caught.value.has_pending_data
    assert await pipeline.list_extracted_load_packages() == [*poison.loads_ids, *later.loads_ids]

    with pytest.raises(PipelineStepFailed, match="stay extracted"):
        await pipeline.run([{"id": 4}], table_name="t")

    assert await pipeline.abort_packages() == [*poison.loads_ids, *later.loads_ids]
    await pipeline.run([{"id": 4}], table_name="t")
    assert pipeline.destination.tables("data")["t"].column("id").to_pylist() == [1, 4]  # type: ignore[union-attr]


async def test_a_damaged_page_file_is_named(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.extract([{"id": 1}], table_name="t")
    (file,) = (tmp_path / "p" / "packages" / "extracted").glob("*/pages/*")
    file.write_bytes(b"123")

    with pytest.raises(PipelineStepFailed, match="ends after 3 bytes") as caught:
        await pipeline.normalize()

    assert isinstance(caught.value.__cause__, PackageCorrupt)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        ("extract", {"workers": 0}, "workers is a whole number from 1"),
        ("extract", {"max_parallel_items": 0}, "max_parallel_items"),
        ("extract", {"loader_file_format": "csv"}, "parquet, jsonl, not 'csv'"),
        ("extract", {"refresh": "drop_everything"}, "drop_sources"),
        ("extract", {"write_disposition": "apend"}, "append"),
        ("normalize", {"workers": 0}, "workers is a whole number from 1"),
        ("normalize", {"loader_file_format": "csv"}, "not 'csv'"),
        ("load", {"workers": -1}, "workers is a whole number from 1"),
        ("load", {"destination": "duckbd"}, "duckdb"),
    ],
)
async def test_wrong_arguments_fail_before_any_io(
    tmp_path: Path, call: str, arguments: dict[str, object], message: str
) -> None:
    pipeline = make(tmp_path / "work")
    method = getattr(pipeline, call)

    with pytest.raises(ConfigError, match=message):
        await (method([{"id": 1}], table_name="t", **arguments) if call == "extract" else method(**arguments))

    assert not (tmp_path / "work").exists()


@pytest.mark.covers("Pipeline.extract.loader_file_format")
async def test_the_format_of_job_files_can_be_said_at_extract_or_at_normalize(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.extract([{"id": 1}], table_name="t", loader_file_format="jsonl")
    first = await pipeline.normalize()
    await pipeline.extract([{"id": 2}], table_name="t", loader_file_format="jsonl")
    second = await pipeline.normalize(workers=1, loader_file_format="parquet")

    assert first is not None
    assert second is not None
    assert {job.job_file_info.file_format for job in first.load_packages[0].all_jobs} == {"jsonl"}
    assert {job.job_file_info.file_format for job in second.load_packages[0].all_jobs} == {"parquet"}
    await pipeline.load(workers=1)
    assert pipeline.destination.tables("data")["t"].column("id").to_pylist() == [1, 2]  # type: ignore[union-attr]


@pytest.mark.covers("Pipeline.normalize.workers")
@pytest.mark.parametrize("workers", [1, 4])
async def test_workers_of_normalize_never_change_the_result(tmp_path: Path, workers: int) -> None:
    pages = [[{"id": n, f"c{n % 5}": n, "mixed": f"{n}x" if n % 3 else n}] for n in range(30)]
    destination = asyncelt.destinations.memory()
    limits = asyncelt.Limits(gather_rows=2)
    pipeline = make(tmp_path, destination=destination, settings=asyncelt.Settings(limits=limits))
    await pipeline.extract(iter(pages), table_name="t")
    await pipeline.normalize(workers=workers)
    await pipeline.load()
    table = destination.tables("data")["t"]

    assert table.column("id").to_pylist() == list(range(30))
    assert table.column_names == [
        "id", "c0", "mixed", "_dlt_load_id", "_dlt_id", "c1", "mixed__v_text", "c2", "c3", "c4",
    ]  # fmt: skip


async def test_memory_and_threads_are_given_back(tmp_path: Path) -> None:
    budget = asyncelt.ByteBudget(100_000)
    limits = asyncelt.Limits(gather_bytes=5_000)
    pipeline = make(tmp_path, max_memory=budget, settings=asyncelt.Settings(limits=limits))
    rows = ({"id": n, "text": "x" * 50} for n in range(3000))
    await pipeline.extract(rows, table_name="t")
    assert budget.used == 0
    await pipeline.normalize()
    assert budget.used == 0
    assert budget.peak < 200_000


# ------------------------------------------------------------------------------------------------ cut off anywhere


class Killed(BaseException):
    """What a failpoint raises in place of a kill."""


async def points_of(folder: Path, step: str) -> list[str]:
    """Failpoints that one step passes."""
    passed: list[str] = []
    pipeline = make(folder)
    await pipeline.extract([{"id": 1, "l": [1]}], table_name="t") if step != "extract" else None
    await pipeline.normalize() if step == "load" else None

    with installed(passed.append):
        if step == "extract":
            await pipeline.extract([{"id": 1, "l": [1]}], table_name="t")
        else:
            await getattr(pipeline, step)()

    return list(dict.fromkeys(passed))


@pytest.mark.covers("probe.3.partial")
@pytest.mark.parametrize("step", ["extract", "normalize", "load"])
async def test_cut_off_at_each_failpoint_the_next_call_carries_on(tmp_path: Path, step: str) -> None:
    points = await points_of(tmp_path / "points", step)
    assert len(points) >= 3

    for point in points:
        destination = asyncelt.destinations.memory()
        folder = tmp_path / point
        data = [{"id": n, "l": [n]} for n in range(3)]

        def fail(passed: str, point: str = point) -> None:
            if passed == point:
                raise Killed

        pipeline = make(folder, destination=destination)

        if step != "extract":
            await pipeline.extract(data, table_name="t")

        if step == "load":
            await pipeline.normalize()

        with installed(fail), pytest.raises(BaseException):  # noqa: B017 - Killed, or a group of it
            await (pipeline.extract(data, table_name="t") if step == "extract" else getattr(pipeline, step)())

        pipeline = make(folder, destination=destination)
        pending = [*await pipeline.list_extracted_load_packages(), *await pipeline.list_normalized_load_packages()]

        if not pending and step == "extract":
            await pipeline.extract(data, table_name="t")

        await pipeline.normalize()
        await pipeline.load()

        assert sorted(destination.tables("data")["t"].column("id").to_pylist()) == [0, 1, 2], point
        assert sorted(destination.tables("data")["t__l"].column("value").to_pylist()) == [0, 1, 2], point
        assert not make(folder, destination=destination).has_pending_data, point
