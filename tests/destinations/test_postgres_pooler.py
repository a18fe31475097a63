"""Behind a pooler in transaction mode, and over TLS."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import asyncpg
import pyarrow as pa
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.config import Retry, Settings
from asyncelt.errors import (
    AsynceltError,
    ConfigError,
    DestinationRejected,
    DestinationUnavailable,
    PipelineStepFailed,
)
from asyncelt.load.committing import load_bundle
from asyncelt.load.protocol import Target
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit
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


@pytest.mark.parametrize("arguments", [{}, {"statement_cache_size": 0}])
async def test_a_pooler_that_nobody_has_mentioned_is_named_before_anything_is_done(pooler, raw, tmp_path, arguments):
    """Also where statements survive, as they do in newer poolers: locks do not."""
    async with asyncpg.create_pool(pooler.dsn, min_size=0, max_size=2, **arguments) as pool:
        with pytest.raises(AsynceltError, match=r"Hint: a pooler .*pooled=True"):
            await pipeline_on(destinations.postgres(pool), tmp_path).run(numbers(10), table_name="items")

    assert await raw.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert await raw.fetchval("SELECT to_regnamespace('raw')") is None


@pytest.mark.parametrize(
    "said, message",
    [
        ("password authentication failed", "check username and password"),
        ("SASL authentication failed", "check username and password"),
        ('database "nothing" does not exist', "create the database first"),
        ("unsupported startup parameter: options", "ignore_startup_parameters"),
        ("unsupported startup parameter in options: statement_timeout", "ignore_startup_parameters"),
    ],
)
async def test_what_a_pooler_refuses_is_not_tried_again(postgres_dsn, said, message):
    async with (
        Pooler(postgres_dsn, refusal=said) as pooler,
        destinations.postgres(pooler.dsn, pooled=True).connect(TARGET) as session,
    ):
        with pytest.raises(DestinationRejected, match=f"{said} Hint: .*{message}"):
            await session.restore("pg")


async def test_a_pooler_that_has_no_connection_now_may_have_one_later(postgres_dsn):
    async with (
        Pooler(postgres_dsn, refusal="query_wait_timeout") as pooler,
        destinations.postgres(pooler.dsn, pooled=True).connect(TARGET) as session,
    ):
        with pytest.raises(DestinationUnavailable, match="query_wait_timeout"):
            await session.restore("pg")


@asynccontextmanager
async def all_connections(pooler):
    """Each connection of the pooler to the server, in a transaction."""
    async with AsyncExitStack() as stack:
        clients = [await asyncpg.connect(pooler.dsn, statement_cache_size=0) for _ in range(pooler.size)]

        for client in clients:
            stack.push_async_callback(client.close)
            await stack.enter_async_context(client.transaction())

        yield clients


@pytest.mark.slow
async def test_what_others_have_set_stays(pooler, tmp_path):
    async with all_connections(pooler) as clients:
        for client in clients:
            await client.execute("SET my.mark = 'here'")

    await pipeline_on(destinations.postgres(pooler.dsn, pooled=True), tmp_path).run(numbers(10), table_name="items")

    async with all_connections(pooler) as clients:
        assert [await client.fetchval("SHOW my.mark") for client in clients] == ["here"] * pooler.size


@pytest.mark.slow
async def test_a_pooler_lets_go_of_connections_to_a_server_that_is_no_primary_any_more(pooler, raw, tmp_path):
    """It would keep them, since they work: as well as a server works that only answers queries."""
    owner = Owner(destinations.postgres(pooler.dsn, pooled=True), tmp_path / "packages", "parquet")
    await owner.run({"one": pa.table({"id": [1]})})
    package = await owner.make({"one": pa.table({"id": [2]})})

    async def demote():
        async with all_connections(pooler) as clients:
            for client in clients:
                await client.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")

    async with owner.destination.connect(owner.target) as session:
        await demote()

        for _ in range(pooler.size):
            with pytest.raises(DestinationRejected, match="read-only"):
                await session.acquire(owner.target.pipeline_name, "")

        commit = make_commit(owner.target, await session.acquire(owner.target.pipeline_name, ""), package)
        await demote()
        report = await load_bundle(
            session,
            commit,
            Settings(retry=Retry(attempts=8, first_s=0.01, max_s=0.1)),
            lambda event: None,
            max_parallel=None,
        )

    assert report.retries == pooler.size
    assert await raw.fetchval("SELECT count(*) FROM data.one") == 2


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
