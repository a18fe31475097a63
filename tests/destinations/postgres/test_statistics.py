"""Large merges, of which the planner is told between which keys they are: right for every type, and not read in vain."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from asyncelt import destinations
from asyncelt.destinations.postgres_impl.writing import WORTH_STATISTICS
from tests.destinations.postgres_runs import pipeline_on

READ = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname = 'items'"
MANY = 4 * WORTH_STATISTICS
STEP = WORTH_STATISTICS
DAY, NOW = date(1900, 1, 1), datetime(1969, 12, 31, 23, tzinfo=UTC)

KEYS = {
    "bigint": lambda number: {"id": number - MANY // 2},
    "double": lambda number: {"id": number / 4},
    "text": lambda number: {"id": f"{number:07}"},
    "date": lambda number: {"id": DAY + timedelta(days=number)},
    "timestamp": lambda number: {"id": NOW + timedelta(microseconds=number)},
    "two": lambda number: {"id": number // 3, "at": NOW + timedelta(seconds=number % 3)},
}


def rows(key, first, count, value):
    return [
        {**key(number), "number": number, "value": value, "tags": [number] if number % 1000 == 0 else []}
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize("strategy", ["delete-insert", "upsert", "insert-only"])
@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("threshold", [None, 0])
async def test_rows_with_staged_keys_are_replaced_and_no_others(postgres_dsn, raw, tmp_path, name, strategy, threshold):
    key = KEYS[name]
    pipeline = pipeline_on(destinations.postgres(postgres_dsn, staging_threshold=threshold), tmp_path)
    how = {
        "table_name": "items",
        "write_disposition": {"disposition": "merge", "strategy": strategy},
        "primary_key": ["id", "at"] if name == "two" else "id",
    }
    await pipeline.run(rows(key, 0, MANY, "old"), **how)
    # The newest keys again, and as many after them; and one from the middle.
    await pipeline.run(rows(key, MANY - STEP, 2 * STEP, "new") + rows(key, 7, 1, "new"), **how)

    found = await raw.fetch("SELECT number, value FROM raw.items ORDER BY number")
    new = set() if strategy == "insert-only" else {7, *range(MANY - STEP, MANY)}
    new.update(range(MANY, MANY + STEP))

    assert [tuple(row) for row in found] == [(n, "new" if n in new else "old") for n in range(MANY + STEP)]
    assert [row["value"] for row in await raw.fetch("SELECT value FROM raw.items__tags ORDER BY value")] == list(
        range(0, MANY + STEP, 1000)
    )


async def test_a_key_whose_column_somebody_has_altered_is_still_merged_by(postgres_dsn, raw, tmp_path):
    pipeline = pipeline_on(destinations.postgres(postgres_dsn), tmp_path)
    how = {"table_name": "items", "write_disposition": "merge", "primary_key": "id"}
    await pipeline.run(rows(KEYS["bigint"], 0, MANY, "old"), **how)
    await raw.execute("ALTER TABLE raw.items ALTER COLUMN id TYPE numeric")
    await pipeline.run(rows(KEYS["bigint"], MANY - STEP, 2 * STEP, "new"), **how)

    assert await raw.fetchval("SELECT count(*) FROM raw.items WHERE value = 'new'") == 2 * STEP
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == MANY + STEP


async def test_the_newest_keys_are_merged_without_reading_older_rows(postgres_dsn, raw, tmp_path):
    """Without the bounds the whole table is read: so many rows are too many to be looked up one by one."""
    pipeline = pipeline_on(destinations.postgres(postgres_dsn), tmp_path)
    how = {"table_name": "items", "write_disposition": "merge", "primary_key": "id"}
    await pipeline.run([{"id": number, "text": "x" * 200} for number in range(30 * STEP)], **how)
    before = await raw.fetchval(READ)
    await pipeline.run([{"id": number, "text": "y"} for number in range(30 * STEP, 32 * STEP)], **how)

    assert await raw.fetchval(READ) - before < STEP
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 32 * STEP
