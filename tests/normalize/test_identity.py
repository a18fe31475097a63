"""Row ids: random, hashed as the reference hashes them, or the user's; and what points to them."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from asyncelt.errors import BadRecord, ConfigError
from asyncelt.flow import ROOT_ROW, JsonBody, JsonPages
from asyncelt.normalize.ids import random_ids
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.system import new_schema
from asyncelt.types import ColumnName, TableName
from tests.normalize.reference_rows import normalized
from tests.normalize.running import as_array, as_rows, outcome, run


def merging(strategy: str, *keys: str, **columns: Column) -> Schema:
    """A schema whose table ``items`` merges by the keys."""
    schema = new_schema("test")
    found = {ColumnName(key): Column(name=ColumnName(key), nullable=False, primary_key=True) for key in keys}
    table = Table(
        name=TableName("items"),
        columns={**found, **{ColumnName(name): column for name, column in columns.items()}},
        resource="items",
        write_disposition="merge",
        hints={"x-merge-strategy": strategy},
    )

    return replace(schema, tables={**schema.tables, table.name: table})


def reference(rows: list[Any], strategy: str, *keys: str, **columns: dict[str, Any]) -> Any:
    found = {key: {"primary_key": True, "nullable": False} for key in keys}

    return normalized(
        [rows], columns={**found, **columns}, hints={"write_disposition": "merge", "x-merge-strategy": strategy}
    )


def ids(found: Any) -> dict[str, list[tuple[Any, ...]]]:
    names = ("_dlt_id", "_dlt_parent_id", "_dlt_root_id", "_dlt_list_idx")

    return {table: [tuple(row.get(name) for name in names) for row in rows] for table, rows in found.rows.items()}


def test_random_ids_have_the_references_form() -> None:
    found = [str(text) for text in random_ids(1000)]

    assert len(set(found)) == 1000
    assert all(len(text) == 14 and not text.endswith("=") for text in found)
    assert len(random_ids(0)) == 0


ROWS: list[Any] = [
    {"id": 1, "k": "ü", "l": [{"x": 1}, 2, [3]]},
    {"id": 2, "k": "日本", "l": []},
    {"id": 3, "k": 'a"b\\', "l": [{"x": [{"y": 1}]}]},
]


@pytest.mark.parametrize("form", [as_rows, as_array])
def test_upsert_hashes_keys_as_the_reference_does(form: Any) -> None:
    found = outcome(*run(form([ROWS]), schema=merging("upsert", "id", "k")))
    expected = reference(ROWS, "upsert", "id", "k")

    assert ids(found) == ids(expected)
    assert found.columns["items__l"] == expected.columns["items__l"]


def test_keys_of_every_type_are_hashed_as_the_reference_does() -> None:
    rows = [
        {"id": value, "l": [1]}
        for value in (
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime(2024, 1, 1),
            date(2024, 1, 1),
            Decimal("1.50"),
            1.5,
            b"x",
            "t",
        )
    ]

    for row in rows:
        found = outcome(*run(as_rows([[row]]), schema=merging("upsert", "id")))
        assert ids(found) == ids(reference([row], "upsert", "id"))


@pytest.mark.parametrize("form", [as_rows, as_array])
def test_scd2_hashes_whole_rows(form: Any) -> None:
    version = Column(name=ColumnName("_dlt_id"), data_type="text", nullable=False, extra={"x-row-version": True})
    found = outcome(*run(form([ROWS]), schema=merging("scd2", "id", _dlt_id=version)))
    expected = reference(ROWS, "scd2", "id", _dlt_id={"data_type": "text", "nullable": False, "x-row-version": True})

    assert ids(found)["items"] == ids(expected)["items"]
    assert [row[:2] for row in ids(found)["items__l"]] == [row[:2] for row in ids(expected)["items__l"]]


def test_merge_carries_the_root_id_into_nested_tables() -> None:
    found = outcome(*run(as_rows([ROWS]), schema=merging("delete-insert", "id")))
    expected = reference(ROWS, "delete-insert", "id")
    roots = {row["_dlt_id"] for row in found.rows["items"]}

    assert found.columns == expected.columns
    assert {row["_dlt_root_id"] for row in found.rows["items__l__x"]} <= roots
    assert all("_dlt_root_id" not in row for row in found.rows["items"])


def test_a_users_own_id_is_kept_and_hashed_into_nested_rows() -> None:
    rows: list[Any] = [{"_dlt_id": "mine", "l": [{"x": 1}, 2]}, {"l": [3]}]
    found, expected = outcome(*run(as_rows([rows]))), normalized([rows])

    assert found.columns == expected.columns
    assert found.rows["items"][0]["_dlt_id"] == "mine"
    assert ids(found)["items__l"][:2] == ids(expected)["items__l"][:2]


def test_a_row_without_its_key_is_refused() -> None:
    with pytest.raises(BadRecord, match="column 'id', row 1"):
        run(as_rows([[{"id": 1}, {"other": 2}]]), schema=merging("upsert", "id"))


def test_a_table_with_keys_of_its_own_stands_on_its_own() -> None:
    schema = new_schema("test")
    key = Column(name=ColumnName("x"), nullable=False, primary_key=True)
    own = Table(name=TableName("items__l"), columns={key.name: key}, resource="items", write_disposition="append")
    schema = replace(schema, tables={**schema.tables, own.name: own})
    found = outcome(*run(as_rows([[{"id": 1, "l": [{"x": 1}, {"x": 2}]}]]), schema=schema))

    assert [name for name, _ in found.columns["items__l"]] == ["x", "_dlt_load_id", "_dlt_id"]


def test_upsert_needs_a_primary_key() -> None:
    with pytest.raises(ConfigError, match="the merge strategy upsert needs a primary_key"):
        run(as_rows([[{"id": 1}]]), schema=merging("upsert"))


def numbers(found: Any) -> dict[str, list[list[int]]]:
    """Numbers of root rows in the batches that have them, page by page."""
    return {
        batch.table: [
            one.data[ROOT_ROW].to_pylist() for page in found for one in page.batches if one.table == batch.table
        ]
        for page in found
        for batch in page.batches
        if ROOT_ROW in batch.data.column_names
    }


@pytest.mark.parametrize("form", [as_rows, as_array])
def test_rows_whose_ids_may_come_twice_say_with_which_root_row_they_came(form: Any) -> None:
    pages = [[{"id": 1, "l": [{"m": [1, 2]}, {"m": [3]}]}, {"id": 1, "l": []}], [{"id": 2, "l": [{"m": [4]}]}]]
    schema, found = run(form(pages), schema=merging("upsert", "id"))
    second = 1 << 32

    assert numbers(found) == {
        "items": [[0, 1], [second]],
        "items__l": [[0, 0], [second]],
        "items__l__m": [[0, 0, 0], [second]],
    }
    assert all(ROOT_ROW not in table.columns for table in schema.tables.values())


def test_random_ids_need_no_numbers_and_ids_of_the_users_own_do() -> None:
    rows = [{"id": 1, "l": [1]}]

    assert numbers(run(as_rows([rows]), schema=merging("delete-insert", "id"))[1]) == {}
    assert numbers(run(as_rows([[{**rows[0], "_dlt_id": "mine"}]]))[1]) == {}
    assert set(numbers(run(as_rows([[{**rows[0], "_dlt_id": "mine"}]]), schema=merging("delete-insert", "id"))[1])) == {
        "items",
        "items__l",
    }


def test_ids_from_keys_take_no_object_of_each_row_for_longer_than_its_turn() -> None:
    """A dict of each key of a page weighs as much as two pages; and there is a page in each worker."""
    count = 20_000
    payload = JsonPages((JsonBody(orjson.dumps([{"k": number} for number in range(count)])),))
    schema = merging("upsert", "k")
    run([payload], schema=schema)
    tracemalloc.start()

    try:
        run([payload], schema=schema)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 200 * count
