"""Resources that read what is new of a relation: rows pass their cursor, or the cursor is moved ahead of them."""

from __future__ import annotations

import pytest

import asyncelt
from asyncelt.errors import (
    AsynceltWarning,
    PipelineStepFailed,
    UsageError,
)
from tests.reading.loaded import ITEMS, make_pipeline

cursor = asyncelt.sources.incremental


@pytest.fixture
async def growing(tmp_path):
    """A pipeline with a table that tests add rows to, and a function that adds them."""
    pipeline = make_pipeline("memory", tmp_path)

    async def add(*rows):
        await pipeline.run([{"id": number, "at": at} for number, at in rows], table_name="numbers")

    await add((1, 1), (2, 2), (3, 2))

    return pipeline, add


def copying(tmp_path, read, at, **options):
    """A pipeline into memory, and a coroutine that runs it once and gives all rows there."""
    target = asyncelt.pipeline("copy", destination="memory", dataset_name="copy", pipelines_dir=tmp_path / "copies")

    @asyncelt.resource(name="copied", **options)
    async def copied(at=at):
        async for chunk in read(at):
            yield chunk

    async def run():
        await target.run(copied())

        return [row[0] for row in await target.dataset()["copied"].order_by("id").select("id").fetchall()]

    return target, run


def last_value(target):
    return target.state["sources"]["copy"]["resources"]["copied"]["incremental"]["at"]["last_value"]


async def test_rows_pass_the_cursor_of_a_resource_and_none_is_missed_or_read_twice(growing, tmp_path):
    source, add = growing
    target, run = copying(
        tmp_path,
        lambda at: source.dataset()["numbers"].incremental(at).select("id", "at").iter_arrow(2),
        cursor("at", 1),
    )

    assert await run() == [1, 2, 3]
    await add((4, 2), (5, 1), (6, 3))
    assert await run() == [1, 2, 3, 4, 6]
    assert await run() == [1, 2, 3, 4, 6]
    assert last_value(target) == 3


async def test_a_limit_reads_on_where_the_run_before_has_ended(growing, tmp_path):
    source, _ = growing
    _, run = copying(
        tmp_path,
        lambda at: source.dataset()["numbers"].incremental(at).order_by("at").limit(2).select("id", "at").iter_arrow(1),
        cursor("at", 1),
    )
    first = await run()

    assert len(first) == 2 and first[0] == 1
    assert await run() == [1, 2, 3]


@pytest.mark.parametrize(
    "chosen, options",
    [
        (lambda rows: rows.limit(2), {}),
        (lambda rows: rows.order_by("id").limit(2), {}),
        (lambda rows: rows.order_by("at", "desc").limit(2), {}),
        (lambda rows: rows.order_by("at").limit(2), {"range_start": "open"}),
    ],
)
async def test_a_limit_that_would_leave_rows_behind_is_refused(growing, tmp_path, chosen, options):
    source, _ = growing
    _, run = copying(
        tmp_path,
        lambda at: chosen(source.dataset()["numbers"].incremental(at)).iter_arrow(1),
        cursor("at", 0, **options),
    )

    with pytest.raises(PipelineStepFailed, match=r"limit\(\) on a range of the cursor 'at'"):
        await run()


async def test_a_row_without_a_value_is_refused_by_the_cursor(growing, tmp_path):
    source, add = growing
    await add((4, None))
    _, run = copying(tmp_path, lambda at: source.dataset()["numbers"].incremental(at).iter_arrow(10), cursor("at", 1))

    with pytest.raises(PipelineStepFailed, match="1 rows of a table have no value in this column"):
        await run()


async def test_a_cursor_is_advanced_for_rows_that_do_not_pass_it(growing, tmp_path):
    """As the reference: rows at the last value are left to the next run."""
    source, add = growing

    async def read(at):
        relation = await source.dataset()["numbers"].advance(at)
        assert relation.is_incremental
        yield await relation.select("id").arrow()

    target, run = copying(tmp_path, read, cursor("at", on_cursor_value_missing="exclude"))

    with pytest.warns(AsynceltWarning, match="rows with the last value, 2, are left to the next run"):
        assert await run() == [1]

    await add((4, 2), (5, 5))

    with pytest.warns(AsynceltWarning, match="the last value, 5,"):
        assert await run() == [1, 2, 3, 4]

    assert last_value(target) == 5


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"range_start": "open"}, [[1, 2, 3], [1, 2, 3, 5]]),
        ({"range_end": "closed"}, [[1, 2, 3], [1, 2, 2, 3, 3, 4, 5]]),
    ],
)
async def test_rows_at_the_last_value_are_read_where_the_range_says_so(growing, tmp_path, options, expected):
    source, add = growing

    async def read(at):
        yield await (await source.dataset()["numbers"].advance(at)).select("id").arrow()

    _, run = copying(tmp_path, read, cursor("at", 0, on_cursor_value_missing="exclude", **options))
    found = [await run()]
    await add((4, 2), (5, 5))

    assert [*found, await run()] == expected


async def test_a_cursor_that_is_the_key_takes_its_last_row_at_once_and_never_again(growing, tmp_path):
    source, add = growing

    async def read(at):
        rows = await (await source.dataset()["numbers"].advance(at)).select("id").arrow()
        counts.append(rows.num_rows)
        yield rows

    counts: list[int] = []
    _, run = copying(tmp_path, read, cursor("id", on_cursor_value_missing="exclude"), primary_key="id")

    assert await run() == [1, 2, 3]
    assert await run() == [1, 2, 3]
    await add((4, 0))
    assert await run() == [1, 2, 3, 4]
    assert counts == [3, 0, 1]


async def test_a_range_with_an_end_moves_nothing(growing, tmp_path):
    source, _ = growing

    async def read(at):
        yield await (await source.dataset()["numbers"].advance(at)).select("id").arrow()

    target, run = copying(tmp_path, read, cursor("at", 1, end_value=2, on_cursor_value_missing="exclude"))

    assert await run() == [1]
    assert "sources" not in target.state


async def test_nested_tables_follow_the_cursor_of_their_root(growing, tmp_path):
    source, _ = growing
    await source.run(ITEMS, table_name="items")
    dataset = source.dataset()

    async def read(at):
        tags = await dataset["items__tags"].advance(at)
        yield (await tags.select("tag").arrow()).rename_columns(["id"])

    _, run = copying(tmp_path, read, cursor("items.id", range_end="closed", on_cursor_value_missing="exclude"))

    assert await run() == ["a", "b", "c"]


async def test_rows_cannot_pass_the_cursor_of_another_table(growing, tmp_path):
    source, _ = growing
    await source.run(ITEMS, table_name="items")
    dataset = source.dataset()
    _, run = copying(tmp_path, lambda at: dataset["items__tags"].incremental(at).iter_arrow(1), cursor("items.id"))

    with pytest.raises(PipelineStepFailed, match="it cannot follow them: use 'await relation"):
        await run()


async def test_only_the_cursor_of_a_resource_can_be_advanced(growing):
    source, _ = growing

    with pytest.raises(UsageError, match="while it is read"):
        await source.dataset()["numbers"].advance(cursor("id"))


async def test_an_advance_never_leaves_rows_to_a_limit(growing, tmp_path):
    source, _ = growing

    async def read(at):
        yield await (await source.dataset()["numbers"].limit(1).advance(at)).arrow()

    _, run = copying(tmp_path, read, cursor("at", on_cursor_value_missing="exclude"))

    with pytest.raises(PipelineStepFailed, match="no later run reads"):
        await run()
