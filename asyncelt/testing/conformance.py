"""The conformance suite: what every destination has to do. Subclass it and override the fixture ``destination``."""

# ruff: noqa: S101, D102, DTZ001 - tests: their names are sentences, their figures data

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pyarrow as pa
import pytest

from asyncelt.errors import AsynceltError, LeaseLost
from asyncelt.failpoints import Handler, installed
from asyncelt.load.protocol import Destination, Known, Lease, Restored, Session, SupportsTakeOver, Target
from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import LOADS_TABLE, VERSION_TABLE
from asyncelt.testing.emptying import EmptyingConformance
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit
from asyncelt.testing.positions import PositionConformance
from asyncelt.testing.strategies import KeyedMergeConformance
from asyncelt.testing.streaming import ReadingConformance
from asyncelt.testing.versioning import VersionConformance
from asyncelt.types import ColumnName, FileFormat, LoadId, TableName

__all__ = ["DestinationConformance"]

ONE = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]})
TWO = pa.table({"id": [4], "name": ["d"]})

EVERY_TYPE: dict[str, pa.Array[Any]] = {
    "t": pa.array(["text", "", None], pa.string()),
    "i": pa.array([2**63 - 1, -(2**63), None], pa.int64()),
    "d": pa.array([0.1, float("-1e300"), None], pa.float64()),
    "b": pa.array([True, False, None], pa.bool_()),
    "ts": pa.array([dt.datetime(2024, 2, 29, 12, 30, 1, 123456, dt.UTC), None, None], pa.timestamp("us", "UTC")),
    "naive": pa.array([dt.datetime(1970, 1, 1), dt.datetime(2262, 1, 1, 1, 2, 3, 4), None], pa.timestamp("us")),
    "da": pa.array([dt.date(1969, 12, 31), dt.date(9999, 12, 31), None], pa.date32()),
    "ti": pa.array([dt.time(23, 59, 59, 999999), dt.time(0), None], pa.time64("us")),
    "de": pa.array([Decimal("-12345678901234567890.123456789"), Decimal("0.000000001"), None], pa.decimal128(38, 9)),
    "w": pa.array([Decimal(10) ** 37, Decimal(-1), None], pa.decimal128(38, 0)),
    "by": pa.array([b"\x00\xff'\"", b"", None], pa.binary()),
    "js": pa.array(['{"a": [1, "\u00fc", null]}', "[]", None], pa.string()),
}
ODD_NAMES = ('quote"d', "select", "with space", "\u00fcml\u00e4ut", "semi;colon", "per%cent", "order", "\u65e5\u672c")


class DestinationConformance(
    KeyedMergeConformance, VersionConformance, EmptyingConformance, PositionConformance, ReadingConformance
):
    """Tests that any destination passes. Each commits packages made from Arrow tables and reads them back."""

    cancelled_after: ClassVar[Sequence[int]] = (0, 1, 2, 3, 5, 8, 13, 21)
    """Turns of the loop after which a commit is cancelled. Fewer, where each one is many requests to a server."""
    spared: ClassVar[frozenset[str]] = frozenset()
    """Failpoints at which a commit is not made to fail, because they differ from another one in nothing."""

    @pytest.fixture
    def destination(self) -> Destination:
        """Override: a destination with nothing in it."""
        raise NotImplementedError("override the fixture 'destination'")

    @pytest.fixture
    def file_format(self, destination: Destination) -> FileFormat:
        """Override to test with another format than the preferred one."""
        return destination.capabilities.file_formats[0]

    @pytest.fixture
    def owner(self, destination: Destination, file_format: FileFormat, tmp_path: Path) -> Owner:
        """Makes and commits packages of one pipeline."""
        return Owner(destination, tmp_path / "packages", file_format)

    async def test_an_empty_dataset_restores_to_nothing(self, owner: Owner) -> None:
        restored = await owner.restore()

        assert not restored.exists
        assert (restored.state, restored.last_load_id, restored.head_load_id) == (None, None, None)
        assert dict(restored.schemas) == {}
        assert await owner.committed(LoadId("1.0")) == frozenset()

    async def test_a_session_that_is_not_used_leaves_nothing(self, owner: Owner) -> None:
        async with owner.destination.connect(owner.target) as session:
            assert isinstance(session, Session)

        assert not (await owner.restore()).exists

    async def test_a_commit_makes_all_tables_state_and_load_row_visible(self, owner: Owner) -> None:
        package = await owner.make({"one": ONE, "two": TWO}, state="first state")
        result = await owner.commit(package)

        assert result.load_ids == (package.load_id,)
        assert not result.already_committed
        assert result.schema_updates[package.load_id]["one"] == ("id", "name")
        assert (await owner.table("one")).select(["id", "name"]).to_pylist() == ONE.to_pylist()
        assert await owner.rows("two") == TWO.to_pylist()
        assert await owner.committed(package.load_id, LoadId("9.9")) == {package.load_id}

        [load] = await owner.rows(LOADS_TABLE)
        assert (load["load_id"], load["schema_name"], load["status"]) == (package.load_id, package.schema.name, 0)
        assert load["schema_version_hash"] == package.schema.version_hash

    async def test_tables_without_a_load_are_made_and_leave_no_load(self, owner: Owner) -> None:
        first = await owner.make({"one": ONE}, state="first state")
        await owner.commit(first)
        wider = await owner.make({"one": ONE.append_column("new", [["x"] * 3]).slice(0, 0), "two": TWO.slice(0, 0)})

        async with owner.destination.connect(owner.target) as session:
            commit = replace(make_commit(owner.target, await owner.acquire(session), wider), is_load=False)
            result = await owner.commit_in(session, commit)
            again = await owner.commit_in(session, commit)

        assert result.schema_updates[wider.load_id] == {"one": ("new",), "two": ("id", "name")}
        assert not any(again.schema_updates.values())
        assert await owner.committed(first.load_id, wider.load_id) == {first.load_id}
        assert len(await owner.rows(LOADS_TABLE)) == 1
        assert {row["new"] for row in await owner.rows("one")} == {None}
        assert await owner.rows("two") == []

        restored = await owner.restore()
        assert (restored.head_load_id, restored.last_load_id) == (first.load_id, first.load_id)
        assert '"new"' in restored.schemas[wider.schema.name]

        # The chain goes on where it was.
        await owner.run({"two": TWO})
        assert await owner.rows("two") == TWO.to_pylist()

    async def test_tables_without_a_load_are_refused_to_an_owner_that_has_lost_its_lease(self, owner: Owner) -> None:
        await owner.run({"one": ONE})
        wider = await owner.make({"two": TWO.slice(0, 0)})

        async with owner.destination.connect(owner.target) as session:
            commit = replace(make_commit(owner.target, await owner.acquire(session), wider), is_load=False)
            await session.acquire(owner.target.pipeline_name, owner.target.member)

            with pytest.raises(LeaseLost):
                await owner.commit_in(session, commit)

        # Tables may have been made before; the schema that has them is not there.
        assert '"two"' not in (await owner.restore()).schemas[wider.schema.name]

    async def test_restore_gives_state_schema_and_load_ids(self, owner: Owner) -> None:
        await owner.run({"one": ONE}, state="old")
        newest = await owner.make({"one": ONE, "two": TWO}, state="new")
        await owner.commit(newest)
        last = await owner.make({"one": ONE})
        await owner.commit(last)
        restored = await owner.restore()

        assert restored.exists
        assert (restored.state, restored.state_load_id) == ("new", newest.load_id)
        assert (restored.last_load_id, restored.head_load_id) == (last.load_id, last.load_id)
        assert list(restored.schemas) == [last.schema.name]
        assert last.schema.version_hash in restored.schemas[last.schema.name]

    async def test_taking_over_is_taking_the_lease_and_restoring(self, owner: Owner) -> None:
        name, member = owner.target.pipeline_name, owner.target.member

        async with owner.destination.connect(owner.target) as session:
            if not isinstance(session, SupportsTakeOver):
                pytest.skip("the destination has two calls for it")

            known = Known(load_id=LoadId("1.0"), state="known")
            assert await session.take_over(name, member, known) == (Lease(epoch=1), Restored())

        await owner.run({"one": ONE}, state="state")
        assert owner.last is not None
        known = Known(load_id=owner.last.load_id, state="state")

        async with owner.destination.connect(owner.target) as session:
            assert isinstance(session, SupportsTakeOver)
            whole = await session.restore(name)
            first, found = await session.take_over(name, member, known)
            assert found == replace(whole, is_known=True, schemas={}, state_load_id=None)

            for changed in (replace(known, state="other"), replace(known, load_id=LoadId("1.0")), None):
                later, found = await session.take_over(name, member, changed)
                assert found == whole
                assert later == replace(first, epoch=later.epoch)
                assert later.epoch > first.epoch

    async def test_a_schema_is_stored_once_per_content(self, owner: Owner) -> None:
        await owner.run({"one": ONE})
        await owner.run({"one": ONE})
        assert len(await owner.rows(VERSION_TABLE)) == 1

        await owner.run({"two": TWO})
        assert len(await owner.rows(VERSION_TABLE)) == 2

    async def test_a_package_commits_at_most_once(self, owner: Owner) -> None:
        package = await owner.make({"one": ONE}, state="s")
        await owner.commit(package)
        again = await owner.commit(package)

        assert again.already_committed
        assert again.load_ids == (package.load_id,)
        assert len(await owner.rows("one")) == 3
        assert len(await owner.rows(LOADS_TABLE)) == 1

    async def test_jobs_of_a_table_keep_their_order(self, owner: Owner) -> None:
        files = [pa.table({"at": list(range(start, start + 50))}) for start in range(0, 500, 50)]
        await owner.run({"ordered": files})
        await owner.run({"ordered": pa.table({"at": [500]})})

        assert (await owner.table("ordered")).column("at").to_pylist() == list(range(501))

    async def test_packages_of_one_run_commit_together(self, owner: Owner) -> None:
        first = await owner.make({"one": ONE}, state="1")
        second = await owner.make({"one": TWO}, state="2", after=first)
        result = await owner.commit(first, second, run_id="run-1")
        restored = await owner.restore()

        assert result.load_ids == (first.load_id, second.load_id)
        assert len(await owner.rows("one")) == 4
        assert (restored.state, restored.head_load_id) == ("2", second.load_id)

    async def test_run_id_finds_the_loads_of_a_run(self, owner: Owner) -> None:
        first = await owner.make({"one": ONE})
        second = await owner.make({"one": TWO}, after=first)
        await owner.commit(first, second, run_id="nightly")

        async with owner.destination.connect(owner.target) as session:
            assert await session.run_of(owner.target.pipeline_name, "nightly") == (first.load_id, second.load_id)
            assert await session.run_of(owner.target.pipeline_name, "other") == ()
            assert await session.run_of("other", "nightly") == ()

    async def test_a_commit_on_an_old_parent_is_refused(self, owner: Owner) -> None:
        first = await owner.make({"one": ONE})
        rival = await owner.make({"one": TWO})
        await owner.commit(first)

        with pytest.raises(LeaseLost):
            await owner.commit(rival)

        assert len(await owner.rows("one")) == 3
        assert await owner.committed(rival.load_id) == frozenset()

    async def test_a_commit_under_an_old_lease_is_refused(self, owner: Owner) -> None:
        await owner.run({"one": ONE})
        old = await owner.make({"one": TWO})

        async with owner.destination.connect(owner.target) as session:
            newer = await session.acquire(owner.target.pipeline_name, owner.target.member)

        assert owner.lease is not None
        assert newer.epoch > owner.lease.epoch

        with pytest.raises(LeaseLost):
            await owner.commit(old)

        owner.lease = newer
        await owner.commit(old)
        assert len(await owner.rows("one")) == 4

    async def test_members_of_a_pipeline_have_heads_of_their_own(self, owner: Owner) -> None:
        await owner.run({"one": ONE})
        other = Owner(
            owner.destination,
            owner.folder / "member",
            owner.file_format,
            Target(pipeline_name=owner.target.pipeline_name, dataset_name="data", member="b"),
            clock=owner.clock + 1000,
        )
        package = await other.make({"one": TWO})
        await other.commit(package)

        assert (await other.restore()).head_load_id == package.load_id
        assert owner.last is not None
        assert (await owner.restore()).head_load_id == owner.last.load_id
        assert (await owner.restore()).last_load_id == package.load_id

    async def test_pipelines_that_commit_at_the_same_time_all_get_through(self, owner: Owner) -> None:
        owners = [
            Owner(
                owner.destination,
                owner.folder,
                owner.file_format,
                Target(pipeline_name=f"side_by_side_{at}", dataset_name="data"),
                clock=owner.clock + 1000 * at,
            )
            for at in range(3)
        ]

        async with anyio.create_task_group() as tasks:
            for at, one in enumerate(owners):
                tasks.start_soon(_run_twice, one, pa.table({"pipeline": [at]}))

        assert sorted(str(row["pipeline"]) for row in await owner.rows("shared")) == list("001122")
        assert len(await owner.rows(LOADS_TABLE)) == 6

    async def test_replace_puts_new_rows_in_place_of_the_old(self, owner: Owner) -> None:
        table = Table(name=TableName("one"), resource="one", write_disposition="replace")
        await owner.run({"one": ONE, "other": ONE}, tables=[table], replaced=["one"])
        await owner.run({"one": TWO}, replaced=["one"])

        assert await owner.rows("one") == TWO.to_pylist()
        assert len(await owner.rows("other")) == 3

    async def test_replace_without_rows_empties_the_table_and_its_nested_tables(self, owner: Owner) -> None:
        nested = Table(name=TableName("one__items"), parent=TableName("one"))
        table = Table(name=TableName("one"), resource="one", write_disposition="replace")
        items = pa.table({"value": [1, 2]})
        await owner.run({"one": ONE, "one__items": items, "kept": TWO}, tables=[table, nested], replaced=["one"])
        await owner.run({}, replaced=["one"], state="after")

        assert await owner.rows("one") == []
        assert await owner.rows("one__items") == []
        assert await owner.rows("kept") == TWO.to_pylist()

    async def test_replace_of_a_table_that_is_not_there_does_nothing(self, owner: Owner) -> None:
        table = Table(name=TableName("never"), resource="never", write_disposition="replace")
        await owner.run({"one": ONE}, tables=[table], replaced=["never"])

        assert not await owner.has("never")

    async def test_a_package_without_rows_commits_state_and_load_row(self, owner: Owner) -> None:
        await owner.run({}, state="only state")

        assert (await owner.restore()).state == "only state"
        assert len(await owner.rows(LOADS_TABLE)) == 1

    async def test_a_job_without_rows_makes_the_table(self, owner: Owner) -> None:
        await owner.run({"empty": ONE.slice(0, 0)})

        assert await owner.rows("empty") == []

    async def test_columns_that_come_later_are_null_in_older_rows(self, owner: Owner) -> None:
        await owner.run({"one": pa.table({"id": [1]})})
        result = await owner.run({"one": [pa.table({"id": [2], "x": ["new"]}), pa.table({"y": [0.5]})]})

        assert next(iter(result.schema_updates.values()))["one"] == ("x", "y")
        rows = (await owner.table("one")).sort_by("id").to_pylist()
        assert [(row["id"], row["x"], row["y"]) for row in rows] == [
            (1, None, None),
            (2, "new", None),
            (None, None, 0.5),
        ]

    async def test_every_data_type_comes_back(self, owner: Owner) -> None:
        columns = [
            Column(name=ColumnName("js"), data_type="json"),
            Column(name=ColumnName("w"), data_type="wei"),
            Column(name=ColumnName("naive"), data_type="timestamp", timezone=False),
        ]
        table = Table(name=TableName("types"), resource="types", columns={one.name: one for one in columns})
        await owner.run({"types": pa.table(EVERY_TYPE)}, tables=[table])
        found = (await owner.table("types")).select(list(EVERY_TYPE))

        for name, expected in EVERY_TYPE.items():
            assert found.column(name).to_pylist() == expected.to_pylist(), name

    async def test_names_may_have_any_character(self, owner: Owner) -> None:
        rows = pa.table({name: [at] for at, name in enumerate(ODD_NAMES)})
        await owner.run(dict.fromkeys(ODD_NAMES, rows))

        for name in ODD_NAMES:
            assert (await owner.table(name)).select(list(ODD_NAMES)).to_pylist() == rows.to_pylist()

    async def test_a_commit_that_fails_anywhere_leaves_all_or_nothing(self, owner: Owner) -> None:
        """Every failpoint that a commit passes raises once; afterwards the same commit goes through."""
        await owner.run({"one": ONE}, state="before")
        points = await _points_of(owner)
        assert points, "the destination passes no failpoint (asyncelt.failpoints) in its commit"

        for point in dict.fromkeys(point for point in points if point not in self.spared):
            package = await owner.make({"one": TWO}, state=point)
            before = len(await owner.rows("one"))

            with installed(_raising_at(point)), pytest.raises(_Injected):
                await owner.commit(package)

            happened = bool(await owner.committed(package.load_id))
            assert len(await owner.rows("one")) == before + happened, point
            assert ((await owner.restore()).state == point) == happened, point

            await owner.commit(package)
            assert len(await owner.rows("one")) == before + 1, point

    async def test_a_cancelled_commit_leaves_all_or_nothing(self, owner: Owner) -> None:
        """Cancelled after each number of turns of the loop; afterwards the same commit goes through."""
        await owner.run({"one": ONE}, state="before")

        for turns in self.cancelled_after:
            package = await owner.make({"one": TWO}, state=str(turns))
            before = len(await owner.rows("one"))
            task = asyncio.ensure_future(owner.commit(package))

            for _ in range(turns):
                await asyncio.sleep(0)

            task.cancel()
            await asyncio.wait([task])
            happened = bool(await owner.committed(package.load_id))
            assert len(await owner.rows("one")) == before + happened, turns

            await owner.commit(package)
            assert len(await owner.rows("one")) == before + 1, turns

    async def test_errors_are_of_this_library(self, owner: Owner) -> None:
        async with owner.destination.connect(owner.target) as session:
            query = getattr(session, "query", None)

            if query is None:
                pytest.skip("the destination cannot be queried")

            with pytest.raises(AsynceltError):
                await query("SELECT * FROM there_is_no_such_table")


class _Injected(Exception):
    """Raised by a failpoint."""


def _raising_at(point: str) -> Handler:
    def handle(passed: str) -> None:
        if passed == point:
            raise _Injected(point)

    return handle


async def _points_of(owner: Owner) -> Sequence[str]:
    passed: list[str] = []

    with installed(passed.append):
        async with owner.destination.connect(owner.target) as session:
            lease = await owner.acquire(session)
            package = await owner.make({"one": TWO}, state="points")
            passed.clear()
            await owner.commit_in(session, make_commit(owner.target, lease, package))

    owner.last = package

    return tuple(passed)


async def _run_twice(owner: Owner, rows: pa.Table) -> None:
    await owner.run({"shared": rows})
    await owner.run({"shared": rows})
