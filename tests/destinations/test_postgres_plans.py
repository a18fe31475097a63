"""How Postgres carries out what merging asks it: each statement of each strategy, explained on a large table.

``ASYNCELT_PLAN_ROWS=500000 make test ARGS='--slow -k test_postgres_plans'`` is the long form.

The planner must have a way that does not compare every row with every other. It takes such a way only where it has no
choice, so that a nested loop over two scans, or a subplan per row, shows in its plan whatever the tables hold.
"""

from __future__ import annotations

import json
import os

import asyncpg
import pytest

from asyncelt.destinations.postgres_impl.indexing import create_index, wanted_indexes
from asyncelt.destinations.postgres_impl.types import postgres_type
from asyncelt.destinations.sql import ddl
from asyncelt.destinations.sql.merge import MergePlan, merge_statements
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.destinations.sql.temporary import create_staging
from asyncelt.schema.model import Column, Schema
from asyncelt.testing.merging import child_table, key, root_table
from asyncelt.testing.strategies import by_strategy
from asyncelt.testing.versioning import on, versions_table

from sqlglot import exp  # isort: skip

DATASET = Dataset("data")
ROWS = 20_000
MANY = int(os.environ.get("ASYNCELT_PLAN_ROWS", "50000"))
FEW = 20
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


async def fill(connection, chain, rows, staged_rows, *, days=5):
    """The tables of a chain with their indexes and staging tables; returns the merge."""
    staged = {one.name: f"s_{at}" for at, one in enumerate(chain)}
    schema = Schema(name="s", tables={one.name: one for one in chain})
    await connection.execute("CREATE SCHEMA data; SET search_path TO data")

    for one in chain:
        columns = list(one.columns.values())
        await connection.execute(ddl.create_table(DATASET, one.name, columns, postgres_type, "postgres"))
        values = ", ".join(_value(column, days) for column in columns)
        await connection.execute(f'INSERT INTO data."{one.name}" SELECT {values} FROM generate_series(1, {rows}) AS n')

        for index in wanted_indexes(schema, one.name):
            await connection.execute(create_index(DATASET, index))

        await connection.execute(create_staging(DATASET, one, staged[one.name], (), "postgres"))
        few = f"FROM generate_series(1, {rows}, {rows // staged_rows}) AS n"
        await connection.execute(f"INSERT INTO {staged[one.name]} SELECT {values}, n {few}")

    await connection.execute("ANALYZE")

    return MergePlan(
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


async def explained(connection, plan):
    """The statements of a merge, each with its plan, while they are carried out."""
    for statement in merge_statements(plan):
        if not statement.sql.startswith(("DROP", "ANALYZE")):
            [[text]] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.parameters)

            yield statement.sql, json.loads(text)[0]["Plan"]

        await connection.execute(statement.sql, *statement.parameters)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
async def test_no_statement_compares_all_pairs(connection, name):
    plan = await fill(connection, tuple(CHAINS[name]), ROWS, ROWS)

    async for sql, found in explained(connection, plan):
        assert list(compares_all_pairs(found)) == [], sql + json.dumps(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in CHAINS if name not in {"cdc", "scd2"}])
async def test_few_rows_are_merged_into_many_without_reading_them_all(connection, name):
    """By the indexes that a load makes. Not so cdc and scd2, which have to find the rows that are absent."""
    chain = tuple(CHAINS[name])
    plan = await fill(connection, chain, MANY, FEW, days=MANY // 20)
    targets = {one.name for one in chain}

    async for sql, found in explained(connection, plan):
        scans = [one for one in nodes(found) if one["Node Type"] == "Seq Scan" and one["Relation Name"] in targets]
        assert scans == [], sql + json.dumps(found)


def _value(column, days):
    return {
        "bigint": f"n % {days}" if column.name == "day" else "n",
        "text": f"'{column.name}' || n" if column.name == "v" else "'k' || n",
        "bool": "n % 7 = 0",
        "timestamp": "CASE WHEN n % 2 = 0 THEN now() END",
    }[column.data_type]
