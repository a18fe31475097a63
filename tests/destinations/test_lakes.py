"""Tables in a table format: one commit per table and package, recognised when it is made again. Local, and in a bucket."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import replace
from decimal import Decimal
from functools import partial
from importlib import import_module

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import asyncelt
from asyncelt import destinations
from asyncelt.config import Retry, Settings
from asyncelt.destinations.filesystem_impl.catalogs import catalog_config
from asyncelt.destinations.filesystem_impl.iceberg_catalog import Tables, opened
from asyncelt.errors import (
    ConfigError,
    DestinationRejected,
    DestinationUnavailable,
    PipelineStepFailed,
    TableBlocked,
    Unsupported,
    UsageError,
)
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName
from tests.destinations.meanwhile import finished_by_another

pytestmark = pytest.mark.slow

ONE = pa.table({"id": [1, 2], "v": ["a", "b"]})
TWO = pa.table({"id": [2, 3], "v": ["B", "c"]})


@pytest.fixture(params=["delta", "iceberg"])
def kind(request):
    return request.param


@pytest.fixture(params=["local", "s3"])
def place(request):
    return request.param


@pytest.fixture
def catalog(place, tmp_path):
    """Where the tables in a bucket are found; those in a folder are found there."""
    return None if place == "local" else f"sqlite:///{tmp_path}/catalog.db"


@pytest.fixture
def destination(place, catalog, request, tmp_path):
    if place == "local":
        return destinations.filesystem(tmp_path / "lake")

    return replace(request.getfixturevalue("s3"), iceberg_catalog=catalog_config(catalog))


@pytest.fixture(params=["parquet", "jsonl"])
def file_format(request):
    return request.param


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


@pytest.fixture
def table(kind):
    def make(name, disposition="append", **columns):
        return Table(
            name=TableName(name),
            resource=name,
            write_disposition=disposition,
            hints={"table_format": kind},
            columns=columns,
        )

    return make


@pytest.fixture
def keyed(table):
    key = Column(name=ColumnName("id"), data_type="bigint", primary_key=True, nullable=False)

    return lambda name="one": table(name, "merge", id=key)


@pytest.fixture
def loads(owner, kind):
    """The load ids in the history of a table, as others see it."""

    async def look(name):
        async with owner.destination.connect(owner.target) as session:
            dataset = session._dataset

            return await session._run(partial(HISTORIES[kind], dataset, name))

    return look


def delta_history(dataset, name):
    address, options = dataset.store.table_address(name)

    return [one["load_id"] for one in reversed(DeltaTable(address, storage_options=options).history())]


def iceberg_history(dataset, name):
    with opened(Tables(dataset.catalog, dataset.namespace), dataset.store) as source:
        return [one.summary["asyncelt.load-id"] for one in source.find(name).snapshots()]


HISTORIES = {"delta": delta_history, "iceberg": iceberg_history}


async def staged(owner):
    async with owner.destination.connect(owner.target) as session:
        found = await session._run(session._place.store.files)

        return [path for path in found if path.startswith("_asyncelt_staged")]


async def test_appends_are_one_commit_each_and_columns_are_added(owner, table, loads):
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
    assert await loads("one") == ["1700000001.25", owner.last.load_id]
    assert await staged(owner) == []


async def test_a_replace_puts_the_new_rows_in_place_of_the_old_or_none(owner, table, loads):
    await owner.run({"one": ONE, "plain": ONE}, tables=[table("one", "replace")], replaced=["one"])
    await owner.run({"one": TWO}, replaced=["one"])
    assert sorted(row["id"] for row in await owner.rows("one")) == [2, 3]

    await owner.run({}, replaced=["one"], state="s")
    assert await owner.rows("one") == []
    assert len(await owner.rows("plain")) == 2
    assert len(await loads("one")) == 3


async def test_an_upsert_goes_by_the_key_and_keeps_the_last_of_each(owner, keyed, loads):
    await owner.run({"one": ONE}, tables=[keyed()])
    await owner.run({"one": [pa.table({"id": [2, 2], "v": ["x", "y"]}), pa.table({"id": [3, 2], "v": ["c", "B"]})]})
    await owner.run({"one": pa.table({"id": [3], "w": [1]})})

    found = sorted((row["id"], row["v"], row["w"]) for row in await owner.rows("one"))
    assert found == [(1, "a", None), (2, "B", None), (3, None, 1)]
    assert len(await loads("one")) == 3


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_every_type_comes_back(destination, file_format, table, tmp_path):
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
async def test_a_commit_that_dies_between_tables_is_finished_by_whoever_comes_next(
    owner, table, keyed, loads, place, passes
):
    """Before the first table (0), after it (1), before the second (2), after it (3): the load is committed already."""
    if place == "s3" and passes % 3:
        pytest.skip("differs in nothing that is only done here")

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
    assert [len(await loads(name)) for name in ("one", "two")] == [2, 2]
    assert await staged(owner) == []


async def test_of_two_sessions_that_finish_a_commit_one_writes(owner, kind, table, loads):
    """At the very moment of the commit somebody else looks at the dataset, and makes the commit of the same package."""
    await owner.run({"one": ONE}, tables=[table("one")])
    package = await owner.make({"one": TWO})

    async with owner.destination.connect(owner.target) as other:
        with finished_by_another(other, MOMENTS[kind]) as entered:
            await owner.commit(package)

    assert entered
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 2, 3]
    assert len(await loads("one")) == 2


MOMENTS = {"delta": "filesystem.before_table", "iceberg": "filesystem.before_table_commit"}


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("formats", [("plain", "delta"), ("delta", "iceberg"), ("iceberg", "plain")])
async def test_a_table_keeps_its_format_unless_its_rows_are_replaced(owner, formats):
    definitions = {
        name: Table(
            name=TableName("one"), write_disposition="append", hints={} if name == "plain" else {"table_format": name}
        )
        for name in formats
    }
    first, second = (definitions[one] for one in formats)
    await owner.run({"one": ONE}, tables=[first])

    with pytest.raises(DestinationRejected, match=f"table one: its rows are kept in format {formats[0]}"):
        await owner.run({"one": TWO}, tables=[second])

    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2]
    await owner.run({"one": TWO}, tables=[second], replaced=["one"])
    assert sorted(row["id"] for row in await owner.rows("one")) == [2, 3]


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize(
    "changes, nested, says",
    [
        ({"columns": {}}, None, "primary_key"),
        ({}, Table(name=TableName("one__v"), parent=TableName("one")), "max_table_nesting=0"),
        (
            {"hints": {"table_format": "delta", "x-merge-strategy": "scd2"}},
            None,
            "Delta tables .* 'upsert' or 'insert-only', not 'scd2'",
        ),
        (
            {"hints": {"table_format": "iceberg", "x-merge-strategy": "scd2"}},
            None,
            "Iceberg tables .* 'upsert' or 'insert-only', not 'scd2'",
        ),
        ({"hints": {}}, None, "plain files"),
        ({"hints": {"table_format": "iceberg", "x-merge-skip-unchanged-rows": True}}, None, "skip_unchanged_rows"),
        ({"hints": {"table_format": "delta", "x-merge-source-filter": "id > 1"}}, None, "source_filter"),
    ],
)
async def test_what_is_not_there_is_refused_before_anything_moves(owner, keyed, changes, nested, says):
    definition = replace(keyed(), **changes)
    rows = {"one": ONE, **({} if nested is None else {nested.name: ONE})}

    with pytest.raises(Unsupported, match=says):
        await owner.run(rows, tables=[definition, *([] if nested is None else [nested])])

    assert not (await owner.restore()).exists


async def test_a_pipeline_keeps_a_table_in_the_format(destination, kind, tmp_path):
    @asyncelt.resource(primary_key="id", write_disposition="merge", table_format=kind, max_table_nesting=0)
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


async def load(destination, tmp_path, rows, kind, disposition="merge"):
    @asyncelt.resource(name="orders", primary_key="id", write_disposition=disposition, table_format=kind)
    async def orders():
        yield rows

    pipeline = asyncelt.pipeline("lake", destination=destination, dataset_name="raw", pipelines_dir=str(tmp_path))
    await pipeline.run(orders())

    async with pipeline.sql_client() as sql:
        roots = await sql.query("SELECT id, v FROM orders ORDER BY id, v")
        items = await sql.query(
            "SELECT id, value FROM orders o JOIN orders__items i ON i._dlt_parent_id = o._dlt_id ORDER BY ALL"
        )
        counted = await sql.query("SELECT count(*) AS n FROM orders__items")

    assert counted.column("n").to_pylist() == [items.num_rows], "each item hangs below an order"

    return [tuple(row.values()) for row in roots.to_pylist()], [tuple(row.values()) for row in items.to_pylist()]


async def test_nested_rows_follow_their_root_row(destination, kind, tmp_path):
    first = [{"id": 1, "v": "a", "items": [1, 2]}, {"id": 2, "v": "b", "items": [3]}]
    # One key twice: the row that came last counts, with its list. A list that ends leaves nothing.
    second = [
        {"id": 1, "v": "x", "items": [7, 8, 9]},
        {"id": 1, "v": "y", "items": [5]},
        {"id": 2, "v": "c"},
        {"id": 3, "v": "d", "items": [6]},
    ]
    assert await load(destination, tmp_path, first, kind) == ([(1, "a"), (2, "b")], [(1, 1), (1, 2), (2, 3)])

    for _ in range(2):
        found = await load(destination, tmp_path, second, kind)
        assert found == ([(1, "y"), (2, "c"), (3, "d")], [(1, 5), (3, 6)])


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_old_rows_are_found_by_their_key_whatever_their_id(destination, kind, tmp_path):
    first = [{"id": 1, "v": "a", "items": [1, 2]}, {"id": 2, "v": "b", "items": [3]}]
    await load(destination, tmp_path, first, kind, "append")
    found = await load(destination, tmp_path, [{"id": 1, "v": "c", "items": [9]}], kind)

    assert found == ([(1, "c"), (2, "b")], [(1, 9), (2, 3)])


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_dropped_table_begins_anew(owner, kind, table, loads):
    await owner.run({"one": ONE, "two": ONE}, tables=[table("one"), table("two")])
    await owner.commit(await owner.make({}, dropped=["one"], state="s"))
    assert len(await loads("one")) == 2

    await owner.run({"one": TWO}, tables=[table("one")])
    assert sorted(row["id"] for row in await owner.rows("one")) == [2, 3]


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_text_that_an_upsert_wrote_can_be_searched(owner, keyed):
    await owner.run({"one": ONE}, tables=[keyed()])
    await owner.run({"one": TWO})

    async with owner.destination.connect(owner.target) as session:
        found = await session.query("SELECT id FROM one WHERE v IN ('B', 'c') AND v >= 'C' ORDER BY id")

    assert found.column("id").to_pylist() == [3]


@pytest.fixture
def rest(s3, seaweed):
    """Tables in the catalog of a server, which decides where they lie."""
    return lambda **changes: replace(s3, iceberg_catalog=catalog_config({**seaweed.catalog, **changes}))


@pytest.mark.parametrize("kind", ["iceberg"], indirect=True)
async def test_a_rest_catalog_keeps_tables(rest, kind, table, keyed, tmp_path):
    owner = Owner(
        rest(), tmp_path / "packages", "parquet", Target(pipeline_name="rest", dataset_name=f"r{os.getpid()}")
    )
    await owner.run({"one": ONE, "two": ONE}, tables=[table("one"), keyed("two")])
    await owner.run({"one": pa.table({"id": [4], "w": [0.5]}), "two": TWO})
    assert sorted((row["id"], row["w"]) for row in await owner.rows("one")) == [(1, None), (2, None), (4, 0.5)]
    assert sorted(row["v"] for row in await owner.rows("two")) == ["B", "a", "c"]

    await owner.run({"one": TWO}, replaced=["one"])
    assert sorted(row["id"] for row in await owner.rows("one")) == [2, 3]


@pytest.mark.parametrize("kind", ["iceberg"], indirect=True)
@pytest.mark.parametrize(
    "changes, error, says",
    [
        ({"credential": "test:wrong"}, DestinationRejected, "does not let us in"),
        ({"uri": "http://127.0.0.1:9", "oauth2-server-uri": "http://127.0.0.1:9/x"}, DestinationUnavailable, "answer"),
    ],
)
async def test_a_rest_catalog_that_does_not_let_us_in_says_so(rest, table, changes, error, says, tmp_path):
    owner = Owner(rest(**changes), tmp_path / "packages", "parquet")

    with pytest.raises(error, match=says) as raised:
        await owner.run({"one": ONE}, tables=[table("one")])

    assert "\n" not in str(raised.value)
    assert "wrong" not in str(raised.value)
    assert not (await owner.restore()).exists


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_small_files_are_put_together_by_choice(destination, kind, table, tmp_path):
    owner = Owner(replace(destination, compact_files=3), tmp_path / "packages", "parquet")
    files = []

    for at in range(4):
        await owner.run({"one": pa.table({"id": [at]})}, tables=[table("one")])
        files.append(await count_files(owner, kind, "one"))

    assert files == [1, 2, 1, 2]
    assert [row["id"] for row in await owner.rows("one")] == [0, 1, 2, 3]


async def count_files(owner, kind, name):
    def delta(dataset):
        return len(DeltaTable(dataset.store.table_address(name)[0]).file_uris())

    def iceberg(dataset):
        with opened(Tables(dataset.catalog, dataset.namespace), dataset.store) as source:
            return len(list(source.find(name).scan().plan_files()))

    async with owner.destination.connect(owner.target) as session:
        return await session._run(partial({"delta": delta, "iceberg": iceberg}[kind], session._dataset))


def test_one_file_is_nothing_to_put_together():
    with pytest.raises(ConfigError, match="compact_files=1"):
        destinations.filesystem("lake", compact_files=1)


DAMAGES = {
    "truncated": lambda log: _newest(log).write_bytes(_newest(log).read_bytes()[:50]),
    "no-json": lambda log: _newest(log).write_bytes(b"\xff\xfe\x00"),
    "a gap": lambda log: _newest(log).rename(log / f"{9:020d}.json"),
    "checkpoint": lambda log: (log / "_last_checkpoint").write_text('{"version": 1, "size": 1}'),
}


def _newest(log):
    return max(log.glob("*.json"))


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("kind", ["delta"], indirect=True)
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_log_is_reported_by_table_and_load(owner, table, tmp_path, damage):
    await owner.run({"one": ONE}, tables=[table("one")])
    await owner.run({"one": TWO})
    DAMAGES[damage](tmp_path / "lake" / "data" / "one" / "_delta_log")

    with pytest.raises(DestinationRejected, match=r"Delta table .*/data/one: "):
        await owner.rows("one")

    package = await owner.make({"one": TWO})

    with pytest.raises(DestinationRejected, match=rf"Delta table .*/data/one, load {package.load_id}: "):
        await owner.commit(package)


class PanicException(BaseException):
    """What the Rust runtime raises is called so, and cannot be imported."""


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("kind", ["delta"], indirect=True)
async def test_a_panic_of_the_driver_is_an_error_and_not_the_end(owner, table):
    await owner.run({"one": ONE}, tables=[table("one")])
    package = await owner.make({"one": TWO})

    def panic(point):
        if point == "filesystem.before_table":
            raise PanicException("index out of bounds\n   0: trace")

    with installed(panic), pytest.raises(TableBlocked, match=r"gave up: index out of bounds. Its log") as caught:
        await owner.commit(package)

    assert package.load_id in str(caught.value)
    assert isinstance(caught.value, Exception)


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_commit_checks_each_table_once_and_one_that_is_there_not_at_all(owner, kind, table, monkeypatch):
    driver = import_module(f"asyncelt.destinations.filesystem_impl.{kind}")
    lake = getattr(driver, f"{kind.title()}Lake")
    check, found, checked, opened = lake.check, getattr(driver, "_found", None), [], []

    def check_noted(self, names):
        checked.append(list(names))

        return check(self, names)

    def found_noted(*arguments):
        opened.append(arguments)

        return found(*arguments)

    monkeypatch.setattr(lake, "check", check_noted)

    if found is not None:
        monkeypatch.setattr(driver, "_found", found_noted)

    await owner.run({"one": ONE}, tables=[table("one")])
    opened.clear()
    await owner.run({"one": TWO})
    assert checked == [["one"], ["one"]]
    # Only Delta's driver opens tables one by one.
    assert len(opened) == (kind == "delta")

    def refuse(*_):
        raise DestinationRejected("a table of a kind that is not written")

    monkeypatch.setattr(lake, "check", refuse)
    assert (await owner.commit(owner.last)).already_committed


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_rows_that_a_table_cannot_take_are_refused_before_anybody_has_to_wait_for_them(owner, table, tmp_path):
    await owner.run({"one": ONE}, tables=[table("one")])
    other = Owner(owner.destination, tmp_path / "others", "parquet", Target(pipeline_name="other", dataset_name="data"))

    other.clock = 1_800_000_000

    with pytest.raises(DestinationRejected, match=r"table one, load .*, column id: a value does not fit .* int64"):
        await other.run({"one": pa.table({"id": ["x"]})}, tables=[table("one")])

    await owner.run({"one": TWO})
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 2, 3]
    assert not (await other.restore()).head_load_id


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_load_that_is_committed_is_not_given_up(destination, kind, tmp_path):
    pipeline = asyncelt.pipeline(
        "lake",
        destination=destination,
        dataset_name="raw",
        pipelines_dir=str(tmp_path),
        settings=Settings(retry=Retry(attempts=1), auto_abort_on_terminal_error=True),
    )

    def refuse(point):
        if point == "filesystem.before_table":
            raise DestinationRejected("for a reason")

    rows = [{"id": 1}]

    with installed(refuse), pytest.raises(PipelineStepFailed, match=r"is committed in .* for a reason"):
        await pipeline.run(rows, table_name="t", table_format=kind)

    with pytest.raises(UsageError, match="is committed at the destination"):
        await pipeline.abort_packages()

    await pipeline.run()

    async with pipeline.sql_client() as sql:
        assert (await sql.query("SELECT id FROM t")).to_pylist() == [{"id": 1}]

    assert not pipeline.has_pending_data


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_small_files_that_cannot_be_put_together_fail_no_load(destination, kind, table, tmp_path, caplog):
    owner = Owner(replace(destination, compact_files=2), tmp_path / "packages", "parquet")
    await owner.run({"one": ONE}, tables=[table("one")])

    def fail(*_):
        raise DestinationUnavailable("the server is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"asyncelt.destinations.filesystem_impl.{kind}.{kind.title()}Lake.compact", fail)
        await owner.run({"one": TWO})

    assert "small files stay for now: the server is away" in caplog.text
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 2, 3]
