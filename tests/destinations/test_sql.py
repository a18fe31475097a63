"""The text of statements that destinations share, for two dialects."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st
from sqlglot import exp

from asyncelt.destinations.sql import ddl, system
from asyncelt.destinations.sql.merge import MergePlan, merge_statements
from asyncelt.destinations.sql.names import Dataset, identifier, quoted, table
from asyncelt.errors import SchemaError
from asyncelt.schema.model import Column, Table
from asyncelt.testing.merging import child_table, key, root_table
from asyncelt.testing.strategies import by_strategy
from asyncelt.testing.versioning import on, versions_table

DATASET = Dataset("d")


def plan_of(*chain, staged=None, dialect="postgres", strategy="delete-insert", **more):
    names = [one.name for one in chain]

    return MergePlan(
        dataset=DATASET,
        chain=chain,
        staged={name: table(f"s_{name}") for name in (names if staged is None else staged)},
        existing=frozenset(names),
        arrival=lambda: exp.column("arrival"),
        keeps_order=True,
        dialect=dialect,
        strategy=strategy,
        created_at=1_700_000_000.0,
        **more,
    )


def texts_of(*chain, **options):
    return [statement.sql for statement in merge_statements(plan_of(*chain, **options))]


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_names_are_quoted_whatever_is_in_them(dialect):
    assert system.delete_all(Dataset('a"b'), 'drop"; --', dialect) == 'DELETE FROM "a""b"."drop""; --"'


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@given(name=st.text(min_size=1))
def test_a_quoted_name_is_the_text_of_its_identifier(dialect, name):
    assert quoted(name, dialect) == identifier(name).sql(dialect=dialect)


def test_a_dataset_may_name_its_database():
    assert system.delete_all(Dataset("d", "c"), "t", "duckdb") == 'DELETE FROM "c"."d"."t"'


def test_the_lease_row_can_be_locked():
    assert system.select_lease(DATASET, "postgres", for_update=True).endswith('"member" = $2 FOR UPDATE')


def test_a_table_is_created_with_its_columns_in_order():
    columns = [Column(name="b", data_type="text", nullable=False), Column(name="a", data_type="bigint")]
    types = {"text": "VARCHAR", "bigint": "BIGINT"}
    sql = ddl.create_table(DATASET, "t", columns, lambda column: types[column.data_type], "postgres")
    assert sql == 'CREATE TABLE IF NOT EXISTS "d"."t" ("b" VARCHAR NOT NULL, "a" BIGINT)'


def test_an_added_column_is_nullable():
    column = Column(name="b", data_type="text", nullable=False)
    assert (
        ddl.add_column(DATASET, "t", column, lambda _: "TEXT", "postgres") == 'ALTER TABLE "d"."t" ADD COLUMN "b" TEXT'
    )


def test_merging_a_table_without_nested_tables_needs_no_temporary_table():
    root = root_table("t", id=key("id"))
    statements = texts_of(root)

    assert statements[0] == (
        'DELETE FROM "d"."t" WHERE EXISTS(SELECT 1 FROM "s_t" AS "_asyncelt_staged" '
        'WHERE "t"."id" = "_asyncelt_staged"."id")'
    )
    assert statements[1].startswith('DELETE FROM "s_t" WHERE arrival IN (SELECT "_asyncelt_arrival"')
    assert statements[2] == (
        'INSERT INTO "d"."t" ("id", "_dlt_load_id", "_dlt_id") SELECT "id", "_dlt_load_id", "_dlt_id" FROM "s_t"'
    )
    assert len(statements) == 3


def test_rows_are_inserted_in_order_where_a_scan_may_lose_it():
    plan = replace(plan_of(root_table("t", id=key("id"))), keeps_order=False)

    assert [one.sql for one in merge_statements(plan)][-1].endswith('FROM "s_t" ORDER BY arrival')


def test_nested_rows_are_deleted_before_their_roots():
    chain = (root_table("t", id=key("id")), child_table("t__x", "t"), child_table("t__x__y", "t__x"))
    statements = merge_statements(plan_of(*chain))

    assert [one.table for one in statements if one.sql.startswith('DELETE FROM "d"')] == ["t__x__y", "t__x", "t"]


def test_two_kinds_of_keys_are_looked_up_one_by_one():
    """One condition with OR could only be answered by comparing all pairs of rows."""
    root = root_table("t", id=key("id"), day=key("day", merge_key=True))
    doomed = next(sql for sql in texts_of(root, child_table("t__x", "t")) if "CREATE" in sql)

    assert " UNION " in doomed
    assert " OR " not in doomed


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize("strategy", ["delete-insert", "upsert", "insert-only", "cdc", "scd2"])
def test_no_strategy_joins_by_or_or_writes_values_into_its_text(dialect, strategy):
    flag = Column(name="gone", data_type="timestamp", hard_delete=True)
    child = child_table("t__x", "t")
    root = root_table("t", id=key("id"), day=key("day", merge_key=True), gone=flag)

    if strategy == "scd2":
        root, child = on(versions_table(key("id"), until="9999-12-31"), 1)

    for statement in merge_statements(plan_of(root, child, dialect=dialect, strategy=strategy)):
        assert " OR " not in statement.sql
        assert "2024" not in statement.sql and "9999" not in statement.sql
        assert len(statement.parameters) == len(set(re.findall(r"\$\d", statement.sql)))


def test_columns_that_the_schema_does_not_know_are_carried_over_by_upsert():
    root = root_table("t", id=key("id"))
    statements = texts_of(root, strategy="upsert", foreign={"t": ("note",)})

    assert 'UPDATE "s_t" SET "note" = "t"."note" FROM "d"."t" WHERE "t"."id" = "s_t"."id"' in statements
    assert '"_dlt_id", "note")' in statements[-1]


def test_upsert_needs_a_primary_key():
    with pytest.raises(SchemaError, match="needs a primary_key"):
        texts_of(root_table("t"), strategy="upsert")


def test_scd2_needs_its_columns():
    with pytest.raises(SchemaError, match="x-row-version or x-valid-from or x-valid-to"):
        texts_of(root_table("t", id=key("id")), strategy="scd2")


def test_a_condition_that_is_no_sql_is_refused_by_name():
    root = by_strategy(root_table("t", id=key("id")), "upsert", **{"x-merge-source-filter": "id = ("})

    with pytest.raises(SchemaError, match="x-merge-source-filter cannot be read: 'id = \\('"):
        texts_of(root, strategy="upsert")


def test_a_nested_table_that_nothing_connects_is_refused():
    loose = Table(name="t__x", parent="t", columns={"v": Column(name="v", data_type="text")})

    with pytest.raises(SchemaError, match="neither a root key"):
        texts_of(root_table("t", id=key("id")), loose)


def test_a_root_without_row_key_is_refused_where_it_has_nested_tables():
    root = Table(name="t", columns={"a": key("a"), "b": key("b")}, write_disposition="merge")

    with pytest.raises(SchemaError, match="no column that identifies a row"):
        texts_of(root, child_table("t__x", "t"))
