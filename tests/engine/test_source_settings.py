"""What a source says about its schema counts in whole runs, on every road. Compared with the reference in
tests/differential/definitions.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import PipelineStepFailed, TableIdentifiersFrozen
from asyncelt.schema.system import JSON_NORMALIZER
from tests.support.stepwise import by_steps, make

ROWS = [{"id": 1, "lines": [{"n": 1, "deep": [{"deeper": [1]}]}]}]


def shop(rows: list[dict[str, Any]], **settings: Any) -> asyncelt.Source:
    @asyncelt.resource
    async def orders() -> AsyncIterator[object]:
        yield rows

    return asyncelt.Source("shop", [orders], **settings)


async def load(folder: Path, destination: Any, source: asyncelt.Source, *, stepwise: bool) -> None:
    pipeline = make(folder, destination=destination)
    await (by_steps(pipeline, source) if stepwise else pipeline.run(source))


@pytest.mark.covers("source.root_key", "Source.root_key", "source.max_table_nesting", "Source.max_table_nesting")
@pytest.mark.parametrize("stepwise", [False, True])
async def test_nesting_and_root_keys(tmp_path: Path, stepwise: bool) -> None:
    memory = asyncelt.destinations.memory()
    await load(tmp_path, memory, shop(ROWS, max_table_nesting=2, root_key=True), stepwise=stepwise)
    tables = memory.tables("data")
    nested = tables["orders__lines__deep"].to_pylist()

    assert "orders__lines__deep__deeper" not in tables
    assert [row["_dlt_root_id"] for row in nested] == tables["orders"].column("_dlt_id").to_pylist()


@pytest.mark.covers("source.schema_contract", "Source.schema_contract")
@pytest.mark.parametrize("stepwise", [False, True])
async def test_contracts(tmp_path: Path, stepwise: bool) -> None:
    memory = asyncelt.destinations.memory()
    contract = {"columns": "discard_value"}
    await load(tmp_path, memory, shop([{"id": 1}], schema_contract=contract), stepwise=stepwise)
    await load(tmp_path, memory, shop([{"id": 2, "new": 1}], schema_contract=contract), stepwise=stepwise)
    orders = memory.tables("data")["orders"]

    assert orders.column("id").to_pylist() == [1, 2]
    assert "new" not in orders.column_names


@pytest.mark.covers("source.schema", "Source.schema")
@pytest.mark.parametrize("stepwise", [False, True])
async def test_a_schema_of_its_own(tmp_path: Path, stepwise: bool) -> None:
    memory = asyncelt.destinations.memory()
    first = make(tmp_path / "first", destination=memory)
    await first.run([{"price": "1.50"}], table_name="orders", columns={"price": {"data_type": "text"}})
    brought = first.default_schema
    await load(tmp_path, memory, shop([{"price": 2.5}], schema=brought, root_key=False), stepwise=stepwise)

    assert memory.tables("data")["orders"].column("price").to_pylist() == ["1.50", "2.5"]


PREFERRED = {"settings": {"preferred_types": {"re:^code": "text"}}}


def schema_with(document: dict[str, Any], columns: dict[str, Any]) -> asyncelt.Schema:
    """A schema as somebody writes it down, with one table."""
    table = {"columns": {name: {"name": name, **said} for name, said in columns.items()}}

    return asyncelt.Schema.from_dict({"name": "shop", **document, "tables": {"orders": table}})


@pytest.mark.covers("Pipeline.run.schema", "run.schema", "Source.schema")
@pytest.mark.parametrize("stepwise", [False, True])
async def test_a_schema_counts_in_later_runs_too(tmp_path: Path, stepwise: bool) -> None:
    memory = asyncelt.destinations.memory()
    await load(tmp_path, memory, shop([{"id": 1}]), stepwise=stepwise)
    brought = schema_with(PREFERRED, {"note": {"data_type": "text"}, "id": {"primary_key": True}})
    await load(tmp_path, memory, shop([{"id": 2, "code": 7}], schema=brought), stepwise=stepwise)
    pipeline = make(tmp_path, destination=memory)
    table = pipeline.schemas["shop"].tables["orders"]

    assert memory.tables("data")["orders"].column("code").to_pylist() == [None, "7"]
    assert table.columns["note"].data_type == "text"
    assert table.keys("primary_key") == ("id",)
    assert table.seen_data
    assert pipeline.schemas["shop"].settings["preferred_types"] == {"re:^code": "text"}


async def test_a_schema_that_is_brought_again_changes_nothing(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    hints: dict[str, Any] = {"table_name": "orders", "write_disposition": "merge", "primary_key": "id"}
    await pipeline.run([{"id": 1, "tags": [1]}], **hints)
    before = pipeline.default_schema
    await pipeline.run([{"id": 1, "tags": [1]}], schema=asyncelt.Schema.from_dict(before.to_dict()), **hints)

    assert pipeline.default_schema.version_hash == before.version_hash


async def test_tables_of_a_brought_schema_have_to_fit(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.run([{"tags": [1]}], table_name="orders")
    document = pipeline.default_schema.to_dict()
    tables: Any = document["tables"]
    tables["other"] = {"columns": {}}
    tables["orders__tags"]["parent"] = "other"

    with pytest.raises(PipelineStepFailed, match="has the parent 'orders'"):
        await pipeline.run([{"tags": [1]}], table_name="orders", schema=asyncelt.Schema.from_dict(document))


async def test_a_schema_from_a_name_alone_has_all_that_schemas_have(tmp_path: Path) -> None:
    with_name, without = make(tmp_path, "named"), make(tmp_path, "plain")
    await with_name.run([{"id": 1, "at": "2026-01-01T00:00:00Z"}], table_name="t", schema=asyncelt.Schema("plain"))
    await without.run([{"id": 1, "at": "2026-01-01T00:00:00Z"}], table_name="t")

    assert with_name.default_schema.to_dict() == without.default_schema.to_dict()
    assert with_name.default_schema.tables["t"].columns["at"].data_type == "timestamp"


# ---------------------------------------------------------------------- naming conventions


@pytest.mark.parametrize("stepwise", [False, True])
async def test_names_of_tables_with_data_are_frozen(tmp_path: Path, stepwise: bool) -> None:
    memory = asyncelt.destinations.memory()
    await load(tmp_path, memory, shop([{"id": 1}]), stepwise=stepwise)
    direct = replace(memory, capabilities=replace(memory.capabilities, naming_convention="direct"))

    with pytest.raises(PipelineStepFailed) as raised:
        await load(tmp_path, direct, shop([{"newCol": 1}]), stepwise=stepwise)

    assert isinstance(raised.value.__cause__, TableIdentifiersFrozen)
    assert "'snake_case' and has tables with data ('orders')" in str(raised.value)
    assert "naming_convention='snake_case'" in str(raised.value)
    assert memory.tables("data")["orders"].column("id").to_pylist() == [1]

    # A destination that says nothing about names leaves them to the schema.
    await load(tmp_path, memory, shop([{"newCol": 1}]), stepwise=stepwise)
    assert "new_col" in memory.tables("data")["orders"].column_names


async def test_without_data_another_convention_renames_what_was_declared(tmp_path: Path) -> None:
    memory = asyncelt.destinations.memory(naming_convention="sql_ci_v1")
    document = {**PREFERRED, "normalizers": {"names": "direct", "json": {"module": JSON_NORMALIZER}}}
    brought = schema_with(document, {"someName": {"data_type": "text"}})
    await load(tmp_path, memory, shop([{"someName": 1, "Code": 2}], schema=brought), stepwise=False)
    orders = memory.tables("data")["orders"]

    assert orders.column("somename").to_pylist() == ["1"]
    assert orders.column("code").to_pylist() == ["2"]
    assert make(tmp_path, destination=memory).schemas["shop"].normalizers["names"] == "sql_ci_v1"


async def test_a_convention_is_kept_by_a_destination_that_names_none(tmp_path: Path) -> None:
    memory = asyncelt.destinations.memory(naming_convention="direct")
    await load(tmp_path, memory, shop([{"newCol": 1}]), stepwise=False)
    silent = replace(memory, capabilities=replace(memory.capabilities, naming_convention=None))
    await load(tmp_path, silent, shop([{"newCol": 2, "other Col": 3}]), stepwise=False)

    assert set(memory.tables("data")["orders"].column_names) >= {"newCol", "other Col"}


@pytest.mark.parametrize("key", ["schema.naming", "sources.shop.schema.naming"])
async def test_a_convention_may_be_configured(tmp_path: Path, key: str) -> None:
    memory = asyncelt.destinations.memory()

    with asyncelt.config.values({key: "direct"}):
        await load(tmp_path, memory, shop([{"newCol": 1}]), stepwise=False)

    assert "newCol" in memory.tables("data")["orders"].column_names
