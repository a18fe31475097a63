"""Joins: along references, by a condition, of tables and of relations."""

from __future__ import annotations

import pytest

import asyncelt
from asyncelt.errors import InvalidQuery, UnknownTable
from asyncelt.schema.system import new_schema


async def test_a_nested_table_is_joined_with_its_parent(dataset):
    joined = dataset["items__tags"].join("items").select("tag", "items__id").order_by("tag")
    assert await joined.fetchall() == [("a", 1), ("b", 2), ("c", 2)]


async def test_a_parent_is_joined_with_a_nested_table(dataset):
    joined = dataset["items"].join("items__tags", kind="left").order_by("id").order_by("items__tags__tag")
    assert joined.columns[:6] == dataset["items"].columns
    assert await joined.select("id", "items__tags__tag").fetchall() == [(1, "a"), (2, "b"), (2, "c"), (3, None)]


@pytest.mark.parametrize(
    "start, other, expected", [("items", "items__tags__of", (1, 1)), ("items__tags__of", "items", (1, 1))]
)
async def test_tables_in_between_are_joined_too_without_their_columns(dataset, start, other, expected):
    joined = dataset[start].join(other)
    assert not any("tag" in name.split("__")[-1] for name in joined.columns)
    columns = ["id", "items__tags__of__z"] if start == "items" else ["z", "items__id"]
    assert await joined.select(*columns).fetchall() == [expected]


async def test_a_table_that_is_there_already_is_used_again(dataset):
    joined = dataset["items"].join("items__tags").join("items__tags__of")
    assert joined.to_sql().count("JOIN") == 2
    assert await joined.select("id", "items__tags__tag", "items__tags__of__z").fetchall() == [(1, "a", 1)]


@pytest.mark.parametrize(
    "how, expected",
    [
        ("inner", [(1, "Ann"), (2, "Bob")]),
        ("left", [(1, "Ann"), (2, "Bob"), (3, None)]),
        ("right", [(1, "Ann"), (2, "Bob"), (None, "Cid")]),
        ("full", [(1, "Ann"), (2, "Bob"), (3, None), (None, "Cid")]),
    ],
)
async def test_a_condition_joins_any_tables(dataset, how, expected):
    joined = dataset["items"].join("owners", on="items.id = owners.item", kind=how)
    assert await joined.order_by("id").select("id", "owners__owner").fetchall() == expected


async def test_the_prefix_can_be_chosen(dataset):
    joined = dataset["items"].join("owners", on="items.id = owners.item", alias="o")
    assert "o__owner" in joined.columns
    assert await joined.where("o__owner", "eq", "Ann").select("name", "o__owner").fetchall() == [("one", "Ann")]


async def test_a_relation_is_joined_with_its_conditions_and_values(dataset):
    some = dataset["owners"].where("owner", "ne", "Bob").select("item", "owner")
    joined = dataset["items"].where("id", "lt", 3).join(some, on="items.id = owners.item", kind="left")
    assert joined.columns[-2:] == ["owners__item", "owners__owner"]
    assert await joined.order_by("id").select("id", "owners__owner").fetchall() == [(1, "Ann"), (2, None)]


async def test_a_query_is_joined_under_the_name_of_its_table(dataset):
    query = dataset("SELECT o.item, count(*) AS n FROM owners AS o GROUP BY 1")
    joined = dataset["items"].join(query, on="items.id = o.item", alias="counted")
    assert await joined.order_by("id").select("id", "counted__n").fetchall() == [(1, 1), (2, 1)]


async def test_a_limit_holds_before_the_join(dataset):
    joined = dataset["items"].order_by("id", "desc").limit(1).join("items__tags", kind="left")
    assert await joined.select("id", "items__tags__tag").fetchall() == [(3, None)]


async def test_a_condition_holds_before_a_right_join(dataset):
    joined = dataset["items"].where("id", "eq", 1).join("owners", on="items.id = owners.item", kind="right")
    assert await joined.order_by("owners__item").select("id", "owners__owner").fetchall() == [
        (1, "Ann"),
        (None, "Bob"),
        (None, "Cid"),
    ]


async def test_a_table_is_joined_with_itself_through_a_query(dataset):
    other = dataset("SELECT other.id, other.price FROM items AS other")
    joined = dataset["items"].join(other, on="items.id = other.id + 1", alias="before")
    assert await joined.order_by("id").select("id", "before__price").fetchall() == [(2, 1.5), (3, 2.5)]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda ds: ds["items"].join("owners"), "not nested in each other"),
        (lambda ds: ds["items"].join("items"), "no reference to itself"),
        (lambda ds: ds("SELECT id FROM items").join("items__tags"), "needs on="),
        (lambda ds: ds["items"].join("owners", on="items.id = owners.nope"), "has no column 'nope'"),
        (lambda ds: ds["items"].join("owners", on="items.id = x.item"), "no 'x' here"),
        (lambda ds: ds["items"].join("items", on="items.id = items.id"), "here already"),
        (
            lambda ds: (
                ds["items"]
                .join("items__tags")
                .join(ds("SELECT o.tag FROM items__tags AS o"), on="true", alias="items__tags")
            ),
            "two columns the name items__tags__tag",
        ),
    ],
)
async def test_joins_without_a_meaning_are_refused(dataset, wrong, message):
    with pytest.raises(ValueError, match=message):
        await wrong(dataset).arrow()


async def test_an_unknown_table_is_refused_at_once(dataset):
    with pytest.raises(UnknownTable, match="no table 'nope'"):
        dataset["items"].join("nope")


async def test_relations_of_two_objects_of_one_dataset_are_joined(pipeline, dataset):
    other = await asyncelt.dataset(pipeline.destination, "raw")
    joined = dataset["items"].join(other["owners"].where("owner", "eq", "Bob"), on="items.id = owners.item")
    assert await joined.select("name", "owners__owner").fetchall() == [("two", "Bob")]


async def test_relations_of_another_dataset_are_refused(pipeline, dataset):
    other = await asyncelt.dataset(pipeline.destination, "other", new_schema("empty"))

    with pytest.raises(InvalidQuery, match=r"'raw' at .* and of <asyncelt.Dataset 'other' at"):
        dataset["items"].join(other["_dlt_loads"], on="items._dlt_load_id = _dlt_loads.load_id")


async def test_a_table_that_only_the_other_object_knows_is_refused_at_once(pipeline, dataset):
    other = await asyncelt.dataset(pipeline.destination, "raw", new_schema("empty"))

    with pytest.raises(UnknownTable, match="no table 'items'"):
        other["_dlt_loads"].join(dataset["items"])
