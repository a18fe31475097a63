from __future__ import annotations

from datetime import UTC, datetime

import pytest

from asyncelt.errors import ConfigError, SchemaConflict
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import mark_seen_data
from asyncelt.schema.hints import TableHints, merge_table_hints, validate_hints
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import new_schema

SNAKE = naming_for("snake_case")
EMPTY = new_schema("s")


def merged(schema=EMPTY, capabilities=None, **hints):
    return merge_table_hints(schema, TableHints(**{"name": "t", **hints}), SNAKE, capabilities)


def test_a_plain_table():
    table = merged(name="MyTable", resource="r").tables["my_table"]

    assert (table.resource, table.write_disposition, table.parent, table.columns) == ("r", "append", None, {})


def test_keys_are_not_nullable_unless_the_column_says_so():
    columns = merged(columns={"b": {"nullable": True}}, primary_key=["Id", "b"]).tables["t"].columns

    assert {name: (c.primary_key, c.nullable) for name, c in columns.items()} == {
        "b": (True, True),
        "id": (True, False),
    }


def test_new_keys_replace_the_old_ones_and_nothing_else():
    first = merged(primary_key="a", columns={"a": {"data_type": "text"}, "c": {"cluster": True}})
    table = merged(first, primary_key="b").tables["t"]

    assert table.keys("primary_key") == ("b",)
    assert table.columns["a"].data_type == "text"
    assert table.columns["c"].extra["cluster"] is True


def test_equal_hints_twice_are_as_once():
    hints = {
        "primary_key": "id",
        "write_disposition": {"disposition": "merge", "strategy": "scd2"},
        "max_table_nesting": 1,
    }
    once = merged(**hints)

    assert once == merged(once, **hints)


def test_seen_data_survives_new_hints():
    schema = mark_seen_data(merged(columns={"a": {"data_type": "text"}}), ["t"])
    table = merged(schema, max_table_nesting=2).tables["t"]

    assert table.hints["x-normalizer"] == {"seen-data": True, "max_nesting": 2}
    assert merged(schema, primary_key="a").tables["t"].seen_data


def test_a_new_table_under_a_frozen_contract_may_take_columns_once():
    frozen = merged(schema_contract={"columns": "freeze"})

    assert frozen.tables["t"].hints["x-normalizer"] == {"evolve-columns-once": True}
    assert "x-normalizer" not in merged(schema_contract="evolve").tables["t"].hints

    typed = merged(columns={"a": {"data_type": "text"}})

    assert "x-normalizer" not in merged(typed, schema_contract="freeze").tables["t"].hints


def test_the_schema_s_contract_counts_for_new_tables_too():
    schema = new_schema("s", schema_contract="discard_row")
    tables = merged(schema, nested_hints={"c": {}}).tables

    assert tables["t"].hints["x-normalizer"] == {"evolve-columns-once": True}
    assert tables["t__c"].hints["x-normalizer"] == {"evolve-columns-once": True}


def test_nested_hints_stand_below_their_root_and_keys_make_a_root():
    schema = merged(
        resource="r",
        nested_hints={
            ("Items", "tags"): {"columns": [{"name": "value", "data_type": "text"}]},
            "Items": TableHints(name="-"),
            "parts": {"primary_key": "id"},
        },
    )
    tables = schema.tables

    assert tables["t__items"].parent == "t"
    assert tables["t__items__tags"].parent == "t__items"
    assert (tables["t__parts"].parent, tables["t__parts"].resource) == (None, "r")


def test_a_nested_hint_needs_its_parents():
    with pytest.raises(ConfigError, match="'t__a'"):
        merged(nested_hints={("a", "b"): {}})


def test_a_table_cannot_move():
    with pytest.raises(SchemaConflict, match="parent"):
        merged(merged(nested_hints={"c": {}}), nested_hints={"c": {"primary_key": "id"}})


def test_merging_tables_hand_their_row_id_down():
    with_merge = merged(write_disposition="merge")
    without = merged(capabilities=Capabilities(merge_strategies=()), write_disposition="merge")

    assert with_merge.normalizers["json"]["config"] == {"propagation": {"tables": {"t": {"_dlt_id": "_dlt_root_id"}}}}
    assert "config" not in without.normalizers["json"]
    assert "config" not in EMPTY.normalizers["json"]


def test_timestamps_of_scd2_are_stored_as_text():
    at = datetime(2024, 1, 1, tzinfo=UTC)
    disposition = {"disposition": "merge", "strategy": "scd2", "active_record_timestamp": at, "boundary_timestamp": at}
    table = merged(write_disposition=disposition).tables["t"]

    assert table.hints["x-boundary-timestamp"] == "2024-01-01T00:00:00+00:00"
    assert table.columns["_dlt_valid_to"].extra["x-active-record-timestamp"] == "2024-01-01T00:00:00+00:00"


def test_names_that_become_one_are_merged():
    columns = merged(columns={"userId": {"data_type": "text"}, "user_id": {"nullable": False}}).tables["t"].columns

    assert list(columns) == ["user_id"]
    assert (columns["user_id"].data_type, columns["user_id"].nullable) == ("text", False)


@pytest.mark.parametrize(
    "hints,message",
    [
        ({"name": " "}, "blank"),
        ({"write_disposition": "apend"}, "'apend' is unknown; allowed: append, replace, merge, skip"),
        ({"write_disposition": {}}, "mapping with 'disposition'"),
        ({"write_disposition": 3}, "mapping with 'disposition'"),
        ({"write_disposition": {"disposition": "merge", "strategy": "scd3"}}, "allowed: delete-insert"),
        ({"write_disposition": {"disposition": "replace", "strategy": "upsert"}}, "allowed: truncate-and-insert"),
        ({"write_disposition": {"disposition": "merge", "strategi": "scd2"}}, "unknown options strategi"),
        (
            {"write_disposition": {"disposition": "merge", "strategy": "insert-only", "source_filter": "a > 1"}},
            "source_filter goes with",
        ),
        ({"write_disposition": {"disposition": "merge", "source_filter": "{nope}.a > 1"}}, "unknown placeholders nope"),
        ({"write_disposition": {"disposition": "merge", "source_filter": "{"}}, "cannot be read"),
        (
            {"write_disposition": {"disposition": "merge", "strategy": "scd2", "boundary_timestamp": "soon"}},
            "boundary_timestamp is a datetime",
        ),
        (
            {"write_disposition": {"disposition": "merge", "strategy": "scd2", "validity_column_names": ["a"]}},
            "two names",
        ),
        ({"columns": {"a": {"data_type": "int"}}}, "column 'a': data_type 'int' is unknown; allowed: text"),
        ({"columns": {"a": {"datatype": "text"}}}, "unknown properties 'datatype'"),
        ({"columns": {"a": {"dedup_sort": "up"}}}, "allowed: asc, desc"),
        ({"columns": {"a": {"precision": -1}}}, "precision is a number"),
        ({"columns": {"a": {"nullable": "no"}}}, "nullable is True or False"),
        ({"columns": {"a": "text"}}, "mapping of properties"),
        ({"columns": {" ": {}}}, "not blank"),
        ({"columns": [{"data_type": "text"}]}, "needs a name"),
        ({"columns": 5}, "columns= takes"),
        ({"columns": "abc"}, "columns= takes"),
        ({"columns": int}, "cannot declare columns"),
        ({"primary_key": 5}, "primary_key: the name of a column"),
        ({"primary_key": ["a", " "]}, "cannot be blank"),
        ({"merge_key": [1]}, "merge_key"),
        ({"schema_contract": "freze"}, "allowed: evolve, freeze"),
        ({"schema_contract": {"column": "freeze"}}, "allowed: tables, columns"),
        ({"schema_contract": {"columns": "freze"}}, "schema_contract of columns"),
        ({"schema_contract": 1}, "a mode or a mapping"),
        ({"table_format": "xml"}, "allowed: iceberg"),
        ({"file_format": "xml"}, "allowed: preferred"),
        ({"max_table_nesting": -1}, "max_table_nesting"),
        ({"references": [{"columns": ["a"]}]}, "referenced_table"),
        ({"references": [{"referenced_table": "u", "columns": ["a"], "referenced_columns": []}]}, "same length"),
        ({"nested_hints": {"c": {"primary": "a"}}}, "unknown primary"),
        ({"nested_hints": {"c": {"columns": {"a": {"data_type": "int"}}}}}, "'t__c', column 'a'"),
    ],
)
def test_wrong_hints_are_refused_with_what_is_allowed(hints, message):
    with pytest.raises(ConfigError, match=message):
        validate_hints(TableHints(**{"name": "t", **hints}))
