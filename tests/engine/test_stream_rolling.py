"""Streams through the public API: what can be streamed, and when packages end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.errors import (
    ConfigError,
    PipelineStepFailed,
    UsageError,
)
from asyncelt.storage.state import decode_state
from tests.engine.streamed import Log, ask, make

# ---------------------------------------------------------------------------------- what can be streamed


async def test_a_source_without_safe_points_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield {"id": 1}

    with pytest.raises(ConfigError, match="has no safe points"):
        await make(tmp_path).stream(rows())

    assert os.listdir(tmp_path) == []


async def test_replace_transformers_and_synchronous_cursors_are_refused(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield asyncelt.checkpoint()

    @asyncelt.transformer
    async def more(item: object) -> AsyncIterator[object]:
        yield item

    @asyncelt.resource
    def ordered(at: object = asyncelt.sources.incremental("at", row_order="asc")) -> object:
        del at
        yield {"at": 1}

    pipeline = make(tmp_path)

    with pytest.raises(ConfigError, match="'replace'"):
        await pipeline.stream(rows(), write_disposition="replace")

    with pytest.raises(ConfigError, match="is a transformer"):
        await pipeline.stream(rows() | more)

    with pytest.raises(ConfigError, match="synchronous generator with row_order='asc'"):
        await pipeline.stream(ordered())


async def test_a_stream_starts_once(tmp_path: Path) -> None:
    stream = make(tmp_path).stream(Log([[1]]))
    await stream

    with pytest.raises(UsageError, match="started once"):
        await stream


async def test_positions_need_a_destination_that_keeps_them(tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline(
        "stream", destination=asyncelt.destinations.filesystem(str(tmp_path / "files")), pipelines_dir=tmp_path / "work"
    )

    with pytest.raises(ConfigError, match="keeps no positions"):
        await pipeline.stream(Log([[1]]))


# ---------------------------------------------------------------------------------- rolling


async def test_packages_end_by_rows_and_schemas_grow_from_one_to_the_next(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        for n in range(6):
            yield {"n": n, f"column_{n}": n, "items": [n]}
            yield asyncelt.checkpoint()

    pipeline = make(tmp_path)
    stats = await pipeline.stream(rows(), roll=asyncelt.Roll(rows=2, seconds=3600))

    assert (stats.packages, stats.rows, stats.queued) == (3, 6, 0)
    assert await ask(pipeline, "SELECT count(DISTINCT _dlt_load_id), count(*), sum(column_5) FROM rows") == [(3, 6, 5)]
    assert await ask(pipeline, "SELECT count(*) FROM rows__items") == [(6,)]
    assert await ask(pipeline, "SELECT load_id FROM _dlt_loads ORDER BY inserted_at") == await ask(
        pipeline, "SELECT load_id FROM _dlt_loads ORDER BY load_id"
    )
    assert not pipeline.has_pending_data


async def test_a_package_ends_only_at_checkpoints_and_its_state_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        state = asyncelt.current.resource_state()

        for page in range(2):
            state["page"] = page
            yield [{"n": 1}, {"n": 2}, {"n": 3}]
            yield {"n": 4}
            yield asyncelt.checkpoint()
            state["page"] = "not yet"

        state["page"] = "the end"

    pipeline = make(tmp_path)
    stats = await pipeline.stream(rows(), roll=asyncelt.Roll(rows=2, seconds=3600))
    found = await ask(pipeline, "SELECT count(*) FROM rows GROUP BY _dlt_load_id ORDER BY _dlt_load_id")

    assert found == [(4,), (4,)]
    assert stats.rows == 8
    kept = [
        decode_state(str(text))["sources"]
        for (text,) in await ask(pipeline, "SELECT state FROM _dlt_pipeline_state ORDER BY version")
    ]
    assert kept == [{"stream": {"resources": {"rows": {"page": page}}}} for page in (0, 1, "the end")]


async def test_a_cursor_in_order_is_cut_anywhere_and_carried_on(tmp_path: Path) -> None:
    @asyncelt.resource(primary_key="n")
    async def rows(
        most: int,
        n: asyncelt.sources.incremental[int] = asyncelt.sources.incremental("n", initial_value=0, row_order="asc"),
    ) -> AsyncIterator[object]:
        for number in range(int(n.last_value or 0), most):
            yield {"n": number}
            await anyio.lowlevel.checkpoint()

        if most == 10:
            raise OSError("gone")

    pipeline = make(tmp_path)

    with pytest.raises(PipelineStepFailed, match="gone"):
        await pipeline.stream(rows(10), roll=asyncelt.Roll(rows=3, seconds=3600))

    before = (await ask(pipeline, "SELECT count(*) FROM rows"))[0][0] if pipeline.schema_names else 0
    assert before in (0, 3, 6, 9)
    again = make(tmp_path)
    await again.stream(rows(20), roll=asyncelt.Roll(rows=3, seconds=3600))

    assert await ask(again, "SELECT count(*), count(DISTINCT n), max(n) FROM rows") == [(20, 20, 19)]


async def test_a_quiet_source_is_committed_when_its_time_has_come(tmp_path: Path) -> None:
    channel = asyncelt.sources.channel("rows")

    async with make(tmp_path).stream(channel, roll=asyncelt.Roll(seconds=0.01)) as stream:
        await channel.send({"n": 1})

        assert stream.stats.packages == 1


async def test_several_resources_are_cut_together(tmp_path: Path) -> None:
    go = anyio.Event()

    @asyncelt.resource
    async def quick() -> AsyncIterator[object]:
        for n in range(4):
            yield {"n": n}
            yield asyncelt.checkpoint()

        go.set()

    @asyncelt.resource
    async def slow() -> AsyncIterator[object]:
        yield {"n": 1}
        yield asyncelt.checkpoint()
        await go.wait()
        yield {"n": 2}

    pipeline = make(tmp_path)
    await pipeline.stream([quick(), slow()], roll=asyncelt.Roll(rows=2, seconds=3600))

    assert await ask(pipeline, "SELECT count(*) FROM quick") == [(4,)]
    assert await ask(pipeline, "SELECT count(*) FROM slow") == [(2,)]


async def test_a_synchronous_source_with_checkpoints_is_streamed(tmp_path: Path) -> None:
    @asyncelt.resource
    def rows() -> object:
        for n in range(4):
            yield {"n": n}
            yield asyncelt.checkpoint()

    pipeline = make(tmp_path)
    stats = await pipeline.stream(rows(), roll=asyncelt.Roll(rows=1, seconds=3600))

    assert stats.rows == 4
    assert stats.packages >= 1


async def test_checkpoints_mean_nothing_to_a_run(tmp_path: Path) -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield {"n": 1}
        yield asyncelt.checkpoint()
        yield [asyncelt.Message({"n": 2}), asyncelt.Message([{"n": 3}, {"n": 4}], table_name="others")]

    pipeline = make(tmp_path)
    info = await pipeline.run(rows())

    assert info.row_counts["rows"] == 2
    assert info.row_counts["others"] == 2
