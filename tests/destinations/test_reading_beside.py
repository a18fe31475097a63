"""Whoever reads a dataset of files beside those who commit to it sees each commit as a whole or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.destinations.filesystem_impl.catalogs import catalog_config
from asyncelt.errors import DestinationRejected
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target
from asyncelt.schema.model import Table
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit
from asyncelt.types import TableName
from tests.support.seaweed import READER

pytestmark = pytest.mark.slow

BOTH = "SELECT (SELECT max(id) FROM a) AS a, (SELECT max(id) FROM b) AS b, (SELECT count(*) FROM a) AS n"


def rows(number):
    return {name: pa.table({"id": [number]}) for name in ("a", "b")}


def tables(kind):
    hints = {} if kind == "plain" else {"table_format": kind}

    return [Table(name=TableName(one), write_disposition="append", hints=hints) for one in ("a", "b")]


@pytest.fixture(params=["local", "s3"])
def destination(request, tmp_path):
    if request.param == "local":
        return destinations.filesystem(tmp_path / "lake")

    return replace(request.getfixturevalue("s3"), iceberg_catalog=catalog_config(f"sqlite:///{tmp_path}/catalog.db"))


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


@pytest.mark.parametrize("kind", ["plain", "delta", "iceberg"])
@pytest.mark.parametrize("replaces", [False, True], ids=["append", "replace"])
async def test_a_reader_never_sees_half_of_a_commit(owner, kind, replaces):
    await owner.run(rows(0), tables=tables(kind))
    done = asyncio.Event()
    seen = []

    async def look():
        async with owner.destination.connect(owner.target) as session:
            while not done.is_set():
                seen.extend((await session.query(BOTH)).to_pylist())

    looking = asyncio.create_task(look())

    for number in range(1, 5):
        await owner.run(rows(number), replaced=["a", "b"] if replaces else [])

    done.set()
    await looking
    assert seen
    assert [one for one in seen if one["a"] != one["b"]] == []
    assert all(one["n"] == (1 if replaces else one["a"] + 1) for one in seen)


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
async def test_a_commit_between_two_tables_makes_the_reader_look_again(owner, kind, monkeypatch):
    """The commit comes when one table has been looked up and the other has not."""
    await owner.run(rows(0), tables=tables(kind))
    loop = asyncio.get_running_loop()
    passed = []

    async with owner.destination.connect(owner.target) as session:
        lake = type(session._dataset.lake(kind))
        attach = lake.attach

        def attached(self, connection, definition):
            found = attach(self, connection, definition)

            if not passed:
                passed.append(definition.name)
                asyncio.run_coroutine_threadsafe(owner.run(rows(1)), loop).result()

            return found

        monkeypatch.setattr(lake, "attach", attached)
        assert (await session.query(BOTH)).to_pylist() == [{"a": 1, "b": 1, "n": 2}]

    assert passed


async def test_a_file_that_a_replace_removes_meanwhile_is_looked_up_again(owner, monkeypatch):
    await owner.run(rows(0), tables=tables("plain"))
    loop = asyncio.get_running_loop()
    passed = []

    async with owner.destination.connect(owner.target) as session:
        store = type(session._place.store)
        attach = store.attach

        def attached(self, connection, paths):
            if not passed:
                passed.append(paths)
                replacing = owner.run(rows(1), replaced=["a", "b"])
                asyncio.run_coroutine_threadsafe(replacing, loop).result()

            return attach(self, connection, paths)

        monkeypatch.setattr(store, "attach", attached)
        assert (await session.query(BOTH)).to_pylist() == [{"a": 1, "b": 1, "n": 1}]

    assert passed


async def test_a_file_that_is_gone_for_good_is_an_error(owner):
    await owner.run(rows(0), tables=tables("plain"))

    async with owner.destination.connect(owner.target) as session:
        paths = await session._run(lambda: session._dataset.table_files()["a"])
        await session._run(lambda: session._place.store.remove(paths))

        with pytest.raises(DestinationRejected, match="The query failed"):
            await session.query(BOTH)


# ------------------------------------------------------------------------------------------- commits half followed


@pytest.mark.parametrize("kind", ["plain", "delta"])
async def test_whoever_reads_a_bucket_leaves_the_work_to_an_owner_that_is_alive(s3, tmp_path, kind):
    """The owner has put its marker and has yet to write its tables: a reader waits, or needs nothing of that."""
    impatient = replace(s3, busy_timeout_s=0.01)
    owner = Owner(impatient, tmp_path / "packages", "parquet")
    stranger = replace(
        impatient,
        site=replace(
            s3.site,
            config=replace(
                s3.site.config,
                access_key_id=READER["aws_access_key_id"],
                secret_access_key=READER["aws_secret_access_key"],
            ),
        ),
    )
    await owner.run(rows(0), tables=tables(kind))
    package = await owner.make(rows(1))
    owner.lease = None
    loop = asyncio.get_running_loop()
    seen = []

    async def look():
        for one in (impatient, stranger):
            async with one.connect(owner.target) as session:
                try:
                    seen.extend((await session.query(BOTH)).to_pylist())
                except Exception as error:
                    seen.append(str(error))

    def after(point):
        if point == "filesystem.after_marker":
            asyncio.run_coroutine_threadsafe(look(), loop).result()

    async with impatient.connect(owner.target) as session:
        commit = make_commit(owner.target, await owner.acquire(session), package)

        with installed(after):
            await owner.commit_in(session, commit)

    if kind == "plain":
        assert seen == [{"a": 1, "b": 1, "n": 2}] * 2
    else:
        assert len(seen) == 2
        assert all("is being finished by process" in one for one in seen), seen

    async with stranger.connect(owner.target) as session:
        assert (await session.query(BOTH)).to_pylist() == [{"a": 1, "b": 1, "n": 2}]


async def test_ten_pipelines_may_begin_an_empty_dataset_at_once(destination, tmp_path):
    owners = [
        Owner(
            destination,
            tmp_path / "packages",
            "parquet",
            target=Target(pipeline_name=f"p{number}", dataset_name="data"),
            clock=1_700_000_000 + 100 * number,
        )
        for number in range(10)
    ]

    async with asyncio.TaskGroup() as tasks:
        for number, one in enumerate(owners):
            tasks.create_task(one.run({"shared": pa.table({"id": [number]})}))

    assert sorted(row["id"] for row in await owners[0].rows("shared")) == list(range(10))
    assert len(await owners[0].rows("_dlt_loads")) == 10
