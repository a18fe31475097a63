"""Transformers in whole runs: one reading of a parent feeds its own table and everybody who reads from it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import asyncelt
from asyncelt.errors import ConfigError, PipelineStepFailed
from tests.engine.test_run import ask, make

Row = dict[str, object]


def _source(reads: list[str], *, is_async: bool, kept: bool = True) -> asyncelt.Source:
    def rows() -> Iterator[Row]:
        reads.append(asyncelt.current.resource_name())
        yield from ({"id": number} for number in range(200))

    async def rows_async() -> AsyncIterator[Row]:
        for row in rows():
            yield row

    parent = asyncelt.resource(rows_async if is_async else rows, name="parent", selected=kept)

    @asyncelt.transformer(data_from=parent)
    async def later(item: Row) -> Row:
        await asyncio.sleep(0)
        return {"id": item["id"], "who": asyncelt.current.resource_name()}

    @asyncelt.transformer(data_from=parent)
    def plain(item: Row) -> Iterator[Row]:
        yield {"id": item["id"], "who": asyncelt.current.resource_name()}
        yield {"id": item["id"], "who": "again"}

    @asyncelt.transformer(data_from=plain)
    def below(item: Row) -> Row | None:
        return item if item["who"] == "again" else None

    return asyncelt.Source("tree", [parent, later, plain, below])


@pytest.mark.covers("resource.selected", "transformer.data_from")
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("kept", [True, False])
async def test_a_parent_is_read_once_for_all(tmp_path: Path, is_async: bool, kept: bool) -> None:
    reads: list[str] = []
    pipeline = make(tmp_path)
    info = await pipeline.run(_source(reads, is_async=is_async, kept=kept))

    assert reads == ["parent"]
    assert info.row_counts["later"] == 200
    assert info.row_counts["plain"] == 400
    assert info.row_counts["below"] == 200
    assert info.row_counts.get("parent", 0) == (200 if kept else 0)
    assert await ask(pipeline, "SELECT DISTINCT who FROM later") == [("later",)]
    assert await ask(pipeline, "SELECT DISTINCT who FROM plain ORDER BY who") == [("again",), ("plain",)]
    assert [row[0] for row in await ask(pipeline, "SELECT id FROM later")] == list(range(200))


async def test_transformers_read_from_the_copy_that_a_source_has_of_their_parent(tmp_path: Path) -> None:
    source = _source([], is_async=True)
    source.parent.add_limit(3)
    info = await make(tmp_path).run(source.with_resources("below", "later"))

    assert {name: info.row_counts[name] for name in ("later", "below")} == {"later": 3, "below": 3}
    assert "parent" not in info.row_counts


async def test_a_transformer_that_has_had_enough_does_not_stop_the_others(tmp_path: Path) -> None:
    source = _source([], is_async=True)
    source.later.add_limit(5)
    info = await make(tmp_path).run(source)

    assert {name: info.row_counts[name] for name in ("parent", "later", "plain")} == {
        "parent": 200,
        "later": 5,
        "plain": 400,
    }


@pytest.mark.parametrize("name", ["later", "plain"])
async def test_a_transformer_that_wants_nothing_at_all_does_not_hold_up_the_others(tmp_path: Path, name: str) -> None:
    source = _source([], is_async=True)
    source.resources[name].add_limit(0)
    info = await make(tmp_path).run(source.with_resources("parent", name))

    assert info.row_counts["parent"] == 200
    assert name not in info.row_counts


async def test_a_parent_nobody_wants_more_of_is_closed(tmp_path: Path) -> None:
    closed: list[int] = []

    @asyncelt.resource(selected=False)
    async def endless() -> AsyncIterator[Row]:
        number = 0

        try:
            while True:
                number += 1
                yield {"id": number}
        finally:
            closed.append(number)

    taker = asyncelt.transformer(lambda item: item, data_from=endless, name="taker").add_limit(3)
    info = await make(tmp_path).run(asyncelt.Source("s", [endless, taker]))

    assert info.row_counts["taker"] == 3
    assert len(closed) == 1


@pytest.mark.parametrize("form", ["dict", "page", "bytes", "marked"])
async def test_items_reach_transformers_as_they_were_yielded(tmp_path: Path, form: str) -> None:
    items = {
        "dict": {"id": 1},
        "page": [{"id": 1}],
        "bytes": b'[{"id": 1}]',
        "marked": asyncelt.with_table_name([{"id": 1}], "elsewhere"),
    }
    seen: list[object] = []

    @asyncelt.resource
    async def parent() -> AsyncIterator[object]:
        yield items[form]

    @asyncelt.transformer(data_from=parent)
    async def child(item: object) -> Row:
        seen.append(item)
        return {"id": 2}

    info = await make(tmp_path).run([parent, child])

    assert seen == [[{"id": 1}] if form == "marked" else items[form]]
    assert info.row_counts["elsewhere" if form == "marked" else "parent"] == (2 if form == "marked" else 1)


async def test_an_error_in_a_transformer_ends_the_run_and_names_it(tmp_path: Path) -> None:
    source = _source([], is_async=False)

    @asyncelt.transformer(data_from=source.parent)
    def broken(item: Row) -> Row:
        raise ValueError(f"no {item['id']}")

    before = asyncio.all_tasks(), threading.active_count()

    with pytest.raises(PipelineStepFailed, match=r"transformer 'broken'.*no 0"):
        await make(tmp_path).run([source, broken])

    assert asyncio.all_tasks() == before[0]


def test_there_are_two_modes() -> None:
    with pytest.raises(ConfigError, match="next_item_mode is one of"):
        asyncelt.Limits(next_item_mode="lifo")  # type: ignore[arg-type]


@pytest.mark.covers("probe.1.round_robin")
async def test_resources_are_read_side_by_side_unless_told_otherwise(tmp_path: Path) -> None:
    """Each item is there only when all resources have come as far: one after the other they would wait for ever."""
    together = asyncio.Barrier(3)

    async def rows() -> AsyncIterator[Row]:
        for number in range(5):
            await together.wait()
            yield {"n": number}

    pipeline = make(tmp_path)
    info = await pipeline.run([asyncelt.resource(rows(), name=name) for name in "abc"])

    assert {name: info.row_counts[name] for name in "abc"} == {"a": 5, "b": 5, "c": 5}
    assert [row[0] for row in await ask(pipeline, "SELECT n FROM b")] == list(range(5))


@pytest.mark.covers("probe.1.fifo")
async def test_fifo_reads_one_resource_after_the_other(tmp_path: Path) -> None:
    async def rows(name: str) -> AsyncIterator[Row]:
        for number in range(3):
            await asyncio.sleep(0)
            yield {"from": f"{name}{number}"}

    settings = asyncelt.Settings(limits=replace(asyncelt.Limits(), next_item_mode="fifo", gather_rows=1))
    pipeline = make(tmp_path, settings=settings)
    await pipeline.run([asyncelt.resource(rows(name), name=name, table_name="t") for name in "abc"])

    assert [row[0] for row in await ask(pipeline, 'SELECT "from" FROM t')] == [
        f"{name}{number}" for name in "abc" for number in range(3)
    ]
