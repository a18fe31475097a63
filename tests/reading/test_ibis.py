"""Tables handed over to ibis, and expressions of ibis read like any other query."""

from __future__ import annotations

import sys

import pytest

from asyncelt.errors import ConfigError, InvalidQuery, UnknownTable
from asyncelt.reading.handover import ibis_table, query_of_ibis
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName


@pytest.fixture
def ibis():
    return pytest.importorskip("ibis")


async def test_an_expression_is_read_like_any_other_query(items, dataset, ibis):
    table = items.to_ibis()
    tags = dataset["items__tags"].to_ibis()
    joined = table.join(tags, table._dlt_id == tags._dlt_parent_id)
    expression = joined.filter(ibis._.price > 1).group_by("name").aggregate(tags=ibis._.count()).order_by("name")
    relation = dataset.query(expression)

    assert relation.columns == ["name", "tags"]
    assert await relation.fetchall() == [("one", 1), ("two", 2)]
    assert await relation.where("tags", "gt", 1).select("name").fetchall() == [("two",)]
    assert await dataset.query(table.count()).fetchall() == [(3,)]


async def test_a_table_has_the_types_of_its_columns(items, ibis):
    found = items.to_ibis().schema()

    assert {name: str(found[name]) for name in ("id", "name", "price", "at", "_dlt_id")} == {
        "id": "int64",
        "name": "string",
        "price": "float64",
        "at": "timestamp('UTC', 6)",
        "_dlt_id": "!string",
    }


def test_every_type_has_one_there(ibis):
    columns = {
        "a": Column(name=ColumnName("a"), data_type="decimal", precision=9, scale=0),
        "b": Column(name=ColumnName("b"), data_type="decimal"),
        "c": Column(name=ColumnName("c"), data_type="wei"),
        "d": Column(name=ColumnName("d"), data_type="timestamp", timezone=False),
        **{kind: Column(name=ColumnName(kind), data_type=kind) for kind in ("json", "binary", "date", "time", "bool")},
    }
    found = ibis_table("t", columns).schema()
    wanted = ("decimal(9, 0)", "decimal(38, 9)", "decimal(38, 0)", "timestamp(6)")

    assert tuple(str(found[name]) for name in columns) == (*wanted, "string", "binary", "date", "time", "boolean")


def test_only_whole_tables_and_dialects_that_are_known(items, dataset, ibis):
    with pytest.raises(InvalidQuery, match="hands over whole tables"):
        items.limit(1).to_ibis()

    with pytest.raises(InvalidQuery, match="hands over whole tables"):
        dataset.query("SELECT 1 AS one").to_ibis()

    with pytest.raises(UnknownTable):
        dataset.table("nothing").to_ibis()

    with pytest.raises(InvalidQuery, match=r"written in 'oracle'; duckdb, postgres can be"):
        query_of_ibis(items.to_ibis(), "oracle")


def test_what_is_missing_is_named(items, monkeypatch):
    monkeypatch.setitem(sys.modules, "ibis", None)

    with pytest.raises(ConfigError, match=r"pip install 'asyncelt\[ibis\]'"):
        items.to_ibis()
