"""A pipeline into Postgres, and rows for it."""

from __future__ import annotations

import asyncio

import anyio

import asyncelt

__all__ = ["leave_endless_query", "numbers", "pipeline_on"]

_BUSY = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(86400)%'"


async def numbers(count):
    for start in range(0, count, 10):
        yield [{"id": number, "tags": ["a", "b"]} for number in range(start, start + 10)]


def pipeline_on(destination, folder, name="pg", **more):
    return asyncelt.pipeline(name, destination=destination, dataset_name="raw", pipelines_dir=folder, **more)


async def leave_endless_query(pipeline, raw):
    """Cancel a query that takes a day, and wait until the server does not work at it any more."""

    async def ask():
        async with pipeline.sql_client() as sql:
            await sql.query("SELECT pg_sleep(86400)")

    async def until(count):
        while await raw.fetchval(f"{_BUSY} AND pid <> pg_backend_pid()") != count:
            await asyncio.sleep(0.01)

    with anyio.fail_after(200):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(1)
            tasks.cancel_scope.cancel()

        await until(0)
