"""Datasets that the reference has written are read and carried on, and the reference goes on with ours."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.load.protocol import Target
from asyncelt.schema.stored import from_json
from asyncelt.testing import make_commit, make_package

WORKER = Path(__file__).with_name("dlt_worker.py")
TARGET = Target(pipeline_name="theirs", dataset_name="ds")


async def run_dlt(kind, folder, runs):
    command = [sys.executable, WORKER, kind, folder, str(runs)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["duckdb", "filesystem"])
async def test_both_carry_on_what_the_other_has_written(kind, tmp_path):
    assert await run_dlt(kind, tmp_path, 2) == 2
    made = {
        "duckdb": lambda: destinations.duckdb(tmp_path / "data.duckdb"),
        "filesystem": lambda: destinations.filesystem(tmp_path / "files"),
    }
    destination = made[kind]()

    async with destination.connect(TARGET) as session:
        restored = await session.restore("theirs")
        assert restored.exists
        assert restored.state is not None
        assert restored.state_load_id == restored.last_load_id
        assert restored.head_load_id is None

        load_id = f"{float(restored.last_load_id) + 10:.6f}"
        rows = pa.table({"id": [9], "at": [9], "extra": ["new"], "_dlt_load_id": [load_id], "_dlt_id": ["x"]})
        schema = from_json(restored.schemas["theirs"])
        package = await asyncio.to_thread(
            make_package, tmp_path / "packages", load_id, {"orders": rows}, target=TARGET, schema=schema
        )
        lease = await session.acquire("theirs", "")
        result = await session.commit(make_commit(TARGET, lease, package))
        assert result.schema_updates[load_id] == {"orders": ("extra",)}

    assert await run_dlt(kind, tmp_path, 1) == 3

    async with destination.connect(TARGET) as session:
        found = await session.query("SELECT id, extra FROM orders ORDER BY id")
        assert [tuple(row.values()) for row in found.to_pylist()] == [(1, None), (2, None), (3, None), (9, "new")]
        assert (await session.query("SELECT count(*) AS n FROM orders__items")).to_pylist() == [{"n": 6}]
        restored = await session.restore("theirs")
        assert restored.head_load_id == load_id
        assert restored.last_load_id == load_id
