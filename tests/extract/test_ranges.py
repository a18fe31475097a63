"""Cursors whose range the source applies itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import asyncelt
from asyncelt.errors import ConfigError, UsageError
from tests.support.bad_rows import make, rows_of

FORMS: dict[str, Callable[[list[dict[str, int]]], object]] = {
    "dicts": lambda rows: rows,
    "bytes": lambda rows: ("[" + ",".join(str(row).replace("'", '"') for row in rows) + "]").encode(),
    "arrow": pa.Table.from_pylist,
}


@pytest.mark.covers("Incremental.advance", "Incremental.advance.last_value", "Incremental.get_current_range")
@pytest.mark.parametrize("form", FORMS)
async def test_rows_pass_and_the_state_is_what_was_said(tmp_path: Path, form: str) -> None:
    seen: list[object] = []

    @asyncelt.resource(name="items", primary_key="id")
    async def items(
        rows: list[dict[str, int]], last: int | None, at: Any = asyncelt.sources.incremental("at", 5)
    ) -> Any:
        seen.append(at.get_current_range())
        assert at.advance(last) is at
        yield FORMS[form](rows)
        seen.append(at.get_current_range())

    pipeline = make(tmp_path, "memory")
    await pipeline.run(items([{"id": 1, "at": 1}, {"id": 2, "at": 9}], 9))
    await pipeline.run(items([{"id": 3, "at": 9}, {"id": 4, "at": 7}], None))

    assert await rows_of(pipeline, "items", "id") == [(1,), (2,), (3,), (4,)]
    assert seen == [(5, None), (5, 9), (9, None), (9, 9)]
    cursor: Any = pipeline.state["sources"]
    assert cursor["p"]["resources"]["items"]["incremental"]["at"]["last_value"] == 9


async def test_a_unique_cursor_remembers_its_last_row(tmp_path: Path) -> None:
    @asyncelt.resource(name="items", primary_key="id")
    async def items(rows: list[dict[str, int]], last: int | None, at: Any = asyncelt.sources.incremental("id")) -> Any:
        if last is not None:
            at.advance(last)

        yield rows

    pipeline = make(tmp_path, "memory")
    await pipeline.run(items([{"id": 1}, {"id": 2}], 2))
    await pipeline.run(items([{"id": 2}, {"id": 3}], None))

    assert await rows_of(pipeline, "items", "id") == [(1,), (2,), (3,)]


def test_outside_of_a_run() -> None:
    cursor: Any = asyncelt.sources.incremental("at", initial_value=1, end_value=3, lag=1)

    assert cursor.get_current_range() == cursor.get_current_range(apply_lag=False) == (1, 3)

    with pytest.raises(UsageError, match="works only while its resource is read"):
        cursor.advance(2)


@pytest.mark.covers("Incremental.get_current_range.apply_lag")
async def test_lag_moves_the_start_if_it_is_to(tmp_path: Path) -> None:
    found: list[object] = []

    @asyncelt.resource(name="items")
    async def items(at: Any = asyncelt.sources.incremental("at", 1, lag=2)) -> Any:
        found.extend([at.get_current_range(), at.get_current_range(apply_lag=False)])
        yield {"at": 9}

    pipeline = make(tmp_path, "memory")
    await pipeline.run(items())
    await pipeline.run(items())

    assert found == [(1, None), (1, None), (7, None), (9, None)]


@pytest.mark.covers(
    "Incremental.from_existing_state",
    "Incremental.from_existing_state.resource_name",
    "Incremental.from_existing_state.cursor_path",
)
async def test_the_cursor_of_another_resource(tmp_path: Path) -> None:
    incremental: Any = asyncelt.sources.incremental
    first = asyncelt.resource([{"at": 4}], name="first", incremental=incremental("at", initial_value=1))

    async def second(path: str) -> Any:
        cursor = incremental.from_existing_state("first", path)
        yield {"last": cursor.last_value, "initial": cursor.initial_value, "of": cursor.resource_name}

    pipeline = make(tmp_path, "memory")
    await pipeline.run(first)
    await pipeline.run(asyncelt.resource(second, name="second")("at"))
    assert await rows_of(pipeline, "second", "last", "initial", "of") == [(4, 1, "first")]

    with pytest.raises(ConfigError, match="has no cursor 'no'"):
        await pipeline.run(asyncelt.resource(second, name="second")("no"))

    with pytest.raises(UsageError, match="works only inside"):
        incremental.from_existing_state("first", "at")
