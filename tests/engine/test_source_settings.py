"""What a source says about its schema counts in whole runs, on every road. Compared with the reference in
tests/differential/definitions.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import asyncelt
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
