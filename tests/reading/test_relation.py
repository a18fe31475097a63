"""What relations describe, and that every destination gives the same rows for it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from sqlglot import exp

from asyncelt.errors import InvalidQuery, QueryError, UnknownColumn, UnknownTable

UTC = dt.UTC


async def ids(relation):
    return [row[0] for row in await relation.order_by("id").select("id").fetchall()]


@pytest.mark.covers("Relation.columns")
async def test_a_table_has_the_columns_of_the_schema_in_their_order(items):
    assert items.columns == ["id", "name", "price", "at", "_dlt_load_id", "_dlt_id"]
    assert (await items.arrow()).column_names == items.columns


@pytest.mark.covers("Relation.select", "Relation.arrow")
async def test_columns_can_be_selected_in_two_ways(items):
    assert (await items.select("name", "id").arrow()).column_names == ["name", "id"]
    assert (await items[["price"]].arrow()).column_names == ["price"]
    assert items["price"].columns == ["price"]


async def test_a_later_selection_starts_from_the_table_again(items):
    assert await items.select("id").select("price").order_by("id").fetchall() == [(1.5,), (2.5,), (3.5,)]


@pytest.mark.parametrize(
    "operator, value, expected",
    [
        ("eq", 2, [2]),
        ("ne", 2, [1, 3]),
        ("gt", 1, [2, 3]),
        ("gte", 2, [2, 3]),
        ("lt", 3, [1, 2]),
        ("lte", 1, [1]),
        ("in", [1, 3, 5], [1, 3]),
        ("in", 2, [2]),
        ("in", [], []),
        ("not_in", (1,), [2, 3]),
        ("not_in", [], [1, 2, 3]),
        ("gt", Decimal("1.5"), [2, 3]),
        ("eq", 0, []),
    ],
)
@pytest.mark.covers(
    "Relation.where",
    "Relation.where.column_or_expr",
    "Relation.where.operator",
    "Relation.where.value",
    "Relation.filter",
    "Relation.filter.column_or_expr",
    "Relation.filter.operator",
    "Relation.filter.value",
)
async def test_rows_can_be_compared_with_values(items, operator, value, expected):
    assert await ids(items.where("id", operator, value)) == expected
    assert await ids(items.filter("id", operator, value)) == expected


@pytest.mark.parametrize(
    "operator, value, expected",
    [("eq", None, [3]), ("ne", None, [1, 2]), ("in", ["one", None], [1, 3]), ("not_in", ["one", None], [2])],
)
async def test_none_means_no_value(items, operator, value, expected):
    assert await ids(items.where("name", operator, value)) == expected


@pytest.mark.parametrize(
    "value",
    ["2024-01-02", "2024-01-02T00:00:00Z", dt.datetime(2024, 1, 2, tzinfo=UTC), dt.date(2024, 1, 2)],
)
async def test_times_can_be_given_as_text_or_as_times(items, value):
    assert await ids(items.where("at", "gte", value)) == [2, 3]


async def test_values_are_parameters_and_never_sql(items):
    assert await ids(items.where("name", "eq", "x' OR 1=1 --")) == []
    assert await ids(items.where("name = ? OR name = ?", parameters=["one", "two'; DROP TABLE items; --"])) == [1]
    assert await ids(items) == [1, 2, 3]


@pytest.mark.parametrize(
    "condition, parameters, expected",
    [
        ("id > 1 AND price < 3", (), [2]),
        ("ID = 1", (), [1]),
        ("items.id = 1", (), [1]),
        ("name IS NULL", (), [3]),
        ("id = $2 OR id = $1", (3, 1), [1, 3]),
        ("id IN (SELECT item FROM owners WHERE owner = ?)", ("Bob",), [2]),
        ("id IN (SELECT item FROM raw.owners)", (), [1, 2]),
        (exp.column("id").eq(3), (), [3]),
    ],
)
async def test_a_condition_may_be_sql_or_an_expression(items, condition, parameters, expected):
    assert await ids(items.where(condition, parameters=parameters)) == expected


async def test_conditions_must_all_hold_and_an_or_stays_together(items):
    assert await ids(items.where("id = 1 OR id = 2").where("price > 2")) == [2]


async def test_clauses_do_not_depend_on_the_order_of_calls(items):
    first = items.limit(2).order_by("id", "desc").where("id", "lt", 3).select("id")
    assert await first.fetchall() == [(2,), (1,)]
    assert await items.limit(1).limit(2).order_by("id").select("id").fetchall() == [(1,), (2,)]


@pytest.mark.covers("Relation.order_by", "Relation.order_by.column_name", "Relation.order_by.direction")
async def test_rows_are_sorted_by_several_columns_and_those_without_a_value_come_last(items):
    assert await items.order_by("name").select("name").fetchall() == [("one",), ("two",), (None,)]
    assert await items.order_by("name", "desc").select("name").fetchall() == [("two",), ("one",), (None,)]


@pytest.mark.covers(
    "Relation.head",
    "Relation.head.limit",
    "Relation.limit",
    "Relation.limit.limit",
)
async def test_head_and_limit(items):
    assert len(await items.head(2).fetchall()) == 2
    assert len(await items.head().fetchall()) == 3
    assert await items.limit(0).fetchall() == []


@pytest.mark.covers("Relation.min", "Relation.max", "Relation.fetchscalar")
async def test_least_and_greatest_value(items):
    price = items.select("price")
    assert await price.max().fetchscalar() == 3.5
    assert await price.min().scalar() == 1.5
    assert await price.where("id", "lt", 3).max().fetchscalar() == 2.5
    assert await price.order_by("id").limit(2).max().fetchscalar() == 2.5
    assert price.max().columns == ["price"]
    # The relation it was called on is as before.
    assert len(await price.fetchall()) == 3


async def test_steps_after_an_aggregate_work_on_its_result(items):
    assert await items.select("price").max().where("price", "gt", 9).fetchall() == []


async def test_calls_return_new_relations(items):
    changed = items.where("id", "eq", 1)
    assert len(await items.fetchall()) == 3
    assert len(await changed.fetchall()) == 1


@pytest.mark.covers("Relation.to_sql", "Relation.to_sql.pretty")
async def test_sql_is_shown_with_values_written_out(items):
    assert items.select("id").where("name", "eq", "it's").to_sql() == (
        """SELECT "items"."id" FROM "items" WHERE "items"."name" = 'it''s'"""
    )
    assert "\n" in items.to_sql(pretty=True)
    assert str(items).splitlines()[0] == "Relation query:"
    assert "  price double" in str(items)
    assert repr(items.where("name", "eq", "secret")) == "<asyncelt.Relation items of dataset 'raw' Where>"


@pytest.mark.covers("Relation.schema", "Relation.columns_schema")
async def test_columns_have_types_and_hints(dataset, items):
    schema = items.select("id", "at").schema
    assert schema.name == "items"
    assert [(one.name, one.data_type) for one in schema.columns.values()] == [("id", "bigint"), ("at", "timestamp")]
    assert dataset["items"].columns_schema["_dlt_id"].row_key


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "wrong",
    [
        lambda items: items.select("nope"),
        lambda items: items["nope"],
        lambda items: items[["id", "nope"]],
        lambda items: items.where("nope", "eq", 1),
        lambda items: items.order_by("nope"),
    ],
)
async def test_an_unknown_column_is_refused_at_once_and_says_what_there_is(items, wrong):
    with pytest.raises(UnknownColumn, match=r"no column 'nope'\. There are: id, name, price") as caught:
        wrong(items)

    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)
    assert not str(caught.value).startswith('"')


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda items: items.select(), "at least one column"),
        (lambda items: items.where("id", "like", 1), "no operator 'like'; there are: eq, ne"),
        (lambda items: items.where("id", "eq"), "takes a column, an operator and a value"),
        (lambda items: items.where("id", "eq", [1]), "one value"),
        (lambda items: items.where("id", "gt", None), "needs a value"),
        (lambda items: items.order_by("id", "down"), "'asc' or 'desc'"),
        (lambda items: items.limit(-1), "negative"),
        (lambda items: items.join("owners", kind="cross"), "inner, left, right, full"),
        (lambda items: items.join("owners", on=""), "cannot be empty"),
        (lambda items: items.join("owners", alias=""), "cannot be empty"),
    ],
)
async def test_wrong_arguments_are_refused_at_once(items, wrong, message):
    with pytest.raises(InvalidQuery, match=message):
        wrong(items)


@pytest.mark.parametrize(
    "relation, message",
    [
        (lambda items: items.where("nope > 1"), "no column 'nope'"),
        (lambda items: items.where("other.id > 1"), "no 'other' here"),
        (lambda items: items.where("id >"), "not a condition in SQL"),
        (lambda items: items.where("DROP TABLE items"), "not a condition"),
        (lambda items: items.where("id = ?"), "Parameter 1 has no value"),
        (lambda items: items.where("id = 1", parameters=[1]), "1 values were passed for 0"),
        (lambda items: items.where("id = :x", parameters=[1]), "names are not supported"),
        (lambda items: items.max(), "exactly one column"),
    ],
)
async def test_wrong_sql_is_refused_before_the_destination_is_asked(items, relation, message):
    with pytest.raises(QueryError, match=message):
        await relation(items).arrow()


async def test_a_condition_cannot_read_tables_that_are_not_there(items):
    with pytest.raises(UnknownTable, match="no table 'nope'"):
        await items.where("id IN (SELECT id FROM nope)").arrow()


async def test_columns_are_a_name_or_a_list(items):
    with pytest.raises(TypeError, match="not int"):
        items[5]
