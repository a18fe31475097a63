"""What waits, why it waits, and how it is retried, given up or loaded in part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    ConfigError,
    DestinationRejected,
    DestinationUnavailable,
    LoadPackageNotFound,
    PipelineStepFailed,
    UsageError,
)
from asyncelt.info import LoadInfo

Make = Callable[..., asyncelt.Pipeline]


def refused() -> DestinationRejected:
    """What trying again does not help against."""
    return DestinationRejected("the table is read-only")


@asyncelt.resource
async def counter() -> AsyncIterator[dict[str, object]]:
    """Counts its runs in its state."""
    state = asyncelt.current.resource_state()
    state["n"] = int(str(state.get("n", 0))) + 1
    yield {"n": state["n"], "parts": [state["n"]]}


def list_files(tmp_path: Path, pattern: str) -> list[Path]:
    """Package files of the one pipeline."""
    return list((tmp_path / "work" / "p" / "packages").glob(pattern))


def values(pipeline: asyncelt.Pipeline, table: str = "counter", column: str = "n") -> list[object]:
    """One column at the destination."""
    found: Any = pipeline.destination
    tables = found.tables("data")

    return tables[table].column(column).to_pylist() if table in tables else []


# -------------------------------------------------------------------------------------------- what fails for good


@pytest.mark.covers("probe.3.poison", "probe.3.terminal")
async def test_a_refused_package_names_itself_and_the_calls_that_help(make: Make, faults: Any) -> None:
    pipeline = make()
    faults.raise_at("commit", refused())

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.run(counter())

    error = caught.value
    (load_id,) = await pipeline.list_normalized_load_packages()
    assert (error.step, error.load_id, error.has_pending_data) == ("load", load_id, True)
    assert error.pipeline is pipeline
    assert isinstance(error.exception, DestinationRejected)
    assert error.is_package_partially_loaded is False

    for said in (
        load_id,
        "load() or run() tries again",
        f"abort_packages('{load_id}')",
        f"fail_pending_job('{load_id}'",
    ):
        assert said in str(error)


@pytest.mark.covers("Pipeline.abort_packages", "probe.3.poison")
async def test_a_poison_package_stays_in_the_way_until_it_is_given_up(make: Make, faults: Any) -> None:
    """New data is not taken silently, whatever the number of tries."""
    faults.raise_at("commit", refused(), times=3)

    for _ in range(3):
        with pytest.raises(PipelineStepFailed):
            await make().run(counter())

    pipeline = make()
    assert len(await pipeline.list_normalized_load_packages()) == 1
    await pipeline.abort_packages()
    await pipeline.run(counter())
    assert values(pipeline) == [1]


@pytest.mark.covers(
    "Pipeline.list_failed_jobs_in_package",
    "Pipeline.list_pending_retry_jobs_in_package",
    "probe.3.terminal",
)
async def test_without_raising_the_info_carries_the_failed_jobs_and_nothing_moves(make: Make, faults: Any) -> None:
    pipeline = make()
    await pipeline.run(counter())
    before = pipeline.state
    faults.raise_at("load", refused())
    info = await pipeline.run(counter(), raise_on_failed_jobs=False)

    assert info.has_failed_jobs
    (package,) = info.load_packages
    assert package.state == "normalized"
    (failed,) = package.failed_jobs
    assert failed.failed_message == "the table is read-only"
    assert "1 FAILED job(s)! and 1 job(s) pending retry" in str(info)
    assert "0 of 1 load package(s) were loaded" in str(info)

    with pytest.raises(DestinationRejected, match="read-only"):
        info.raise_on_failed_jobs()

    assert values(pipeline) == [1]
    assert [job.file_name for job in await pipeline.list_failed_jobs_in_package(package.load_id)] == [failed.file_name]
    assert await pipeline.list_pending_retry_jobs_in_package(package.load_id) == [(failed.file_name, "failed_jobs")]
    assert pipeline.state != before, "the head has moved ..."
    await pipeline.abort_packages()
    assert pipeline.state == before, "... and what the destination has did not"


@pytest.mark.covers("Pipeline.load", "Pipeline.load.raise_on_failed_jobs", "probe.3.poison")
async def test_later_packages_wait_for_a_failed_one(make: Make, faults: Any) -> None:
    pipeline = make()

    for _ in range(3):
        await pipeline.extract(counter())

    await pipeline.normalize()
    faults.raise_at("commit", refused())
    info = await pipeline.load(raise_on_failed_jobs=False)

    assert info is not None
    assert len(info.load_packages) == 1
    assert values(pipeline) == []
    assert len(await pipeline.list_normalized_load_packages()) == 3
    faults.at["commit"] = []
    faults.at["migrate"] = [refused()]

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.load()

    assert isinstance(caught.value.step_info, LoadInfo)
    waiting = await pipeline.list_normalized_load_packages()
    assert list(caught.value.step_info.loads_ids) == waiting[:1]
    assert len(waiting) == 3

    info = await pipeline.load()
    assert info is not None
    assert not info.has_failed_jobs
    assert values(pipeline) == [1, 2, 3]


async def test_new_data_waits_behind_a_failed_package_and_this_is_said(make: Make, faults: Any) -> None:
    settings = asyncelt.Settings(raise_on_failed_jobs=False)
    pipeline = make(settings=settings)
    faults.raise_at("commit", refused(), times=2)
    await pipeline.run(counter())

    with pytest.warns(AsynceltWarning, match="jobs that the destination refuses"):
        info = await pipeline.run(counter(), on_pending="load_then_run")

    assert info.data_taken is False
    assert values(pipeline) == []


async def test_the_setting_comes_from_the_environment_and_the_argument_wins(
    make: Make, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCELT__LOAD__RAISE_ON_FAILED_JOBS", "false")
    pipeline = make(settings=None)
    faults.raise_at("commit", refused(), times=2)
    assert (await pipeline.run(counter())).has_failed_jobs

    with pytest.raises(PipelineStepFailed):
        await pipeline.run(raise_on_failed_jobs=True)

    monkeypatch.setenv("ASYNCELT__LOAD__RAISE_ON_FAILED_JOBS", "perhaps")

    with pytest.raises(ConfigError, match="ASYNCELT__LOAD__RAISE_ON_FAILED_JOBS"):
        make(settings=None)


@pytest.mark.covers("probe.3.transient")
async def test_what_may_pass_is_tried_again_and_raised_when_it_does_not(make: Make, faults: Any) -> None:
    pipeline = make()
    faults.raise_at("commit", DestinationUnavailable("starting"))

    with pytest.warns(AsynceltWarning, match="Trying again"):
        info = await pipeline.run(counter())

    assert info.retries == 1
    assert info.report["load"].retries == 1
    faults.raise_at("commit", DestinationUnavailable("gone"), times=2)

    with (
        pytest.warns(AsynceltWarning, match="Trying again"),
        pytest.raises(PipelineStepFailed) as caught,
    ):
        await pipeline.run(counter(), raise_on_failed_jobs=False)

    assert isinstance(caught.value.__cause__, DestinationUnavailable)
    assert await pipeline.list_failed_jobs_in_package(str(caught.value.load_id)) == []


@pytest.mark.covers("probe.3.transient")
async def test_five_tries_and_then_the_package_waits(make: Make, faults: Any) -> None:
    """Transient x 5: one call tries five times by default; the next call has five more."""
    settings = asyncelt.Settings(retry=asyncelt.Retry(first_s=0.0))
    assert settings.retry.attempts == 5
    pipeline = make(settings=settings)
    faults.raise_at("commit", DestinationUnavailable("gone"), times=5)

    with pytest.warns(AsynceltWarning, match="Trying again") as said, pytest.raises(PipelineStepFailed) as caught:
        await pipeline.run(counter())

    assert len([one for one in said if "Trying again" in str(one.message)]) == 1  # once, however often it is tried
    assert faults.at["commit"] == []
    assert caught.value.has_pending_data
    assert values(pipeline) == []
    faults.raise_at("commit", DestinationUnavailable("gone"), times=4)

    with pytest.warns(AsynceltWarning, match="Trying again"):
        info = await pipeline.run()

    assert info.retries == 4
    assert values(pipeline) == [1]


@pytest.mark.covers("probe.3.partial")
@pytest.mark.parametrize("error", [DestinationUnavailable("gone"), refused()], ids=["may-pass", "does-not"])
async def test_a_batch_that_fails_half_way_is_not_seen_and_comes_whole_later(make: Make, error: Exception) -> None:
    passed: list[str] = []

    def fail_at_the_third_job(step: str) -> None:
        passed.append(step)

        if step == "load" and passed.count("load") == 3:
            raise error

    memory = asyncelt.destinations.memory(fault=fail_at_the_third_job)
    pipeline = make(destination=memory, settings=asyncelt.Settings(retry=asyncelt.Retry(attempts=1)))
    rows = [{"id": 1, "a": [1, 2], "b": [3]}]

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.run(rows, table_name="t")

    assert caught.value.is_package_partially_loaded is False
    assert memory.tables("data") == {}
    await pipeline.load()
    assert [
        values(pipeline, table, column) for table, column in (("t", "id"), ("t__a", "value"), ("t__b", "value"))
    ] == [
        [1],
        [1, 2],
        [3],
    ]
    assert not pipeline.has_pending_data


# -------------------------------------------------------------------------------------------- single jobs


async def pending_package(make: Make, faults: Any) -> tuple[asyncelt.Pipeline, Any]:
    """A pipeline with a package that the destination refused."""
    pipeline = make()
    faults.raise_at("commit", refused())
    info = await pipeline.run([{"id": 1, "l": [1]}], table_name="t", raise_on_failed_jobs=False)

    return pipeline, info.load_packages[0]


@pytest.mark.covers(
    "Pipeline.fail_pending_job",
    "Pipeline.fail_pending_job.load_id",
    "Pipeline.fail_pending_job.job_file_name",
)
async def test_a_job_that_was_set_aside_is_left_out_and_its_file_kept(make: Make, faults: Any, tmp_path: Path) -> None:
    pipeline, package = await pending_package(make, faults)
    job = next(job for job in package.all_jobs if job.table_name == "t__l")

    with pytest.warns(AsynceltWarning, match="more files of the same rows"):
        set_aside = await pipeline.fail_pending_job(package.load_id, job.file_name)

    assert set_aside.is_set_aside
    info = await pipeline.load()
    assert info is not None
    assert info.load_packages[0].state == "loaded"
    assert [one.table_name for one in info.load_packages[0].failed_jobs] == ["t__l"]
    assert "1 FAILED job(s)!" in str(info)
    assert "pending retry" not in str(info)
    assert values(pipeline, "t", "id") == [1]
    assert values(pipeline, "t__l", "value") == []

    kept = (await pipeline.get_load_package_info(package.load_id)).failed_jobs[0]
    assert [path.name for path in list_files(tmp_path, "done/*/jobs/*")] == [kept.file_name]


@pytest.mark.covers(
    "Pipeline.retry_failed_job",
    "Pipeline.retry_failed_job.load_id",
    "Pipeline.retry_failed_job.job_file_name",
)
async def test_a_job_can_be_taken_back(make: Make, faults: Any) -> None:
    pipeline, package = await pending_package(make, faults)
    job = next(job for job in package.all_jobs if job.table_name == "t__l")

    with pytest.warns(AsynceltWarning, match="same rows"):
        await pipeline.fail_pending_job(package.load_id, job.file_path)

    back = await pipeline.retry_failed_job(package.load_id, job.job_id)
    assert back.state == "new_jobs"
    await pipeline.load()
    assert values(pipeline, "t__l", "value") == [1]


@pytest.mark.covers("Pipeline.fail_pending_job", "Pipeline.retry_failed_job")
async def test_jobs_that_cannot_be_set_aside(make: Make, faults: Any) -> None:
    pipeline, package = await pending_package(make, faults)
    state = next(job for job in package.all_jobs if job.table_name == "_dlt_pipeline_state")

    with pytest.raises(UsageError, match="state of the pipeline"):
        await pipeline.fail_pending_job(package.load_id, state.file_name)

    with pytest.raises(LoadPackageNotFound, match="has no job"):
        await pipeline.fail_pending_job(package.load_id, "t.123.0.parquet")

    await pipeline.load()

    for call in (pipeline.fail_pending_job, pipeline.retry_failed_job):
        with pytest.raises(FileNotFoundError, match="waits for load"):
            await call(package.load_id, state.file_name)


# -------------------------------------------------------------------------------------------- giving up


@pytest.mark.covers("Pipeline.abort_packages", "Pipeline.abort_packages.load_id", "Pipeline.abort_packages.dry_run")
async def test_giving_up_cuts_the_chain(make: Make) -> None:
    pipeline = make()
    await pipeline.run(counter())
    ids = [(await pipeline.extract(counter())).loads_ids[0] for _ in range(3)]
    await pipeline.normalize()
    ids.append((await pipeline.extract(counter())).loads_ids[0])

    assert await pipeline.abort_packages(dry_run=True) == ids
    assert await pipeline.abort_packages(ids[1]) == ids[1:]
    assert pipeline.state["sources"]["p"]["resources"]["counter"] == {"n": 2}  # type: ignore[index]
    assert [(await pipeline.get_load_package_info(one)).state for one in ids] == ["normalized", *["aborted"] * 3]

    await pipeline.run(counter(), on_pending="load_then_run")
    assert values(pipeline) == [1, 2, 3]


@pytest.mark.covers("Pipeline.abort_packages", "Pipeline.drop_pending_packages")
async def test_giving_up_unknown_and_no_packages(make: Make) -> None:
    pipeline = make()
    assert await pipeline.abort_packages() == []
    assert await pipeline.drop_pending_packages() == []

    with pytest.raises(LoadPackageNotFound, match="pending are: none"):
        await pipeline.abort_packages("1.0")


@pytest.mark.covers("Pipeline.drop_pending_packages", "Pipeline.drop_pending_packages.with_partial_loads")
@pytest.mark.parametrize("damage", ["manifest", "job"])
async def test_a_damaged_package_can_be_given_up(make: Make, damage: str, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.extract(counter())
    await pipeline.normalize()
    pattern = "*/manifest.json" if damage == "manifest" else "*/jobs/*"

    for path in (tmp_path / "work" / "p" / "packages" / "sealed").glob(pattern):
        path.write_bytes(b"{")

    if damage == "manifest":
        with pytest.warns(AsynceltWarning, match="cannot be read"):
            pipeline = make()
    else:
        with pytest.raises(PipelineStepFailed, match="Abort the package"):
            await make().load()

    assert len(await pipeline.drop_pending_packages(with_partial_loads=False)) == 1
    await pipeline.run(counter())
    assert values(pipeline) == [1]


async def test_a_run_that_may_not_find_anything_pending_says_what_is(make: Make) -> None:
    pipeline = make()
    (load_id,) = (await pipeline.extract(counter())).loads_ids

    with pytest.raises(PipelineStepFailed, match=load_id) as caught:
        await pipeline.run(counter(), on_pending="raise")

    assert isinstance(caught.value.__cause__, UsageError)

    with pytest.raises(ConfigError, match="load_then_run"):
        await pipeline.run(counter(), on_pending="maybe")  # type: ignore[arg-type]


async def test_pending_packages_with_a_run_id_are_not_extracted_again(make: Make, faults: Any) -> None:
    pipeline = make()
    faults.raise_at("commit", refused())

    with pytest.raises(PipelineStepFailed):
        await pipeline.run([{"id": 1}], table_name="t", run_id="monday")

    info = await make().run([{"id": 1}], table_name="t", run_id="monday")
    assert info.data_taken is True
    assert values(pipeline, "t", "id") == [1]
    assert (await make().run([{"id": 1}], table_name="t", run_id="monday")).already_committed


def aborting() -> asyncelt.Settings:
    return asyncelt.Settings(
        retry=asyncelt.Retry(attempts=2, first_s=0.0), auto_abort_on_terminal_error=True, raise_on_failed_jobs=True
    )


async def test_a_package_that_is_refused_is_given_up_at_once_where_settings_say_so(make: Make, faults: Any) -> None:
    pipeline = make(settings=aborting())
    await pipeline.run(counter())
    faults.raise_at("commit", refused())

    with pytest.raises(PipelineStepFailed, match=r"were given up \(auto_abort_on_terminal_error\)") as caught:
        await pipeline.run(counter())

    assert (caught.value.step, caught.value.has_pending_data, pipeline.has_pending_data) == ("load", False, False)
    assert caught.value.load_id is not None
    package = await pipeline.get_load_package_info(caught.value.load_id)
    assert package.state == "aborted"
    await pipeline.run(counter())
    assert values(pipeline) == [1, 2]


async def test_what_came_after_a_package_that_is_given_up_goes_too_and_new_data_is_taken(
    make: Make, faults: Any
) -> None:
    pipeline = make(settings=aborting())
    await pipeline.run(counter())

    for _ in range(2):
        await pipeline.extract(counter())

    await pipeline.normalize()
    await pipeline.extract(counter())
    faults.raise_at("load", refused())
    info = await pipeline.run(counter(), on_pending="load_then_run", raise_on_failed_jobs=False)

    assert [package.state for package in info.load_packages] == ["aborted", "loaded"]
    assert info.has_failed_jobs
    assert values(pipeline) == [1, 2]


async def test_an_error_that_may_pass_gives_nothing_up(make: Make, faults: Any) -> None:
    pipeline = make(settings=aborting())
    faults.raise_at("commit", DestinationUnavailable("away"), times=2)

    with pytest.warns(AsynceltWarning, match="away"), pytest.raises(PipelineStepFailed):
        await pipeline.run(counter())

    assert pipeline.has_pending_data
    await pipeline.load()
    assert values(pipeline) == [1]
