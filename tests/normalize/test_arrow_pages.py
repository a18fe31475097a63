"""Arrow pages: columns as they came, renamed and typed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from asyncelt.errors import NameCollision, SchemaError
from asyncelt.flow import ArrowPage, Rows
from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import new_schema, row_id_column
from asyncelt.types import ColumnName, TableName
from tests.normalize.running import LOAD_ID, normalizer, outcome, run

BIGINT = Column(name=ColumnName("id"), data_type="bigint")

PAGE = pa.table(
    {
        "A b": pa.array([1, 2, None], pa.int32()),
        "s": pa.array([{"x": 1}, None, {"x": 2}]),
        "l": pa.array([[1], [], None]),
        "nothing": pa.nulls(3),
        "ts": pa.array([datetime(2020, 1, 1)] * 3, pa.timestamp("us")),
        "d": pa.array(["a", "b", "a"]).dictionary_encode(),
        "m": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    }
)


def rows(*pages: pa.Table, **changes: Any) -> tuple[Any, list[dict[str, Any]]]:
    schema, done = run([ArrowPage(page) for page in pages], worker=normalizer(**changes))
    found = outcome(schema, done)

    return schema.tables[TableName("items")], found.rows.get("items", [])


def test_columns_are_renamed_and_nested_ones_become_json() -> None:
    table, found = rows(PAGE)

    assert [(name, column.data_type) for name, column in table.columns.items()] == [
        ("a_b", "bigint"), ("s", "json"), ("l", "json"), ("ts", "timestamp"), ("d", "text"), ("m", "json"),
    ]  # fmt: skip
    assert table.columns[ColumnName("a_b")].precision == 32
    assert found[0] == {
        "a_b": 1,
        "s": '{"x":1}',
        "l": "[1]",
        "ts": datetime(2020, 1, 1, tzinfo=UTC),
        "d": "a",
        "m": '{"k":1}',
    }
    assert found[1] == {"a_b": 2, "l": "[]", "ts": datetime(2020, 1, 1, tzinfo=UTC), "d": "b"}


def test_chunks_and_slices_are_taken_as_they_are() -> None:
    page = pa.concat_tables([PAGE, PAGE]).slice(1, 4)
    _, found = rows(page)

    assert [row.get("a_b") for row in found] == [2, None, 1, 2]
    assert [row.get("l") for row in found] == ["[]", None, "[1]", "[]"]


def test_a_page_without_rows_still_makes_the_table() -> None:
    table, found = rows(PAGE.slice(0, 0))

    assert "a_b" in table.columns
    assert found == []


def test_other_types_are_converted_and_what_does_not_fit_goes_to_a_variant() -> None:
    first = pa.table({"a": [1, 2]})
    second = pa.table({"a": ["3", "x"], "u": pa.array([2**63 + 5, 1], pa.uint64())})
    _, found = rows(first, second)

    assert found[2:] == [{"a": 3, "u__v_wei": Decimal(2**63 + 5)}, {"a__v_text": "x", "u": 1}]


def test_system_columns_are_added_on_request() -> None:
    table, found = rows(PAGE, arrow_add_dlt_id=True, arrow_add_dlt_load_id=True)

    assert list(table.columns)[-2:] == ["_dlt_load_id", "_dlt_id"]
    assert len({row["_dlt_id"] for row in found}) == 3


def test_columns_of_one_name_are_refused() -> None:
    with pytest.raises(NameCollision, match="'a b' and 'a_b' both become 'a_b'"):
        rows(pa.table({"a b": [1], "a_b": [2]}))


def test_types_without_a_counterpart_are_refused() -> None:
    with pytest.raises(SchemaError, match="duration"):
        rows(pa.table({"a": pa.array([1], pa.duration("s"))}))


def test_rows_of_a_table_of_dicts_get_the_system_columns_that_it_asks_for() -> None:
    table, found = mixed(pa.table({"id": [2, 3]}))

    assert list(table.columns) == ["id", "_dlt_load_id", "_dlt_id"]
    assert [row["id"] for row in found] == [1, 2, 3]
    assert {row["_dlt_load_id"] for row in found} == {LOAD_ID}
    assert len({row["_dlt_id"] for row in found}) == 3


def test_system_columns_of_a_page_of_its_own_are_kept() -> None:
    _, found = mixed(pa.table({"id": [2], "_dlt_id": ["mine"], "_dlt_load_id": ["other"]}))

    assert found[1:] == [{"id": 2, "_dlt_id": "mine", "_dlt_load_id": "other"}]


def test_ids_of_versions_are_not_made_up() -> None:
    version = replace(row_id_column(), extra={"x-row-version": True})
    schema = new_schema("test")
    known = Table(name=TableName("items"), columns={version.name: version, ColumnName("id"): BIGINT})
    schema = replace(schema, tables={**schema.tables, known.name: known})
    table, done = run([ArrowPage(pa.table({"id": [1]}))], schema=schema)

    assert outcome(table, done).rows["items"] == [{"id": 1}]


def mixed(page: pa.Table) -> tuple[Any, list[dict[str, Any]]]:
    """A page of dicts, and then this one."""
    schema, done = run([Rows([{"id": 1}]), ArrowPage(page)])

    return schema.tables[TableName("items")], outcome(schema, done).rows["items"]
