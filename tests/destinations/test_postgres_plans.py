"""How Postgres carries out what merging asks it: each statement of each strategy, explained on a large table.

The planner must have a way that does not compare every row with every other. It takes such a way only where it has no
choice, so that a nested loop over two scans, or a subplan per row, shows in its plan whatever the tables hold.
"""

from __future__ import annotations

import json

import asyncpg
import pytest

from asyncelt.destinations.postgres_impl.types import postgres_type
from asyncelt.destinations.sql import ddl
from asyncelt.destinations.sql.merge import MergePlan, merge_statements
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.destinations.sql.staging import create_staging
from asyncelt.schema.model import Column
from asyncelt.testing.merging import child_table, key, root_table
from asyncelt.testing.strategies import by_strategy
from asyncelt.testing.versioning import on, versions_table

from sqlglot import exp  # isort: skip

DATASET = Dataset("data")
ROWS = 20_000
GONE = Column(name="gone", data_type="bool", hard_delete=True)
SORTED = Column(name="at", data_type="bigint", dedup_sort="desc")

CHAINS = {
    "delete-insert": [root_table("orders", id=key("id"), gone=GONE, at=SORTED), child_table("orders__items", "orders")],
    "delete-insert, both keys": [
        root_table("orders", id=key("id"), day=key("day", merge_key=True)),
        child_table("orders__items", "orders", root_key=False),
        child_table("orders__items__tags", "orders__items", root_key=False),
    ],
    **{
        strategy: [
            by_strategy(root_table("orders", id=key("id"), gone=GONE), strategy),
            child_table("orders__items", "orders"),
        ]
        for strategy in ("upsert", "insert-only", "cdc")
    },
    "upsert, unchanged left": [
        by_strategy(root_table("orders", id=key("id"), at=SORTED), "upsert", **{"x-merge-skip-unchanged-rows": True}),
        child_table("orders__items", "orders"),
    ],
    "scd2": on(versions_table(), 1),
}


def nodes(plan):
    yield plan

    for one in plan.get("Plans", []):
        yield from nodes(one)


def is_scan_of_many(plan):
    return plan["Node Type"] == "Seq Scan" and plan["Plan Rows"] > 100


def compares_all_pairs(plan):
    """A table is gone through once more for each row of another."""
    for one in nodes(plan):
        if one.get("Parent Relationship") == "SubPlan" and "hashed" not in one.get("Subplan Name", ""):
            yield one

        if one["Node Type"] == "Nested Loop" and any(is_scan_of_many(below) for below in nodes(one["Plans"][1])):
            yield one


@pytest.fixture
async def connection(postgres_dsn):
    opened = await asyncpg.connect(postgres_dsn)
    yield opened
    await opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
async def test_no_statement_compares_all_pairs(connection, name):
    chain = tuple(CHAINS[name])
    staged = {one.name: f"s_{at}" for at, one in enumerate(chain)}
    await connection.execute("CREATE SCHEMA data; SET search_path TO data")

    for one in chain:
        columns = list(one.columns.values())
        await connection.execute(ddl.create_table(DATASET, one.name, columns, postgres_type, "postgres", unique=True))
        values = ", ".join(_value(column) for column in columns)
        rows = f"FROM generate_series(1, {ROWS}) AS n"
        await connection.execute(f'INSERT INTO data."{one.name}" SELECT {values} {rows}')
        await connection.execute(create_staging(DATASET, one, staged[one.name], (), "postgres"))
        await connection.execute(f"INSERT INTO {staged[one.name]} SELECT {values}, n {rows}")

    await connection.execute("ANALYZE")
    plan = MergePlan(
        dataset=DATASET,
        chain=chain,
        staged={one: table(other) for one, other in staged.items()},
        existing=frozenset(staged),
        arrival=lambda: exp.column("ctid"),
        keeps_order=True,
        analyzes=True,
        dialect="postgres",
        strategy=chain[0].hints.get("x-merge-strategy", "delete-insert"),
        created_at=1_700_000_000.0,
    )

    for statement in merge_statements(plan):
        if not statement.sql.startswith(("DROP", "ANALYZE")):
            [[text]] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.parameters)
            assert list(compares_all_pairs(json.loads(text)[0]["Plan"])) == [], statement.sql + text

        await connection.execute(statement.sql, *statement.parameters)


def _value(column):
    return {
        "bigint": "n % 5" if column.name == "day" else "n",
        "text": f"'{column.name}' || n" if column.name == "v" else "'k' || n",
        "bool": "n % 7 = 0",
        "timestamp": "CASE WHEN n % 2 = 0 THEN now() END",
    }[column.data_type]
