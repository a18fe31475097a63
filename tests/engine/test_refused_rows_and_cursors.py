"""Rows that a model refuses before a cursor sees them: refused in one run, not in each."""

from __future__ import annotations

import datetime as dt

import pytest
from pydantic import BaseModel

import asyncelt
from tests.support.bad_rows import make, rows_of

pytestmark = pytest.mark.filterwarnings("ignore::asyncelt.AsynceltWarning")


class Item(BaseModel):
    id: int
    at: int
    v: int


class Event(BaseModel):
    id: int
    at: dt.datetime
    v: int


def row(number, at, v=0):
    return {"id": number, "at": at, "v": v}


def items(rows, model=Item, on_error="quarantine", **options):
    cursor = asyncelt.sources.incremental("at", **{key: options.pop(key) for key in ("row_order",) if key in options})

    return asyncelt.resource(rows, name="items", incremental=cursor, columns=model, on_error=on_error, **options)


async def ids_in_quarantine(pipeline):
    found = await pipeline.quarantined().select("payload").order_by("payload").fetchall()

    return [text.partition(",")[0].removeprefix('{"id": ') for (text,) in found]


def last_value(pipeline):
    return pipeline.state["sources"]["p"]["resources"]["items"]["incremental"]["at"]["last_value"]


async def test_a_row_beyond_all_others_is_refused_once_and_the_cursor_is_past_it(tmp_path):
    pipeline = make(tmp_path, "memory")
    rows = [row(1, 1), row(2, 3, "bad"), row(3, 2)]

    for _ in range(3):
        await pipeline.run(items(rows))

    assert await ids_in_quarantine(pipeline) == ["2"]
    assert await rows_of(pipeline, "items", "id") == [(1,), (3,)]
    assert last_value(pipeline) == 3


async def test_a_source_that_gives_everything_again_fills_no_quarantine(tmp_path):
    pipeline = make(tmp_path, "memory")
    rows = [row(1, 1, "bad"), row(2, 5)]
    await pipeline.run(items(rows))
    info = await pipeline.run(items([*rows, row(3, 6, "bad"), row(4, 6), row(5, 6, "bad")]))

    assert info.quarantined_rows == {"items": 2}
    assert await ids_in_quarantine(pipeline) == ["1", "3", "5"]

    await pipeline.run(
        items([*rows, row(3, 6, "bad"), row(4, 6), row(5, 6, "bad"), row(6, 6), row(7, 6, "new and bad")])
    )
    assert await ids_in_quarantine(pipeline) == ["1", "3", "5", "7"]
    assert await rows_of(pipeline, "items", "id") == [(2,), (4,), (6,)]


async def test_a_value_is_compared_as_the_model_reads_it(tmp_path):
    pipeline = make(tmp_path, "memory")
    rows = [row(1, "2024-01-02T00:00:00Z"), row(2, "2024-01-03T00:00:00Z", "bad"), row(3, "never", "bad")]

    for _ in range(2):
        await pipeline.run(items(rows, Event))

    # Where the cursor itself is at fault, nobody knows where the row belongs.
    assert await ids_in_quarantine(pipeline) == ["2", "3", "3"]
    assert last_value(pipeline) == dt.datetime(2024, 1, 3, tzinfo=dt.UTC)


async def test_rows_that_are_skipped_are_counted_once(tmp_path):
    pipeline = make(tmp_path, "memory")
    rows = [row(1, 1), row(2, 2, "bad")]

    assert (await pipeline.run(items(rows, on_error="skip"))).skipped_rows == {"items": 1}
    assert (await pipeline.run(items(rows, on_error="skip"))).skipped_rows == {}


async def test_where_no_row_is_good_the_first_run_knows_no_last_value(tmp_path):
    pipeline = make(tmp_path, "memory")
    await pipeline.run(items([row(1, 1, "bad")]))
    assert await ids_in_quarantine(pipeline) == ["1"]

    await pipeline.run(items([row(1, 1, "bad"), row(2, 2)]))
    await pipeline.run(items([row(1, 1, "bad"), row(2, 2)]))
    assert await ids_in_quarantine(pipeline) == ["1", "1"]


async def test_a_declared_order_is_that_of_the_rows_that_are_left(tmp_path, recwarn):
    """The refused row of a page is seen before its other rows, and no warning says that rows are out of order."""
    pipeline = make(tmp_path, "memory")
    read: list[int] = []

    async def pages():
        for start in (1, 4, 7):
            read.append(start)
            yield [row(start, start), row(start + 1, start + 1, "bad"), row(start + 2, start + 2)]

    await pipeline.run(items(pages, row_order="asc"))

    assert read == [1, 4, 7]
    assert recwarn.list and not any("in this order" in str(one.message) for one in recwarn.list)
    assert await rows_of(pipeline, "items", "id") == [(1,), (3,), (4,), (6,), (7,), (9,)]
    assert await ids_in_quarantine(pipeline) == ["2", "5", "8"]


async def test_a_row_without_its_key_cannot_be_remembered(tmp_path):
    pipeline = make(tmp_path, "memory")
    cursor = asyncelt.sources.incremental("at", primary_key="id")

    for _ in range(2):
        bad = {"at": 1, "v": 1}
        await pipeline.run(
            asyncelt.resource([row(1, 1), bad], name="items", incremental=cursor, columns=Item, on_error="quarantine")
        )

    assert len(await pipeline.quarantined().fetchall()) == 2
