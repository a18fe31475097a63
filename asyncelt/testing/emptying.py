"""Conformance of what goes before rows come: replaced, truncated and dropped tables, within the commit."""

# ruff: noqa: S101, D102 - tests: their names are sentences

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pytest

from asyncelt.failpoints import installed
from asyncelt.flow import Package
from asyncelt.schema.evolve import drop_tables
from asyncelt.schema.model import Table
from asyncelt.schema.system import LOADS_TABLE, VERSION_TABLE
from asyncelt.testing.fixture import Owner
from asyncelt.types import TableName

__all__ = ["EmptyingConformance"]

NESTED = Table(name=TableName("one__items"), parent=TableName("one"))
OLD = {"one": pa.table({"id": [1, 2, 3]}), "one__items": pa.table({"value": [1]}), "other": pa.table({"id": [7]})}
NEW = pa.table({"id": [4]})


class EmptyingConformance:
    """Tests of replacing, truncating and dropping."""

    @pytest.mark.parametrize("strategy", ["truncate-and-insert", "insert-from-staging"])
    async def test_every_strategy_of_replacing_gives_the_new_rows(self, owner: Owner, strategy: str) -> None:
        if strategy not in owner.destination.capabilities.replace_strategies:
            pytest.skip(f"the destination does not replace by {strategy}")

        table = Table(
            name=TableName("one"),
            resource="one",
            write_disposition="replace",
            hints={"x-replace-strategy": strategy},
        )
        await owner.run(OLD, tables=[table, NESTED], replaced=["one"])
        files = [pa.table({"id": [4], "new": ["x"]}), pa.table({"id": [5]})]
        await owner.run({"one": files}, replaced=["one"])

        rows = (await owner.table("one")).select(["id", "new"]).to_pylist()
        assert rows == [{"id": 4, "new": "x"}, {"id": 5, "new": None}]
        assert await owner.rows("one__items") == []
        assert await owner.rows("other") == [{"id": 7}]

    async def test_truncated_tables_lose_their_old_rows_only(self, owner: Owner) -> None:
        await owner.run(OLD, tables=[NESTED])
        package = await owner.make(
            {"one": pa.table({"id": [4], "new": ["x"]})}, truncated=["one", "one__items", "never"]
        )
        result = await owner.commit(package)

        assert await owner.rows("one") == [{"id": 4, "new": "x"}]
        assert await owner.rows("one__items") == []
        assert await owner.rows("other") == [{"id": 7}]
        assert dict(result.schema_updates[package.load_id]) == {"one": ("new",)}

    async def test_dropped_tables_are_made_anew_where_rows_come(self, owner: Owner) -> None:
        await owner.run(OLD, tables=[NESTED])
        package = await self.dropping(owner, {"one": pa.table({"other": ["x"]})}, ["one", "one__items", "never"])
        result = await owner.commit(package)

        assert await owner.rows("one") == [{"other": "x"}]
        assert not await owner.has("one__items")
        assert await owner.rows("other") == [{"id": 7}]
        assert dict(result.schema_updates[package.load_id]) == {"one": ("other",)}

    async def test_dropping_forgets_the_versions_of_the_schema_and_no_load(self, owner: Owner) -> None:
        await owner.run(OLD, tables=[NESTED])
        await owner.run({"more": NEW})
        package = await self.dropping(owner, {"one": NEW}, ["one", "one__items"])
        await owner.commit(package)

        [version] = await owner.rows(VERSION_TABLE)
        assert version["version_hash"] == package.schema.version_hash
        assert len(await owner.rows(LOADS_TABLE)) == 3

    async def test_dropping_happens_with_the_commit_or_not_at_all(self, owner: Owner) -> None:
        class Injected(Exception):
            pass

        def handle(_point: str) -> None:
            raise Injected

        await owner.run(OLD, tables=[NESTED])
        package = await self.dropping(owner, {"one": NEW}, ["one", "one__items"], truncated=["other"])

        with installed(handle), pytest.raises(Injected):
            await owner.commit(package)

        assert not await owner.committed(package.load_id)
        assert len(await owner.rows("one")) == 3
        assert await owner.rows("one__items") == [{"value": 1}]
        assert await owner.rows("other") == [{"id": 7}]

        await owner.commit(package)
        assert await owner.rows("one") == [{"id": 4}]
        assert not await owner.has("one__items")
        assert await owner.rows("other") == []

    async def test_rows_of_an_earlier_package_of_the_run_go_too(self, owner: Owner) -> None:
        await owner.run(OLD, tables=[NESTED])
        first = await owner.make({"one": NEW, "other": NEW})
        second = await owner.make({"one": NEW}, after=first, truncated=["other"], dropped=["one"])
        await owner.commit(first, second)

        assert await owner.rows("one") == [{"id": 4}]
        assert await owner.rows("other") == []

    async def dropping(
        self, owner: Owner, rows: dict[str, pa.Table], dropped: Sequence[str], truncated: Sequence[str] = ()
    ) -> Package:
        """A package whose schema has forgotten the dropped tables."""
        assert owner.last is not None
        forgotten = drop_tables(owner.last.schema, [TableName(name) for name in dropped])

        return await owner.make(rows, after=replace(owner.last, schema=forgotten), dropped=dropped, truncated=truncated)
