"""Behind a pooler in transaction mode, and over TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.errors import AsynceltError, ConfigError, PipelineStepFailed
from asyncelt.load.protocol import Target
from tests.destinations.postgres_runs import leave_endless_query, numbers, pipeline_on
from tests.support.pooler import Pooler
from tests.support.postgres import left_behind

CERTIFICATES = Path(__file__).parents[1] / "support" / "tls"
TARGET = Target(pipeline_name="pg", dataset_name="raw")


@pytest.fixture
async def pooler(postgres_dsn):
    async with Pooler(postgres_dsn) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("disposition, threshold", [("append", None), ("replace", None), ("merge", 0)])
async def test_runs_go_through_a_pooler(pooler, raw, postgres_dsn, tmp_path, disposition, threshold):
    destination = destinations.postgres(pooler.dsn, pooled=True, staging_threshold=threshold)
    pipeline = pipeline_on(destination, tmp_path)

    for count in (30, 20):
        await pipeline.run(numbers(count), table_name="items", write_disposition=disposition, primary_key="id")

    expected = {"append": 50, "replace": 20, "merge": 30}[disposition]
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == expected
    assert await raw.fetchval("SELECT count(*) FROM raw.items__tags") == 2 * expected
    assert (await pipeline.dataset()["items"].arrow()).num_rows == expected

    async with pipeline.sql_client() as sql:
        assert await sql.execute_sql("SELECT count(*) FROM items WHERE id >= %s", 5) == [
            (expected - 5 * (2 if disposition == "append" else 1),)
        ]

    assert pooler.handed_out > 10
    assert await raw.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert left_behind(postgres_dsn) == []


@pytest.mark.slow
async def test_a_pooler_that_nobody_has_mentioned_is_named(pooler, tmp_path):
    pipeline = pipeline_on(destinations.postgres(pooler.dsn), tmp_path)

    async def run_often():
        for _ in range(3):
            await pipeline.run(numbers(10), table_name="items")

    with pytest.raises(AsynceltError, match=r"prepared statement .* Hint: a pooler .*pooled=True"):
        await run_often()


@pytest.mark.slow
async def test_several_pipelines_share_the_connections_of_a_pooler(pooler, raw, tmp_path):
    """And meet what the others have left at them, which is nothing."""
    destination = destinations.postgres(pooler.dsn, pooled=True, pool_size=2)
    pipelines = [pipeline_on(destination, tmp_path / str(at), f"p{at}") for at in range(4)]

    with anyio.fail_after(200):
        async with anyio.create_task_group() as tasks:
            for one in pipelines:
                tasks.start_soon(lambda one=one: one.run(numbers(20), table_name="items"))

    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 80


@pytest.mark.slow
async def test_the_server_ends_a_query_that_nobody_waits_for(pooler, raw, tmp_path):
    pipeline = pipeline_on(destinations.postgres(pooler.dsn, pooled=True), tmp_path)
    await pipeline.run(numbers(10), table_name="items")
    await leave_endless_query(pipeline, raw)


@pytest.mark.slow
async def test_a_second_owner_takes_over_and_the_first_cannot_commit(pooler, raw, tmp_path):
    destination = destinations.postgres(pooler.dsn, pooled=True)
    pipeline = pipeline_on(destination, tmp_path / "one")
    await pipeline.run(numbers(10), table_name="items")

    async def overtaken():
        yield [{"id": 100}]

        async with destination.connect(TARGET) as other:
            await other.acquire("pg", "")

    with pytest.raises(PipelineStepFailed, match="was taken over by another owner"):
        await pipeline.run(overtaken(), table_name="items")

    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 10


# -------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture
async def encrypted(postgres_dsn):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")

    async with Pooler(postgres_dsn, certificate=context) as started:
        yield started


def over_tls(pooler, **settings):
    return {
        "host": "localhost",
        "port": pooler.port,
        "database": "postgres",
        "username": "postgres",
        **settings,
    }


async def run(credentials, folder):
    pipeline = asyncelt.pipeline(
        "tls",
        destination=destinations.postgres(credentials, pooled=True),
        dataset_name="raw",
        pipelines_dir=folder,
        settings=asyncelt.Settings(retry=asyncelt.Retry(attempts=4, first_s=3600.0, max_s=3600.0)),
    )
    await pipeline.run([{"id": 1}], table_name="items")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_the_certificate_of_the_server_is_checked(encrypted, raw, tmp_path, mode):
    await run(over_tls(encrypted, sslmode=mode, sslrootcert=str(CERTIFICATES / "authority.pem")), tmp_path)
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 1


@pytest.mark.slow
async def test_a_connection_string_may_say_it(encrypted, raw, tmp_path):
    query = f"sslmode=verify-full&sslrootcert={CERTIFICATES / 'authority.pem'}"
    await run(f"postgresql://postgres@localhost:{encrypted.port}/postgres?{query}", tmp_path)
    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"sslmode": "verify-ca", "sslrootcert": "stranger.pem"},
            "certificate verify failed.* Hint: sslrootcert names",
        ),
        (
            {"sslmode": "verify-full", "sslrootcert": "authority.pem", "host": "127.0.0.1"},
            "certificate verify failed.*mismatch.* Hint: .*verify-full also wants",
        ),
        (
            {"sslmode": "verify-full", "sslrootcert": "nothing.pem"},
            "sslrootcert is '.*nothing.pem', which is not a file",
        ),
    ],
)
async def test_a_server_that_cannot_be_trusted_is_refused_at_once(encrypted, tmp_path, settings, message):
    """In one line, and not tried again, which would take this test an hour."""
    settings = {**settings, "sslrootcert": str(CERTIFICATES / settings["sslrootcert"])}

    with pytest.raises(AsynceltError, match=message) as caught, anyio.fail_after(200):
        await run(over_tls(encrypted, **settings), tmp_path)

    assert "\n" not in str(caught.value)
    assert not caught.value.retryable


async def test_a_server_without_tls_is_named(pooler, tmp_path):
    with pytest.raises(AsynceltError, match="rejected SSL upgrade Hint: the server has no TLS"), anyio.fail_after(200):
        await run(over_tls(pooler, sslmode="require"), tmp_path)


def test_files_of_credentials_reach_the_driver():
    address = destinations.postgres({"host": "h", "sslmode": "verify-ca", "sslrootcert": "/a b.pem"}).config.address
    assert (address.files, dict(address.parts)) == ({"sslrootcert": "/a b.pem"}, {"host": "h", "ssl": "verify-ca"})
    assert address.location == "postgresql://h/"

    with pytest.raises(ConfigError, match="sslrootcert"):
        destinations.postgres({"sslroot": "x"})
