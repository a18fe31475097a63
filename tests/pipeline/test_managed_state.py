"""State that users change: managed, local, and who may do it when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import (
    ConfigError,
    PipelineStepFailed,
    UsageError,
)

Make = Callable[..., asyncelt.Pipeline]
LAKE = asyncelt.destinations.filesystem("/nonexistent/lake")


@asyncelt.resource
async def counter() -> AsyncIterator[dict[str, object]]:
    """Counts its runs in its state."""
    state = asyncelt.current.resource_state()
    state["n"] = int(str(state.get("n", 0))) + 1
    yield {"n": state["n"]}


def values(pipeline: asyncelt.Pipeline, table: str = "counter", column: str = "n") -> list[object]:
    """One column at the destination."""
    found: Any = pipeline.destination
    tables = found.tables(pipeline.dataset_name)

    return tables[table].column(column).to_pylist() if table in tables else []


@pytest.mark.covers(
    "Pipeline.set_local_state_val",
    "Pipeline.set_local_state_val.key",
    "Pipeline.set_local_state_val.value",
    "Pipeline.get_local_state_val",
    "Pipeline.get_local_state_val.key",
)
async def test_local_values_are_kept_and_never_leave_the_machine(make: Make, memory: Any, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.set_local_state_val("machine", {"name": "x"})
    await pipeline.run(counter())
    assert make().get_local_state_val("machine") == {"name": "x"}
    assert make().state["_local"]["machine"] == {"name": "x"}  # type: ignore[index]

    with pytest.raises(KeyError, match="'unknown'"):
        pipeline.get_local_state_val("unknown")

    elsewhere = make(pipelines_dir=tmp_path / "elsewhere")
    await elsewhere.sync_destination()

    with pytest.raises(KeyError):
        elsewhere.get_local_state_val("machine")


@pytest.mark.covers("Pipeline.managed_state")
async def test_managed_state_goes_with_the_next_package(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.run(counter())

    async with pipeline.managed_state() as state:
        state["sources"]["p"]["resources"]["counter"]["n"] = 10
        state["mine"] = {"note": "kept"}

    assert not pipeline.has_pending_data
    assert pipeline.state["_state_version"] == 2
    assert make().state["mine"] == {"note": "kept"}
    await make().run(counter())
    assert values(pipeline) == [1, 11]
    elsewhere = make(pipelines_dir=tmp_path / "elsewhere")
    await elsewhere.sync_destination()
    assert elsewhere.state["mine"] == {"note": "kept"}


@pytest.mark.covers("Pipeline.managed_state", "Pipeline.managed_state.extract_state")
async def test_managed_state_can_be_a_package_of_its_own(make: Make, memory: Any, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.run(counter())

    async with pipeline.managed_state(extract_state=True) as state:
        state["mine"] = 1

    assert pipeline.has_pending_data
    assert pipeline.state["mine"] == 1
    await pipeline.normalize()
    info = await pipeline.load()
    assert info is not None
    assert info.row_counts == {"_dlt_pipeline_state": 1}
    elsewhere = make(pipelines_dir=tmp_path / "elsewhere")
    await elsewhere.sync_destination()
    assert elsewhere.state["mine"] == 1


@pytest.mark.covers("current.pipeline", "Pipeline.managed_state", "Pipeline.managed_state.extract_state")
async def test_managed_state_without_a_change_makes_nothing_and_a_raising_block_forgets(make: Make) -> None:
    pipeline = make()
    await pipeline.run(counter())
    before = pipeline.state

    async with pipeline.managed_state(extract_state=True):
        pass

    assert not pipeline.has_pending_data

    async def fail() -> None:
        async with pipeline.managed_state() as state:
            state["mine"] = 1
            await pipeline.set_local_state_val("k", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert pipeline.state == before

    async with pipeline.managed_state() as state:
        await pipeline.set_local_state_val("k", 2)
        assert pipeline.get_local_state_val("k") == 2
        assert asyncelt.current.pipeline() is pipeline

        with pytest.raises(UsageError, match="entered already"):
            async with pipeline.managed_state():
                pass

    assert pipeline.get_local_state_val("k") == 2
    assert make().get_local_state_val("k") == 2

    with pytest.raises(ConfigError, match="cannot be stored"):
        async with pipeline.managed_state() as state:
            state["mine"] = object()


async def test_a_pipeline_is_not_called_from_inside_itself(make: Make) -> None:
    """It would wait for itself for ever."""
    pipeline = make()

    @asyncelt.resource
    async def recursive() -> AsyncIterator[dict[str, object]]:
        await pipeline.run(counter())
        yield {"id": 1}

    with pytest.raises(PipelineStepFailed, match="would wait for itself"):
        await pipeline.run(recursive())

    async with pipeline.managed_state():
        with pytest.raises(UsageError, match="would wait for itself"):
            await pipeline.run(counter())

    @asyncelt.resource
    async def of_another() -> AsyncIterator[dict[str, object]]:
        await make("q").run(counter())
        yield {"id": 1}

    await pipeline.run(of_another())
    await pipeline.run(counter())


async def test_edits_go_when_another_owner_has_committed(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.run(counter())

    async with pipeline.managed_state() as state:
        state["mine"] = 1

    elsewhere = make(pipelines_dir=tmp_path / "elsewhere")
    await elsewhere.run(counter())
    await pipeline.sync_destination()
    assert "mine" not in pipeline.state
    assert pipeline.state["sources"]["p"]["resources"]["counter"] == {"n": 2}  # type: ignore[index]
