"""Tables made from hints compared with those the reference makes, also when laid over each other."""

from __future__ import annotations

import orjson
import pytest

from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import apply_delta, bump, mark_seen_data
from asyncelt.schema.hints import TableHints, merge_table_hints
from asyncelt.schema.model import Column, SchemaDelta, TableDelta
from asyncelt.schema.naming import naming_for
from asyncelt.schema.stored import to_stored
from asyncelt.schema.system import (
    list_idx_column,
    load_id_column,
    new_schema,
    parent_id_column,
    pipeline_state_table,
    root_id_column,
    row_id_column,
)

dlt = pytest.importorskip("dlt")

SNAKE = naming_for("snake_case")
NO_MERGE = Capabilities(merge_strategies=())
"""The reference without a destination knows no strategy either."""

HINTS = {
    "plain": {},
    "columns": {"columns": {"aB": {"data_type": "decimal", "precision": 5, "scale": 1}, "c": {"nullable": False}}},
    "column list": {"columns": [{"name": "x", "data_type": "text", "unique": True, "x-a": [1]}]},
    "keys": {"primary_key": ["Id", "x"], "merge_key": "x"},
    "keys over columns": {"primary_key": "b", "columns": {"a": {"primary_key": True}, "b": {"data_type": "bigint"}}},
    "no keys": {"primary_key": "", "columns": {"a": {"primary_key": True}}},
    "merge": {"write_disposition": "merge", "primary_key": "id"},
    "upsert": {
        "write_disposition": {
            "disposition": "merge",
            "strategy": "upsert",
            "skip_unchanged_rows": True,
            "row_version_column_name": "v",
            "source_filter": "a > 1",
        },
        "primary_key": "id",
    },
    "replace": {"write_disposition": "replace", "schema_contract": "freeze"},
    "contract": {"schema_contract": {"columns": "discard_row", "data_type": "freeze"}},
    "formats": {"file_format": "parquet", "table_format": "delta"},
    "references": {
        "references": [{"referenced_table": "Other", "columns": ["userId"], "referenced_columns": ["Id"]}],
    },
    "references 2": {
        "references": [
            {"referenced_table": "Other", "columns": ["userId"], "referenced_columns": ["Nr"]},
            {"referenced_table": "third", "columns": ["a"], "referenced_columns": ["b"]},
        ],
    },
    "collision": {"columns": {"userId": {"data_type": "text"}, "user_id": {"data_type": None, "nullable": True}}},
    "scd2": {"write_disposition": {"disposition": "merge", "strategy": "scd2", "validity_column_names": ["f", "T"]}},
    "dedup": {"columns": {"d": {"hard_delete": True}, "s": {"dedup_sort": "desc", "timezone": False}}},
}
NESTED = {
    "items": {},
    ("items", "Tags"): {"columns": {"value": {"name": "value", "data_type": "text"}}},
    "parts": {"primary_key": "id"},
}


def theirs_after(*sequence):
    schema = dlt.Schema("s")

    for hints in sequence:
        given = orjson.loads(orjson.dumps({k: v for k, v in hints.items() if k != "nested_hints"}))

        if nested := hints.get("nested_hints"):
            given["nested_hints"] = {
                path: dlt.mark.make_nested_hints(**orjson.loads(orjson.dumps(h))) for path, h in nested.items()
            }

        resource = dlt.resource([1], name="My Table", **given)

        for table in resource.compute_tables(schema.naming):
            contract = schema.resolve_contract_settings_for_table(table["name"], table)

            if contract["columns"] != "evolve" and schema.is_new_table(table["name"]):
                table["x-normalizer"] = {"evolve-columns-once": True}

            schema.update_table(table, normalize_identifiers=False, merge_compound_props=False)

    # A package writes the schema and reads it again, which fills in what root tables leave out.
    return dlt.Schema.from_dict(orjson.loads(orjson.dumps(schema.to_dict()))).to_dict()


def ours_after(*sequence):
    schema = new_schema("s")

    for hints in sequence:
        schema = merge_table_hints(schema, TableHints(name="My Table", resource="My Table", **hints), SNAKE, NO_MERGE)

    return to_stored(bump(schema))


def ordered(stored):
    return {name: list(table["columns"]) for name, table in stored["tables"].items()}


def assert_same(*sequence):
    theirs, ours = theirs_after(*sequence), ours_after(*sequence)

    assert theirs["tables"] == ours["tables"]
    assert ordered(theirs) == ordered(ours)
    assert theirs["version_hash"] == ours["version_hash"]


@pytest.mark.parametrize("name", [name for name in HINTS if name != "scd2"])
def test_one_set_of_hints(name):
    assert_same(HINTS[name])


@pytest.mark.parametrize("second", [name for name in HINTS if name != "scd2"])
@pytest.mark.parametrize("first", ["columns", "keys", "merge", "replace", "references", "dedup"])
def test_two_sets_of_hints_one_over_the_other(first, second):
    assert_same(HINTS[first], HINTS[second])


def test_nested_hints():
    assert_same({"nested_hints": NESTED})
    assert_same(
        {"nested_hints": NESTED}, {"nested_hints": {"items": {"columns": {"q": {"name": "q", "unique": True}}}}}
    )


def test_scd2_hints():
    theirs = dlt.resource([1], name="My Table", **HINTS["scd2"]).compute_tables(dlt.Schema("s").naming)

    assert theirs[0] == ours_after(HINTS["scd2"])["tables"]["my_table"]


def test_max_table_nesting():
    theirs = dlt.resource([1], name="My Table", max_table_nesting=2).compute_tables(dlt.Schema("s").naming)

    assert theirs[0] == ours_after({"max_table_nesting": 2})["tables"]["my_table"]


def test_incremental_columns():
    resource = dlt.resource([1], name="My Table", incremental=dlt.sources.incremental("updatedAt"))

    assert (
        resource.compute_tables(dlt.Schema("s").naming)[0]
        == ours_after({"incremental": "updatedAt"})["tables"]["my_table"]
    )


def column(name: str, data_type: str) -> Column:
    return Column(name=name, data_type=data_type)


def test_a_whole_run_gives_the_schema_that_the_reference_stored():
    """Recorded from a run of the reference: hints, two rows, a nested table, duckdb."""
    hints = TableHints(
        name="items",
        resource="items",
        write_disposition="merge",
        primary_key="id",
        columns={"unk": {"nullable": True, "description": "x"}, "late": {"unique": True}},
    )
    root = TableDelta(
        name="items",
        columns=(
            column("id", "bigint"),
            column("a", "text"),
            column("d__e__f", "double"),
            load_id_column(),
            row_id_column(),
        ),
    )
    child = TableDelta(
        name="items__tags",
        parent="items",
        columns=(column("value", "bigint"), root_id_column(), parent_id_column(), list_idx_column(), row_id_column()),
    )
    schema = bump(merge_table_hints(new_schema("orc"), hints, SNAKE))
    schema = apply_delta(schema, SchemaDelta(tables=(root, child)))
    schema = apply_delta(schema, SchemaDelta(tables=(TableDelta(name="items", columns=(column("late", "bigint"),)),)))
    state = pipeline_state_table()
    schema = type(schema)(
        name="orc",
        tables={**schema.tables, state.name: state},
        settings=schema.settings,
        normalizers=schema.normalizers,
        version=schema.version,
        version_hash=schema.version_hash,
    )
    schema = bump(mark_seen_data(schema, ["items", "items__tags", state.name]))

    assert list(schema.tables["items"].columns) == ["unk", "id", "a", "d__e__f", "_dlt_load_id", "_dlt_id", "late"]
    assert schema.version == 2
    assert schema.version_hash == "hgCfJ+QlUi7w4gpa2qTj0d69N/9BOUOXef2T6wLvASg="
