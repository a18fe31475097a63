"""Tables handed over to ibis, and expressions of ibis read like any other query."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal

import pytest

import asyncelt
from asyncelt.errors import ConfigError, InvalidQuery, UnknownColumn, UnknownTable
from asyncelt.reading.handover import ibis_table, query_of_ibis
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName


@pytest.fixture
def ibis():
    return pytest.importorskip("ibis")


@pytest.mark.covers("Relation.to_ibis")
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
        "few": Column(name=ColumnName("few"), data_type="decimal", precision=6),
        "c": Column(name=ColumnName("c"), data_type="wei"),
        "d": Column(name=ColumnName("d"), data_type="timestamp", timezone=False),
        **{kind: Column(name=ColumnName(kind), data_type=kind) for kind in ("json", "binary", "date", "time", "bool")},
    }
    found = ibis_table("t", columns).schema()
    wanted = ("decimal(9, 0)", "decimal(38, 9)", "decimal(6, 6)", "decimal(38, 0)", "timestamp(6)")

    assert tuple(str(found[name]) for name in columns) == (*wanted, "string", "binary", "date", "time", "boolean")


async def test_what_was_asked_for_before_goes_along(items, dataset, ibis):
    """Values of every kind, conditions in SQL, limits and joins."""
    chosen = items.where("name", "ne", "it's").where("price < ?", parameters=[3]).order_by("id", "desc").limit(1)
    table = chosen.select("id", "at").to_ibis()
    tags = dataset["items__tags"].join("items").select("tag", "items__id").to_ibis()
    both = table.join(tags, table.id == tags.items__id).select("id", "tag").order_by("tag")

    assert table.columns == ("id", "at")
    assert await dataset.query(both).fetchall() == [(2, "b"), (2, "c")]
    assert await dataset.query(table.count()).fetchscalar() == 1

    for column, value in [
        ("at", dt.datetime(2024, 1, 2, tzinfo=dt.UTC)),
        ("at", dt.date(2024, 1, 2)),
        ("price", Decimal("2.5")),
        ("name", "two"),
    ]:
        assert await dataset.query(items.where(column, "eq", value).to_ibis().select("id")).fetchall() == [(2,)]

    late = asyncelt.sources.incremental("at", dt.datetime(2024, 1, 2), on_cursor_value_missing="exclude")
    assert await dataset.query(items.incremental(late).to_ibis().count()).fetchscalar() == 2


async def test_a_query_in_sql_is_a_table_too(dataset, ibis):
    counted = dataset.query(
        "SELECT name, count(*) AS n FROM items WHERE id < ? GROUP BY name", parameters=[3]
    ).to_ibis()

    assert str(counted.schema()["n"]) == "int64"
    assert await dataset.query(counted.aggregate(all=counted.n.sum())).fetchall() == [(2,)]
    assert await dataset.query(dataset["items"].select("id").max().to_ibis()).fetchall() == [(3,)]
    assert await dataset.query(dataset.row_counts(table_names=["items"]).to_ibis()).fetchall() == [("items", 3)]


def test_types_and_dialects_that_are_not_known_are_named(items, dataset, ibis):
    with pytest.raises(InvalidQuery, match=r"that of v is not known before the query runs"):
        dataset.query("SELECT hash(id) AS v FROM items").to_ibis()

    with pytest.raises(UnknownColumn, match="There is no column 'nope'"):
        items.limit(1).where("nope > 1").to_ibis()

    with pytest.raises(UnknownTable):
        dataset.table("nothing").to_ibis()

    with pytest.raises(InvalidQuery, match=r"written in 'oracle'; duckdb, postgres can be"):
        query_of_ibis(items.to_ibis(), "oracle")


def test_what_is_missing_is_named(items, monkeypatch):
    monkeypatch.setitem(sys.modules, "ibis", None)

    with pytest.raises(ConfigError, match=r"pip install 'asyncelt\[ibis\]'"):
        items.to_ibis()
