"""The table that hints make, before anything is read."""

from __future__ import annotations

import pytest

import asyncelt
from asyncelt.errors import ConfigError


@pytest.mark.covers("Resource.compute_table_schema", "Resource.compute_table_schema.item")
def test_hints_make_a_table_under_the_names_that_they_have():
    resource = asyncelt.resource(
        [{"id": 1}],
        name="rows",
        table_name="My Rows",
        primary_key="Id",
        write_disposition="merge",
        columns={"At": {"data_type": "timestamp"}},
    )
    table = resource.compute_table_schema()
    assert (table.name, table.resource, table.write_disposition) == ("My Rows", "rows", "merge")
    assert list(table.keys("primary_key")) == ["Id"]
    assert table.columns["At"].data_type == "timestamp"
    assert resource.apply_hints(write_disposition="replace").compute_table_schema().write_disposition == "replace"


def test_hints_that_are_functions_need_a_row():
    resource = asyncelt.resource(
        [{"kind": "a"}],
        name="rows",
        table_name=lambda row: f"rows_{row['kind']}",
        write_disposition=lambda row: "replace" if row["kind"] == "a" else "append",
    )

    with pytest.raises(ConfigError, match="write_disposition, table_name are functions of a row"):
        resource.compute_table_schema()

    table = resource.compute_table_schema({"kind": "a"})
    assert (table.name, table.write_disposition) == ("rows_a", "replace")
    assert resource.compute_table_schema({"kind": "b"}).write_disposition == "append"


def test_marks_name_the_table_and_change_its_hints():
    resource = asyncelt.resource([{"id": 1}], name="rows", primary_key="id")
    assert resource.compute_table_schema(asyncelt.mark.with_table_name({"id": 1}, "other")).name == "other"
    hints = asyncelt.mark.make_hints(table_name="wide", columns={"w": {"data_type": "text"}})
    table = resource.compute_table_schema(asyncelt.mark.with_hints({"id": 1}, hints, create_table_variant=True))
    assert table.name == "wide"
    assert table.columns["w"].data_type == "text"
    assert "w" not in resource.compute_table_schema().columns
