"""Schemas in files, and what a refresh does to schemas, state and packages."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    ConfigError,
    PipelineStepFailed,
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


# -------------------------------------------------------------------------------------------- schema files


@pytest.mark.covers("Pipeline.sync_schema")
@pytest.mark.parametrize("kind", ["memory", "duckdb"])
async def test_an_edited_schema_comes_into_the_dataset_without_a_load(
    make: Make, memory: Any, tmp_path: Path, kind: str
) -> None:
    """Versions of records that an empty load would have retired stay valid: it is no load."""
    target = memory if kind == "memory" else asyncelt.destinations.duckdb(tmp_path / "data.duckdb")
    options = {"import_schema_path": tmp_path / "in", "destination": target}
    rows = asyncelt.resource(
        [{"id": 1}, {"id": 2}], name="t", write_disposition={"disposition": "merge", "strategy": "scd2"}
    )
    await make(**options).run(rows)
    imported = tmp_path / "in" / "p.schema.yaml"
    text = imported.read_text()
    imported.write_text(
        text.replace("tables:\n", "tables:\n  extra:\n    columns:\n      id:\n        data_type: bigint\n", 1)
    )
    pipeline = make(**options)

    with pytest.warns(AsynceltWarning, match="which was edited"):
        assert await pipeline.sync_schema() == {"extra": ("id",)}

    dataset = pipeline.dataset()
    assert await dataset["extra"].fetchall() == []
    assert await dataset["t"].where("_dlt_valid_to", "eq", None).select("id").fetchall() == [(1,), (2,)]
    assert len(await dataset.loads_table().fetchall()) == 1
    assert await pipeline.sync_schema() == {}

    # Nothing was committed that the next run, here or elsewhere, could stumble over.
    await make(**options).run([{"id": 7}], table_name="extra")
    await make(**options, pipelines_dir=tmp_path / "other").run([{"id": 8}], table_name="extra")
    assert await pipeline.dataset()["extra"].select("id").fetchall() == [(7,), (8,)]


@pytest.mark.covers("pipeline.import_schema_path", "pipeline.export_schema_path", "probe.5.import")
async def test_schemas_are_exported_and_edited_ones_imported(make: Make, tmp_path: Path) -> None:
    folders = {"import_schema_path": tmp_path / "in", "export_schema_path": tmp_path / "out"}
    await make(**folders).run([{"id": 1, "price": "1.5"}], table_name="t")
    exported, imported = tmp_path / "out" / "p.schema.yaml", tmp_path / "in" / "p.schema.yaml"
    assert "price:" in exported.read_text()
    assert imported.exists()
    pipeline = make(**folders)
    await pipeline.run([{"id": 2, "price": "2"}], table_name="t")
    assert pipeline.default_schema.tables["t"].columns["price"].data_type == "text"  # type: ignore[index]

    text = imported.read_text()
    imported.write_text(
        text.replace("tables:\n", "tables:\n  extra:\n    columns:\n      id:\n        data_type: bigint\n", 1)
    )

    with pytest.warns(AsynceltWarning, match="which was edited"):
        await make(**folders).run([{"id": 3, "price": "3"}], table_name="t")

    pipeline = make(**folders)
    assert "extra" in pipeline.default_schema.tables
    assert pipeline.default_schema.tables["t"].seen_data  # type: ignore[index]
    assert "extra" in exported.read_text()
    await pipeline.run([{"id": 4}], table_name="t")
    assert values(pipeline, "t", "id") == [1, 2, 3, 4]


async def test_an_import_file_that_is_no_schema_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p.schema.yaml").write_text("- not\n- a schema\n")

    with pytest.raises(ConfigError, match=r"p\.schema\.yaml cannot be read"):
        await make(import_schema_path=tmp_path / "in").run([{"id": 1}], table_name="t")


# -------------------------------------------------------------------------------------------- refresh


@asyncelt.source(name="shop")
def shop(round_: int) -> list[asyncelt.Resource]:
    """Two resources with state."""

    @asyncelt.resource
    async def orders() -> AsyncIterator[dict[str, object]]:
        asyncelt.current.resource_state()["round"] = round_
        yield {"id": round_, "lines": [round_], f"only_{round_}": 1}

    @asyncelt.resource
    async def customers() -> AsyncIterator[dict[str, object]]:
        asyncelt.current.source_state()["shared"] = round_
        asyncelt.current.resource_state()["round"] = round_
        yield {"id": round_}

    return [orders(), customers()]


@pytest.mark.covers(
    "Pipeline.extract.refresh",
    "Pipeline.run.refresh",
    "refresh.drop_sources",
    "refresh.drop_resources",
    "refresh.drop_data",
    "probe.5.refresh",
)
@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize(
    ("mode", "dropped", "truncated", "state"),
    [
        (
            "drop_sources",
            ["customers", "orders", "orders__lines"],
            [],
            {"resources": {"orders": {"round": 2}}},
        ),
        (
            "drop_resources",
            ["orders", "orders__lines"],
            [],
            {"resources": {"customers": {"round": 1}, "orders": {"round": 2}}, "shared": 1},
        ),
        (
            "drop_data",
            [],
            ["orders", "orders__lines"],
            {"resources": {"customers": {"round": 1}, "orders": {"round": 2}}, "shared": 1},
        ),
    ],
)
async def test_refresh_starts_over_in_schema_state_and_package(
    make: Make, mode: Any, dropped: list[str], truncated: list[str], state: object, stepwise: bool
) -> None:
    pipeline = make()
    await pipeline.run(shop(1))
    again = shop(2).with_resources("orders")

    if stepwise:
        await pipeline.extract(again, refresh=mode)
        await pipeline.normalize()
        info: Any = await pipeline.load()
    else:
        info = await pipeline.run(again, refresh=mode)

    (package,) = info.load_packages
    assert (sorted(package.dropped_tables), sorted(package.truncated_tables)) == (dropped, truncated)
    assert package.refresh == mode
    assert f"with refresh '{mode}' is LOADED" in str(info)
    assert pipeline.state["sources"]["shop"] == state  # type: ignore[index]
    schema = pipeline.schemas["shop"]
    assert ("customers" in schema.tables) == (mode != "drop_sources")
    assert ("only_1" in schema.tables["orders"].columns) == (mode == "drop_data")  # type: ignore[index]
    stored = await pipeline.get_load_package_state(package.load_id)
    assert sorted(stored["dropped_tables"]) == dropped  # type: ignore[call-overload]


@pytest.mark.covers("pipeline.refresh")
async def test_refresh_has_no_effect_on_what_was_never_loaded_and_fails_as_a_whole(make: Make, faults: Any) -> None:
    from asyncelt.errors import DestinationRejected

    pipeline = make(refresh="drop_sources")
    info = await pipeline.run(shop(1))
    assert info.load_packages[0].dropped_tables == ()
    before = pipeline.state
    faults.raise_at("commit", DestinationRejected("no"))

    with pytest.raises(PipelineStepFailed):
        await pipeline.run(shop(2))

    await pipeline.abort_packages()
    assert pipeline.state == before
    assert "only_1" in pipeline.schemas["shop"].tables["orders"].columns  # type: ignore[index]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await pipeline.run(shop(3))
