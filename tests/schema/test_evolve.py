from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from asyncelt.errors import SchemaConflict, SchemaError
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import (
    apply_delta,
    bump,
    complete,
    drop_tables,
    mark_seen_data,
    merge_strategy_of,
    propagate_root_key,
    requires_root_key,
)
from asyncelt.schema.model import Column, Schema, SchemaDelta, Table, TableDelta
from asyncelt.schema.stored import column_from_stored
from asyncelt.schema.system import new_schema, root_id_column
from tests.support.strategies import columns, deltas

EMPTY = new_schema("s")


def one(name: str, *added: Column, parent: str | None = None) -> SchemaDelta:
    return SchemaDelta(tables=(TableDelta(name=name, columns=added, parent=parent),))


def typed(name: str, data_type: str = "bigint") -> Column:
    return Column(name=name, data_type=data_type)


def with_table(table: Table) -> Schema:
    return Schema(name="s", tables={**EMPTY.tables, table.name: table})


def test_new_tables_get_the_defaults_of_their_kind():
    delta = SchemaDelta(tables=(TableDelta(name="t", resource="r"), TableDelta(name="t__c", parent="t")))
    schema = apply_delta(EMPTY, delta)
    root, child = schema.tables["t"], schema.tables["t__c"]

    assert (root.resource, root.write_disposition, root.parent) == ("r", "append", None)
    assert (child.resource, child.write_disposition, child.parent) == (None, None, "t")


def test_unchanged_tables_are_shared_and_nothing_is_changed_in_place():
    before = apply_delta(EMPTY, one("t", typed("a")))
    after = apply_delta(before, one("u", typed("b")))

    assert after.tables["t"] is before.tables["t"]
    assert "u" not in before.tables
    assert apply_delta(after, SchemaDelta()) is after


@settings(max_examples=50, deadline=None)
@given(st.lists(deltas(), max_size=4))
def test_columns_stand_in_the_order_in_which_they_came(sequence):
    schema = EMPTY
    expected: dict[str, list[str]] = {}

    for delta in sequence:
        schema = apply_delta(schema, delta)

        for table in delta.tables:
            known = expected.setdefault(table.name, [])
            known.extend(column.name for column in table.columns if column.name not in known)

    assert expected == {name: list(t.columns) for name, t in schema.tables.items() if name not in EMPTY.tables}
    assert list(expected) == [name for name in schema.tables if name not in EMPTY.tables]


@settings(max_examples=50, deadline=None)
@given(deltas())
def test_applying_a_delta_twice_changes_nothing(delta):
    once = apply_delta(EMPTY, delta)

    assert once == apply_delta(once, delta)


def test_a_completed_column_moves_to_the_end_and_keeps_its_hints():
    declared = Column(name="a", nullable=False, primary_key=True, precision=5, extra={"description": "key"})
    schema = with_table(Table(name="t", resource="t", columns={"a": declared, "b": typed("b")}))
    table = apply_delta(schema, one("t", typed("c"), typed("a"))).tables["t"]
    column = table.columns["a"]

    assert list(table.columns) == ["b", "c", "a"]
    assert (column.data_type, column.nullable, column.primary_key, column.precision) == ("bigint", False, True, 5)
    assert column.extra == {"description": "key"}


def test_a_default_that_was_declared_outranks_what_is_inferred():
    declared = column_from_stored("_dlt_id", {"unique": False, "row_key": False, "x-row-version": True})
    inferred = Column(name="_dlt_id", data_type="text", nullable=False, unique=True, row_key=True)
    column = complete(declared, inferred)

    assert (column.unique, column.row_key, column.nullable) == (False, False, False)
    assert column.extra == {"unique": False, "row_key": False, "x-row-version": True}


def test_a_type_never_changes_silently():
    schema = apply_delta(EMPTY, one("t", typed("a")))

    with pytest.raises(SchemaConflict, match=r"table 't': column 'a' has the type bigint"):
        apply_delta(schema, one("t", typed("a", "text")))


def test_a_child_needs_its_parent_and_stays_with_it():
    with pytest.raises(SchemaError, match="parents before"):
        apply_delta(EMPTY, one("c", parent="t"))

    schema = apply_delta(apply_delta(EMPTY, one("t")), one("t__c", parent="t"))

    with pytest.raises(SchemaConflict, match="nested in 't'"):
        apply_delta(schema, one("t__c", parent="_dlt_loads"))


def test_seen_data_is_marked_once_and_ends_the_first_load():
    table = Table(name="t", hints={"x-normalizer": {"max_nesting": 1, "evolve-columns-once": True}, "x-a": 1})
    schema = mark_seen_data(with_table(table), ["t", "unknown"])

    assert schema.tables["t"].seen_data
    assert schema.tables["t"].hints == {"x-normalizer": {"max_nesting": 1, "seen-data": True}, "x-a": 1}
    assert mark_seen_data(schema, ["t"]) is schema


def test_bump_sets_the_first_hash_without_a_version_and_counts_changes():
    first = bump(EMPTY)
    second = bump(apply_delta(first, one("t", typed("a"))))

    assert (first.version, second.version) == (1, 2)
    assert second.previous_hashes == (first.version_hash,)
    assert bump(second) is second


def test_ten_hashes_are_remembered_newest_first():
    schema = bump(EMPTY)
    hashes = []

    for number in range(12):
        hashes.insert(0, schema.version_hash)
        schema = bump(apply_delta(schema, one(f"t{number}", typed("a"))))

    assert tuple(hashes[:10]) == schema.previous_hashes
    assert schema.version == 13


def test_dropping_a_table_drops_its_chain_and_its_settings():
    schema = apply_delta(with_table(Table(name="t", resource="t", write_disposition="merge")), one("t__c", parent="t"))
    left = drop_tables(propagate_root_key(schema, "t"), ["t", "unknown"])

    assert set(left.tables) == set(EMPTY.tables)
    assert left.normalizers["json"]["config"]["propagation"]["tables"] == {}
    assert drop_tables(left, ["t"]) is left


@pytest.mark.parametrize(
    "disposition,hints,strategies,expected",
    [
        ("append", {}, None, None),
        ("merge", {}, None, "delete-insert"),
        ("merge", {"x-merge-strategy": "scd2"}, None, "scd2"),
        ("merge", {}, ("upsert", "scd2"), "upsert"),
        ("merge", {}, (), None),
    ],
)
def test_merge_strategies(disposition, hints, strategies, expected):
    schema = with_table(Table(name="t", resource="t", write_disposition=disposition, hints=hints))
    capabilities = None if strategies is None else Capabilities(merge_strategies=strategies)

    assert expected == merge_strategy_of(schema, "t", capabilities)
    assert (expected in {"delete-insert", "upsert"}) == requires_root_key(schema, "t", capabilities)


def test_root_keys_can_be_forced_forbidden_and_stay():
    plain = Table(name="t", resource="t")
    forced = Schema(name="s", tables={"t": plain}, normalizers=new_schema("s", root_key=True).normalizers)
    forbidden = Schema(
        name="s",
        tables={"t": Table(name="t", resource="t", write_disposition="merge")},
        normalizers=new_schema("s", root_key=False).normalizers,
    )
    sticky = apply_delta(with_table(plain), one("t__c", root_id_column(), parent="t"))

    assert requires_root_key(forced, "t")
    assert not requires_root_key(forbidden, "t")
    assert requires_root_key(sticky, "t")


@settings(max_examples=50, deadline=None)
@given(columns(typed=False), columns(typed=True))
def test_a_completed_column_has_the_inferred_type(declared, inferred):
    assert complete(declared, inferred).data_type == inferred.data_type
