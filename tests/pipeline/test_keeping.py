"""What is kept of a call beside its data, and that a call never fails by it: traces, errors' infos, schema files."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltError,
    AsynceltWarning,
    DestinationRejected,
    DestinationUnavailable,
    PipelineStepFailed,
)
from asyncelt.info.steps import ExtractInfo, LoadInfo, NormalizeInfo
from asyncelt.info.streams import StreamStats
from asyncelt.info.trace import PipelineTrace
from asyncelt.pipeline import streaming

Make = Callable[..., asyncelt.Pipeline]
ROWS = [{"id": 1}]


@asyncelt.resource
async def broken() -> AsyncIterator[dict[str, object]]:
    yield {"id": 1}
    raise ZeroDivisionError("boom")


def ids(memory: Any) -> list[object]:
    return memory.tables("data")["t"].column("id").to_pylist()  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------------------- calls that have committed


async def test_a_trace_that_cannot_be_written_fails_no_run(make: Make, memory: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "p" / "trace.json").mkdir(parents=True)
    pipeline = make()

    with pytest.warns(AsynceltWarning, match=r"The trace could not be kept in .*trace\.json"):
        info = await pipeline.run(ROWS, table_name="t")

    assert info.loads_ids
    assert ids(memory) == [1]
    assert pipeline.last_trace is not None
    assert [one.step for one in pipeline.last_trace.steps] == ["extract", "normalize", "load", "run"]


async def test_a_figure_that_no_trace_can_hold_fails_no_run(make: Make, memory: Any) -> None:
    @asyncelt.resource
    async def t() -> AsyncIterator[dict[str, object]]:
        asyncelt.current.resource_metrics()["atoms"] = 10**80
        yield {"id": 1}

    with pytest.warns(AsynceltWarning, match="The trace could not be kept"):
        await make().run(t())

    assert ids(memory) == [1]


async def test_a_trace_that_cannot_be_written_does_not_hide_the_error(make: Make, tmp_path: Path) -> None:
    (tmp_path / "work" / "p" / "trace.json").mkdir(parents=True)

    with (
        pytest.warns(AsynceltWarning, match="The trace could not be kept"),
        pytest.raises(PipelineStepFailed, match="boom"),
    ):
        await make().run(broken())


@pytest.mark.parametrize("argument", ["export_schema_path", "import_schema_path"])
async def test_schema_files_that_cannot_be_written_fail_no_run(
    make: Make, memory: Any, tmp_path: Path, argument: str
) -> None:
    folder = tmp_path / "schemas"
    pipeline = make(**{argument: folder})

    def rows() -> Iterator[dict[str, object]]:
        yield {"id": 1}
        # The run has looked at it, and has yet to write to it.
        folder.write_text("in the way")

    with pytest.warns(AsynceltWarning, match="Schemas 'p' could not be written to their files"):
        info = await pipeline.run(rows(), table_name="t")

    assert info.loads_ids
    assert ids(memory) == [1]
    folder.unlink()
    await make(**{argument: folder}).run([{"id": 2, "new": 1}], table_name="t")
    assert (folder / "p.schema.yaml").exists()


# -------------------------------------------------------------------------------------------- calls that fail


async def test_a_failed_step_says_what_was_done_and_is_short(make: Make, memory: Any, faults: Any) -> None:
    pipeline = make()

    with pytest.raises(PipelineStepFailed) as extracting:
        await pipeline.extract(broken())

    await pipeline.extract(ROWS, table_name="t")
    await pipeline.normalize()
    faults.raise_at("commit", DestinationRejected("read-only", code="25006"))

    with pytest.raises(PipelineStepFailed) as loading:
        await pipeline.load()

    kinds = {"extract": ExtractInfo, "load": LoadInfo}

    for caught in (extracting, loading):
        error = caught.value
        assert isinstance(error.step_info, kinds[error.step])
        assert error.step_info.pipeline_name == "p"
        assert error.pipeline is pipeline

    assert extracting.value.step_info.is_empty  # type: ignore[attr-defined]
    trace = pipeline.last_trace
    assert trace is not None
    assert [(one.step, one.step_exception is not None) for one in trace.steps] == [
        ("extract", True),
        ("extract", False),
        ("normalize", False),
        ("load", True),
    ]


async def test_a_failed_normalize_says_what_was_done(make: Make) -> None:
    pipeline = make()
    await pipeline.extract([{"id": 1}], table_name="t")
    await pipeline.extract([{"id": "a"}], table_name="t", schema_contract={"data_type": "freeze"})

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.normalize()

    found = caught.value.step_info
    assert isinstance(found, NormalizeInfo)
    assert len(found.load_packages) == 1
    assert pipeline.last_trace is not None
    assert pipeline.last_trace.steps[-1].step_exception == str(caught.value)


@pytest.mark.parametrize("call", ["run", "extract", "load", "stream", "sync_destination"])
async def test_a_call_whose_destination_is_away_keeps_a_trace(
    make: Make, faults: Any, tmp_path: Path, call: str
) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield ROWS
        yield asyncelt.checkpoint()

    pipeline = make()
    work = getattr(pipeline, call)
    faults.raise_at("restore", DestinationUnavailable("nobody is there"), times=2)

    with pytest.raises(PipelineStepFailed, match="nobody is there") as caught:
        await (work() if call in ("load", "sync_destination") else work(rows()))

    assert (caught.value.step, caught.value.pipeline) == ("sync", pipeline)
    kept = PipelineTrace.from_json((tmp_path / "work" / "p" / "trace.json").read_bytes())
    steps = {"run": ["sync", "run"], "sync_destination": ["sync"]}.get(call, [call])

    for trace in (pipeline.last_trace, kept):
        assert trace is not None
        assert [one.step for one in trace.steps] == steps
        assert [one.step_exception for one in trace.steps] == [str(caught.value)] * len(steps)


@pytest.mark.parametrize("call", ["run", "load"])
@pytest.mark.parametrize("error", [DestinationRejected("read-only", code="25006"), DestinationUnavailable("away")])
async def test_a_failed_load_says_which_package_waits(make: Make, faults: Any, call: str, error: AsynceltError) -> None:
    pipeline = make()
    faults.raise_at("commit", error, times=2)

    if call == "load":
        await pipeline.extract(ROWS, table_name="t")
        await pipeline.normalize()

    with pytest.raises(PipelineStepFailed) as caught:
        await (pipeline.load() if call == "load" else pipeline.run(ROWS, table_name="t"))

    info = caught.value.step_info
    assert isinstance(info, LoadInfo)
    assert list(info.loads_ids) == await pipeline.list_normalized_load_packages()
    assert [package.state for package in info.load_packages] == ["normalized"]
    assert set(info.metrics) == set(info.loads_ids)
    faults.at.clear()
    loaded = await pipeline.load()
    assert loaded is not None
    assert loaded.loads_ids == info.loads_ids


@pytest.mark.parametrize("call", ["run", "extract", "stream"])
async def test_the_traceback_of_every_call_is_as_short(make: Make, call: str) -> None:
    pipeline = make()
    options = {"safe_points": True} if call == "stream" else {}

    with pytest.raises(PipelineStepFailed, match="boom") as caught:
        await getattr(pipeline, call)(broken(), **options)

    shown = [Path(frame.filename) for frame in traceback.extract_tb(caught.value.__traceback__)]
    ours = [one for one in shown if "asyncelt/engine" in one.as_posix()]
    # The place that raised the error, and the one that took it out of its group.
    assert len(ours) <= 2
    assert len(shown) <= 10


# -------------------------------------------------------------------------------------------- streams


async def test_a_stream_keeps_a_trace_when_it_ends(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.run(ROWS, table_name="t")

    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield [{"id": 2}, {"id": 3}]
        yield asyncelt.checkpoint()

    await pipeline.stream(rows())
    kept = PipelineTrace.from_json((tmp_path / "work" / "p" / "trace.json").read_bytes())

    for trace in (pipeline.last_trace, kept):
        assert trace is not None
        assert [one.step for one in trace.steps] == ["stream"]
        assert trace.steps[0].step_info["rows"] == 2  # type: ignore[index]
        assert not trace.steps[0].is_running
        assert "Step stream COMPLETED in" in str(trace)
        assert "Stream p: 2 rows in 1 packages" in str(trace)


async def test_a_failed_stream_keeps_a_trace_and_says_how_far_it_came(make: Make) -> None:
    pipeline = make()

    with pytest.raises(PipelineStepFailed, match="boom") as caught:
        await pipeline.stream(broken(), safe_points=True)

    assert isinstance(caught.value.step_info, StreamStats)
    trace = pipeline.last_trace
    assert trace is not None
    assert trace.steps[0].step_exception == str(caught.value)
    assert trace.steps[0].exception_traces[1]["resource_name"] == "broken"
    assert "Step stream FAILED in" in str(trace)


async def test_a_stream_that_runs_says_so_again_and_again_in_one_step(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_BEAT_S", 0.001)
    pipeline = make()
    file = tmp_path / "work" / "p" / "trace.json"
    beats: list[PipelineTrace] = []

    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield {"id": 1}
        yield asyncelt.checkpoint()

        while len({one.finished_at for one in beats}) < 3:
            await anyio.sleep(0.001)

            if pipeline.last_trace is not None:
                beats.append(pipeline.last_trace)

    await pipeline.stream(rows())
    assert all(one.steps[0].is_running for one in beats)
    assert "Step stream RUNNING for" in str(beats[-1])
    assert "RUNNING for" in str(beats[-1]).partition("\n")[0]
    last = PipelineTrace.from_json(file.read_bytes())
    assert len(last.steps) == 1
    assert not last.steps[0].is_running
    assert {(one.transaction_id, one.steps[0].span_id) for one in [*beats, last]} == {
        (last.transaction_id, last.steps[0].span_id)
    }
    assert PipelineTrace.from_json(beats[0].to_json()).steps[0].is_running
