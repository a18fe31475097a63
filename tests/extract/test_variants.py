"""Hints of single tables, and the schema that hints make before anything is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt import mark
from asyncelt.errors import ConfigError
from tests.support.bad_rows import make, rows_of


async def events() -> AsyncIterator[object]:
    yield [{"id": 1, "kind": "a"}]
    yield mark.with_table_name([{"id": 1, "kind": "old"}, {"id": 1, "kind": "b"}], "others")


@pytest.mark.covers("Resource.apply_hints.create_table_variant")
async def test_a_table_has_hints_of_its_own(tmp_path: Path) -> None:
    resource = asyncelt.resource(events, name="events", columns={"kind": {"data_type": "text", "precision": 9}})
    before = resource.clone()
    resource.apply_hints(
        "others",
        create_table_variant=True,
        write_disposition="merge",
        primary_key="id",
        columns={"kind": {"description": "of a variant"}},
    )
    pipeline = make(tmp_path, "memory")

    for _ in range(2):
        await pipeline.run(resource)

    assert len(await rows_of(pipeline, "events", "id")) == 2
    assert await rows_of(pipeline, "others", "id", "kind") == [(1, "b")]

    tables = pipeline.default_schema.tables
    found = {
        name: (table.write_disposition, table.columns["kind"].precision)
        for name, table in tables.items()
        if name in ("events", "others")
    }
    assert found == {"events": ("append", 9), "others": ("merge", 9)}
    assert tables["others"].columns["kind"].extra["description"] == "of a variant"  # type: ignore[index]
    assert before.table_hints("others").write_disposition is None


async def test_a_variant_comes_to_rows_that_a_function_sends_there(tmp_path: Path) -> None:
    rows = [{"id": 1, "to": "a"}, {"id": 1, "to": "b"}, {"id": 1, "to": "b"}]
    resource = asyncelt.resource(rows, name="r", table_name=lambda row: row["to"])
    resource.apply_hints("b", create_table_variant=True, write_disposition="merge", primary_key="id")
    pipeline = make(tmp_path, "memory")
    await pipeline.run(resource)

    assert (await rows_of(pipeline, "a", "id"), await rows_of(pipeline, "b", "id")) == ([(1,)], [(1,)])


def test_what_a_variant_cannot_be() -> None:
    resource = asyncelt.resource([], name="r")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "needs the name of a table, not None"),
        ({"table_name": "t", "incremental": {"cursor_path": "at"}}, "of the whole resource"),
        ({"table_name": "t", "on_error": "skip"}, "of the whole resource"),
        ({"table_name": "t", "primary_key": lambda row: "id"}, "cannot be functions: primary_key"),
        ({"table_name": "t", "write_disposition": "no"}, "no"),
    ]

    for arguments, message in wrong:
        with pytest.raises(ConfigError, match=message):
            resource.apply_hints(create_table_variant=True, **arguments)

    assert resource.table_hints("t").additional == {}


@pytest.mark.covers("Source.discover_schema", "Source.discover_schema.item", "mark.make_nested_hints")
def test_a_source_knows_its_schema_before_it_is_read() -> None:
    def rows() -> list[object]:
        raise AssertionError("nobody reads")

    orders = asyncelt.resource(
        rows,
        name="Orders",
        primary_key="orderId",
        nested_hints={"Lines": mark.make_nested_hints(columns={"No": {"data_type": "bigint"}}, primary_key="No")},
    )
    named = asyncelt.resource(rows, name="named", table_name=lambda row: row["to"])
    left = asyncelt.resource(rows, name="left", selected=False)
    source = asyncelt.Source("shop", [orders, named, left])

    schema = source.discover_schema()
    assert [name for name in schema.tables if not name.startswith("_")] == ["orders", "orders__lines"]
    assert schema.tables["orders"].columns["order_id"].primary_key  # type: ignore[index]
    assert schema.tables["orders__lines"].columns["no"].data_type == "bigint"  # type: ignore[index]
    assert "there" in source.discover_schema({"to": "there"}).tables
    assert source.given_schema is None


@pytest.mark.covers("Source.exhausted")
async def test_a_source_knows_whether_it_can_be_read_again() -> None:
    def rows() -> Any:
        yield {"id": 1}

    async def pages() -> AsyncIterator[object]:
        yield {"id": 1}

    once = asyncelt.Source("s", [asyncelt.resource(rows(), name="one"), asyncelt.resource([1], name="list")])
    again = asyncelt.Source("s", [asyncelt.resource(rows, name="one")])
    twice = asyncelt.resource(pages(), name="pages") | asyncelt.transformer(lambda row: row, name="t")
    behind = asyncelt.Source("s", [twice])
    assert [source.exhausted for source in (once, again, behind)] == [False, False, False]

    for source in (once, again, behind):
        assert [row async for row in source]

    assert [source.exhausted for source in (once, again, behind)] == [True, False, True]
    assert not once.with_resources("list").exhausted
