"""Schemas that meet: completed, laid over each other, under another naming convention."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asyncelt.errors import ConfigError, SchemaConflict, SchemaError, TableIdentifiersFrozen
from asyncelt.schema.evolve import bump, mark_seen_data
from asyncelt.schema.joining import completed, joined, under_convention
from asyncelt.schema.model import Schema
from asyncelt.schema.system import new_schema


def schema_of(**document: object) -> Schema:
    """A schema as somebody has written it down."""
    return Schema.from_dict({"name": "s", **document})  # type: ignore[dict-item]


def test_a_name_is_enough_and_what_is_there_stays() -> None:
    assert completed(Schema("s")) == new_schema("s")
    assert completed(Schema("s"), "direct") == new_schema("s", "direct")
    whole = bump(new_schema("s", max_table_nesting=2, schema_contract="freeze"))
    assert completed(whole) is whole

    own = schema_of(settings={"default_hints": {"unique": ["id"], "not_null": ["_dlt_id"]}, "detections": []})
    hints = own.settings["default_hints"]
    assert hints["unique"] == ["id", "_dlt_id"]  # type: ignore[index, call-overload]
    assert hints["row_key"] == ["_dlt_id"]  # type: ignore[index, call-overload]
    assert own.settings["detections"] == []


def test_what_is_no_schema_is_refused() -> None:
    for document, error in (
        ({"name": "with space"}, ConfigError),
        ({"engine_version": 3}, SchemaError),
        ({"tables": []}, SchemaError),
        ({"normalizers": {"names": "no_such_convention"}}, ConfigError),
    ):
        with pytest.raises(error):
            schema_of(**document)

    with pytest.raises(SchemaError, match="a mapping, not list"):
        Schema.from_text("[]")


def test_text_and_document_give_the_schema_back() -> None:
    schema = schema_of(tables={"t": {"columns": {"a": {"data_type": "text", "unique": True}}}}, description="mine")

    assert Schema.from_dict(schema.to_dict()) == schema
    assert Schema.from_text(schema.to_pretty_json()) == schema


def test_nested_tables_come_with_their_roots() -> None:
    known = mark_seen_data(schema_of(tables={"t": {"columns": {"a": {"data_type": "text"}}}}), ["t"])
    tables = {
        "t__l": {"parent": "t", "columns": {"x": {"data_type": "bigint"}}},
        "t": {"columns": {"b": {"data_type": "text"}}, "write_disposition": "merge"},
    }
    found = joined(known, schema_of(tables=tables))

    assert list(found.tables["t"].columns) == ["a", "b"]
    assert found.tables["t"].seen_data
    assert found.tables["t__l"].parent == "t"
    assert found.normalizers["json"]["config"]["propagation"]["tables"]["t"] == {"_dlt_id": "_dlt_root_id"}  # type: ignore[index, call-overload]
    assert joined(found, found) == found

    with pytest.raises(SchemaConflict, match="has the parent None and cannot get 't'"):
        joined(schema_of(tables={"t": {}, "t__l": {}}), schema_of(tables=tables))


def test_only_the_contract_is_taken_from_a_schema_of_another_convention() -> None:
    known = new_schema("s", schema_contract="freeze")
    other = replace(new_schema("s", "direct"), tables={}, settings={"preferred_types": {"a": "text"}})

    assert joined(known, other) == new_schema("s")
    assert joined(known, replace(other, settings={"schema_contract": "evolve"})) == new_schema(
        "s", schema_contract="evolve"
    )


def test_names_change_where_nothing_has_been_loaded() -> None:
    schema = schema_of(
        normalizers={"names": "direct", "json": {"module": "m", "config": {"max_nesting": 2}}},
        settings={"preferred_types": {"someCol": "text", "re:Col$": "bigint"}, "default_hints": {"unique": ["theId"]}},
        tables={
            "theTable": {
                "columns": {"someCol": {"data_type": "text"}},
                "references": [
                    {"columns": ["someCol"], "referenced_table": "otherTable", "referenced_columns": ["theId"]}
                ],
            },
            "theTable▶l": {"parent": "theTable", "columns": {}},
        },
    )
    found = under_convention(schema, "snake_case")

    assert set(found.tables) == {"_dlt_version", "_dlt_loads", "the_table", "the_table_l"}
    assert list(found.tables["the_table"].columns) == ["some_col"]
    assert found.tables["the_table_l"].parent == "the_table"
    assert found.tables["the_table"].hints["references"] == [
        {"columns": ["some_col"], "referenced_table": "other_table", "referenced_columns": ["the_id"]}
    ]
    assert found.settings["preferred_types"] == {"some_col": "text", "re:Col$": "bigint"}
    assert found.settings["default_hints"]["unique"] == ["the_id", "_dlt_id"]  # type: ignore[index, call-overload]
    assert found.normalizers == {"names": "snake_case", "json": {"module": "m", "config": {"max_nesting": 2}}}


def test_names_stay_where_something_has() -> None:
    schema = mark_seen_data(schema_of(tables={name: {} for name in "abcd"}), ["a", "b", "c", "d", "_dlt_loads"])

    for same in (None, "snake_case"):
        assert under_convention(schema, same) is schema

    with pytest.raises(
        TableIdentifiersFrozen, match=r"'snake_case' and has tables with data \('a', 'b', 'c', \.\.\.\)"
    ):
        under_convention(schema, "direct")

    # Tables of the engine alone, which have the same names under both, freeze nothing.
    engine = mark_seen_data(new_schema("s"), ["_dlt_loads", "_dlt_version"])
    assert under_convention(engine, "direct").normalizers["names"] == "direct"

    with pytest.raises(ConfigError, match="no_such"):
        under_convention(schema, "no_such_convention")
