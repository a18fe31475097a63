"""Upserts into Delta tables: which files they write anew, what stands in the log of them, and when the driver merges."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.schema import Field, PrimitiveType

from asyncelt import destinations
from asyncelt.destinations.filesystem_impl import delta_files, row_groups
from asyncelt.destinations.filesystem_impl.delta_files import is_plain, write_files
from asyncelt.destinations.filesystem_impl.local import LocalStore
from asyncelt.errors import DestinationRejected
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName
from tests.destinations.meanwhile import finished_by_another

pytestmark = pytest.mark.slow

NAME = TableName("one")
KEY = Column(name=ColumnName("id"), data_type="bigint", primary_key=True, nullable=False)
GONE = Column(name=ColumnName("gone"), data_type="bool", hard_delete=True)
KEYED = Table(
    name=NAME,
    resource="one",
    write_disposition="merge",
    hints={"table_format": "delta"},
    columns={KEY.name: KEY, GONE.name: GONE},
)


def rows(*ids, v="old", gone=False):
    return pa.table({"id": pa.array(ids, pa.int64()), "v": [v] * len(ids), "gone": [gone] * len(ids)})


@pytest.fixture
def owner(tmp_path):
    return Owner(destinations.filesystem(tmp_path / "lake"), tmp_path / "packages", "parquet")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lake" / "data" / "one"


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "lake" / "data")


def operations(path):
    return [one["operation"] for one in reversed(DeltaTable(path).history())]


def files(path):
    return {one["path"]: one for one in pa.table(DeltaTable(path).get_add_actions(flatten=True)).to_pylist()}


async def values(owner):
    return sorted((row["id"], row["v"]) for row in await owner.rows("one"))


async def test_only_files_that_have_a_row_that_goes_are_written_anew(owner, path):
    for start in (0, 10, 20):
        await owner.run({"one": rows(*range(start, start + 9, 2))}, tables=[KEYED])

    before = files(path)
    # Between the least and the greatest of a file, and not in it; and one that is in another file.
    await owner.run({"one": rows(1, 22, v="new")})
    after = files(path)

    assert [before[gone]["min.id"] for gone in before.keys() - after.keys()] == [20]
    [come] = [after[one] for one in after.keys() - before.keys()]
    assert (come["min.id"], come["max.id"], come["num_records"], come["null_count.v"]) == (1, 28, 6, 0)
    assert (await values(owner))[:3] == [(0, "old"), (1, "new"), (2, "old")]
    assert [one for one in await values(owner) if one[1] == "new"] == [(1, "new"), (22, "new")]
    assert len(await values(owner)) == 16
    assert operations(path)[-1] == "WRITE"


async def test_a_load_that_changes_nothing_is_a_commit_all_the_same(owner, path):
    await owner.run({"one": rows(1, 2)}, tables=[KEYED])
    before = files(path)
    await owner.run({"one": rows(7, gone=True)})

    assert files(path) == before
    assert len(operations(path)) == 2
    await owner.run({"one": rows(1, 2, gone=True)})
    assert files(path) == {}
    assert await owner.rows("one") == []


async def test_an_upsert_whose_commit_somebody_else_has_made_is_not_made_again(owner, path):
    await owner.run({"one": rows(1, 2)}, tables=[KEYED])
    package = await owner.make({"one": rows(2, 3, v="new")})

    async with owner.destination.connect(owner.target) as other:
        with finished_by_another(other, "filesystem.before_table") as entered:
            await owner.commit(package)

    assert entered
    assert await values(owner) == [(1, "old"), (2, "new"), (3, "new")]
    assert len(operations(path)) == 2


async def plain(owner):
    await owner.run({"one": rows(1, 2)}, tables=[KEYED])


async def has_partitions(owner, path):
    by = Column(name=ColumnName("v"), data_type="text", extra={"partition": True})
    await owner.run({"one": rows(1, 2)}, tables=[replace(KEYED, columns={**KEYED.columns, by.name: by})])


async def logs_changes(owner, path):
    await plain(owner)
    DeltaTable(path).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})


async def has_rules(owner, path):
    await plain(owner)
    DeltaTable(path).alter.add_constraint({"positive": "id > 0"})


async def knows_more(owner, path):
    await plain(owner)
    DeltaTable(path).alter.add_columns([Field("theirs", PrimitiveType("string"))])


@pytest.mark.parametrize("made", [logs_changes, has_rules, knows_more, has_partitions])
async def test_what_is_more_than_files_is_left_to_the_driver(owner, path, made):
    await made(owner, path)
    assert made is knows_more or not is_plain(DeltaTable(path))
    await owner.run({"one": rows(2, 3, v="new")})

    assert await values(owner) == [(1, "old"), (2, "new"), (3, "new")]
    assert operations(path)[-1] == "MERGE"
    assert made is not logs_changes or (path / "_change_data").exists()


async def test_what_others_have_put_into_a_column_of_theirs_stays(owner, path):
    await knows_more(owner, path)
    DeltaTable(path).update({"theirs": "'kept'"})
    await owner.run({"one": rows(2, 3, v="new")})

    found = DeltaTable(path).to_pyarrow_table().select(["id", "v", "theirs"]).sort_by("id").to_pylist()
    assert [tuple(one.values()) for one in found] == [(1, "old", "kept"), (2, "new", "kept"), (3, "new", None)]


def test_rows_go_into_as_many_files_as_it_takes(store, path, monkeypatch):
    monkeypatch.setattr(row_groups, "_GROUP_BYTES", 4_000)
    monkeypatch.setattr(delta_files, "_FILE_BYTES", 8_000)
    data = pa.table({"id": range(5_000), "v": [str(one) for one in range(5_000)]})
    write_deltalake(path, data.slice(0, 0))
    written = write_files(store, NAME, DeltaTable(path), data.to_batches(max_chunksize=100))

    assert len(written) > 2
    assert pa.concat_tables(pq.read_table(path / one.path) for one in written) == data
    assert all(one.size == (path / one.path).stat().st_size for one in written)
    assert min(pq.ParquetFile(path / one.path).num_row_groups for one in written) > 1
    bounds = [json.loads(one.stats) for one in written]
    assert bounds[0]["minValues"]["id"] == 0
    assert bounds[-1]["maxValues"]["id"] == 4_999
    assert sum(one["numRecords"] for one in bounds) == 5_000


def test_what_was_written_goes_when_the_next_rows_fail(store, path, monkeypatch):
    monkeypatch.setattr(row_groups, "_GROUP_BYTES", 1)
    monkeypatch.setattr(delta_files, "_FILE_BYTES", 1)
    good = pa.table({"id": [1]})
    write_deltalake(path, good.slice(0, 0))
    there = set(path.iterdir())
    batches = [*good.to_batches(), *good.to_batches(), *pa.table({"id": ["no number"]}).to_batches()]

    with pytest.raises(DestinationRejected, match=r"Delta table one, column id: a value does not fit .* int64"):
        write_files(store, NAME, DeltaTable(path), batches)

    assert set(path.iterdir()) == there


def test_the_log_has_bounds_that_others_understand_and_none_that_are_not_exact(store, path):
    at = dt.datetime(2024, 2, 29, 12, 30, 1, 123456)
    data = pa.table(
        {
            "whole": pa.array([-5, None, 7], pa.int64()),
            "text": ["b", "a", None],
            "long": ["x" * 65, "y", "z"],
            "day": [dt.date(1, 1, 1), None, dt.date(9999, 12, 31)],
            "zoned": pa.array([at, None, at], pa.timestamp("us", "UTC")),
            "naive": pa.array([at, None, at], pa.timestamp("us")),
            "is": [True, False, None],
            "real": [1.5, -2.0, None],
            "endless": [float("inf"), 1.0, None],
            "nothing": pa.nulls(3, pa.string()),
        }
    )
    write_deltalake(path, data.slice(0, 0))
    table = DeltaTable(path)
    written = write_files(store, NAME, table, data.to_batches())
    table.create_write_transaction(written, "append", table.schema())
    [found] = files(path).values()
    bounds = {
        name: (found.get(f"min.{name}"), found.get(f"max.{name}"), found[f"null_count.{name}"])
        for name in data.column_names
    }

    utc = at.replace(tzinfo=dt.UTC)
    assert bounds == {
        "whole": (-5, 7, 1),
        "text": ("a", "b", 1),
        "long": (None, "z", 0),
        "day": (dt.date(1, 1, 1), dt.date(9999, 12, 31), 1),
        "zoned": (utc, utc, 1),
        "naive": (at, at, 1),
        "is": (False, True, 1),
        "real": (-2.0, 1.5, 1),
        "endless": (1.0, None, 1),
        "nothing": (None, None, 3),
    }
    assert DeltaTable(path).to_pyarrow_table() == data
