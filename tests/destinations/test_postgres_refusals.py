"""What cannot work is refused with one line that says what to do, and before anything is extracted if it can be known."""

from __future__ import annotations

import re
from functools import partial

import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.errors import AsynceltError
from tests.support.postgres import WITH_PASSWORD


@pytest.fixture
async def guest(postgres_dsn, raw):
    """The connection string of a role that may nothing."""
    await raw.execute(f"CREATE ROLE {WITH_PASSWORD} LOGIN PASSWORD 'right'")
    yield postgres_dsn.replace("postgres:any@", f"{WITH_PASSWORD}:right@")
    await raw.execute(f"DROP OWNED BY {WITH_PASSWORD} CASCADE; DROP ROLE {WITH_PASSWORD}")


def altered(setting):
    return f"ALTER ROLE {WITH_PASSWORD} {setting}"


def table(columns, owner="postgres"):
    """A table that somebody else has made."""
    return f"CREATE SCHEMA raw AUTHORIZATION {owner}; CREATE TABLE raw.items ({columns}); ALTER TABLE raw.items OWNER TO {owner}"


COLUMNS = "id bigint, name text, _dlt_id text, _dlt_load_id text"


async def fail(dsn, folder, *, moved=False):
    """The error of a run, which is one line; whether rows were asked for is as told."""
    asked = []

    async def items():
        asked.append(True)
        yield [{"id": 1, "name": "a"}]

    pipeline = asyncelt.pipeline(
        "refused",
        destination=destinations.postgres(dsn),
        dataset_name="raw",
        pipelines_dir=folder,
        on_busy="raise",
        settings=asyncelt.Settings(retry=asyncelt.Retry(attempts=1)),
    )

    with pytest.raises(AsynceltError) as caught:
        await pipeline.run(items(), table_name="items")

    assert (len(asked) > 0) == moved
    assert "\n" not in str(caught.value)

    return str(caught.value)


@pytest.mark.parametrize(
    "dsn, message",
    [
        ("postgresql://a@no-such-host.invalid/x", "Hint: check host and port in the credentials"),
        ("postgresql://a@127.0.0.1:1/x", "Hint: check host and port in the credentials"),
    ],
)
async def test_a_server_that_cannot_be_reached(dsn, message, tmp_path):
    assert message in await fail(dsn, tmp_path)


@pytest.mark.parametrize(
    "password, settings, message",
    [
        (":wrong", "SELECT 1", "password authentication failed for user .* Hint: check username and password"),
        ("", "SELECT 1", "password authentication failed for user .* Hint: check username and password"),
        (
            ":right",
            "SELECT 1",
            "'raw' is not there and cannot be made: permission denied for database .* Hint: grant the role",
        ),
        (":right", "CREATE SCHEMA raw", "permission denied for schema raw. Hint: grant the role CREATE"),
        (
            ":right",
            altered("SET default_transaction_read_only = on"),
            "read-only for this role. Hint: connect to the primary",
        ),
        (":right", altered("CONNECTION LIMIT 0"), "too many connections for role .* Hint: a run needs two connections"),
    ],
)
async def test_a_role_that_may_not(guest, raw, tmp_path, password, settings, message):
    await raw.execute(settings)
    assert re.search(message, await fail(guest.replace(":right", password), tmp_path))


@pytest.mark.parametrize(
    "made, message",
    [
        (
            table(COLUMNS.replace("bigint", "text")),
            "Table 'items' of load .* column 'id': values of the Arrow type int64 .* If somebody has altered the column",
        ),
        (table(COLUMNS + ", mine int NOT NULL"), r"table 'items' .*column 'mine', row 1.* Hint: .* give it a default"),
        ("CREATE SCHEMA raw; CREATE VIEW raw.items AS SELECT 1 AS id", "Hint: a view, .* has the name of a table"),
    ],
)
async def test_a_table_that_somebody_has_changed(postgres_dsn, raw, tmp_path, made, message):
    await raw.execute(made)
    assert re.search(f"(?i){message}", await fail(postgres_dsn, tmp_path, moved=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting, message",
    [
        ("lock_timeout", "lock timeout Hint: somebody else holds a lock on the table"),
        ("statement_timeout", "statement timeout Hint: .* ALTER ROLE ... SET statement_timeout"),
    ],
)
async def test_a_table_that_is_locked_for_too_long(guest, raw, tmp_path, setting, message):
    await raw.execute(altered(f"SET {setting} = '150ms'"))
    await raw.execute(table(COLUMNS, WITH_PASSWORD))

    async with raw.transaction():
        await raw.execute("LOCK TABLE raw.items")
        assert re.search(message, await fail(guest, tmp_path, moved=True))


@pytest.mark.slow
async def test_a_column_that_somebody_has_dropped_comes_back(postgres_dsn, raw, tmp_path):
    pipeline = asyncelt.pipeline(
        "dropped", destination=destinations.postgres(postgres_dsn), dataset_name="raw", pipelines_dir=tmp_path
    )
    run = partial(pipeline.run, table_name="items")
    await run([{"id": 1, "name": "a"}])
    await raw.execute("ALTER TABLE raw.items DROP COLUMN name")
    await run([{"id": 2, "name": "b"}])
    rows = await raw.fetch("SELECT id, name FROM raw.items ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, None), (2, "b")]


@pytest.mark.slow
async def test_a_role_that_fills_tables_needs_no_right_to_make_any(postgres_dsn, guest, raw, tmp_path):
    """Somebody else has made them all."""
    for dsn in (postgres_dsn, guest):
        pipeline = asyncelt.pipeline(
            "filled", destination=destinations.postgres(dsn), dataset_name="raw", pipelines_dir=tmp_path
        )
        await pipeline.run([{"id": 1}], table_name="items")
        await raw.execute(f"GRANT USAGE ON SCHEMA raw TO {WITH_PASSWORD}")
        await raw.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA raw TO {WITH_PASSWORD}")

    assert await raw.fetchval("SELECT count(*) FROM raw.items") == 2
