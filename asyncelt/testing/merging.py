"""Conformance of merging by delete and insert, with nested tables."""

# ruff: noqa: S101, D102, FBT003 - tests: their names are sentences

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pytest

from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import list_idx_column, load_id_column, parent_id_column, root_id_column, row_id_column
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName

__all__ = ["MergeConformance", "child_table", "root_table"]


def root_table(name: str = "orders", **columns: Column) -> Table:
    """A root table that is merged; the columns' hints are given by name."""
    given = {ColumnName(key): column for key, column in columns.items()}
    system = {column.name: column for column in (load_id_column(), row_id_column())}

    return Table(name=TableName(name), columns={**given, **system}, resource=name, write_disposition="merge")


def child_table(name: str, parent: str, *, root_key: bool = True) -> Table:
    """A nested table of scalars."""
    keys = [parent_id_column(), list_idx_column(), row_id_column()]
    columns = [Column(name=ColumnName("value"), data_type="bigint"), *([root_id_column()] if root_key else []), *keys]

    return Table(name=TableName(name), columns={column.name: column for column in columns}, parent=TableName(parent))


def key(name: str, *, merge_key: bool = False) -> Column:
    """A column of a primary key, or of a merge key."""
    return Column(
        name=ColumnName(name),
        data_type="bigint",
        nullable=False,
        primary_key=not merge_key,
        merge_key=merge_key,
    )


def roots(rows: Sequence[Mapping[str, object]], load: str) -> pa.Table:
    """Root rows; each needs an ``_dlt_id``."""
    return pa.Table.from_pylist([{**row, "_dlt_load_id": load} for row in rows])


def children(rows: Sequence[tuple[str, str, int]], *, root_key: bool = True) -> pa.Table:
    """Nested rows: (root id, own id, value), directly below their root."""
    plain = [
        {"value": value, "_dlt_root_id": root, "_dlt_parent_id": root, "_dlt_list_idx": at, "_dlt_id": own}
        for at, (root, own, value) in enumerate(rows)
    ]
    table = pa.Table.from_pylist(plain)

    return table if root_key else table.drop_columns(["_dlt_root_id"])


class MergeConformance:
    """Needs the fixture ``owner``. Skipped where the destination has no delete-insert strategy."""

    @pytest.fixture
    def merger(self, owner: Owner) -> Owner:
        """The owner, if its destination can merge."""
        if "delete-insert" not in owner.destination.capabilities.merge_strategies:
            pytest.skip("the destination does not merge by delete-insert")

        return owner

    async def test_merge_replaces_rows_of_the_same_key_with_their_nested_rows(self, merger: Owner) -> None:
        tables = [root_table(id=key("id")), child_table("orders__items", "orders")]
        first = roots([{"id": 1, "v": "a", "_dlt_id": "r1"}, {"id": 2, "v": "b", "_dlt_id": "r2"}], "l1")
        nested = children([("r1", "c1", 10), ("r1", "c2", 11), ("r2", "c3", 20)])
        await merger.run({"orders": first, "orders__items": nested}, tables=tables)

        second = roots([{"id": 1, "v": "new", "_dlt_id": "r3"}, {"id": 3, "v": "c", "_dlt_id": "r4"}], "l2")
        await merger.run({"orders": second, "orders__items": children([("r3", "c4", 12), ("r4", "c5", 30)])})

        assert [(row["id"], row["v"]) for row in await by(merger, "orders", "id")] == [(1, "new"), (2, "b"), (3, "c")]
        found = await by(merger, "orders__items", "value")
        assert [(row["value"], row["_dlt_root_id"]) for row in found] == [(12, "r3"), (20, "r2"), (30, "r4")]

    async def test_merge_without_nested_rows_in_the_package_still_deletes_the_old_ones(self, merger: Owner) -> None:
        tables = [root_table(id=key("id")), child_table("orders__items", "orders")]
        first = roots([{"id": 1, "_dlt_id": "r1"}, {"id": 2, "_dlt_id": "r2"}], "l1")
        await merger.run(
            {"orders": first, "orders__items": children([("r1", "c1", 1), ("r2", "c2", 2)])}, tables=tables
        )
        await merger.run({"orders": roots([{"id": 1, "_dlt_id": "r3"}], "l2")})

        assert [row["value"] for row in await merger.rows("orders__items")] == [2]

    async def test_nested_rows_of_nested_rows_go_too(self, merger: Owner) -> None:
        deep = child_table("orders__items__tags", "orders__items", root_key=False)
        tables = [root_table(id=key("id")), child_table("orders__items", "orders", root_key=False), deep]

        for load, value in (("1", 10), ("2", 20)):
            items = children([(f"r{load}", f"i{load}", value)], root_key=False)
            tags = children([(f"i{load}", f"t{load}", value)], root_key=False)
            root = roots([{"id": 1, "_dlt_id": f"r{load}"}], load)
            await merger.run({"orders": root, "orders__items": items, "orders__items__tags": tags}, tables=tables)

        assert [row["value"] for row in await merger.rows("orders__items")] == [20]
        assert [row["value"] for row in await merger.rows("orders__items__tags")] == [20]

    async def test_of_rows_with_one_key_the_last_to_arrive_is_kept(self, merger: Owner) -> None:
        tables = [root_table(id=key("id")), child_table("orders__items", "orders")]
        rows = [{"id": 1, "v": at, "_dlt_id": f"r{at}"} for at in range(5)]
        files = [roots(rows[:3], "l1"), roots(rows[3:], "l1")]
        nested = children([(f"r{at}", f"c{at}", at) for at in range(5)])
        await merger.run({"orders": files, "orders__items": nested}, tables=tables)

        assert [row["v"] for row in await merger.rows("orders")] == [4]
        assert [row["value"] for row in await merger.rows("orders__items")] == [4]

    @pytest.mark.parametrize("order, kept", [("desc", "high"), ("asc", "low")])
    async def test_dedup_sort_chooses_among_rows_with_one_key(self, merger: Owner, order: str, kept: str) -> None:
        at = Column(name=ColumnName("at"), data_type="bigint", dedup_sort=order)
        rows: list[dict[str, object]] = [
            {"id": 1, "at": 5, "v": "middle", "_dlt_id": "r1"},
            {"id": 1, "at": 9, "v": "high", "_dlt_id": "r2"},
            {"id": 1, "at": 1, "v": "low", "_dlt_id": "r3"},
            {"id": 1, "at": None, "v": "null", "_dlt_id": "r4"},
        ]
        await merger.run({"orders": roots(rows, "l1")}, tables=[root_table(id=key("id"), at=at)])

        assert [row["v"] for row in await merger.rows("orders")] == [kept]

    @pytest.mark.parametrize("kind", ["bool", "timestamp"])
    async def test_rows_flagged_hard_delete_delete_and_are_not_inserted(self, merger: Owner, kind: str) -> None:
        gone = Column(name=ColumnName("gone"), data_type=kind, hard_delete=True)  # type: ignore[arg-type]
        tables = [root_table(id=key("id"), gone=gone), child_table("orders__items", "orders")]
        yes = pa.scalar(True) if kind == "bool" else pa.scalar(0, pa.timestamp("us", "UTC"))
        no = False if kind == "bool" else None
        first = [{"id": at, "gone": no, "_dlt_id": f"r{at}"} for at in (1, 2, 3)]
        nested = children([("r1", "c1", 1), ("r2", "c2", 2)])
        typed = pa.schema({"id": pa.int64(), "gone": yes.type, "_dlt_id": pa.string(), "_dlt_load_id": pa.string()})
        await merger.run(
            {"orders": roots(first, "l1").select(typed.names).cast(typed), "orders__items": nested}, tables=tables
        )

        flags = [{"id": at, "gone": yes.as_py(), "_dlt_id": f"x{at}"} for at in (2, 4)]
        second = roots(flags, "l2").select(typed.names).cast(typed)
        await merger.run({"orders": second, "orders__items": children([("x2", "c3", 3)])})

        assert [row["id"] for row in await by(merger, "orders", "id")] == [1, 3]
        assert [row["value"] for row in await merger.rows("orders__items")] == [1]

    async def test_a_merge_key_replaces_all_rows_of_its_value_and_keeps_duplicates(self, merger: Owner) -> None:
        tables = [root_table(day=key("day", merge_key=True)), child_table("orders__items", "orders")]
        first = [
            {"day": 1, "v": 1, "_dlt_id": "a"},
            {"day": 1, "v": 2, "_dlt_id": "b"},
            {"day": 2, "v": 3, "_dlt_id": "c"},
        ]
        nested = children([("a", "n1", 1), ("c", "n2", 3)])
        await merger.run({"orders": roots(first, "l1"), "orders__items": nested}, tables=tables)

        second = [{"day": 1, "v": 7, "_dlt_id": "d"}, {"day": 1, "v": 7, "_dlt_id": "e"}]
        await merger.run({"orders": roots(second, "l2")})

        assert [(row["day"], row["v"]) for row in await by(merger, "orders", "v")] == [(2, 3), (1, 7), (1, 7)]
        assert [row["value"] for row in await merger.rows("orders__items")] == [3]

    async def test_primary_key_or_merge_key_decides_where_both_are_set(self, merger: Owner) -> None:
        table = root_table(id=key("id"), day=key("day", merge_key=True))
        first = [{"id": at, "day": day, "_dlt_id": f"r{at}"} for at, day in ((1, 1), (2, 1), (3, 2), (4, 3))]
        await merger.run({"orders": roots(first, "l1")}, tables=[table])
        await merger.run({"orders": roots([{"id": 3, "day": 1, "_dlt_id": "x"}], "l2")})

        assert [(row["id"], row["day"]) for row in await by(merger, "orders", "id")] == [(3, 1), (4, 3)]

    async def test_compound_keys_match_on_all_their_columns(self, merger: Owner) -> None:
        table = root_table(a=key("a"), b=key("b"))
        first = [{"a": a, "b": b, "v": 0, "_dlt_id": f"{a}{b}"} for a in (1, 2) for b in (1, 2)]
        await merger.run({"orders": roots(first, "l1")}, tables=[table])
        await merger.run({"orders": roots([{"a": 1, "b": 2, "v": 9, "_dlt_id": "x"}], "l2")})

        assert [row["v"] for row in await merger.rows("orders")].count(9) == 1
        assert len(await merger.rows("orders")) == 4

    async def test_merge_without_keys_appends(self, merger: Owner) -> None:
        tables = [root_table(v=Column(name=ColumnName("v"), data_type="bigint"))]
        await merger.run({"orders": roots([{"v": 1, "_dlt_id": "a"}], "l1")}, tables=tables)
        await merger.run({"orders": roots([{"v": 1, "_dlt_id": "b"}], "l2")})

        assert len(await merger.rows("orders")) == 2

    async def test_the_same_package_merged_twice_changes_nothing(self, merger: Owner) -> None:
        tables = [root_table(id=key("id"))]
        package = await merger.make({"orders": roots([{"id": 1, "_dlt_id": "a"}], "l1")}, tables=tables)
        await merger.commit(package)
        again = await merger.commit(package)

        assert again.already_committed
        assert len(await merger.rows("orders")) == 1


async def by(owner: Owner, table: str, column: str) -> list[dict[str, object]]:
    """Rows of a table, sorted by one column."""
    return (await owner.table(table)).sort_by(column).to_pylist()
