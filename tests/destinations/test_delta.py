"""Tables in Delta format: one commit per table and package, recognised when it is made again. Local, and in a bucket."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import asyncelt
from asyncelt import destinations
from asyncelt.errors import DestinationRejected, Unsupported
from asyncelt.failpoints import installed
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName

pytestmark = pytest.mark.slow

ONE = pa.table({"id": [1, 2], "v": ["a", "b"]})
TWO = pa.table({"id": [2, 3], "v": ["B", "c"]})


@pytest.fixture(params=["local", "s3"])
def destination(request, tmp_path):
    return destinations.filesystem(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3")


@pytest.fixture(params=["parquet", "jsonl"])
def file_format(request):
    return request.param


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


def table(name, disposition="append", **columns):
    hints = {"table_format": "delta"}

    return Table(name=TableName(name), resource=name, write_disposition=disposition, hints=hints, columns=columns)


def keyed(name="one"):
    return table(name, "merge", id=Column(name=ColumnName("id"), data_type="bigint", primary_key=True, nullable=False))


async def delta(owner, name):
    """The table as others see it."""
    async with owner.destination.connect(owner.target) as session:
        address, options = session._place.store.table_address(name)

    return DeltaTable(address, storage_options=options)


async def staged(owner):
    async with owner.destination.connect(owner.target) as session:
        found = await session._run(session._place.store.files)

        return [path for path in found if path.startswith("_asyncelt_staged")]


async def test_appends_are_one_commit_each_and_columns_are_added(owner):
    await owner.run({"one": [ONE, TWO]}, tables=[table("one")])
    await owner.run({"one": pa.table({"id": [4], "w": [0.5]})})

    rows = await owner.rows("one")
    assert sorted((row["id"], row["v"], row["w"]) for row in rows) == [
        (1, "a", None),
        (2, "B", None),
        (2, "b", None),
        (3, "c", None),
        (4, None, 0.5),
    ]
    current = await delta(owner, "one")
    assert current.version() == 1
    assert current.history(1)[0]["load_id"] == owner.last.load_id
    assert await staged(owner) == []


async def test_a_replace_puts_the_new_rows_in_place_of_the_old_or_none(owner):
    await owner.run({"one": ONE, "plain": ONE}, tables=[table("one", "replace")], replaced=["one"])
    await owner.run({"one": TWO}, replaced=["one"])
    assert sorted(row["id"] for row in await owner.rows("one")) == [2, 3]

    await owner.run({}, replaced=["one"], state="s")
    assert await owner.rows("one") == []
    assert len(await owner.rows("plain")) == 2
    assert (await delta(owner, "one")).version() == 2


async def test_an_upsert_goes_by_the_key_and_keeps_the_last_of_each(owner):
    await owner.run({"one": ONE}, tables=[keyed()])
    await owner.run({"one": [pa.table({"id": [2, 2], "v": ["x", "y"]}), pa.table({"id": [3, 2], "v": ["c", "B"]})]})
    await owner.run({"one": pa.table({"id": [3], "w": [1]})})

    found = sorted((row["id"], row["v"], row["w"]) for row in await owner.rows("one"))
    assert found == [(1, "a", None), (2, "B", None), (3, None, 1)]
    assert (await delta(owner, "one")).version() == 2


@pytest.mark.parametrize("destination", ["local"], indirect=True)
async def test_every_type_comes_back(destination, file_format, tmp_path):
    owner = Owner(destination, tmp_path / "packages", file_format)
    naive = Column(name=ColumnName("naive"), data_type="timestamp", timezone=False)
    rows = pa.table(
        {
            "t": ["text", None],
            "d": [0.5, None],
            "b": [True, None],
            "ts": pa.array([dt.datetime(2024, 2, 29, 12, 30, 1, 123456, dt.UTC), None], pa.timestamp("us", "UTC")),
            "naive": pa.array([dt.datetime(1970, 1, 1), None], pa.timestamp("us")),
            "da": [dt.date(9999, 12, 31), None],
            "ti": pa.array([dt.time(23, 59, 59, 999999), None], pa.time64("us")),
            "de": pa.array([Decimal("-12345678901.123456789"), None], pa.decimal128(38, 9)),
            "by": [b"\x00\xff", None],
            "quote`d": [1, None],
        }
    )
    await owner.run({"one": pa.table({"t": ["first"]})}, tables=[table("one")])
    await owner.run({"one": rows}, tables=[table("one", naive=naive)])

    assert [row for row in await owner.rows("one") if row["t"] == "text"] == rows.slice(0, 1).to_pylist()
    assert (await owner.table("one")).schema.field("ti").type == pa.time64("us")


class Died(Exception):
    pass


@pytest.mark.parametrize("passes", [0, 1, 2, 3])
async def test_a_commit_that_dies_between_tables_is_finished_by_whoever_comes_next(owner, passes):
    """Before the first table (0), after it (1), before the second (2), after it (3): the load is committed already."""
    await owner.run({"one": ONE, "two": ONE}, tables=[table("one"), keyed("two")])
    package = await owner.make({"one": TWO, "two": TWO}, state="s")
    left = passes

    def die(point):
        nonlocal left

        if point in {"filesystem.before_table", "filesystem.after_table"}:
            if left == 0:
                raise Died

            left -= 1

    with installed(die), pytest.raises(Died):
        await owner.commit(package)

    assert await owner.committed(package.load_id) == {package.load_id}
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 2, 3]
    assert sorted(row["v"] for row in await owner.rows("two")) == ["B", "a", "c"]
    assert (await owner.commit(package)).already_committed
    assert [(await delta(owner, name)).version() for name in ("one", "two")] == [1, 1]
    assert await staged(owner) == []


async def test_of_two_sessions_that_finish_a_commit_one_writes(owner):
    await owner.run({"one": ONE}, tables=[table("one")])
    package = await owner.make({"one": TWO})
    entered = []

    def twice(point):
        if point == "filesystem.before_table" and not entered:
            entered.append(point)
            # Somebody else looks at the dataset at this very moment, and finishes what is under way.
            write_by_another()

    async with owner.destination.connect(owner.target) as session:
        await owner.acquire(session)

    def write_by_another():
        from asyncelt.destinations.filesystem_impl import delta as module

        application = module.Application(owner.target.pipeline_name, owner.target.member, package.load_id)
        address, options = store.table_address("one")
        module.write_deltalake(
            address, TWO, mode="append", storage_options=options, commit_properties=application.properties()
        )

    async with owner.destination.connect(owner.target) as other:
        store = other._place.store

        with installed(twice):
            await owner.commit(package)

    assert entered
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 2, 3]


@pytest.mark.parametrize("destination", ["local"], indirect=True)
@pytest.mark.parametrize("formats", [("plain", "delta"), ("delta", "plain")])
async def test_a_table_keeps_its_format_unless_its_rows_are_replaced(owner, formats):
    definitions = {"delta": table("one"), "plain": replace(table("one"), hints={})}
    first, second = (definitions[one] for one in formats)
    await owner.run({"one": ONE}, tables=[first])

    with pytest.raises(DestinationRejected, match=f"table one: its rows are kept in format {formats[0]}"):
        await owner.run({"one": TWO}, tables=[second])

    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2]
    await owner.run({"one": TWO}, tables=[second], replaced=["one"])
    assert sorted(row["id"] for row in await owner.rows("one")) == [2, 3]


@pytest.mark.parametrize("destination", ["local"], indirect=True)
@pytest.mark.parametrize(
    "definition, nested, says",
    [
        (replace(keyed(), hints={"table_format": "iceberg"}), None, "iceberg"),
        (table("one", "merge"), None, "primary_key"),
        (keyed(), Table(name=TableName("one__v"), parent=TableName("one")), "max_table_nesting=0"),
        (replace(keyed(), hints={"table_format": "delta", "x-merge-strategy": "scd2"}), None, "'upsert' only"),
        (replace(keyed(), hints={}), None, "plain files"),
    ],
)
async def test_what_is_not_there_is_refused_before_anything_moves(owner, definition, nested, says):
    rows = {"one": ONE, **({} if nested is None else {nested.name: ONE})}

    with pytest.raises(Unsupported, match=says):
        await owner.run(rows, tables=[definition, *([] if nested is None else [nested])])

    assert not (await owner.restore()).exists


async def test_a_pipeline_keeps_a_table_in_delta(destination, tmp_path):
    @asyncelt.resource(primary_key="id", write_disposition="merge", table_format="delta", max_table_nesting=0)
    async def orders(start: int):
        yield [{"id": start + at, "tags": ["a"], "n": start} for at in range(3)]

    for start in (0, 2):
        pipeline = asyncelt.pipeline("lake", destination=destination, dataset_name="raw", pipelines_dir=str(tmp_path))
        await pipeline.run(orders(start))

    async with pipeline.sql_client() as sql:
        found = await sql.query("SELECT id, n, tags FROM orders ORDER BY id")

    assert found.column("n").to_pylist() == [0, 0, 2, 2, 2]
    chunks = [chunk.num_rows async for chunk in pipeline.dataset().orders.iter_arrow(2)]
    assert sum(chunks) == 5
