"""What is particular to Iceberg tables: others who write them too, and what is refused. The rest is in test_lakes.py."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StructType

from asyncelt import destinations
from asyncelt.destinations.filesystem_impl.catalogs import catalog_config
from asyncelt.destinations.filesystem_impl.iceberg_catalog import Tables, opened
from asyncelt.destinations.filesystem_impl.local import LocalStore
from asyncelt.errors import ConfigError, DestinationRejected
from asyncelt.failpoints import installed
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName

pytestmark = pytest.mark.slow

ONE = pa.table({"id": [1, 2], "v": ["a", "b"]})
TWO = pa.table({"id": [2, 3], "v": ["B", "c"]})
FOREIGN = pa.table({"id": [8, 9], "v": ["x", "y"]})
HINTS = {"table_format": "iceberg"}
APPENDED = Table(name=TableName("one"), resource="one", write_disposition="append", hints=HINTS)
KEY = Column(name=ColumnName("id"), data_type="bigint", primary_key=True, nullable=False)
KEYED = replace(APPENDED, write_disposition="merge", columns={KEY.name: KEY})


@pytest.fixture
def owner(tmp_path):
    return Owner(destinations.filesystem(tmp_path / "lake"), tmp_path / "packages", "parquet")


@pytest.fixture
def catalog(tmp_path):
    """The catalog of the dataset, as anybody opens it."""

    @contextmanager
    def look():
        with opened(Tables(catalog_config(None), "data"), LocalStore(tmp_path / "lake" / "data")) as source:
            yield source

    return look


@pytest.fixture
def change(catalog):
    """Somebody else changes the table."""

    def run(work):
        with catalog() as source:
            work(source.find("one"))

    return lambda work: asyncio.to_thread(run, work)


async def rows(owner):
    return sorted((row["id"], row["v"]) for row in await owner.rows("one"))


async def test_rows_that_others_have_written_are_read_and_merged(owner, change):
    await owner.run({"one": ONE}, tables=[KEYED])
    await change(lambda found: found.append(FOREIGN))
    assert await rows(owner) == [(1, "a"), (2, "b"), (8, "x"), (9, "y")]

    await owner.run({"one": pa.table({"id": [9, 2], "v": ["Y", "B"]})})
    assert await rows(owner) == [(1, "a"), (2, "B"), (8, "x"), (9, "Y")]

    await change(lambda found: found.delete("id = 8"))
    assert await rows(owner) == [(1, "a"), (2, "B"), (9, "Y")]


async def test_a_column_that_was_renamed_is_read_by_its_id(owner, change):
    def rename(found):
        with found.update_schema() as update:
            update.rename_column("v", "u")

        with found.update_schema() as update:
            update.add_column("v", LongType())

    await owner.run({"one": ONE}, tables=[APPENDED])
    await change(rename)

    assert await rows(owner) == [(1, None), (2, None)]


async def test_a_commit_of_somebody_else_in_between_loses_nothing(owner, catalog):
    await owner.run({"one": ONE}, tables=[KEYED])
    package = await owner.make({"one": TWO})
    entered = []

    def meanwhile(point):
        if point == "filesystem.before_table_commit" and not entered:
            entered.append(point)

            with catalog() as source:
                source.find("one").append(FOREIGN)

    with installed(meanwhile):
        await owner.commit(package)

    assert await rows(owner) == [(1, "a"), (2, "B"), (3, "c"), (8, "x"), (9, "y")]


async def test_files_of_a_killed_attempt_go_with_the_commit(owner, tmp_path):
    await owner.run({"one": ONE}, tables=[APPENDED])
    package = await owner.make({"one": TWO})
    folder = tmp_path / "lake" / "data" / "one" / "data" / f"load={package.load_id}"
    folder.mkdir()
    (folder / "asyncelt-0000-0.parquet").write_bytes(b"half a file")
    (folder / "of-others.parquet").write_bytes(b"")
    await owner.commit(package)

    assert len(list(folder.glob("asyncelt-*"))) == 1
    assert (folder / "of-others.parquet").exists()
    assert [path.name for path in folder.glob("asyncelt-0000*")] == []


async def test_a_failed_attempt_leaves_no_file(owner, tmp_path):
    await owner.run({"one": ONE}, tables=[APPENDED])
    package = await owner.make({"one": TWO})

    def fail(point):
        if point == "filesystem.before_table_commit":
            raise RuntimeError

    with installed(fail), pytest.raises(RuntimeError):
        await owner.commit(package)

    assert list((tmp_path / "lake" / "data" / "one" / "data").glob(f"load={package.load_id}/*")) == []


async def test_a_value_that_does_not_fit_a_column_of_others_is_named(owner, change):
    def add(found):
        with found.update_schema() as update:
            update.add_column("w", LongType())

    await owner.run({"one": ONE}, tables=[APPENDED])
    await change(add)

    with pytest.raises(DestinationRejected, match=r"table one, load .*, column w: .* does not fit .* int64"):
        await owner.run({"one": pa.table({"id": [1], "w": ["text"]})})


async def test_a_table_that_is_partitioned_by_part_of_a_column_is_refused_before_anything_moves(owner, catalog):
    def create():
        with catalog() as source:
            spec = PartitionSpec(PartitionField(source_id=2, field_id=1000, transform=IdentityTransform(), name="p"))
            inner = StructType(NestedField(2, "inner", LongType(), required=False))
            columns = Schema(
                NestedField(1, "id", LongType(), required=False), NestedField(3, "v", inner, required=False)
            )
            source.catalog.create_namespace_if_not_exists(("data",))
            source.catalog.create_table(("data", "one"), columns, source.store.table_address("one")[0], spec)

    await asyncio.to_thread(create)

    with pytest.raises(DestinationRejected, match="table one is partitioned"):
        await owner.run({"one": ONE}, tables=[APPENDED])

    assert not (await owner.restore()).exists


async def test_a_bucket_needs_a_catalog(s3, tmp_path):
    owner = Owner(s3, tmp_path / "packages", "parquet")

    with pytest.raises(ConfigError, match="need a catalog"):
        await owner.run({"one": ONE}, tables=[APPENDED])


@pytest.mark.parametrize(
    "catalog, says",
    [
        ("nosuchdriver://host/db", "cannot be used"),
        ({"uri": "x", "type": "nosuch"}, "cannot be used"),
        ("a-name-that-nobody-configured", "cannot be used"),
    ],
)
async def test_a_catalog_that_is_not_there_is_a_wrong_configuration(catalog, says, tmp_path):
    destination = destinations.filesystem(tmp_path / "lake", iceberg_catalog=catalog)

    with pytest.raises(ConfigError, match=says):
        await Owner(destination, tmp_path / "packages", "parquet").run({"one": ONE}, tables=[APPENDED])


async def test_an_upsert_reads_only_files_that_may_have_its_keys(owner, change):
    """Of ten files with keys of their own, one is written anew."""
    for start in range(0, 100, 10):
        await owner.run({"one": pa.table({"id": list(range(start, start + 10))})}, tables=[KEYED])

    seen = []
    await change(partial(_remember_files, seen))
    await owner.run({"one": pa.table({"id": [55], "v": ["new"]})})
    await change(partial(_remember_files, seen))

    before, after = seen
    assert len(before) == 10
    assert len(before - after) == 1
    assert len(await owner.rows("one")) == 100


def _remember_files(seen, found):
    seen.append({task.file.file_path for task in found.scan().plan_files()})
