"""Every other member of Pipeline: what it answers, what it keeps, what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    CannotRestorePipeline,
    ConfigError,
    InvalidPipelineName,
    LoadPackageNotFound,
    PipelineConfigMissing,
    PipelineNotActive,
    SchemaNotFound,
    UsageError,
)
from asyncelt.load.protocol import Session

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


# -------------------------------------------------------------------------------------------- facts


@pytest.mark.covers(
    "pipeline.pipeline_name",
    "pipeline.pipelines_dir",
    "Pipeline.pipeline_name",
    "Pipeline.pipelines_dir",
    "Pipeline.working_dir",
    "Pipeline.first_run",
    "Pipeline.has_data",
    "Pipeline.has_pending_data",
    "Pipeline.schema_names",
    "Pipeline.schemas",
    "Pipeline.default_schema",
    "Pipeline.default_schema_name",
    "Pipeline.state",
    "Pipeline.naming",
    "Pipeline.last_trace",
)
async def test_facts_before_and_after_the_first_run(make: Make, tmp_path: Path) -> None:
    pipeline = make("my_pipeline")

    assert pipeline.pipeline_name == "my_pipeline"
    assert pipeline.pipelines_dir == str(tmp_path / "work")
    assert pipeline.working_dir == str(tmp_path / "work" / "my_pipeline")
    assert (pipeline.first_run, pipeline.has_data, pipeline.has_pending_data) == (True, False, False)
    assert (pipeline.schema_names, dict(pipeline.schemas)) == ([], {})
    assert pipeline.default_schema_name == "my"
    assert pipeline.state["_state_version"] == 0
    assert pipeline.last_trace is None
    assert pipeline.naming.identifier("CamelCase") == "camel_case"

    with pytest.raises(SchemaNotFound, match="run it once"):
        _ = pipeline.default_schema

    await pipeline.run(counter())
    assert (pipeline.first_run, pipeline.has_data) == (False, True)
    assert pipeline.schema_names == ["my"]
    assert pipeline.default_schema is pipeline.schemas["my"]
    assert pipeline.state["_state_version"] == 1
    assert pipeline.state["_local"]["first_run"] is False  # type: ignore[index]
    assert pipeline.state["pipeline_name"] == "my_pipeline"

    with pytest.raises(SchemaNotFound, match="has no schema 'other'; it has 'my'"):
        _ = pipeline.schemas["other"]

    text = repr(pipeline)
    assert text.startswith("<asyncelt.pipeline(pipeline_name='my_pipeline', destination='memory'")
    assert "staging" not in text


@pytest.mark.covers("Pipeline.state")
async def test_changing_the_state_copy_has_no_effect(make: Make) -> None:
    pipeline = make()
    await pipeline.run(counter())
    pipeline.state["sources"]["p"].clear()  # type: ignore[index]
    assert pipeline.state["sources"]["p"]["resources"] == {"counter": {"n": 1}}  # type: ignore[index]


@pytest.mark.covers("pipeline.dataset_name", "Pipeline.dataset_name")
async def test_the_dataset_name_follows_the_naming_convention(make: Make) -> None:
    assert make("P1", dataset_name=None).dataset_name == "p1_dataset"
    assert make(dataset_name="MyData").dataset_name == "my_data"
    assert asyncelt.pipeline("x", pipelines_dir=make().pipelines_dir).dataset_name is None


@pytest.mark.covers("pipeline.destination", "pipeline.dataset_name", "attach.pipeline_name", "attach.pipelines_dir")
async def test_a_folder_says_what_destination_and_dataset_it_was_used_with(tmp_path: Path) -> None:
    await asyncelt.pipeline(
        "p",
        pipelines_dir=tmp_path,
        destination=asyncelt.destinations.filesystem(str(tmp_path / "lake")),
        dataset_name="d",
    ).run([{"id": 1}], table_name="t")
    found = asyncelt.pipeline("p", pipelines_dir=tmp_path)
    assert found.dataset_name in ("d", None)
    named = asyncelt.pipeline("p", pipelines_dir=tmp_path, dataset_name="e")
    assert named.dataset_name == "e"
    attached = await asyncelt.attach("p", tmp_path)
    assert attached.has_data


@pytest.mark.covers("pipeline.pipeline_salt", "Pipeline.pipeline_salt")
async def test_the_salt_is_the_references(make: Make) -> None:
    from dlt.common.utils import digest256

    assert make().pipeline_salt == digest256("p")
    assert make(pipeline_salt="mine").pipeline_salt == "mine"


# -------------------------------------------------------------------------------------------- wrong arguments


@pytest.mark.covers("pipeline.pipeline_name", "pipeline.refresh", "pipeline.staging")
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"pipeline_name": "a/b"}, InvalidPipelineName, "name of a folder"),
        ({"member": "a/b"}, InvalidPipelineName, "name of a folder"),
        ({"refresh": "drop_all"}, ConfigError, "drop_data"),
        ({"destination": "memory", "staging": LAKE}, ConfigError, "'filesystem' cannot be one"),
        ({"staging": "nowhere"}, ConfigError, "No destination is registered as 'nowhere'"),
    ],
)
async def test_wrong_arguments_of_the_factory(
    tmp_path: Path, wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        asyncelt.pipeline(**{"pipeline_name": "p", "pipelines_dir": tmp_path / "work", **wrong})

    assert not (tmp_path / "work").exists()


def test_unknown_arguments_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="full_refresh"):
        asyncelt.pipeline("p", full_refresh=True)  # type: ignore[call-arg]


@pytest.mark.covers("Pipeline.run.staging", "pipeline.staging")
async def test_staging_is_refused_at_run_too(make: Make) -> None:
    with pytest.raises(ConfigError, match="takes no staging destination"):
        await make().run([{"id": 1}], table_name="t", staging=LAKE)


@pytest.mark.covers("Pipeline.destination", "Pipeline.staging")
async def test_destination_and_staging_can_be_set(make: Make, memory: Any, tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline("p", pipelines_dir=tmp_path, dataset_name="d")
    pipeline.destination = memory
    await pipeline.run([{"id": 1}], table_name="t")
    assert values(pipeline, "t", "id") == [1]

    with pytest.raises(ConfigError, match="takes no staging destination"):
        pipeline.staging = LAKE  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="nowhere"):
        pipeline.destination = "nowhere"  # type: ignore[assignment]


@pytest.mark.covers("Pipeline.run.credentials")
async def test_credentials_make_another_destination_of_the_same_type(tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline("p", pipelines_dir=tmp_path, destination="duckdb", dataset_name="d")
    await pipeline.run([{"id": 1}], table_name="t", credentials=str(tmp_path / "x.duckdb"))
    assert (tmp_path / "x.duckdb").exists()
    assert pipeline.destination is not None
    assert pipeline.destination.location.endswith("x.duckdb")


# -------------------------------------------------------------------------------------------- active


@pytest.mark.covers(
    "Pipeline.is_active",
    "Pipeline.activate",
    "Pipeline.deactivate",
    "run.data",
    "run.table_name",
    "probe.10.several",
)
async def test_active_is_per_task(make: Make) -> None:
    """Two tasks with two pipelines never see each other's."""

    async def one(name: str, started: anyio.Event, other: anyio.Event) -> None:
        pipeline = make(name, dataset_name=name)
        started.set()
        await other.wait()
        assert pipeline.is_active
        assert asyncelt.pipeline() is pipeline
        await asyncelt.run([{"who": name}], table_name="t")
        assert values(pipeline, "t", "who") == [name]

    outer = make("outer")
    first, second = anyio.Event(), anyio.Event()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, "a", first, second)
        tasks.start_soon(one, "b", second, first)

    assert outer.is_active
    outer.deactivate()
    assert not outer.is_active

    with pytest.raises(PipelineNotActive, match="not active in this task"):
        outer.deactivate()

    outer.activate()
    assert outer.is_active


@pytest.mark.covers("current.resource_state", "probe.10.several")
async def test_a_resource_knows_its_pipeline_state_only(make: Make) -> None:
    pipelines = [make(name) for name in ("a", "b")]
    await asyncio.gather(*(pipeline.run(counter()) for pipeline in pipelines))
    assert [pipeline.state["sources"] for pipeline in pipelines] == [
        {name: {"resources": {"counter": {"n": 1}}}} for name in ("a", "b")
    ]


# -------------------------------------------------------------------------------------------- drop, attach


@pytest.mark.covers("Pipeline.drop")
async def test_drop_makes_the_folder_new_and_leaves_the_destination(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.run(counter())
    await pipeline.set_local_state_val("k", 1)
    await pipeline.extract(counter())
    assert await pipeline.drop() is pipeline
    assert (pipeline.first_run, pipeline.has_data, pipeline.last_trace) == (True, False, None)
    assert not list((tmp_path / "work" / "p").glob("**/manifest.json"))
    assert pipeline.is_active
    await pipeline.run(counter())
    assert values(pipeline) == [1, 2]


@pytest.mark.covers("Pipeline.drop", "Pipeline.drop.pipeline_name")
async def test_drop_with_another_name_goes_on_under_it(make: Make) -> None:
    pipeline = make()
    await pipeline.run(counter())
    other = await pipeline.drop("q")
    assert (other.pipeline_name, other.is_active, other.first_run) == ("q", True, True)
    assert other.destination is pipeline.destination
    assert not pipeline.has_data

    with pytest.raises(InvalidPipelineName):
        await pipeline.drop("a/b")


@pytest.mark.covers("attach.pipeline_name", "attach.pipelines_dir", "attach.destination", "attach.dataset_name")
async def test_attach_finds_folders_and_datasets_and_nothing_else(make: Make, memory: Any, tmp_path: Path) -> None:
    await make().run(counter())
    assert not (await asyncelt.attach("p", tmp_path / "work")).first_run
    restored = await asyncelt.attach("p", tmp_path / "new", destination=memory, dataset_name="data")
    assert restored.state["sources"]["p"]["resources"]["counter"] == {"n": 1}  # type: ignore[index]

    with pytest.raises(CannotRestorePipeline, match="no pipeline 'q'"):
        await asyncelt.attach("q", tmp_path / "new")

    with pytest.raises(CannotRestorePipeline, match="or in dataset"):
        await asyncelt.attach("q", tmp_path / "new", destination=memory, dataset_name="data")


# -------------------------------------------------------------------------------------------- dev_mode


@pytest.mark.covers("pipeline.dev_mode", "Pipeline.dev_mode", "probe.5.dev_mode")
async def test_dev_mode_begins_anew_in_a_dataset_of_its_own(make: Make) -> None:
    names = set()

    for _ in range(3):
        pipeline = make(dev_mode=True)
        names.add(pipeline.dataset_name)
        await pipeline.run(counter())
        await pipeline.run(counter())
        assert values(pipeline) == [1, 2]

    assert len(names) == 3
    assert all(str(name).startswith("data_2") for name in names)

    attached = await asyncelt.attach("p", pipeline.pipelines_dir, destination=pipeline.destination)
    assert (attached.dev_mode, attached.dataset_name) == (True, pipeline.dataset_name)
    await attached.run(counter())
    assert values(attached) == [1, 2, 3]
    pipeline = make()
    assert pipeline.first_run

    with pytest.warns(AsynceltWarning, match="dev_mode"):
        await pipeline.run(counter())

    assert pipeline.dataset_name == "data"
    assert values(pipeline) == [1]
    await make().run(counter())
    assert values(pipeline) == [1, 2]


# -------------------------------------------------------------------------------------------- clients, schemas


@pytest.mark.covers(
    "Pipeline.sql_client",
    "Pipeline.sql_client.schema_name",
    "Pipeline.destination_client",
    "Pipeline.destination_client.schema_name",
)
async def test_clients_say_what_is_missing(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    await pipeline.run([{"id": 1}], table_name="t")

    async with pipeline.sql_client() as client:
        assert (await client.query("SELECT id FROM t")).to_pylist() == [{"id": 1}]

    async with pipeline.destination_client("p") as session:
        assert isinstance(session, Session)
        assert (await session.restore("p")).exists

    for client_of in (pipeline.sql_client, pipeline.destination_client):
        with pytest.raises(SchemaNotFound):
            async with client_of("unknown"):
                pass

        bare = getattr(asyncelt.pipeline("bare", pipelines_dir=tmp_path), client_of.__name__)

        with pytest.raises(PipelineConfigMissing):
            async with bare():
                pass


@pytest.mark.covers("Pipeline.sync_schema", "Pipeline.sync_schema.schema_name")
async def test_sync_schema_makes_tables_without_rows(make: Make, memory: Any) -> None:
    pipeline = make()

    with pytest.raises(PipelineConfigMissing, match="no schema yet"):
        await pipeline.sync_schema()

    await pipeline.run([{"id": 1, "l": [1]}], table_name="t")
    assert await pipeline.sync_schema() == {}

    with pytest.raises(SchemaNotFound, match="has no schema 'unknown'"):
        await pipeline.sync_schema("unknown")

    del memory._datasets["data"].tables["t__l"]  # type: ignore[attr-defined]
    contents = memory._datasets["data"].tables
    versions = contents["_dlt_version"]
    contents["_dlt_version"] = versions.slice(0, 0)  # type: ignore[index]
    update = await pipeline.sync_schema()
    assert set(update) == {"t__l"}
    assert memory.tables("data")["t__l"].num_rows == 0
    assert memory.tables("data")["_dlt_loads"].num_rows == 1
    assert not pipeline.has_pending_data
    await pipeline.run([{"id": 2, "l": [2]}], table_name="t")
    assert values(pipeline, "t", "id") == [1, 2]
    await pipeline.extract([{"id": 3}], table_name="t")

    with pytest.raises(UsageError, match="pending packages"):
        await pipeline.sync_schema("p")


@pytest.mark.covers(
    "Pipeline.get_load_package_info",
    "Pipeline.get_load_package_info.load_id",
    "Pipeline.get_load_package_state",
    "Pipeline.get_load_package_state.load_id",
    "Pipeline.list_failed_jobs_in_package",
    "Pipeline.list_failed_jobs_in_package.load_id",
    "Pipeline.list_pending_retry_jobs_in_package",
    "Pipeline.list_pending_retry_jobs_in_package.load_id",
    "Pipeline.list_extracted_resources",
    "Pipeline.list_completed_load_packages",
)
async def test_packages_that_are_not_there(make: Make) -> None:
    pipeline = make()

    for call in (
        pipeline.get_load_package_info,
        pipeline.get_load_package_state,
        pipeline.list_failed_jobs_in_package,
        pipeline.list_pending_retry_jobs_in_package,
    ):
        with pytest.raises(LoadPackageNotFound, match=r"no load package 1\.0"):
            await call("1.0")

    assert await pipeline.list_extracted_resources() == []
    assert await pipeline.list_completed_load_packages() == []


@pytest.mark.covers("Pipeline.get_load_package_state", "Pipeline.get_load_package_state.load_id")
async def test_a_package_tells_its_state(make: Make) -> None:
    pipeline = make()
    first = await pipeline.run(counter())
    extracted = await pipeline.extract(counter())
    state = await pipeline.get_load_package_state(extracted.loads_ids[0])
    assert state["pipeline_state"]["sources"]["p"]["resources"]["counter"] == {"n": 2}  # type: ignore[index]
    await pipeline.normalize()
    state = await pipeline.get_load_package_state(extracted.loads_ids[0])
    assert state["parent_load_id"] == first.loads_ids[0]
    assert state["bundle"] == list(extracted.loads_ids)
    done = await pipeline.get_load_package_state(first.loads_ids[0])
    assert done["completed_at"] is not None
    assert done["applied_schema_update"]["counter"] == ["n", "_dlt_load_id", "_dlt_id"]  # type: ignore[index]
