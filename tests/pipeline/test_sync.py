"""Whose state counts: the working folder's or the destination's, on every side of the matrix."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    CannotRestorePipeline,
    LeaseLost,
    PipelineStepFailed,
    StorageError,
)
from asyncelt.failpoints import installed
from asyncelt.storage.state import decode_state, encode_state

Make = Callable[..., asyncelt.Pipeline]


@asyncelt.resource
async def counter() -> AsyncIterator[dict[str, object]]:
    """Counts its runs in its state."""
    state = asyncelt.current.resource_state()
    state["n"] = int(str(state.get("n", 0))) + 1
    yield {"n": state["n"]}


def values(destination: Any, dataset: str = "data") -> list[object]:
    """What the dataset holds."""
    tables = destination.tables(dataset)

    return tables["counter"].column("n").to_pylist() if "counter" in tables else []


def forget(tmp_path: Path) -> None:
    """The machine is replaced by an empty one."""
    shutil.rmtree(tmp_path / "work")


def rewrite(memory: Any, column: str, value: str) -> None:
    """Change a column of the stored states, as somebody else may have written it."""
    contents = memory._datasets["data"]
    table = contents.tables["_dlt_pipeline_state"]
    at = table.schema.get_field_index(column)
    changed = table.set_column(at, table.schema.field(column), [[value] * len(table)])
    memory._datasets["data"] = replace(contents, tables={**contents.tables, "_dlt_pipeline_state": changed})


@pytest.mark.covers("Pipeline.first_run")
async def test_nothing_anywhere_is_a_first_run(make: Make, memory: Any) -> None:
    pipeline = make()
    await pipeline.sync_destination()
    assert pipeline.first_run
    assert not pipeline.has_data
    await pipeline.run(counter())
    assert values(memory) == [1]


@pytest.mark.covers("Pipeline.sync_destination", "probe.4.local-missing")
async def test_an_empty_machine_restores_state_and_schemas(make: Make, memory: Any, tmp_path: Path) -> None:
    await make().run(counter())
    forget(tmp_path)
    pipeline = make()
    await pipeline.sync_destination()

    assert not pipeline.first_run
    assert pipeline.schema_names == ["p"]
    assert pipeline.default_schema.tables["counter"].seen_data  # type: ignore[index]
    await pipeline.run(counter())
    assert values(memory) == [1, 2]


async def test_extract_on_an_empty_machine_asks_the_destination_first(make: Make, memory: Any, tmp_path: Path) -> None:
    await make().run(counter())
    forget(tmp_path)
    pipeline = make()
    await pipeline.extract(counter())
    await pipeline.normalize()
    await pipeline.load()
    assert values(memory) == [1, 2]


@pytest.mark.covers("probe.4.remote-newer")
async def test_a_folder_that_is_behind_takes_the_newer_state(make: Make, memory: Any, tmp_path: Path) -> None:
    await make().run(counter())
    shutil.copytree(tmp_path / "work", tmp_path / "other")
    await make(pipelines_dir=tmp_path / "other").run(counter())
    pipeline = make()
    await pipeline.run(counter())
    assert values(memory) == [1, 2, 3]


@pytest.mark.covers("probe.4.local-newer")
async def test_a_commit_that_was_cut_off_before_it_was_noted_is_noted_later(make: Make, memory: Any) -> None:
    class Killed(BaseException):
        pass

    def kill(point: str) -> None:
        if point == "memory.after_commit":
            raise Killed

    pipeline = make()
    await pipeline.run(counter())

    with installed(kill), pytest.raises(BaseException):  # noqa: B017 - Killed, or a group of it
        await pipeline.run(counter())

    pipeline = make()
    assert pipeline.has_pending_data
    await pipeline.sync_destination()
    info = await pipeline.load()
    assert info is not None
    assert len(info.load_packages) == 1
    assert values(memory) == [1, 2]
    await pipeline.run(counter())
    assert values(memory) == [1, 2, 3]


async def test_packages_made_before_another_owner_committed_are_refused_and_said(
    make: Make, memory: Any, tmp_path: Path
) -> None:
    pipeline = make()
    await pipeline.run(counter())
    shutil.copytree(tmp_path / "work", tmp_path / "other")
    await pipeline.extract(counter())
    await pipeline.normalize()
    await make(pipelines_dir=tmp_path / "other").run(counter())

    with (
        pytest.warns(AsynceltWarning, match="Another owner has committed"),
        pytest.raises(PipelineStepFailed) as caught,
    ):
        await pipeline.load()

    assert isinstance(caught.value.__cause__, LeaseLost)
    await pipeline.abort_packages()
    await pipeline.run(counter())
    assert values(memory) == [1, 2, 3]


@pytest.mark.covers("probe.4.remote-missing")
async def test_a_dataset_that_is_gone_is_loaded_anew_and_this_is_said(make: Make, memory: Any) -> None:
    pipeline = make()
    await pipeline.set_local_state_val("kept", 1)
    await pipeline.run(counter())
    memory._datasets.clear()

    with pytest.warns(AsynceltWarning, match="does not exist .* start anew"):
        await pipeline.run(counter())

    assert values(memory) == [1]
    assert pipeline.get_local_state_val("kept") == 1


@pytest.mark.covers("Pipeline.run.dataset_name", "probe.4.renamed")
async def test_a_new_dataset_name_never_wipes_silently(make: Make, memory: Any) -> None:
    """The reference wipes schemas, state and pending packages without a word."""
    pipeline = make()
    await pipeline.run(counter())
    await pipeline.run(counter())

    with pytest.warns(AsynceltWarning, match="stays as it is; sync_destination"):
        await pipeline.run(counter(), dataset_name="other")

    assert (values(memory), values(memory, "other")) == ([1, 2], [1])

    # Back again: the state is that of the first dataset, not of the one that was used last.
    await pipeline.run(counter(), dataset_name="data")
    await pipeline.run(counter(), dataset_name="other")
    assert (values(memory), values(memory, "other")) == ([1, 2, 3], [1, 2])


@pytest.mark.covers("probe.4.renamed")
async def test_pending_packages_go_with_a_new_dataset_name_and_this_is_said(make: Make, memory: Any) -> None:
    pipeline = make()
    await pipeline.run(counter())
    await pipeline.extract(counter())
    await pipeline.extract(counter())
    await pipeline.normalize()

    with pytest.warns(AsynceltWarning, match="was made for dataset 'data' and is loaded into 'other'"):
        info = await pipeline.load(dataset_name="other")

    assert info is not None
    assert len(info.load_packages) == 2
    assert (values(memory), values(memory, "other")) == ([1], [2, 3])
    await pipeline.run(counter())
    assert values(memory, "other") == [2, 3, 4]


@pytest.mark.covers("Pipeline.load.destination")
async def test_another_destination_can_be_named_at_load(make: Make, memory: Any) -> None:
    other = asyncelt.destinations.memory(destination_name="second")
    pipeline = make()
    await pipeline.extract(counter())
    await pipeline.normalize()
    await pipeline.load(other)
    assert pipeline.destination is other
    assert (values(memory), values(other)) == ([], [1])


@pytest.mark.covers("probe.4.remote-missing")
async def test_a_dataset_that_knows_nothing_of_the_pipeline_makes_state_start_anew(make: Make, memory: Any) -> None:
    await make("neighbour", dataset_name="shared").run([{"id": 1}], table_name="t")
    pipeline = make()
    await pipeline.run(counter())

    with pytest.warns(AsynceltWarning, match="knows no state of this pipeline"):
        await pipeline.run(counter(), dataset_name="shared")

    assert values(memory, "shared") == [1]
    assert pipeline.schema_names == ["p"]


async def test_the_state_of_another_pipeline_is_refused(make: Make, memory: Any) -> None:
    pipeline = make()
    await pipeline.run(counter())
    rewrite(memory, "pipeline_name", "q")

    with pytest.raises(PipelineStepFailed, match="is of pipeline 'p'") as caught:
        await make("q").sync_destination()

    assert caught.value.step == "sync"
    assert isinstance(caught.value.__cause__, CannotRestorePipeline)


@pytest.mark.parametrize("knows", [True, False], ids=["the folder knows the package", "an empty machine"])
async def test_a_state_of_a_newer_engine_is_refused(make: Make, memory: Any, tmp_path: Path, *, knows: bool) -> None:
    await make().run(counter())
    state = decode_state(str(memory.tables("data")["_dlt_pipeline_state"].column("state")[0]))
    newer = {**state, "_state_engine_version": 99, "_state_version": 7, "_version_hash": "of a newer release"}
    rewrite(memory, "state", encode_state(newer))

    if not knows:
        forget(tmp_path)

    with pytest.raises(PipelineStepFailed, match=r"engine version 99.*Update the library") as caught:
        await make().run(counter())

    assert caught.value.step == "sync"
    assert isinstance(caught.value.__cause__, StorageError)
    assert values(memory) == [1]


async def test_a_state_of_an_older_engine_is_migrated(make: Make, memory: Any, tmp_path: Path) -> None:
    await make().run(counter())
    state = decode_state(str(memory.tables("data")["_dlt_pipeline_state"].column("state")[0]))
    older = {key: value for key, value in state.items() if not key.startswith("destination_")}
    older |= {"_state_engine_version": 3, "destination": "dlt.destinations.duckdb"}
    rewrite(memory, "state", encode_state(older))
    forget(tmp_path)
    pipeline = make()
    await pipeline.sync_destination()
    assert pipeline.state["_state_engine_version"] == 4
    assert pipeline.state["destination_type"] == "dlt.destinations.duckdb"
    assert "destination" not in pipeline.state
    await pipeline.run(counter())
    assert values(memory) == [1, 2]


async def test_a_state_of_this_engine_is_taken_as_it_is(make: Make, memory: Any, tmp_path: Path) -> None:
    await make().run(counter())
    stored = str(memory.tables("data")["_dlt_pipeline_state"].column("state")[0])
    forget(tmp_path)
    await make().sync_destination()
    head = orjson.loads((tmp_path / "work" / "p" / "head.json").read_bytes())
    assert head["state"] == stored


async def test_without_restoring_state_stays_on_the_machine(make: Make, memory: Any, tmp_path: Path) -> None:
    def again() -> asyncelt.Pipeline:
        return make(restore_from_destination=False)

    await again().run(counter())
    await again().run(counter())
    assert values(memory) == [1, 2]
    assert "_dlt_pipeline_state" not in memory.tables("data")
    forget(tmp_path)
    await again().run(counter())
    assert values(memory) == [1, 2, 1]


async def test_syncing_without_a_destination_is_a_failed_step(tmp_path: Path) -> None:
    with pytest.raises(PipelineStepFailed, match="no destination") as caught:
        await asyncelt.pipeline("p", pipelines_dir=tmp_path).sync_destination()

    assert caught.value.step == "sync"


@pytest.mark.covers(
    "Pipeline.sync_destination",
    "Pipeline.sync_destination.destination",
    "Pipeline.sync_destination.dataset_name",
)
async def test_syncing_can_change_destination_and_dataset(make: Make, memory: Any) -> None:
    await make().run(counter())
    pipeline = make("p", destination=asyncelt.destinations.memory(), dataset_name="elsewhere")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsynceltWarning)
        await pipeline.sync_destination(memory, dataset_name="data")

    assert pipeline.dataset_name == "data"
    assert pipeline.state["sources"]["p"]["resources"]["counter"] == {"n": 1}  # type: ignore[index]


# -------------------------------------------------------------------------------------------- folders of other releases


async def test_a_folder_of_the_first_format_version_is_read(make: Make, memory: Any, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.run(counter())
    await pipeline.extract(counter())
    await pipeline.normalize()
    folder = tmp_path / "work" / "p"
    head = orjson.loads((folder / "head.json").read_bytes())

    for key in ("format_version", "place", "destination_name", "edited", "edited_on"):
        del head[key]

    (folder / "head.json").write_bytes(orjson.dumps(head))
    (folder / "trace.json").unlink()
    shutil.rmtree(folder / "packages" / "extracted")

    for path in folder.glob("packages/*/*/manifest.json"):
        manifest = {**orjson.loads(path.read_bytes()), "format_version": 1}

        for key in ("place", "refresh", "dropped_tables", "truncated_tables", "completed_at", "schema_update"):
            del manifest[key]

        path.write_bytes(orjson.dumps(manifest))

    pipeline = make()
    assert pipeline.has_pending_data
    assert not pipeline.first_run
    await pipeline.load()
    await pipeline.run(counter())
    assert values(memory) == [1, 2, 3]


async def test_a_folder_of_a_newer_release_is_refused(make: Make, tmp_path: Path) -> None:
    await make().run(counter())
    path = tmp_path / "work" / "p" / "head.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "format_version": 99}))

    with pytest.raises(StorageError, match="format version 99"):
        make()


async def test_a_torn_head_is_restored(make: Make, memory: Any, tmp_path: Path) -> None:
    await make().run(counter())
    (tmp_path / "work" / "p" / "head.json").write_bytes(b'{"load_id": ')
    await make().run(counter())
    assert values(memory) == [1, 2]
