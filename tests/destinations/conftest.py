"""A real PostgreSQL server: one per process that runs tests, emptied for each test."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.support.postgres import PostgresServer, statements_that_empty

_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('public', 'information_schema')"
_IDLE = "SELECT query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
_STAGING = "SELECT relname FROM pg_class WHERE relname LIKE '\\_asyncelt\\_staging%'"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory):
    with PostgresServer(tmp_path_factory.mktemp("postgres") / "server") as server:
        yield server


async def _emptied(dsn):
    connection = await asyncpg.connect(dsn)

    try:
        for statement in statements_that_empty([row[0] for row in await connection.fetch(_SCHEMAS)]):
            await connection.execute(statement)
    finally:
        await connection.close()


async def _left_behind(dsn):
    connection = await asyncpg.connect(dsn)

    try:
        return [row[0] for query in (_IDLE, _STAGING) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@pytest.fixture
def postgres_dsn(postgres_server):
    """Connection string of an empty database; afterwards nothing may be under way in it."""
    dsn = postgres_server.dsn()
    asyncio.run(_emptied(dsn))
    yield dsn
    assert asyncio.run(_left_behind(dsn)) == []
