"""Relations that read the range of a cursor, alone and in resources."""

from __future__ import annotations

import datetime as dt

import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    InvalidQuery,
    UnknownColumn,
    UnknownTable,
)

cursor = asyncelt.sources.incremental
UTC = dt.UTC


async def ids(relation):
    return [row[0] for row in await relation.order_by("id").select("id").fetchall()]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"initial_value": 2}, [2, 3]),
        ({"initial_value": 2, "range_start": "open"}, [3]),
        ({"initial_value": 1, "end_value": 3}, [1, 2]),
        ({"initial_value": 1, "end_value": 3, "range_end": "closed"}, [1, 2, 3]),
        ({"initial_value": 2, "last_value_func": "min"}, [1, 2]),
        ({"initial_value": 3, "end_value": 1, "last_value_func": "min", "range_start": "open"}, [2]),
        ({"initial_value": 3, "end_value": 1, "last_value_func": "min", "range_end": "closed"}, [1, 2, 3]),
        ({}, [1, 2, 3]),
    ],
)
@pytest.mark.covers("Relation.incremental", "Relation.incremental.incremental", "Relation.is_incremental")
async def test_a_cursor_is_a_condition(items, arguments, expected):
    relation = items.incremental(cursor("id", on_cursor_value_missing="exclude", **arguments))

    assert await ids(relation) == expected
    assert relation.is_incremental and not items.is_incremental


@pytest.mark.parametrize(
    "start",
    [
        dt.datetime(2024, 1, 2, tzinfo=UTC),
        dt.datetime(2024, 1, 2),
        dt.date(2024, 1, 2),
        "2024-01-02T00:00:00Z",
        dt.datetime(2024, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=3))),
    ],
)
async def test_times_are_compared_as_the_column_has_them(items, start):
    assert await ids(items.incremental(cursor("at", start, on_cursor_value_missing="exclude"))) == [2, 3]


@pytest.mark.parametrize("missing, expected", [("include", [2, 3]), ("exclude", [2])])
async def test_rows_without_a_value_are_in_the_range_or_not(items, missing, expected):
    assert await ids(items.incremental(cursor("name", "p", on_cursor_value_missing=missing))) == expected


async def test_outside_of_a_resource_nobody_can_refuse_rows_without_a_value(items):
    with pytest.warns(AsynceltWarning, match=r"leaves out rows without a value"):
        assert await ids(items.incremental(cursor("name", "p"))) == [2]


@pytest.mark.covers("Dataset.table.incremental")
async def test_it_is_one_more_condition(dataset, items):
    later = cursor("id", 2, on_cursor_value_missing="exclude")

    assert await ids(items.where("id", "ne", 3).incremental(later)) == [2]
    assert await ids(items.incremental(later).incremental(cursor("price", 3, on_cursor_value_missing="exclude"))) == [3]
    assert await dataset.table("items", incremental=later).select("id").max().fetchscalar() == 3
    assert await ids(dataset("SELECT id, price FROM items").incremental(later)) == [2, 3]
    assert await ids(
        dataset("SELECT id AS my_id, id FROM items").incremental(cursor("myId", 3, on_cursor_value_missing="exclude"))
    ) == [3]


async def test_the_cursor_of_another_table_joins_it_and_adds_no_columns(dataset, items):
    tags = dataset["items__tags"]
    later = cursor("items.at", dt.datetime(2024, 1, 2, tzinfo=UTC), on_cursor_value_missing="exclude")
    chosen = tags.incremental(later)

    assert chosen.columns == tags.columns
    assert await chosen.order_by("tag").select("tag").fetchall() == [("b",), ("c",)]
    assert await chosen.join("items").order_by("tag").select("tag", "items__id").fetchall() == [("b", 2), ("c", 2)]
    assert await ids(items.incremental(cursor("items.id", 2, on_cursor_value_missing="exclude"))) == [2, 3]

    since = cursor("_dlt_loads.inserted_at", dt.datetime(2020, 1, 1), on_cursor_value_missing="exclude")
    never = cursor("_dlt_loads.inserted_at", dt.datetime(2200, 1, 1), on_cursor_value_missing="exclude")
    assert await ids(items.incremental(since)) == [1, 2, 3]
    assert await ids(items.incremental(never)) == []


async def test_what_is_no_column_is_named(dataset, items):
    with pytest.raises(UnknownColumn, match="There is no column 'nope'"):
        items.incremental(cursor("nope"))

    with pytest.raises(UnknownColumn, match="Table 'owners' has no column 'nope'"):
        items.incremental(cursor("owners.nope"))

    with pytest.raises(UnknownTable, match="no table 'nowhere'"):
        items.incremental(cursor("nowhere.id"))

    with pytest.raises(InvalidQuery, match=r"is 'column' or 'table.column', not '\$\.id'"):
        items.incremental(cursor("$.id"))

    with pytest.raises(InvalidQuery, match="only relations of tables"):
        dataset("SELECT id FROM items").incremental(cursor("items.id"))

    with pytest.raises(InvalidQuery, match="only max and min"):
        items.incremental(cursor("id", last_value_func=lambda values: values[0]))

    with pytest.raises(InvalidQuery, match="not nested in each other"):
        await items.incremental(cursor("owners.item", on_cursor_value_missing="exclude")).fetchall()
