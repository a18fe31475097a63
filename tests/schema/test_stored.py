from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings

from asyncelt.errors import SchemaError
from asyncelt.schema.stored import (
    column_from_stored,
    column_to_stored,
    content_hash,
    from_json,
    from_stored,
    to_json,
    to_stored,
)
from asyncelt.schema.system import new_schema
from tests.support.strategies import columns, schemas


@settings(max_examples=50, deadline=None)
@given(schemas())
def test_a_schema_comes_back_as_it_was(schema):
    stored = to_stored(schema)
    again = from_json(to_json(schema))

    assert schema == again
    assert stored == to_stored(again)
    assert content_hash(schema) == content_hash(again)
    assert [list(t.columns) for t in schema.tables.values()] == [list(t.columns) for t in again.tables.values()]


@settings(max_examples=50, deadline=None)
@given(columns())
def test_a_column_comes_back_as_it_was(column):
    assert column == column_from_stored(column.name, column_to_stored(column))


@pytest.mark.parametrize(
    "stored",
    [
        {"name": "a"},
        {"name": "a", "nullable": True},
        {"name": "a", "unique": False, "row_key": False, "nullable": False},
        {"name": "a", "data_type": "timestamp", "timezone": True, "nullable": True},
        {"name": "a", "data_type": "timestamp", "timezone": False, "precision": None, "nullable": True},
        {"name": "a", "x-valid-to": True, "x-active-record-timestamp": None, "nullable": True},
        {"name": "a", "data_type": None, "something": [1, {"b": 2}], "nullable": True},
    ],
)
def test_what_was_written_out_stays_written_out(stored):
    assert stored == column_to_stored(column_from_stored("a", stored))


def test_table_defaults_and_names_are_filled_in():
    document = to_stored(new_schema("s"))
    document["tables"]["t"] = {"columns": {"a": {"data_type": "bigint", "nullable": True}}}
    table = from_stored(document).tables["t"]

    assert (table.name, table.resource, table.write_disposition) == ("t", "t", "append")
    assert table.columns["a"].name == "a"


def test_another_engine_version_is_refused_by_name():
    with pytest.raises(SchemaError, match="engine version 9"):
        from_stored({"engine_version": 9, "name": "s"})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"engine_version": 11}', '{"engine_version": 11, "name": "s", "tables": 3}']
)
def test_what_is_no_schema_is_refused(text):
    with pytest.raises(SchemaError):
        from_json(text)


def test_an_unknown_data_type_is_refused():
    with pytest.raises(SchemaError, match="complex"):
        column_from_stored("a", {"data_type": "complex"})


def test_the_hash_depends_on_the_order_of_columns_only():
    document = orjson.loads(to_json(new_schema("s")))
    before = content_hash(from_stored(document))
    tables = document["tables"]
    document["tables"] = dict(reversed(tables.items()))

    assert before == content_hash(from_stored(document))

    tables["_dlt_loads"]["columns"] = dict(reversed(tables["_dlt_loads"]["columns"].items()))

    assert before != content_hash(from_stored(document))
