"""Conformance of the merge strategies that find rows by their primary key: upsert, insert-only, cdc.

Their row ids are made of the key, so rows with one key have one id, and so have their nested rows.
"""

# ruff: noqa: S101, D102 - tests: their names are sentences

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
import pytest

from asyncelt.flow import ROOT_ROW
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import MergeConformance, child_table, key, root_table
from asyncelt.testing.packages import Tables
from asyncelt.types import ColumnName, MergeStrategy

__all__ = ["Document", "KeyedMergeConformance", "by_strategy", "contents", "documents", "needs", "orders_tables"]

Document = tuple[int, object, Sequence[int]]
"""A primary key, a value, and a nested list."""
KEYED: tuple[MergeStrategy, ...] = ("upsert", "insert-only", "cdc")
UPSERTS: tuple[MergeStrategy, ...] = ("upsert", "cdc")
FIRST, SECOND = (1, "a", [10, 11]), (2, "b", [20])


def by_strategy(table: Table, strategy: MergeStrategy, **hints: object) -> Table:
    """The table, merged by this strategy."""
    return replace(table, hints={**table.hints, "x-merge-strategy": strategy, **hints})  # type: ignore[dict-item]


def orders_tables(strategy: MergeStrategy, *, hints: dict[str, object] | None = None, **columns: Column) -> list[Table]:
    """A root table with the primary key ``id`` and a nested table of integers."""
    root = by_strategy(root_table("orders", id=key("id"), **columns), strategy, **(hints or {}))

    return [root, child_table("orders__items", "orders")]


def documents(given: Sequence[Document], load: str = "load", **columns: Sequence[object] | pa.Array[Any]) -> Tables:
    """Rows of both tables as the normalizer makes them: ids made of the key, numbered root rows."""
    roots = [
        {"id": number, "v": value, "_dlt_load_id": load, "_dlt_id": f"k{number}", ROOT_ROW: at}
        for at, (number, value, _) in enumerate(given)
    ]
    items = [
        {
            "value": item,
            "_dlt_root_id": f"k{number}",
            "_dlt_parent_id": f"k{number}",
            "_dlt_list_idx": place,
            "_dlt_id": f"k{number}-{place}",
            ROOT_ROW: at,
        }
        for at, (number, _, values) in enumerate(given)
        for place, item in enumerate(values)
    ]
    table = pa.Table.from_pylist(roots)

    for name, column in columns.items():
        table = table.append_column(name, column if isinstance(column, pa.Array) else pa.array(cast("Any", column)))

    return {"orders": table, **({"orders__items": pa.Table.from_pylist(items)} if items else {})}


async def contents(owner: Owner) -> list[tuple[object, object, list[object]]]:
    """What `documents` made, read back, by primary key."""
    items = sorted(await owner.rows("orders__items"), key=lambda row: str(row["_dlt_id"]))

    return sorted(
        (row["id"], row["v"], [item["value"] for item in items if item["_dlt_root_id"] == row["_dlt_id"]])
        for row in await owner.rows("orders")
    )


def needs(owner: Owner, strategy: MergeStrategy) -> None:
    """Skip the test if the destination does not have the strategy."""
    if strategy not in owner.destination.capabilities.merge_strategies:
        pytest.skip(f"the destination does not merge by {strategy}")


class KeyedMergeConformance(MergeConformance):
    """Tests of the strategies upsert, insert-only and cdc."""

    @pytest.mark.parametrize("strategy", UPSERTS)
    async def test_rows_of_a_known_key_are_replaced_with_their_lists(
        self, owner: Owner, strategy: MergeStrategy
    ) -> None:
        needs(owner, strategy)
        await owner.run(documents([FIRST, SECOND, (3, "c", [])]), tables=orders_tables(strategy))
        await owner.run(documents([(1, "A", [12]), (2, "b", [20, 21]), (3, "c", [30]), (4, "d", [40])]))

        assert await contents(owner) == [(1, "A", [12]), (2, "b", [20, 21]), (3, "c", [30]), (4, "d", [40])]
        assert len(await owner.rows("orders__items")) == 5

    async def test_upsert_leaves_other_rows_alone_and_cdc_deletes_them(self, owner: Owner) -> None:
        left: list[Document]

        for strategy in UPSERTS:
            needs(owner, strategy)
            left = [(2, "B", [])] if strategy == "cdc" else [FIRST, (2, "B", [])]
            await owner.run(documents([FIRST, SECOND]), tables=orders_tables(strategy))
            await owner.run(documents([(2, "B", [])]))

            assert await contents(owner) == left
            assert len(await owner.rows("orders__items")) == sum(len(items) for _, _, items in left)

    @pytest.mark.parametrize("strategy", KEYED)
    async def test_the_same_rows_again_change_nothing(self, owner: Owner, strategy: MergeStrategy) -> None:
        needs(owner, strategy)
        await owner.run(documents([FIRST, SECOND, (1, "z", [7])]), tables=orders_tables(strategy))
        before = await contents(owner), await owner.rows("orders__items")
        await owner.run(documents([FIRST, SECOND, (1, "z", [7])]))

        assert (await contents(owner), await owner.rows("orders__items")) == before

    async def test_rows_of_a_known_key_are_not_inserted_by_insert_only(self, owner: Owner) -> None:
        needs(owner, "insert-only")
        await owner.run(documents([FIRST]), tables=orders_tables("insert-only"))
        await owner.run(documents([(1, "A", [12, 13, 14]), SECOND]), tables=orders_tables("insert-only"))

        assert await contents(owner) == [FIRST, SECOND]
        assert len(await owner.rows("orders__items")) == 3

    @pytest.mark.parametrize("strategy", KEYED)
    async def test_of_rows_with_one_key_one_is_kept_with_the_list_it_came_with(
        self, owner: Owner, strategy: MergeStrategy
    ) -> None:
        needs(owner, strategy)
        rows = documents([(1, "a", [1, 2, 3]), (2, "b", []), (1, "c", [4]), (2, "d", [5, 6])])
        await owner.run(rows, tables=orders_tables(strategy))

        first, last = [(1, "a", [1, 2, 3]), (2, "b", [])], [(1, "c", [4]), (2, "d", [5, 6])]
        assert await contents(owner) == (first if strategy == "insert-only" else last)
        assert len(await owner.rows("orders__items")) == 3

    @pytest.mark.parametrize("order, kept", [("desc", "high"), ("asc", "low")])
    @pytest.mark.parametrize("strategy", KEYED)
    async def test_dedup_sort_chooses_for_every_strategy(
        self, owner: Owner, strategy: MergeStrategy, order: str, kept: str
    ) -> None:
        needs(owner, strategy)
        at = Column(name=ColumnName("at"), data_type="bigint", dedup_sort=order)
        given = [(1, "middle", [1]), (1, "high", [2, 3]), (1, "low", [4]), (1, "null", [5])]
        await owner.run(documents(given, at=[5, 9, 1, None]), tables=orders_tables(strategy, at=at))

        assert await contents(owner) == [(1, kept, [2, 3] if kept == "high" else [4])]

    @pytest.mark.parametrize("kind", ["bool", "timestamp"])
    @pytest.mark.parametrize("strategy", KEYED)
    async def test_a_flagged_row_deletes_and_is_not_inserted(
        self, owner: Owner, strategy: MergeStrategy, kind: str
    ) -> None:
        """Insert-only never deletes, but does not insert flagged rows either."""
        needs(owner, strategy)
        gone = Column(name=ColumnName("gone"), data_type=kind, hard_delete=True)  # type: ignore[arg-type]
        no, yes = (False, True) if kind == "bool" else (None, 0)
        flags = pa.array([yes, no, yes, no], pa.bool_() if kind == "bool" else pa.timestamp("us", "UTC"))
        tables = orders_tables(strategy, gone=gone)
        await owner.run(documents([FIRST, SECOND], gone=flags.take(pa.array([1, 3]))), tables=tables)
        await owner.run(documents([FIRST, SECOND, (3, "c", [30]), (4, "d", [40])], gone=flags))

        assert await contents(owner) == [*([FIRST] if strategy == "insert-only" else []), SECOND, (4, "d", [40])]
        assert len(await owner.rows("orders__items")) == (4 if strategy == "insert-only" else 2)

    @pytest.mark.parametrize("strategy", ["delete-insert", *KEYED])
    async def test_a_hint_on_a_column_that_never_had_a_value_says_nothing(
        self, owner: Owner, strategy: MergeStrategy
    ) -> None:
        """Nobody has such a column yet: no flag is set, and of rows with one key arrival decides."""
        needs(owner, strategy)
        gone = Column(name=ColumnName("gone"), hard_delete=True)
        at = Column(name=ColumnName("at"), dedup_sort="desc")
        tables = orders_tables(strategy, gone=gone, at=at)
        await owner.run(documents([(1, "a", [10]), (2, "b", [20]), (2, "c", [21, 22])]), tables=tables)
        await owner.run(documents([(3, "d", [30])]))

        two = (2, "b", [20]) if strategy == "insert-only" else (2, "c", [21, 22])
        kept = [] if strategy == "cdc" else [(1, "a", [10]), two]
        assert await contents(owner) == [*kept, (3, "d", [30])]

    @pytest.mark.parametrize("strategy", KEYED)
    async def test_compound_keys_match_as_a_whole(self, owner: Owner, strategy: MergeStrategy) -> None:
        needs(owner, strategy)
        tables = [by_strategy(root_table(a=key("a"), b=key("b")), strategy)]
        first = [{"a": a, "b": b, "v": 0, "_dlt_id": f"{a}{b}", "_dlt_load_id": "1"} for a in (1, 2) for b in (1, 2)]
        second = [{"a": 1, "b": b, "v": 9, "_dlt_id": f"1{b}", "_dlt_load_id": "2"} for b in (2, 3)]
        await owner.run({"orders": pa.Table.from_pylist(first)}, tables=tables)
        await owner.run({"orders": pa.Table.from_pylist(second)})

        found = sorted((row["a"], row["b"], row["v"]) for row in await owner.rows("orders"))
        expected = {
            "upsert": [(1, 1, 0), (1, 2, 9), (1, 3, 9), (2, 1, 0), (2, 2, 0)],
            "insert-only": [(1, 1, 0), (1, 2, 0), (1, 3, 9), (2, 1, 0), (2, 2, 0)],
            "cdc": [(1, 2, 9), (1, 3, 9)],
        }
        assert found == expected[strategy]

    async def test_cdc_deletes_absent_rows_of_the_merge_keys_that_have_arrived(self, owner: Owner) -> None:
        needs(owner, "cdc")
        tables = orders_tables("cdc", day=key("day", merge_key=True))
        await owner.run(documents([FIRST, SECOND, (3, "c", [30])], day=[1, 1, 2]), tables=tables)
        await owner.run(documents([(2, "B", [21])], day=[1]))

        assert await contents(owner) == [(2, "B", [21]), (3, "c", [30])]
        assert len(await owner.rows("orders__items")) == 2

    async def test_old_rows_are_found_by_their_key_whatever_their_id(self, owner: Owner) -> None:
        """A table that was appended to before has random ids."""
        needs(owner, "upsert")
        tables = orders_tables("upsert")
        appended = [replace(tables[0], write_disposition="append", hints={}), tables[1]]
        old = pa.Table.from_pylist([{"id": 1, "v": "old", "_dlt_load_id": "1", "_dlt_id": "random"}])
        item = {"value": 1, "_dlt_root_id": "random", "_dlt_parent_id": "random", "_dlt_list_idx": 0, "_dlt_id": "x"}
        await owner.run({"orders": old, "orders__items": pa.Table.from_pylist([item])}, tables=appended)
        await owner.run(documents([FIRST]), tables=tables)

        assert await contents(owner) == [FIRST]
        assert len(await owner.rows("orders__items")) == 2

    @pytest.mark.parametrize("strategy", UPSERTS)
    async def test_unchanged_rows_may_be_skipped(self, owner: Owner, strategy: MergeStrategy) -> None:
        needs(owner, strategy)
        gone = Column(name=ColumnName("gone"), data_type="bool", hard_delete=True)
        tables = orders_tables(strategy, hints={"x-merge-skip-unchanged-rows": True}, gone=gone)
        three = (3, None, [30])
        await owner.run(documents([FIRST, SECOND, three], "l1", gone=[False, False, False]), tables=tables)
        again = [FIRST, (2, "b", [21, 22]), (3, "c", [30])]
        await owner.run(documents(again, "l2", gone=[True, None, False]))

        assert await contents(owner) == again[1:]
        assert {row["id"]: row["_dlt_load_id"] for row in await owner.rows("orders")} == {2: "l1", 3: "l2"}
        assert len(await owner.rows("orders__items")) == 3

    async def test_a_row_version_alone_may_say_what_is_unchanged(self, owner: Owner) -> None:
        needs(owner, "upsert")
        version = Column(name=ColumnName("n"), data_type="bigint", nullable=False, extra={"x-row-version": True})
        tables = orders_tables("upsert", hints={"x-merge-skip-unchanged-rows": True}, n=version)
        await owner.run(documents([FIRST, SECOND], n=[1, 1]), tables=tables)
        await owner.run(documents([(1, "A", [10, 11]), (2, "B", [20])], n=[1, 2]))

        assert await contents(owner) == [FIRST, (2, "B", [20])]

    @pytest.mark.parametrize("strategy", KEYED)
    async def test_nested_rows_of_nested_rows_follow(self, owner: Owner, strategy: MergeStrategy) -> None:
        needs(owner, strategy)
        tables = [*orders_tables(strategy), child_table("orders__items__tags", "orders__items")]

        for load, value in enumerate((10, 20)):
            tag = {
                "value": value + 1,
                "_dlt_root_id": "k1",
                "_dlt_parent_id": "k1-0",
                "_dlt_list_idx": 0,
                "_dlt_id": "k1-0-0",
                ROOT_ROW: 0,
            }
            rows = {**documents([(1, "v", [value])], str(load)), "orders__items__tags": pa.Table.from_pylist([tag])}
            await owner.run(rows, tables=tables)

        kept = 10 if strategy == "insert-only" else 20
        assert [row["value"] for row in await owner.rows("orders__items")] == [kept]
        assert [row["value"] for row in await owner.rows("orders__items__tags")] == [kept + 1]
