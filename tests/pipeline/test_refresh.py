"""Refresh is part of the commit: with it, or not at all. What it does to tables is in tests/differential/rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import PipelineStepFailed
from asyncelt.failpoints import installed


async def ask(pipeline: asyncelt.Pipeline, sql: str) -> list[dict[str, object]]:
    """Rows of a query."""
    async with pipeline.sql_client() as client:
        return list((await client.query(sql)).to_pylist())


@pytest.mark.covers("refresh.drop_sources", "refresh.drop_resources", "refresh.drop_data", "probe.5.refresh")
@pytest.mark.parametrize("mode", ["drop_sources", "drop_resources", "drop_data"])
async def test_a_load_that_fails_leaves_the_old_tables_as_they_were(tmp_path: Path, mode: Any) -> None:
    """The reference drops and truncates before it loads, so a failing load leaves nothing."""

    def fail(point: str) -> None:
        if point == "duckdb.before_commit":
            raise OSError("out of order")

    pipeline = asyncelt.pipeline(
        "p",
        destination=asyncelt.destinations.duckdb(str(tmp_path / "p.duckdb")),
        dataset_name="data",
        pipelines_dir=tmp_path / "work",
    )
    await pipeline.run([{"id": 1, "old": 1, "l": [1]}], table_name="t")

    with installed(fail), pytest.raises(PipelineStepFailed):
        await pipeline.run([{"id": 2}], table_name="t", refresh=mode)

    assert await ask(pipeline, "SELECT id, old FROM t") == [{"id": 1, "old": 1}]
    assert await ask(pipeline, "SELECT value FROM t__l") == [{"value": 1}]
    await pipeline.load()
    assert await ask(pipeline, "SELECT id FROM t") == [{"id": 2}]
    columns = await ask(pipeline, "SELECT column_name AS c FROM duckdb_columns() WHERE table_name = 't'")
    assert ({"c": "old"} in columns) == (mode == "drop_data")
