"""Datasets that the reference has written are read and carried on, and the reference goes on with ours."""

from __future__ import annotations

import asyncio

import duckdb
import pyarrow as pa
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.load.protocol import Target
from asyncelt.schema.stored import from_json
from asyncelt.testing import make_commit, make_package
from tests.destinations import dlt_worker

TARGET = Target(pipeline_name="theirs", dataset_name="ds")


@pytest.fixture
def folder(kind, tmp_path, request):
    """Where the data goes, or stands where it goes."""
    if kind == "postgres":
        (tmp_path / "dsn").write_text(request.getfixturevalue("postgres_dsn"))

    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["duckdb", "filesystem", "postgres"])
async def test_both_carry_on_what_the_other_has_written(kind, folder, run_dlt):
    await run_dlt(dlt_worker.main, kind, folder, 2)
    assert (folder / "last_value").read_text() == "2"
    made = {
        "duckdb": lambda: destinations.duckdb(folder / "data.duckdb"),
        "filesystem": lambda: destinations.filesystem(folder / "files"),
        "postgres": lambda: destinations.postgres((folder / "dsn").read_text()),
    }
    destination = made[kind]()

    async with destination.connect(TARGET) as session:
        restored = await session.restore("theirs")
        assert restored.exists
        assert restored.state is not None
        assert restored.state_load_id == restored.last_load_id
        assert restored.head_load_id is None

        load_id = f"{float(restored.last_load_id) + 3600:.6f}"
        rows = pa.table({"id": [9], "at": [9], "extra": ["new"], "_dlt_load_id": [load_id], "_dlt_id": ["x"]})
        schema = from_json(restored.schemas["theirs"])
        package = await asyncio.to_thread(
            make_package, folder / "packages", load_id, {"orders": rows}, target=TARGET, schema=schema
        )
        lease = await session.acquire("theirs", "")
        result = await session.commit(make_commit(TARGET, lease, package))
        assert result.schema_updates[load_id] == {"orders": ("extra",)}

    await run_dlt(dlt_worker.main, kind, folder, 1)
    assert (folder / "last_value").read_text() == "3"

    async with destination.connect(TARGET) as session:
        found = await session.query("SELECT id, extra FROM orders ORDER BY id")
        assert [tuple(row.values()) for row in found.to_pylist()] == [(1, None), (2, None), (3, None), (9, "new")]
        assert (await session.query("SELECT count(*) AS n FROM orders__items")).to_pylist() == [{"n": 6}]
        restored = await session.restore("theirs")
        assert restored.head_load_id == load_id
        assert restored.last_load_id == load_id


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["delete-insert", "upsert", "cdc", "scd2"])
async def test_both_merge_into_what_the_other_has_merged(strategy, tmp_path, run_dlt):
    """The reference begins, asyncelt goes on, the reference again: rows, lists and links as if one had done it all."""
    loads = [
        [{"id": 1, "v": "a", "l": [1, 2]}, {"id": 2, "v": "b", "l": [3]}, {"id": 3, "v": "c", "l": []}],
        [{"id": 1, "v": "A", "l": [4]}, {"id": 2, "v": "b", "l": [3]}, {"id": 4, "v": "d", "l": [5, 6]}],
        [{"id": 1, "v": "A", "l": [4]}, {"id": 4, "v": "D", "l": [6]}, {"id": 2, "v": "b", "l": [3]}],
    ]
    database = tmp_path / "data.duckdb"

    for number, rows in enumerate(loads):
        arguments = {"disposition": "merge", "strategy": strategy}

        if strategy == "scd2":
            arguments["boundary_timestamp"] = f"2024-01-0{number + 1}T00:00:00Z"

        if number != 1:
            await run_dlt(dlt_worker.main, "duckdb", tmp_path, {"rows": rows, "write_disposition": arguments})
            continue

        ours = asyncelt.pipeline(
            "theirs",
            destination=destinations.duckdb(str(database)),
            dataset_name="ds",
            pipelines_dir=tmp_path / "ours",
        )
        await ours.run(asyncelt.resource(rows, name="orders", primary_key="id"), write_disposition=arguments)

    with duckdb.connect(str(database)) as connection:
        connection.execute("USE ds")
        items = """SELECT o.id, o.v, list(l.value ORDER BY l._dlt_list_idx) FILTER (l.value IS NOT NULL)
            FROM orders o LEFT JOIN orders__l l ON l._dlt_parent_id = o._dlt_id {} GROUP BY ALL ORDER BY ALL"""
        last = [(row["id"], row["v"], row["l"]) for row in sorted(loads[-1], key=lambda row: row["id"])]
        kept = [] if strategy in {"cdc", "scd2"} else [(3, "c", None)]
        active = "WHERE o._dlt_valid_to IS NULL" if strategy == "scd2" else ""
        assert connection.execute(items.format(active)).fetchall() == sorted([*last, *kept])
        orphans = "SELECT count(*) FROM orders__l l WHERE l._dlt_parent_id NOT IN (SELECT _dlt_id FROM orders)"
        assert connection.execute(orphans).fetchone() == (0,)

        if strategy == "scd2":
            days = ("day(_dlt_valid_from AT TIME ZONE 'UTC')", "day(_dlt_valid_to AT TIME ZONE 'UTC')")
            ends = f"SELECT id, v, {', '.join(days)} FROM orders ORDER BY ALL"
            assert connection.execute(ends).fetchall() == [
                (1, "A", 2, None),
                (1, "a", 1, 2),
                (2, "b", 1, None),
                (3, "c", 1, 2),
                (4, "D", 3, None),
                (4, "d", 2, 3),
            ]
