"""A call that is refused has changed nothing: not where the pipeline writes, nor what is active, nor the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import CannotRestorePipeline, ConfigError, PipelineStepFailed

Make = Callable[..., asyncelt.Pipeline]
ROWS = [{"id": 1}]


@asyncelt.source
async def never() -> asyncelt.Resource:
    """Fails the test when it is awaited."""
    raise AssertionError


@pytest.mark.parametrize(
    "wrong",
    [{"on_pending": "bogus"}, {"refresh": "bogus"}, {"loader_file_format": "bogus"}, {"staging": "memory"}],
    ids=lambda one: next(iter(one)),
)
async def test_a_run_that_is_refused_writes_where_it_did_and_awaits_no_source(
    make: Make, memory: Any, wrong: dict[str, Any]
) -> None:
    pipeline = make()
    other = asyncelt.destinations.memory(destination_name="other")

    # A decorated function is called by the run; a coroutine that nobody awaits would warn.
    with pytest.raises(ConfigError):
        await pipeline.run(never, destination=other, dataset_name="elsewhere", **wrong)

    assert (pipeline.destination, pipeline.staging, pipeline.dataset_name) == (memory, None, "data")


async def test_a_run_whose_data_is_refused_writes_where_it_did(make: Make, memory: Any) -> None:
    pipeline = make()

    with pytest.raises(ConfigError, match="no name of its own"):
        await pipeline.run(ROWS, destination=asyncelt.destinations.memory(), dataset_name="elsewhere")

    assert (pipeline.destination, pipeline.dataset_name) == (memory, "data")


async def test_a_load_that_is_refused_writes_where_it_did(make: Make, memory: Any) -> None:
    pipeline = make()

    with pytest.raises(ConfigError, match="workers"):
        await pipeline.load(asyncelt.destinations.memory(), "elsewhere", workers=0)

    assert (pipeline.destination, pipeline.dataset_name) == (memory, "data")


async def test_a_sync_that_is_refused_writes_where_it_did(make: Make, memory: Any) -> None:
    pipeline = make()

    with pytest.raises(PipelineStepFailed, match="'nope'"):
        await pipeline.sync_destination("nope", dataset_name="elsewhere")

    assert (pipeline.destination, pipeline.dataset_name) == (memory, "data")


async def test_extract_checks_its_arguments_before_it_awaits_a_source(make: Make) -> None:
    with pytest.raises(ConfigError, match="refresh"):
        await make().extract(never, refresh="bogus")  # type: ignore[arg-type]


@pytest.mark.parametrize("is_file", ["out", "out/below/it"])
@pytest.mark.parametrize("argument", ["export_schema_path", "import_schema_path"])
async def test_a_schema_folder_that_cannot_be_is_refused_before_anything_is_read(
    make: Make, memory: Any, tmp_path: Path, argument: str, is_file: str
) -> None:
    (tmp_path / "out").write_text("a file")
    pipeline = make(**{argument: tmp_path / is_file})

    with pytest.raises(ConfigError, match=f"{argument}=.* has to be a folder, but .*out' is a file"):
        await pipeline.run(ROWS, table_name="t")

    assert not pipeline.has_data
    assert memory.tables("data") == {}


@pytest.mark.covers("attach.pipeline_name")
@pytest.mark.parametrize("options", [{}, {"destination": True}], ids=["no destination", "a destination"])
async def test_attach_leaves_nothing_where_it_finds_nothing(
    make: Make, memory: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    before = make("before")
    options = dict.fromkeys(options, memory)

    with pytest.raises(CannotRestorePipeline):
        await asyncelt.attach("nowhere", tmp_path / "work", **options)

    assert asyncelt.pipeline() is before
    assert not (tmp_path / "work" / "nowhere").exists()
    asyncelt.current.activated.set(None)

    with pytest.raises(CannotRestorePipeline):
        await asyncelt.attach("nowhere", tmp_path / "work", **options)

    assert asyncelt.current.activated.get() is None


async def test_attach_removes_no_folder_that_was_there(make: Make, memory: Any, tmp_path: Path) -> None:
    mine = tmp_path / "work" / "nowhere" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")

    with pytest.raises(CannotRestorePipeline):
        await asyncelt.attach("nowhere", tmp_path / "work", destination=memory)

    assert mine.read_text() == "kept"
