"""Schema contracts: what new tables, columns and variants become in each mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from asyncelt.errors import DataValidationError
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.system import new_schema
from asyncelt.types import ColumnName, TableName
from tests.normalize.reference_rows import normalized
from tests.normalize.running import as_array, as_rows, outcome, run
from tests.normalize.test_against_reference import same

KNOWN = {"id": "bigint", "a": "bigint"}
ROWS: list[Any] = [
    {"id": 1, "a": 1},
    {"id": 2, "a": "x", "l": [1]},
    {"id": 3, "new": 1, "l": [{"y": 2}]},
    {"id": 4, "a": 2},
    {"id": 5, "new": None},
]


def frame(contract: object) -> Schema:
    """A schema whose table ``items`` has seen two columns."""
    schema = new_schema("test")
    columns = {ColumnName(n): Column(name=ColumnName(n), data_type=t) for n, t in KNOWN.items()}  # type: ignore[arg-type]
    table = Table(
        name=TableName("items"), columns=columns, resource="items", write_disposition="append",
        hints={"schema_contract": contract},  # type: ignore[dict-item]
    )  # fmt: skip

    return replace(schema, tables={**schema.tables, table.name: table})


@pytest.mark.covers("contract.evolve")
@pytest.mark.parametrize("form", [as_rows, as_array])
@pytest.mark.parametrize(
    "contract",
    [
        "evolve",
        {"columns": "discard_value"},
        {"columns": "discard_row"},
        {"data_type": "discard_value"},
        {"tables": "discard_row"},
        {"tables": "discard_value", "columns": "discard_value", "data_type": "discard_value"},
    ],
)
def test_as_the_reference_does(contract: object, form: Any) -> None:
    rows = [{**row} for row in ROWS if contract != {"columns": "discard_row"} or "l" not in row]
    expected = normalized(
        [rows],
        columns={name: {"data_type": data_type} for name, data_type in KNOWN.items()},
        hints={"schema_contract": contract},
    )

    same(outcome(*run(form([rows]), schema=frame(contract))), expected)


def test_rows_that_go_take_their_nested_rows_with_them() -> None:
    found = outcome(*run(as_rows([ROWS]), schema=frame({"data_type": "discard_row", "columns": "discard_row"})))

    assert [row["id"] for row in found.rows["items"]] == [1, 4, 5]
    assert "items__l" not in found.rows


def test_the_cut_into_pages_does_not_matter() -> None:
    for contract in ({"data_type": "discard_row"}, {"columns": "discard_value"}, {"columns": "discard_row"}):
        whole = outcome(*run(as_rows([ROWS]), schema=frame(contract)))
        cut = outcome(*run(as_rows([[row] for row in ROWS]), schema=frame(contract)))
        same(cut, whole)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ({"columns": "freeze"}, "freezes columns, and the data brings the new column 'new' of table 'items'"),
        ({"data_type": "freeze"}, "freezes data_type, and the data brings the new column 'a__v_text'"),
        ({"tables": "freeze"}, "freezes tables, and the data brings the new table 'items__l'"),
    ],
)
def test_freezing_raises(contract: object, message: str) -> None:
    with pytest.raises(DataValidationError, match=message):
        run(as_rows([ROWS]), schema=frame(contract))


def test_a_new_table_takes_the_columns_of_its_first_load() -> None:
    schema = new_schema("test", schema_contract={"columns": "freeze"})
    found = outcome(*run(as_rows([[{"a": 1}, {"b": 2}]]), schema=schema))

    assert [name for name, _ in found.columns["items"]] == ["a", "_dlt_load_id", "_dlt_id", "b"]
