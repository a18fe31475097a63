"""What a schema says before data comes: typed and incomplete columns, preferred types, detections, filters, nulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from asyncelt.errors import BadRecord
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.system import new_schema
from asyncelt.types import ColumnName, TableName
from tests.normalize.reference_rows import normalized
from tests.normalize.running import as_array, as_rows, notices, outcome, run
from tests.normalize.test_against_reference import same


def declared(columns: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any] | None = None) -> Schema:
    """A schema whose table ``items`` has these columns."""
    schema = new_schema("test")
    found = {ColumnName(name): Column(name=ColumnName(name), **props) for name, props in columns.items()}
    table = Table(name=TableName("items"), columns=found, resource="items", write_disposition="append")
    tables = {**schema.tables, table.name: table} if columns else schema.tables

    return replace(schema, tables=tables, settings={**schema.settings, **(settings or {})})


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ({"a": {"data_type": "text"}}, [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": {"x": 1}}]),
        ({"a": {"data_type": "text"}}, [{"a": 1.5}, {"a": 1}, {"a": None}]),
        ({"a": {"data_type": "bool"}}, [{"a": 1}, {"a": "yes"}, {"a": "maybe"}, {"a": 0.0}]),
        ({"a": {"data_type": "json"}}, [{"a": {"x": [1, {"y": None}]}}, {"a": [1, 2]}, {"a": 5}, {"a": '{"z": 1}'}]),
        ({"a__b": {"data_type": "json"}}, [{"a": {"b": {"c": 1}, "d": 2}}, {"a": {"b": [1]}}]),
        ({"a": {"data_type": "timestamp"}}, [{"a": 1_700_000_000}, {"a": "2024-01-01"}, {"a": "x"}, {"a": 1.5}]),
        ({"a": {"data_type": "decimal"}}, [{"a": 1}, {"a": 1.5}, {"a": "2.25"}, {"a": True}, {"a": "x"}]),
        ({"a": {"data_type": "double"}}, [{"a": 1}, {"a": True}, {"a": 2.5}]),
        ({"a": {"data_type": "date"}}, [{"a": "2024-01-01"}, {"a": "2024-01-01T10:00:00Z"}]),
        (
            {"a": {"nullable": False, "primary_key": True}, "b": {"merge_key": True}},
            [{"c": 1, "a": 1}, {"b": "x", "a": 2}],
        ),
        ({"b": {"data_type": "bigint"}, "z": {"data_type": "text"}}, [{"a": 1, "b": "7"}]),
        ({"a": {"data_type": "binary"}}, [{"a": "eA=="}, {"a": 1}, {"a": 1.0}, {"a": "?"}]),
    ],
)
@pytest.mark.parametrize("form", [as_rows, as_array])
def test_declared_columns(columns: dict[str, dict[str, Any]], rows: list[object], form: Any) -> None:
    expected = normalized([rows], columns=columns)

    for pages in ([rows], [[row] for row in rows]):
        same(outcome(*run(form(pages), schema=declared(columns))), expected)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        (
            {"preferred_types": {"re:_at$": "timestamp", "n": "bigint"}},
            [{"n": "x", "x_at": 5}, {"n": "7", "x_at": "y"}],
        ),
        ({"preferred_types": {"blob": "json"}}, [{"blob": {"x": 1}, "o": {"blob": [1]}}, {"blob": "x"}]),
        ({"detections": []}, [{"a": "2024-01-01T00:00:00Z"}]),
        ({"detections": ["iso_timestamp", "iso_date"]}, [{"a": "2024-01-01T00:00:00Z", "b": "2024-01-01"}]),
    ],
)
@pytest.mark.parametrize("form", [as_rows, as_array])
def test_settings(settings: dict[str, Any], rows: list[object], form: Any) -> None:
    expected = normalized([rows], settings=settings)
    same(outcome(*run(form([rows]), schema=declared({}, settings))), expected)


def test_default_hints_reach_new_columns() -> None:
    hints = {"not_null": ["re:^id$"], "primary_key": ["id"], "partition": ["re:day"], "unique": ["code"]}
    schema = declared({})
    settings = {**schema.settings, "default_hints": {**schema.settings["default_hints"], **hints}}  # type: ignore[dict-item]
    found, _ = run(as_rows([[{"id": 1, "day": "x", "code": "y"}]]), schema=replace(schema, settings=settings))
    columns = found.tables[TableName("items")].columns

    assert columns[ColumnName("id")].primary_key
    assert not columns[ColumnName("id")].nullable
    assert columns[ColumnName("day")].extra == {"partition": True}
    assert columns[ColumnName("code")].unique


@pytest.mark.parametrize("form", [as_rows, as_array])
@pytest.mark.parametrize("row", [{"a": None, "b": 1}, {"b": 1}])
def test_a_column_that_may_not_be_null(row: dict[str, object], form: Any) -> None:
    schema = declared({"a": {"data_type": "bigint", "nullable": False}})

    with pytest.raises(BadRecord, match="table 'items', column 'a', row 1"):
        run(form([[{"a": 1}, row]]), schema=schema)


def test_a_value_in_a_variant_counts_as_a_value() -> None:
    schema = declared({"a": {"data_type": "bigint", "nullable": False}})
    found = outcome(*run(as_rows([[{"a": 1}, {"a": "x"}]]), schema=schema))

    assert found.rows["items"][1]["a__v_text"] == "x"


def test_filters_leave_out_columns_and_whole_tables() -> None:
    schema = declared({"id": {"data_type": "bigint"}})
    table = replace(
        schema.tables[TableName("items")], hints={"filters": {"excludes": ["re:^secret"], "includes": ["secret_ok"]}}
    )
    schema = replace(schema, tables={**schema.tables, table.name: table})
    rows = [{"id": 1, "secret": 2, "secret_ok": 3, "secret_list": [1], "rest": [1]}]
    found = outcome(*run(as_rows([rows]), schema=schema))

    assert list(found.columns) == ["items", "items__rest"]
    assert found.rows["items"][0]["secret_ok"] == 3
    assert "secret" not in found.rows["items"][0]


def test_variants_of_variants_go_on_and_are_reported() -> None:
    rows = [{"a": 1}, {"a": "2024-01-01T00:00:00Z"}, {"a": "x"}]
    schema, done = run(as_rows([rows]))
    found = outcome(schema, done)

    assert found.rows["items"][2]["a__v_text__v_text"] == "x"
    assert [(notice.kind, notice.column, notice.count) for notice in notices(done)] == [
        ("variant_of_variant", "a__v_text__v_text", 1)
    ]


def test_colliding_keys_are_counted() -> None:
    _, done = run(as_rows([[{"userId": 1, "user_id": 2}, {"userId": 1}, {"user_id": 1, "userId": 2}]]))

    assert [(notice.kind, notice.column, notice.count) for notice in notices(done)] == [("collision", "user_id", 2)]
