"""Rows in every form, all at once and in pieces."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import aclosing
from decimal import Decimal

import anyio
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import asyncelt
from asyncelt.errors import ConfigError, QueryError
from tests.reading.loaded import make_pipeline

ROWS = 25_000


@pytest.fixture(scope="session")
async def many(anyio_backend, kind, new_folder):
    """A table of several files, larger than a chunk."""
    pipeline = make_pipeline(kind, await asyncio.to_thread(new_folder))

    for start in (0, 15_000):
        stop = min(start + 15_000, ROWS)
        page = pa.table({"n": range(start, stop), "text": [f"row {n}" for n in range(start, stop)]})
        await pipeline.run(asyncelt.resource([page], name="many"))

    return pipeline.dataset()["many"].order_by("n")


@pytest.mark.covers("Relation.df", "Relation.fetchall")
async def test_all_rows_in_every_form(items):
    two = items.where("id", "lt", 3).order_by("id").select("id", "name")
    expected = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    assert (await two.arrow()).to_pylist() == expected
    assert (await two.df()).to_dict("records") == expected
    assert (await two.polars()).to_dicts() == expected
    assert await two.fetchall() == [(1, "one"), (2, "two")]
    assert isinstance(await two.df(), pd.DataFrame)
    assert isinstance(await two.polars(), pl.DataFrame)


@pytest.mark.covers("Relation.fetchone", "Relation.fetchmany")
async def test_the_first_rows_in_every_form(items):
    sorted_ = items.order_by("id").select("id")
    assert await sorted_.fetchone() == (1,)
    assert await sorted_.fetchmany(2) == [(1,), (2,)]
    assert (await sorted_.arrow(2)).to_pydict() == {"id": [1, 2]}
    assert list((await sorted_.df(1))["id"]) == [1]
    assert (await sorted_.polars(1))["id"].to_list() == [1]
    assert await sorted_.fetchmany(99) == [(1,), (2,), (3,)]


async def test_no_rows_in_every_form(items):
    none = items.where("id", "eq", 99).select("id", "name")
    assert await none.fetchall() == []
    assert await none.fetchone() is None
    assert await none.select("id").fetchscalar() is None
    assert (await none.arrow()).column_names == ["id", "name"]
    assert (await none.arrow(5)).schema.names == ["id", "name"]
    assert [chunk async for chunk in none.iter_arrow()] == []
    assert [chunk async for chunk in none.iter_fetch()] == []


async def test_a_single_value(items):
    assert await items.where("id", "eq", 1).select("name").fetchscalar() == "one"
    assert await items.where("id", "eq", 3).select("name").scalar() is None

    with pytest.raises(QueryError, match="more than one row"):
        await items.select("id").fetchscalar()

    with pytest.raises(QueryError, match="6 columns"):
        await items.where("id", "eq", 1).fetchscalar()


@pytest.mark.parametrize("size, expected", [(10_000, [10_000, 10_000, 5_000]), (ROWS, [ROWS]), (99_999, [ROWS])])
@pytest.mark.covers("Relation.iter_arrow")
async def test_pieces_have_exactly_the_size_that_was_asked_for(many, size, expected):
    chunks = [chunk async for chunk in many.iter_arrow(size)]
    assert [chunk.num_rows for chunk in chunks] == expected
    assert pa.concat_tables(chunks).column("n").to_pylist() == list(range(ROWS))


@pytest.mark.covers("Relation.iter_df", "Relation.iter_fetch")
async def test_pieces_in_every_form(many):
    frames = [frame async for frame in many.select("n").iter_df(20_000)]
    assert [len(frame) for frame in frames] == [20_000, 5_000]
    rows = [row async for chunk in many.iter_fetch(7_000) for row in chunk]
    assert rows[24_999] == (24_999, "row 24999")
    assert len(rows) == ROWS


@pytest.mark.parametrize("size", [0, -1])
async def test_a_piece_has_at_least_one_row(items, size):
    with pytest.raises(ConfigError, match="rows is a whole number from 1"):
        await items.arrow(size)

    with pytest.raises(ConfigError, match="rows is a whole number from 1"):
        async for _ in items.iter_arrow(size):
            pass


async def test_a_loop_can_be_left_early_and_the_dataset_be_loaded_again(kind, tmp_path):
    pipeline = make_pipeline(kind, tmp_path)
    await pipeline.run([{"n": n} for n in range(100)], table_name="many")

    async with aclosing(pipeline.dataset()["many"].iter_arrow(10)) as chunks:
        async for chunk in chunks:
            assert chunk.num_rows == 10
            break

    await pipeline.run([{"n": 100}], table_name="many")
    assert dict(await pipeline.dataset().row_counts().fetchall()) == {"many": 101}


async def test_the_same_pipeline_can_load_while_its_dataset_is_read(kind, tmp_path):
    """What is read is the state of the beginning."""
    pipeline = make_pipeline(kind, tmp_path)
    await pipeline.run([{"n": n} for n in range(30)], table_name="many")
    seen = 0

    async for chunk in pipeline.dataset()["many"].iter_fetch(10):
        seen += len(chunk)
        await pipeline.run([{"n": -1}] * 10, table_name="many")

    assert seen == 30
    assert dict(await pipeline.dataset().row_counts().fetchall()) == {"many": 60}


async def test_two_reads_at_the_same_time_in_one_connection(dataset):
    async with dataset:
        first = dataset["items"].order_by("id").select("id").iter_fetch(1)
        second = dataset["owners"].order_by("item").select("item").iter_fetch(1)

        async with aclosing(first), aclosing(second):
            assert await anext(first) == [(1,)]
            assert await anext(second) == [(1,)]
            assert await dataset["items"].select("id").max().fetchscalar() == 3
            assert await anext(first) == [(2,)]
            assert await anext(second) == [(2,)]


async def test_many_reads_at_the_same_time(dataset):
    found = []

    async def read(name):
        found.append((name, len(await dataset[name].fetchall())))

    async with anyio.create_task_group() as tasks:
        for name in ("items", "owners", "items__tags", "items", "owners"):
            tasks.start_soon(read, name)

    assert sorted(found) == [("items", 3), ("items", 3), ("items__tags", 3), ("owners", 3), ("owners", 3)]


async def test_values_come_back_as_python_has_them(kind, tmp_path):
    pipeline = make_pipeline(kind, tmp_path)
    row = {
        "amount": Decimal("1.50"),
        "big": 10**30,
        "day": dt.date(2024, 1, 1),
        "moment": dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC),
        "clock": dt.time(10, 30),
        "data": b"\x00\xff",
        "flag": True,
        "mixed": {"a": 1.5},
    }
    await pipeline.run([row], table_name="values")
    dataset = pipeline.dataset()
    columns = ["amount", "big", "day", "moment", "clock", "data", "flag", "mixed__a"]
    expected = (*list(row.values())[:-1], 1.5)
    assert await dataset["values"].select(*columns).fetchone() == expected
    assert isinstance((await dataset["values"].select("big").fetchone())[0], int)

    for name, value in zip(columns, expected, strict=True):
        assert len(await dataset["values"].where(name, "eq", value).fetchall()) == 1, name


async def test_relations_are_data_for_a_pipeline(pipeline, tmp_path):
    """Streams are async generators, which any pipeline takes."""
    copy = make_pipeline("memory", tmp_path)
    await copy.run(pipeline.dataset()["owners"].select("owner").iter_arrow(2), table_name="copied")
    assert len(await copy.dataset()["copied"].fetchall()) == 3
