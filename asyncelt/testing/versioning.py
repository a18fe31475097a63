"""Conformance of the merge strategy scd2, which keeps every version of a record."""

# ruff: noqa: S101, D102 - tests: their names are sentences

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import load_id_column
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import child_table, key
from asyncelt.testing.packages import Tables
from asyncelt.testing.strategies import needs
from asyncelt.types import ColumnName, JsonValue, TableName

__all__ = ["VersionConformance"]

DAY = datetime(2024, 1, 1, tzinfo=UTC)
Record = tuple[int, str, Sequence[int]]
"""A natural key, a value, and a nested list; together they are the version."""


def versions_table(
    *columns: Column,
    names: tuple[str, str] = ("_dlt_valid_from", "_dlt_valid_to"),
    until: str | None = None,
    version: str = "_dlt_id",
    **hints: JsonValue,
) -> list[Table]:
    """A table that is merged by scd2, and a nested table without root keys, as the schema has them."""
    dates = [
        Column(name=ColumnName(names[0]), data_type="timestamp", extra={"x-valid-from": True}),
        Column(
            name=ColumnName(names[1]),
            data_type="timestamp",
            extra={"x-valid-to": True, "x-active-record-timestamp": until},
        ),
    ]
    told = Column(name=ColumnName(version), data_type="text", nullable=False, extra={"x-row-version": True})
    row_id = [Column(name=ColumnName("_dlt_id"), data_type="text", nullable=False, row_key=True, unique=True)]
    data = [Column(name=ColumnName("id"), data_type="bigint"), Column(name=ColumnName("v"), data_type="text")]
    own = {one.name for one in columns}
    every = [*dates, *(one for one in data if one.name not in own), *columns, load_id_column()]
    every += [told] if version == "_dlt_id" else [*row_id, told]
    root = Table(
        name=TableName("orders"),
        columns={one.name: one for one in every},
        resource="orders",
        write_disposition="merge",
        hints={"x-merge-strategy": "scd2", **hints},
    )

    return [root, child_table("orders__items", "orders", root_key=False)]


def on(tables: Sequence[Table], day: int) -> list[Table]:
    """The tables as they are when the load's boundary is this day."""
    boundary = (DAY + timedelta(days=day)).isoformat()
    root = replace(tables[0], hints={**tables[0].hints, "x-boundary-timestamp": boundary})

    return [root, *tables[1:]]


def records(given: Sequence[Record], **columns: Sequence[object]) -> Tables:
    """Rows of both tables, with ids made of the whole record."""
    ids = [f"{number}{value}{list(items)}" for number, value, items in given]
    roots: dict[str, Sequence[object]] = {
        "id": [number for number, _, _ in given],
        "v": [value for _, value, _ in given],
        "_dlt_load_id": ["load"] * len(given),
        "_dlt_id": ids,
        **columns,
    }
    nested = [
        {"value": item, "_dlt_parent_id": ids[at], "_dlt_list_idx": place, "_dlt_id": f"{ids[at]}-{place}"}
        for at, (_, _, items) in enumerate(given)
        for place, item in enumerate(items)
    ]

    return {"orders": pa.table(dict(roots)), **({"orders__items": pa.Table.from_pylist(nested)} if nested else {})}


async def history(
    owner: Owner, names: Sequence[str] = ("_dlt_valid_from", "_dlt_valid_to")
) -> list[tuple[object, ...]]:
    """(key, value, first day, last day) of all versions; no last day while it is valid."""
    rows = await owner.rows("orders")

    return sorted(((row["id"], row["v"], *(_day(row[name]) for name in names)) for row in rows), key=repr)


def _day(moment: object) -> int | None:
    return None if moment is None else (moment - DAY).days  # type: ignore[operator]


class VersionConformance:
    """Tests of the strategy scd2."""

    @pytest.fixture
    def keeper(self, owner: Owner) -> Owner:
        """The owner, if its destination keeps versions."""
        needs(owner, "scd2")

        return owner

    async def test_versions_end_when_they_change_or_are_absent(self, keeper: Owner) -> None:
        tables = versions_table()
        await keeper.run(records([(1, "a", [1]), (2, "b", [2]), (3, "c", [3])]), tables=on(tables, 1))
        await keeper.run(records([(1, "a", [1]), (2, "B", [2])]), tables=on(tables, 2))

        assert await history(keeper) == [(1, "a", 1, None), (2, "B", 2, None), (2, "b", 1, 2), (3, "c", 1, 2)]
        assert sorted(str(row["value"]) for row in await keeper.rows("orders__items")) == ["1", "2", "2", "3"]

    async def test_a_change_in_a_nested_list_makes_a_version(self, keeper: Owner) -> None:
        tables = versions_table()
        await keeper.run(records([(1, "a", [1])]), tables=on(tables, 1))
        await keeper.run(records([(1, "a", [1, 2])]), tables=on(tables, 2))

        assert await history(keeper) == [(1, "a", 1, 2), (1, "a", 2, None)]
        assert len(await keeper.rows("orders__items")) == 3

    async def test_a_version_that_comes_back_finds_its_nested_rows(self, keeper: Owner) -> None:
        tables = versions_table()

        for day, value in enumerate("aba"):
            await keeper.run(records([(1, value, [1, 2])]), tables=on(tables, day))

        assert await history(keeper) == [(1, "a", 0, 1), (1, "a", 2, None), (1, "b", 1, 2)]
        assert len(await keeper.rows("orders__items")) == 4

    async def test_a_version_that_comes_twice_in_one_load_is_kept_once(self, keeper: Owner) -> None:
        await keeper.run(records([(1, "a", [1]), (2, "b", []), (1, "a", [1])]), tables=on(versions_table(), 1))

        assert await history(keeper) == [(1, "a", 1, None), (2, "b", 1, None)]
        assert len(await keeper.rows("orders__items")) == 1

    async def test_of_versions_of_one_primary_key_in_one_load_the_last_becomes_active(self, keeper: Owner) -> None:
        tables = versions_table(key("id"))
        await keeper.run(records([(1, "a", [1]), (1, "b", [2])]), tables=on(tables, 1))
        await keeper.run(records([(1, "b", [2]), (1, "c", [3])]), tables=on(tables, 2))

        assert await history(keeper) == [(1, "b", 1, 2), (1, "c", 2, None)]
        assert sorted(str(row["value"]) for row in await keeper.rows("orders__items")) == ["2", "3"]

    async def test_a_merge_key_leaves_records_alone_that_a_load_says_nothing_about(self, keeper: Owner) -> None:
        tables = versions_table(key("id", merge_key=True))
        await keeper.run(records([(1, "a", []), (2, "b", [])]), tables=on(tables, 1))
        await keeper.run(records([(2, "B", [])]), tables=on(tables, 2))

        assert await history(keeper) == [(1, "a", 1, None), (2, "B", 2, None), (2, "b", 1, 2)]

    async def test_names_and_the_end_of_active_versions_may_be_given(self, keeper: Owner) -> None:
        tables = versions_table(names=("since", "till"), until=(DAY + timedelta(days=9999)).isoformat())
        await keeper.run(records([(1, "a", []), (2, "b", [])]), tables=on(tables, 1))
        await keeper.run(records([(1, "a", []), (2, "B", [])]), tables=on(tables, 2))

        found = await history(keeper, ("since", "till"))
        assert found == [(1, "a", 1, 9999), (2, "B", 2, 9999), (2, "b", 1, 2)]

    async def test_without_a_boundary_the_time_of_the_package_is_taken(self, keeper: Owner) -> None:
        tables = versions_table()
        first = await keeper.make(records([(1, "a", [])]), tables=tables)
        await keeper.commit(first)
        second = await keeper.make(records([(1, "b", [])]), tables=tables)
        await keeper.commit(second)
        made = [datetime.fromtimestamp(package.created_at, UTC) for package in (first, second)]

        rows = sorted(await keeper.rows("orders"), key=lambda row: str(row["v"]))
        found = [(row["_dlt_valid_from"], row["_dlt_valid_to"]) for row in rows]
        assert found == [(made[0], made[1]), (made[1], None)]

    async def test_a_column_of_the_user_may_be_the_version(self, keeper: Owner) -> None:
        """Row ids are random then; rows that are there already must not bring their nested rows again."""
        tables = versions_table(version="hash")
        await keeper.run(records([(1, "a", [1]), (2, "b", [2])], hash=["x", "y"]), tables=on(tables, 1))
        again = records([(1, "a", [1]), (2, "B", [3])], hash=["x", "z"], _dlt_id=["other", "2B[3]"])
        await keeper.run(again, tables=on(tables, 2))

        assert await history(keeper) == [(1, "a", 1, None), (2, "B", 2, None), (2, "b", 1, 2)]
        items = await keeper.rows("orders__items")
        owners = {row["_dlt_id"] for row in await keeper.rows("orders")}
        assert sorted(str(row["value"]) for row in items) == ["1", "2", "3"]
        assert all(row["_dlt_parent_id"] in owners for row in items)
