"""Datasets in PostgreSQL that both sides merge into by turns: rows, lists, flags, keys and state stay whole."""

from __future__ import annotations

import pytest

import asyncelt
from asyncelt import current, destinations
from tests.destinations.dlt_merge_worker import PIPELINE, STRATEGIES, disposition, hints, main, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.differential, pytest.mark.timeout(600)]

LISTS = (
    "SELECT _dlt_parent_id AS parent, _dlt_list_idx AS place, x, _dlt_id AS own FROM orders__l ORDER BY parent, place"
)
DEEP = (
    "SELECT _dlt_parent_id AS parent, _dlt_root_id AS root, value FROM orders__l__deep ORDER BY parent, _dlt_list_idx"
)


async def ours(dsn, folder, turn):
    for strategy in STRATEGIES:

        async def orders(strategy=strategy):
            state = current.resource_state()
            state["turns"] = [*state.get("turns", []), "ours"]
            yield rows_of(strategy, turn)

        pipeline = pipeline_on(dsn, folder / f"ours-{turn}-{strategy}", strategy)
        cursor = None if strategy == "scd2" else asyncelt.sources.incremental("at")
        resource = asyncelt.resource(orders, name="orders", incremental=cursor, **hints(strategy))
        await pipeline.run(resource, write_disposition=disposition(strategy, turn))


def pipeline_on(dsn, folder, strategy):
    name = strategy.replace("-", "_")
    return asyncelt.pipeline(
        PIPELINE, destination=destinations.postgres(dsn), dataset_name=name, pipelines_dir=str(folder)
    )


async def loaded(dsn, folder, strategy):
    """Rows with their lists, who has counted in the state, and the cursor; whatever hangs nowhere fails."""
    pipeline = pipeline_on(dsn, folder / f"look-{strategy}", strategy)
    await pipeline.sync_destination()

    async with pipeline.sql_client() as sql:
        roots = (await sql.query("SELECT * FROM orders")).to_pylist()
        lists = (await sql.query(LISTS)).to_pylist()
        deep = (await sql.query(DEEP)).to_pylist() if strategy != "scd2" else []  # no list has its root there

    own = {line["own"] for line in lists}
    assert {line["parent"] for line in deep} <= own
    assert {line["parent"] for line in lists} | {line["root"] for line in deep} <= {row["_dlt_id"] for row in roots}
    rows = [
        (
            row["id"],
            row["v"],
            tuple(line["x"] for line in lists if line["parent"] == row["_dlt_id"]),
            tuple(line["value"] for line in deep if line["root"] == row["_dlt_id"]),
            *(str(row[name])[:10] for name in ("_dlt_valid_from", "_dlt_valid_to") if name in row),
        )
        for row in roots
    ]
    state = pipeline.state["sources"][PIPELINE]["resources"]["orders"]
    cursor = state.get("incremental", {}).get("at", {}).get("last_value")

    return sorted(rows), state["turns"], cursor


KEYED = [(1, "A", (4,), (4, 0)), (2, "back", (9,), (9, 0)), (3, "c", (7,), (7, 0)), (4, "D", (6,), (6, 0))]
"""Row 2 went by its flag and came back; what was older than the cursor has not come in."""
DAYS = ("2024-01-01", "2024-01-02", "2024-01-03", "None")
EXPECTED = {
    "delete-insert": KEYED,
    "upsert": KEYED,
    "insert-only": [
        (1, "a", (1, 2), (1, 0, 2, 0)),
        (2, "b", (3,), (3, 0)),
        (3, "c", (7,), (7, 0)),
        (4, "d", (5, 6), (5, 0, 6, 0)),
    ],
    "cdc": [KEYED[1], KEYED[3]],
    "scd2": [
        (1, "A", (4,), (), *DAYS[1:3]),
        (1, "a", (1, 2), (), *DAYS[:2]),
        (2, "b", (), (), *DAYS[1:3]),
        (2, "b", (3,), (), *DAYS[:2]),
        (2, "back", (9,), (), *DAYS[2:]),
        (3, "c", (7,), (), *DAYS[:2]),
        (3, "too old", (8,), (), *DAYS[1:3]),
        (4, "D", (6,), (), *DAYS[2:]),
        (4, "d", (5, 6), (), *DAYS[1:3]),
        (4, "too late", (1,), (), *DAYS[2:]),
    ],
}


@pytest.mark.parametrize("first", ["theirs", "ours"])
async def test_they_merge_by_turns(first, tmp_path, postgres_dsn, run_dlt):
    sides = {"theirs": lambda *turn: run_dlt(main, *turn), "ours": ours}
    order = [first, "ours" if first == "theirs" else "theirs", first]

    for turn, side in enumerate(order):
        await sides[side](postgres_dsn, tmp_path, turn)

    for strategy in STRATEGIES:
        cursor = None if strategy == "scd2" else 4
        assert await loaded(postgres_dsn, tmp_path, strategy) == (EXPECTED[strategy], order, cursor)
