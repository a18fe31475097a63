"""Indexes that a load makes: which, on which tables, and when."""

from __future__ import annotations

from functools import partial

import anyio
import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.destinations.postgres_impl.indexing import Index, wanted_indexes
from asyncelt.errors import DestinationRejected
from asyncelt.failpoints import installed
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import child_table, children, key, root_table, roots
from asyncelt.testing.packages import make_commit
from tests.destinations.postgres_runs import pipeline_on

UNIQUE = Table(name="one", resource="one", columns={"id": Column(name="id", data_type="bigint", unique=True)})


@pytest.fixture
def owner(postgres_dsn, tmp_path):
    return Owner(destinations.postgres(postgres_dsn), tmp_path / "packages", "parquet")


async def indexes(raw, table="one"):
    """Of the tables that begin with the name: (table, columns, unique), sorted."""
    found = await raw.fetch(
        "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'data' AND tablename LIKE $1", f"{table}%"
    )

    return sorted((name, text.partition("USING ")[2], "UNIQUE" in text) for name, text in found)


def extra(name, **hints):
    return Column(name=name, data_type="text", extra=hints)


def test_hints_ask_for_indexes_and_no_column_gets_two():
    orders = root_table(
        id=key("id"),
        day=key("day", merge_key=True),
        at=extra("at", sort=True),
        by=extra("by", sort=True),
        where=extra("where", cluster=True),
        what=extra("what", **{"x-postgres-index": True}),
        doc=Column(name="doc", data_type="json", extra={"sort": True}),
    )
    items = child_table("orders__items", "orders")
    bare = child_table("orders__bare", "orders", root_key=False)
    log = Table(name="log", resource="log", write_disposition="append", columns={"id": key("id")})
    schema = Schema(name="s", tables={one.name: one for one in (orders, items, bare, log)})

    assert wanted_indexes(schema, "orders") == (
        Index("orders", ("_dlt_id",), is_unique=True),
        Index("orders", ("id",)),
        Index("orders", ("day",)),
        Index("orders", ("where",)),
        Index("orders", ("what",)),
    )
    assert wanted_indexes(schema, "orders__items")[1:] == (Index("orders__items", ("_dlt_root_id",)),)
    assert wanted_indexes(schema, "orders__bare")[1:] == (Index("orders__bare", ("_dlt_parent_id",)),)
    assert wanted_indexes(schema, "log") == ()


async def test_a_merged_table_has_indexes_by_which_it_is_merged(owner, raw):
    tables = [root_table(id=key("id")), child_table("orders__items", "orders")]
    rows = {"orders": roots([{"id": 1, "_dlt_id": "a"}], "l1"), "orders__items": children([("a", "b", 1)])}
    await owner.run(rows, tables=tables)

    assert await indexes(raw, "orders") == [
        ("orders", "btree (_dlt_id)", True),
        ("orders", "btree (id)", False),
        ("orders__items", "btree (_dlt_id)", True),
        ("orders__items", "btree (_dlt_root_id)", False),
    ]


async def test_a_large_table_that_will_be_merged_into_is_counted(owner, raw):
    many = [{"id": number, "_dlt_id": str(number)} for number in range(5000)]
    await owner.run({"orders": roots(many, "l1")}, tables=[root_table(id=key("id"))])
    assert await raw.fetchval("SELECT reltuples FROM pg_class WHERE oid = 'data.orders'::regclass") == 5000


async def test_they_are_made_when_the_rows_are_there(owner, raw):
    seen = []

    def look(point):
        if point in ("postgres.after_migrate", "postgres.copying"):
            seen.append(point)

    package = await owner.make({"one": pa.table({"id": [1]})}, tables=[UNIQUE])

    async with owner.destination.connect(owner.target) as session:
        lease = await owner.acquire(session)
        commit = make_commit(owner.target, lease, package)
        await session.migrate(commit)
        assert await indexes(raw) == []

        with installed(look):
            await session.commit(commit)

    assert seen == ["postgres.copying"]
    assert await indexes(raw) == [("one", "btree (id)", True)]


async def test_a_first_load_that_fails_leaves_the_index_to_the_next(owner, raw):
    twice = await owner.make({"one": pa.table({"id": [1, 1]})}, tables=[UNIQUE])

    with pytest.raises(DestinationRejected, match="is duplicated"):
        await owner.commit(twice)

    assert await indexes(raw) == []
    await owner.run({"one": pa.table({"id": [1]})}, tables=[UNIQUE])
    assert await indexes(raw) == [("one", "btree (id)", True)]


async def test_an_index_that_somebody_has_dropped_does_not_come_back(owner, raw):
    await owner.run({"one": pa.table({"id": [1]})}, tables=[UNIQUE])
    await raw.execute("DROP INDEX data.one_id_idx")
    await owner.run({"one": pa.table({"id": [1]})})
    assert await indexes(raw) == []


async def test_a_table_that_is_dropped_and_made_anew_has_its_index(owner, raw):
    await owner.run({"one": pa.table({"id": [1]})}, tables=[UNIQUE])
    await owner.commit(await owner.make({"one": pa.table({"id": [2]})}, dropped=["one"]))
    assert await indexes(raw) == [("one", "btree (id)", True)]


async def test_a_view_in_place_of_a_table_is_not_indexed(owner, raw):
    await raw.execute(
        "CREATE SCHEMA data; CREATE TABLE data.t (id bigint); CREATE VIEW data.one AS SELECT * FROM data.t"
    )

    with pytest.raises(DestinationRejected, match="view"):
        await owner.run({"one": pa.table({"id": [1]})}, tables=[UNIQUE])


@pytest.mark.slow
async def test_many_who_fill_a_new_table_at_once_do_not_wait_for_each_other_for_ever(postgres_dsn, tmp_path, raw):
    destination = destinations.postgres(postgres_dsn)
    pipelines = [pipeline_on(destination, tmp_path / str(at), f"first_{at}") for at in range(6)]

    with anyio.fail_after(200):
        async with anyio.create_task_group() as tasks:
            for one in pipelines:
                rows = [{"id": one.pipeline_name}] * 200
                tasks.start_soon(partial(one.run, rows, table_name="shared"))

    assert await raw.fetchval("SELECT count(*) FROM raw.shared") == 1200
    assert await raw.fetchval("SELECT count(*) FROM pg_indexes WHERE tablename = 'shared'") == 1
