"""What the error of a frozen contract knows, in the reference's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

import asyncelt
from asyncelt.errors import DataValidationError, PipelineStepFailed
from tests.support.stepwise import make


class Order(BaseModel):
    """Has numbers only."""

    id: int


async def refused(folder: Path, rows: object, **hints: Any) -> DataValidationError:
    """The error of rows that come after those of a first run."""
    pipeline = make(folder)
    await pipeline.run([{"id": 1, "lines": [{"n": 1}]}], table_name="orders")

    with pytest.raises(PipelineStepFailed) as raised:
        await pipeline.run(rows, **hints)

    found = raised.value.__cause__
    assert isinstance(found, DataValidationError)
    assert (found.schema_name, found.contract_mode) == ("p", "freeze")

    return found


def contract(**frozen: str) -> dict[str, str]:
    return {"tables": "evolve", "columns": "evolve", "data_type": "evolve", **frozen}


async def test_of_tables(tmp_path: Path) -> None:
    error = await refused(tmp_path, [{"id": 2}], table_name="other", schema_contract={"tables": "freeze"})

    assert (error.schema_entity, error.table_name, error.column_name) == ("tables", "other", None)
    assert error.schema_contract == contract(tables="freeze")
    assert error.data_item is None


async def test_of_nested_tables(tmp_path: Path) -> None:
    rows = [{"id": 2, "notes": [{"n": 1}]}]
    error = await refused(tmp_path, rows, table_name="orders", schema_contract={"tables": "freeze"})

    assert (error.schema_entity, error.table_name) == ("tables", "orders__notes")


@pytest.mark.parametrize("form", [lambda rows: rows, pa.Table.from_pylist], ids=["rows", "arrow"])
async def test_of_columns(tmp_path: Path, form: Any) -> None:
    rows = form([{"id": 2, "more": None}, {"id": 3, "more": "text"}])
    error = await refused(tmp_path, rows, table_name="orders", schema_contract={"columns": "freeze"})

    assert (error.schema_entity, error.table_name, error.column_name) == ("columns", "orders", "more")
    assert error.schema_contract == contract(columns="freeze")
    assert error.data_item == "text"


@pytest.mark.parametrize("form", [lambda rows: rows, pa.Table.from_pylist], ids=["rows", "arrow"])
async def test_of_types(tmp_path: Path, form: Any) -> None:
    error = await refused(
        tmp_path, form([{"id": "text"}]), table_name="orders", schema_contract={"data_type": "freeze"}
    )

    assert (error.schema_entity, error.table_name, error.column_name) == ("data_type", "orders", "id__v_text")
    assert error.data_item == "text"


async def test_of_models(tmp_path: Path) -> None:
    row = {"id": "text"}
    error = await refused(tmp_path, asyncelt.resource([row], name="orders", columns=Order))

    assert (error.schema_entity, error.table_name, error.column_name) == ("data_type", "orders", "id")
    assert error.schema_contract == {"tables": "evolve", "columns": "discard_value", "data_type": "freeze"}
    assert error.data_item == row


async def test_traces_keep_what_was_refused_but_not_the_data(tmp_path: Path) -> None:
    rows = [{"id": 2, "more": "of the user"}]
    await refused(tmp_path, rows, table_name="orders", schema_contract={"columns": "freeze"})
    kept = (tmp_path / "p" / "trace.json").read_bytes()

    assert b'"column_name":"more"' in kept
    assert b"of the user" not in kept
