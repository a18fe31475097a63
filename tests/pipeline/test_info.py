"""What calls return and keep: fields, printed forms, traces, and that they load back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, PipelineStepFailed
from asyncelt.info import (
    ExtractInfo,
    JobFileInfo,
    LoadInfo,
    LoadPackageInfo,
    NormalizeInfo,
    PipelineTrace,
    WriterMetrics,
)

Make = Callable[..., asyncelt.Pipeline]
ROWS = [{"id": 1, "tags": ["a", "b"]}, {"id": 2}]


@asyncelt.resource
async def things() -> AsyncIterator[list[dict[str, object]]]:
    """Two rows with children."""
    yield ROWS  # type: ignore[misc]


async def three_steps(pipeline: asyncelt.Pipeline) -> tuple[ExtractInfo, NormalizeInfo, LoadInfo]:
    """Each step once."""
    extracted = await pipeline.extract(things())
    normalized = await pipeline.normalize()
    loaded = await pipeline.load()
    assert normalized is not None
    assert loaded is not None

    return extracted, normalized, loaded


async def test_printed_forms_are_the_references(make: Make) -> None:
    extracted, normalized, loaded = await three_steps(make())
    (load_id,) = extracted.loads_ids

    assert str(extracted) == (
        f"\nLoad package {load_id} is EXTRACTED and NOT YET LOADED to the destination and contains no failed jobs"
    )
    assert str(normalized) == (
        "Normalized data for the following tables:\n- things: 2 row(s)\n- things__tags: 2 row(s)\n"
        f"- _dlt_pipeline_state: 1 row(s)\n\nLoad package {load_id} is NORMALIZED and NOT YET LOADED to the destination "
        "and contains no failed jobs"
    )
    lines = str(loaded).splitlines()
    assert re.fullmatch(r"Pipeline p load step finished in \d+\.\d\d seconds", lines[0])
    assert lines[1:] == [
        "1 load package(s) were loaded to destination memory and into dataset data",
        "The memory destination used memory:// location to store data",
        f"Load package {load_id} is LOADED and contains no failed jobs",
    ]


async def test_printed_forms_of_nothing(make: Make) -> None:
    pipeline = make()
    info = await pipeline.run()
    assert str(info) == (
        "Pipeline p load step did not start\n0 load package(s) were loaded to destination memory and into dataset None"
    )
    await pipeline.run(things())
    normalized = await pipeline.normalize()
    assert str(normalized) == "No data found to normalize"


async def test_the_fields_of_the_steps(make: Make) -> None:
    extracted, normalized, loaded = await three_steps(make())
    (load_id,) = loaded.loads_ids

    for info in (extracted, normalized, loaded):
        assert info.pipeline_name == "p"
        assert info.first_run is True
        assert not info.is_empty
        assert info.started_at is not None
        assert info.finished_at is not None
        assert info.started_at <= info.finished_at
        assert info.started_at.tzinfo is UTC
        assert isinstance(info.pipeline, asyncelt.Pipeline)

    (metrics,) = extracted.metrics[load_id]
    assert metrics.schema_name == "p"  # type: ignore[union-attr]
    assert metrics.table_metrics["things"].items_count == 2  # type: ignore[union-attr]
    assert metrics.resource_metrics["things"].items_count == 2  # type: ignore[union-attr]
    assert metrics.dag == (("things", "things"),)  # type: ignore[union-attr]
    assert metrics.hints == {"things": {"write_disposition": "append", "table_name": "things"}}  # type: ignore[union-attr]
    assert [one.file_size > 0 for one in metrics.job_metrics.values()] == [True]  # type: ignore[union-attr]
    assert extracted.extract_data_info == ({"name": "things", "data_type": "resource"},)

    (metrics,) = normalized.metrics[load_id]
    assert metrics.table_metrics["things__tags"].items_count == 2  # type: ignore[union-attr]
    assert normalized.row_counts == {"things": 2, "things__tags": 2, "_dlt_pipeline_state": 1}

    (metrics,) = loaded.metrics[load_id]
    assert {job.state for job in metrics.job_metrics.values()} == {"completed"}  # type: ignore[union-attr]
    assert loaded.destination_type == "asyncelt.destinations.memory"
    assert (loaded.destination_name, loaded.dataset_name) == ("memory", "data")
    assert (loaded.staging_name, loaded.has_failed_jobs) == (None, False)
    loaded.raise_on_failed_jobs()


async def test_the_dag_has_what_feeds_what(make: Make) -> None:
    double = asyncelt.transformer(lambda row: row, name="double", data_from=things)
    again = asyncelt.transformer(lambda row: row, name="again", data_from=double)
    extracted = await make().extract([again, asyncelt.resource([{"id": 1}], name="alone")])
    (metrics,) = extracted.metrics[extracted.loads_ids[0]]

    assert metrics.dag == (("double", "again"), ("things", "double"), ("alone", "alone"))  # type: ignore[union-attr]


async def test_metrics_of_resources_with_the_same_name_are_told_apart(make: Make) -> None:
    def counting(name: str, calls: int) -> asyncelt.Source:
        @asyncelt.resource(name="r")
        async def rows() -> AsyncIterator[object]:
            asyncelt.current.resource_metrics()["calls"] = calls
            yield {"id": calls}

        return asyncelt.Source(name, [rows, *([rows.with_name("only")] if name == "one" else [])])

    sources = [counting("one", 1), counting("two", 2)]
    info = await make().run(sources)
    assert info.custom_metrics == {"one.r": {"calls": 1}, "two.r": {"calls": 2}, "only": {"calls": 1}}

    extracted = await make("q").extract([counting("one", 1), counting("two", 2)])
    found = {
        one.schema_name: dict(one.custom_metrics)  # type: ignore[union-attr]
        for metrics in extracted.metrics.values()
        for one in metrics
    }
    assert found == {"one": {"r": {"calls": 1}, "only": {"calls": 1}}, "two": {"r": {"calls": 2}}}


@pytest.mark.covers("Pipeline.get_load_package_info", "Pipeline.get_load_package_info.load_id")
async def test_the_fields_of_packages_and_jobs(make: Make) -> None:
    pipeline = make()
    info = await pipeline.run(things())
    (package,) = info.load_packages

    assert package.schema is pipeline.default_schema
    assert (package.schema_name, package.schema_hash) == ("p", pipeline.default_schema.version_hash)
    assert package.schema_update["things"] == ("id", "_dlt_load_id", "_dlt_id")
    assert package.schema_migrated
    assert package.completed_at is not None
    assert package.created_at is not None
    assert package.created_at <= package.completed_at <= datetime.now(UTC)
    assert {state: len(jobs) for state, jobs in package.jobs.items()} == {
        "new_jobs": 0,
        "started_jobs": 0,
        "completed_jobs": 3,
        "failed_jobs": 0,
    }
    job = next(job for job in package.jobs["completed_jobs"] if job.table_name == "things")
    assert job.job_file_info == JobFileInfo.parse(Path(job.file_path).name)
    assert job.job_file_info.file_name == job.file_name
    assert (job.rows, job.job_file_info.file_format, job.job_file_info.retry_count) == (2, "parquet", 0)
    assert job.elapsed >= 0
    assert "things in completed_jobs" in package.asstr(verbosity=2)

    kept = await pipeline.get_load_package_info(package.load_id)
    assert kept.schema_update == package.schema_update
    assert kept.state == "loaded"
    again = await pipeline.run(things())
    assert again.load_packages[0].schema_migrated is False


def test_names_of_job_files_with_dots_and_endings() -> None:
    info = JobFileInfo.parse("my.table.0000abcdef.2.jsonl.gz")
    assert (info.table_name, info.file_id, info.retry_count, info.file_format, info.is_compressed) == (
        "my.table",
        "0000abcdef",
        2,
        "jsonl",
        True,
    )
    assert info.file_name == "my.table.0000abcdef.2.jsonl.gz"


def test_writer_metrics_add_up() -> None:
    one = WriterMetrics("a", 1, 10, 1.0, 5.0)
    other = WriterMetrics("b", 2, 20, 0.5, 6.0)
    assert one + other == WriterMetrics("", 3, 30, 0.5, 6.0)
    assert (one + one).file_path == "a"


async def test_one_report_for_the_whole_run(make: Make) -> None:
    info = await make().run(things())

    assert [stage.stage for stage in info.report.stages] == ["extract", "normalize", "load"]
    assert info.report["extract"].rows == 2
    assert info.report["normalize"].rows == info.report["load"].rows == 5
    assert info.report["load"].bytes > 0
    assert info.report.peak_memory > 0
    assert "extract: 2 row(s)" in info.asstr(verbosity=2)


async def test_infos_load_back_through_a_pipeline(make: Make) -> None:
    pipeline = make()
    extracted, normalized, loaded = await three_steps(pipeline)
    keeper = make("keeper", dataset_name="kept")
    found: Any = keeper.destination

    for name, info in (("extract_info", extracted), ("normalize_info", normalized), ("load_info", loaded)):
        await keeper.run([info.asdict()], table_name=name)
        orjson.dumps(info.asdict())

    await keeper.run([pipeline.last_trace.asdict()], table_name="trace")  # type: ignore[union-attr]
    tables = found.tables("kept")
    assert tables["load_info"].column("dataset_name").to_pylist() == ["data"]
    assert tables["load_info__load_packages"].column("load_id").to_pylist() == list(loaded.loads_ids)
    assert set(tables["load_info__load_packages__jobs"].column("table_name").to_pylist()) == {
        "things",
        "things__tags",
        "_dlt_pipeline_state",
    }
    assert tables["normalize_info__row_counts"].num_rows == 3
    assert tables["trace__steps"].column("step").to_pylist() == ["extract", "normalize", "load"]
    assert str(tables["load_info"].schema.field("started_at").type).startswith("timestamp")


async def test_the_plain_form_of_a_load_leaves_nothing_out(make: Make) -> None:
    @asyncelt.resource(
        on_error="quarantine", columns={"n": {"data_type": "bigint"}}, schema_contract={"data_type": "freeze"}
    )
    async def rows() -> AsyncIterator[object]:
        asyncelt.current.resource_metrics()["calls"] = 1
        yield [{"n": 1}, {"n": "text"}]

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        info = await make().run(rows())

    said: Any = info.asdict()

    assert said["quarantined_rows"] == [{"table_name": "rows", "rows": 1}]
    assert said["skipped_rows"] == []
    assert [one["kind"] for one in said["notices"]] == [one.kind for one in info.notices]
    assert said["custom_metrics"] == [{"resource_name": "rows", "calls": 1}]
    assert said["staging_displayable_credentials"] is None
    assert said["destination_fingerprint"] == info.destination_fingerprint != ""
    assert "memory" not in info.destination_fingerprint
    orjson.dumps(said)


# -------------------------------------------------------------------------------------------- traces


@pytest.mark.covers("Pipeline.last_trace")
async def test_a_run_has_four_steps_and_single_steps_are_added(make: Make) -> None:
    pipeline = make()
    await pipeline.run(things())
    trace = pipeline.last_trace
    assert trace is not None
    assert [step.step for step in trace.steps] == ["extract", "normalize", "load", "run"]
    assert isinstance(trace.last_extract_info, ExtractInfo)
    assert isinstance(trace.last_normalize_info, NormalizeInfo)
    assert isinstance(trace.last_load_info, LoadInfo)
    assert trace.last_normalize_info.row_counts["things"] == 2
    assert trace.engine_version == 2

    await pipeline.extract(things())
    added = pipeline.last_trace
    assert added is not None
    assert added.transaction_id == trace.transaction_id
    assert [step.step for step in added.steps] == ["extract", "normalize", "load", "run", "extract"]
    await pipeline.run(things(), on_pending="load_then_run")
    renewed = pipeline.last_trace
    assert renewed is not None
    assert renewed.transaction_id != trace.transaction_id
    assert [step.step for step in renewed.steps] == ["extract", "normalize", "load", "run"]


@pytest.mark.covers("Pipeline.last_trace")
async def test_traces_are_kept_as_json_and_read_by_the_next_process(make: Make, tmp_path: Path) -> None:
    await make().run(things())
    content = (tmp_path / "work" / "p" / "trace.json").read_bytes()
    assert orjson.loads(content)["pipeline_name"] == "p"
    found = PipelineTrace.from_json(content)
    assert [step.step for step in found.steps] == ["extract", "normalize", "load", "run"]
    assert found.last_load_info["dataset_name"] == "data"  # type: ignore[index]
    text = str(found)
    assert re.match(
        r"Run started at .* and COMPLETED in \d+\.\d\d seconds with 4 steps\.\nStep extract COMPLETED", text
    )
    assert "1 load package(s) were loaded" in text
    pipeline = make()
    await pipeline.extract(things())
    assert pipeline.last_trace is not None
    assert len(pipeline.last_trace.steps) == 5
    (tmp_path / "work" / "p" / "trace.json").write_bytes(b"{")
    await make().normalize()


@pytest.mark.parametrize(
    ("at", "expected"), [("extract", ["extract", "run"]), ("load", ["extract", "normalize", "load", "run"])]
)
async def test_a_failed_run_is_traced_to_the_step_that_failed(
    make: Make, faults: Any, at: str, expected: list[str]
) -> None:
    @asyncelt.resource
    async def broken() -> AsyncIterator[dict[str, object]]:
        yield {"id": 1}

        if at == "extract":
            raise ZeroDivisionError("boom")

    from asyncelt.errors import DestinationRejected

    if at == "load":
        faults.raise_at("commit", DestinationRejected("read-only", code="25006"))

    pipeline = make()

    with pytest.raises(PipelineStepFailed):
        await pipeline.run(broken())

    trace = pipeline.last_trace
    assert trace is not None
    assert [step.step for step in trace.steps] == expected
    failed = trace.last_pipeline_step_trace(at)
    assert failed is not None
    assert failed.step_exception is not None
    kinds = [str(one["exception_type"]).rpartition(".")[2] for one in failed.exception_traces]
    assert kinds[0] == "PipelineStepFailed"
    assert kinds[-1] == ("ZeroDivisionError" if at == "extract" else "DestinationRejected")
    assert failed.exception_traces[0]["load_id"]
    assert failed.exception_traces[0]["is_terminal"] is True

    if at == "extract":
        assert failed.exception_traces[1]["resource_name"] == "broken"
        assert "raise ZeroDivisionError" in "".join(failed.exception_traces[-1]["stack_trace"])  # type: ignore[arg-type]
    else:
        assert failed.exception_traces[-1]["exception_attrs"]["code"] == "25006"  # type: ignore[index]

    assert "FAILED" in str(trace)
    PipelineTrace.from_json(trace.to_json())


async def test_a_trace_never_grows_beyond_a_hundred_steps(make: Make) -> None:
    from asyncelt.info.trace import joined, step_trace

    trace = None

    for _ in range(120):
        trace = joined(trace, [step_trace("load", datetime.now(UTC))], {}, "p")

    assert trace is not None
    assert len(trace.steps) == 100


async def test_a_package_info_is_a_value(make: Make) -> None:
    info = await make().run(things())
    (package,) = info.load_packages
    assert isinstance(package, LoadPackageInfo)
    assert package.asdict()["row_counts"] == [
        {"table_name": "things", "rows": 2},
        {"table_name": "things__tags", "rows": 2},
        {"table_name": "_dlt_pipeline_state", "rows": 1},
    ]
