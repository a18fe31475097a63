"""Rows of staged files, as they go into tables of Delta and Iceberg."""

from __future__ import annotations

import threading
import weakref

import pyarrow as pa
import pytest
from sqlglot import exp

import asyncelt
from asyncelt import destinations
from asyncelt.destinations.filesystem_impl import delta_files, iceberg_files, row_groups, staged
from asyncelt.destinations.filesystem_impl.staged import Staged, small_database
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName

MANY = 200_000


def test_nothing_else_is_asked_while_rows_are_read():
    """DuckDB would end them there, and the table would get fewer rows."""
    with small_database() as connection:
        connection.execute(f"CREATE TABLE many AS SELECT range AS n FROM range({MANY})")
        many = Staged(connection, exp.select("n").from_("many"), None)
        rows = many.reader()
        seen = rows.read_next_batch().num_rows

        for ask in (lambda: many.connection, many.reader):
            with pytest.raises(AssertionError, match="being read"):
                ask()

        assert seen + sum(batch.num_rows for batch in rows) == MANY
        assert many.connection.execute("SELECT count(*) FROM many").fetchone() == (MANY,)


def test_neither_rows_nor_their_group_are_kept_once_the_next_ones_are_made(monkeypatch):
    monkeypatch.setattr(row_groups, "_GROUP_BYTES", 1)
    batches: list[weakref.ref[pa.RecordBatch]] = []
    groups: list[weakref.ref[pa.Table]] = []

    def given():
        for number in range(3):
            assert [one() for one in (*batches, *groups)] == [None] * 2 * number
            box = [pa.record_batch({"id": pa.array([number], pa.int32())})]
            batches.append(weakref.ref(box[0]))
            yield box.pop()

    for group in row_groups.row_groups(given(), pa.schema([("id", pa.int64())]), "here"):
        assert batches[-1]() is None
        groups.append(weakref.ref(group))
        del group

    assert len(groups) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
async def test_a_row_group_of_an_upsert_is_not_kept_while_the_next_one_is_made(tmp_path, monkeypatch, kind):
    module = delta_files if kind == "delta" else iceberg_files
    made = row_groups.row_groups
    seen: list[weakref.ref[pa.Table]] = []

    def watched(*arguments):
        for group in made(*arguments):
            assert all(one() is None for one in seen)
            seen.append(weakref.ref(group))
            yield group
            del group

    owner = Owner(destinations.filesystem(tmp_path / "lake"), tmp_path / "packages", "parquet")
    await owner.run({"one": pa.table({"id": range(10_000)})}, tables=[keyed(kind)])
    monkeypatch.setattr(row_groups, "_GROUP_BYTES", 1)
    monkeypatch.setattr(module, "row_groups", watched)
    await owner.run({"one": pa.table({"id": range(5_000, 15_000)})})

    assert len(seen) > 4
    assert len(await owner.rows("one")) == 15_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
async def test_rows_are_only_put_in_order_where_a_key_comes_twice(tmp_path, monkeypatch, kind):
    created: list[str] = []
    create = staged._create

    def watched(connection, name, select):
        created.append(name)
        create(connection, name, select)

    monkeypatch.setattr(staged, "_create", watched)
    owner = Owner(destinations.filesystem(tmp_path / "lake"), tmp_path / "packages", "parquet")
    await owner.run({"one": pa.table({"id": [3, 1, 2], "v": [0, 0, 0]})}, tables=[keyed(kind)])
    assert created == [staged.DOOMED]

    await owner.run({"one": pa.table({"id": [2, 4, 2], "v": [1, 1, 2]})})
    assert created == [staged.DOOMED, staged.DOOMED, staged._WINNERS]
    assert sorted((row["id"], row["v"]) for row in await owner.rows("one")) == [(1, 0), (2, 2), (3, 0), (4, 1)]


@pytest.mark.slow
async def test_files_that_are_written_anew_are_read_as_fast_as_they_are_written(tmp_path, monkeypatch):
    """Arrow's own scanner reads them in threads of its own, which do not wait for a writer."""
    shown, written = set(), set()
    show, write = iceberg_files._as_shown, iceberg_files._OpenFile.write

    def watched_show(*arguments):
        shown.add(threading.get_ident())

        return show(*arguments)

    def watched_write(*arguments):
        written.add(threading.get_ident())
        write(*arguments)

    owner = Owner(destinations.filesystem(tmp_path / "lake"), tmp_path / "packages", "parquet")
    await owner.run({"one": pa.table({"id": range(10_000)})}, tables=[keyed("iceberg")])
    monkeypatch.setattr(iceberg_files, "_as_shown", watched_show)
    monkeypatch.setattr(iceberg_files._OpenFile, "write", watched_write)
    await owner.run({"one": pa.table({"id": range(5_000, 15_000)})})

    assert len(shown) == 1
    assert shown == written


def keyed(kind):
    key = Column(name=ColumnName("id"), data_type="bigint", primary_key=True, nullable=False)

    return Table(
        name=TableName("one"),
        resource="one",
        write_disposition="merge",
        hints={"table_format": kind},
        columns={key.name: key},
    )


@pytest.mark.slow
async def test_nested_rows_that_do_not_fit_into_memory_are_told_apart_on_the_disk(tmp_path, monkeypatch):
    """Joining and grouping at once took more than there may be, and nothing of it could be put aside."""
    monkeypatch.setattr(staged, "_MEMORY", "24MB")
    pipeline = asyncelt.pipeline(
        "nested", destination=destinations.filesystem(tmp_path / "lake"), pipelines_dir=tmp_path / "work"
    )
    rows = [{"id": n, "parts": [{"nr": nr} for nr in range(3)]} for n in range(100_000)]
    await pipeline.run(
        rows,
        table_name="one",
        primary_key="id",
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        table_format="delta",
    )

    async with pipeline.sql_client() as client:
        found = await client.query("SELECT count(*) AS rows, count(DISTINCT _dlt_id) AS ids FROM one__parts")

    assert found.to_pylist() == [{"rows": 300_000, "ids": 300_000}]
