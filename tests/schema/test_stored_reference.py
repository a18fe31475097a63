"""Stored schemas exchanged with the reference, both ways, and their hashes."""

from __future__ import annotations

from copy import deepcopy

import orjson
import pytest
from hypothesis import given, settings

from asyncelt.schema.evolve import bump
from asyncelt.schema.stored import content_hash, from_json, from_stored, to_json, to_stored
from asyncelt.schema.system import new_schema, pipeline_state_table
from tests.support.strategies import schemas

dlt_schema = pytest.importorskip("dlt.common.schema")
dlt_utils = pytest.importorskip("dlt.common.schema.utils")


def test_a_fresh_schema_is_the_reference_s():
    theirs = dlt_schema.Schema("s").to_dict()
    ours = to_stored(bump(new_schema("s")))

    assert theirs == ours


@pytest.mark.parametrize("naming", ["direct", "sql_cs_v1", "sql_ci_v1", "duck_case"])
def test_a_fresh_schema_of_another_convention(naming):
    normalizers = {"names": naming, "json": {"module": "dlt.common.normalizers.json.relational"}}
    theirs = dlt_schema.Schema("s", normalizers=normalizers).to_dict()

    assert theirs == to_stored(bump(new_schema("s", naming)))


def test_the_state_table():
    theirs = dlt_utils.pipeline_state_table(add_dlt_id=True)
    columns = pipeline_state_table().columns

    assert list(theirs["columns"]) == list(columns)
    assert [c["data_type"] for c in theirs["columns"].values()] == [c.data_type for c in columns.values()]
    assert [c["nullable"] for c in theirs["columns"].values()] == [c.nullable for c in columns.values()]


@settings(max_examples=40, deadline=None)
@given(schemas())
def test_the_reference_reads_ours_and_computes_the_same_hash(schema):
    ours = bump(schema)
    theirs = dlt_schema.Schema.from_dict(orjson.loads(to_json(ours)))

    assert theirs.version_hash == ours.version_hash == content_hash(schema)
    assert theirs.version == ours.version
    assert orjson.loads(orjson.dumps(theirs.to_dict(bump_version=False))) == to_stored(ours)


def reference_schema():
    """A schema as real runs leave it: hints, nested tables, incomplete and completed columns, marks."""
    schema = dlt_schema.Schema("orders")
    schema.update_table(
        dlt_utils.new_table(
            "orders",
            write_disposition="merge",
            columns=[
                {"name": "declared", "description": "no value yet"},
                {"name": "id", "nullable": False, "primary_key": True, "data_type": "bigint"},
                {"name": "amount", "data_type": "decimal", "precision": 10, "scale": 2, "nullable": True},
                {"name": "at", "data_type": "timestamp", "timezone": False, "precision": 9, "nullable": True},
                {"name": "id__v_text", "data_type": "text", "nullable": True, "variant": True},
                {"name": "_dlt_id", "nullable": False, "x-row-version": True, "unique": False, "row_key": False},
            ],
            schema_contract={"columns": "freeze"},
            references=[{"referenced_table": "x", "columns": ["id"], "referenced_columns": ["id"]}],
        )
    )
    schema.update_table(dlt_utils.new_table("orders__items", parent_table_name="orders", columns=[]))
    schema.tables["orders"]["x-normalizer"] = {"seen-data": True}
    schema.update_preferred_types({"re:^price$": "decimal"})
    schema.set_schema_contract("evolve")

    return schema


def test_ours_reads_the_reference_s_and_writes_the_same():
    theirs = reference_schema()
    stored = theirs.to_dict()
    ours = from_json(orjson.dumps(deepcopy(stored)))

    assert orjson.loads(orjson.dumps(stored)) == to_stored(ours)
    assert theirs.version_hash == content_hash(ours)
    assert bump(ours) is ours


def test_versions_move_as_the_reference_s_do():
    theirs = dlt_schema.Schema("s")
    theirs._bump_version()
    ours = bump(new_schema("s"))

    for number in range(12):
        theirs.update_table(dlt_utils.new_table(f"t{number}"))
        theirs._bump_version()
        stored = theirs.to_dict()
        ours = bump(
            from_stored(
                {
                    **to_stored(ours),
                    "tables": orjson.loads(orjson.dumps(stored["tables"])),
                }
            )
        )

        assert (stored["version"], stored["version_hash"]) == (ours.version, ours.version_hash)
        assert stored["previous_hashes"] == list(ours.previous_hashes)
