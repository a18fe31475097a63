"""What is particular to the Postgres destination, on a real server."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from decimal import Decimal
from functools import partial

import anyio
import asyncpg
import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.errors import (
    ConfigError,
    DestinationRejected,
    DestinationUnavailable,
    PipelineBusy,
    PipelineStepFailed,
    UndefinedRelation,
)
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import key, root_table, roots
from asyncelt.testing.packages import make_commit
from tests.destinations.postgres_runs import numbers, pipeline_on

TARGET = Target(pipeline_name="conformance", dataset_name="data")


@pytest.fixture
def destination(postgres_dsn):
    return destinations.postgres(postgres_dsn)


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


# --------------------------------------------------------------------------------------------- the address


@pytest.mark.parametrize(
    "arguments, location",
    [
        (
            {"credentials": "postgresql://me:secret@db.example:5433/shop?sslmode=require"},
            "postgresql://db.example:5433/shop",
        ),
        ({"credentials": "postgres://me@db.example/shop?connect_timeout=3"}, "postgresql://db.example/shop"),
        ({"credentials": "postgresql+psycopg2://me@[::1]:5433/shop"}, "postgresql://%3A%3A1:5433/shop"),
        (
            {"credentials": {"host": "h", "port": "5433", "database": "d", "username": "me", "password": 1}},
            "postgresql://h:5433/d",
        ),
        ({"credentials": "postgresql://a/b", "host": "c", "database": "d"}, "postgresql://c/d"),
        ({"host": "/var/run/socket", "database": "d"}, "postgresql://%2Fvar%2Frun%2Fsocket/d"),
        ({}, "postgresql:///"),
    ],
)
def test_the_location_shows_where_and_no_secret(arguments, location):
    made = destinations.postgres(**arguments)
    assert made.location == location
    assert "secret" not in repr(made)


def test_what_only_libpq_understands_is_not_sent_to_the_server():
    address = destinations.postgres(
        "postgres://h/d?connect_timeout=3&client_encoding=utf-8&sslmode=require"
    ).config.address
    assert (address.dsn, address.timeout_s) == ("postgresql://h/d?sslmode=require", 3.0)


@pytest.mark.parametrize(
    "credentials, message",
    [
        ("mysql://h/d", "must begin with postgresql://"),
        ({"hots": "h"}, "have no 'hots'"),
        ({"port": "x"}, "not a number"),
        (5, "a pool of asyncpg, not int"),
    ],
)
def test_credentials_that_are_none_are_refused_before_anything_is_done(credentials, message):
    with pytest.raises(ConfigError, match=message):
        destinations.postgres(credentials)


def test_the_address_may_be_configured(monkeypatch):
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://me@h:1/d")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREATE_INDEXES", "false")
    made = destinations.postgres()
    assert (made.location, made.config.create_indexes) == ("postgresql://h:1/d", False)


@pytest.mark.parametrize(
    "dsn, error, message",
    [
        ("postgresql://postgres@127.0.0.1:1/postgres", DestinationUnavailable, "Connect call failed"),
        ("postgresql://postgres@no-such-host.invalid/postgres", DestinationUnavailable, "reading the state"),
    ],
)
async def test_a_server_that_is_not_there_may_come(dsn, error, message):
    async with destinations.postgres(dsn).connect(TARGET) as session:
        with pytest.raises(error, match=message):
            await session.restore("p")


async def test_a_database_that_is_not_there_is_named_with_what_to_do(postgres_server):
    async with destinations.postgres(postgres_server.dsn("nothing")).connect(TARGET) as session:
        with pytest.raises(DestinationRejected, match=r'"nothing" does not exist Hint: create the database') as caught:
            await session.restore("p")

    assert caught.value.code == "3D000"


# ------------------------------------------------------------------------------------------------ pipelines


@pytest.mark.slow
async def test_the_pool_of_the_caller_is_used_and_left_open(postgres_dsn, tmp_path):
    async with asyncpg.create_pool(postgres_dsn, min_size=2, max_size=2) as pool:
        destination = destinations.postgres(pool)
        pipeline = pipeline_on(destination, tmp_path)
        await pipeline.run(numbers(20), table_name="items")

        assert destination.location == "postgresql://:external:"
        assert await pool.fetchval("SELECT count(*) FROM raw.items") == 20
        assert await pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        assert pool.get_idle_size() == 2


def test_a_pool_of_one_connection_is_too_small(postgres_dsn):
    async def make():
        async with asyncpg.create_pool(postgres_dsn, min_size=0, max_size=1) as pool:
            destinations.postgres(pool)

    with pytest.raises(ConfigError, match="at least 2 connections"):
        asyncio.run(make())


@pytest.mark.slow
async def test_pipelines_that_begin_at_once_on_an_empty_dataset_all_succeed(destination, tmp_path):
    pipelines = [pipeline_on(destination, tmp_path / str(at), f"first_{at}") for at in range(10)]

    async with anyio.create_task_group() as tasks:
        for one in pipelines:
            tasks.start_soon(partial(one.run, [{"pipeline": one.pipeline_name, "more": [1, 2]}], table_name="shared"))

    async with pipelines[0].sql_client() as sql:
        assert await sql.execute_sql("SELECT count(*) FROM _dlt_loads") == [(10,)]


async def test_a_role_that_was_given_a_schema_needs_no_other_rights(postgres_dsn, tmp_path, raw):
    await raw.execute("DROP ROLE IF EXISTS guest")
    await raw.execute("CREATE ROLE guest LOGIN")
    guest = postgres_dsn.replace("postgres:any@", "guest:any@")
    owner = Owner(destinations.postgres(guest), tmp_path / "packages", "parquet")
    package = await owner.make({"one": pa.table({"id": [1]})})

    with pytest.raises(DestinationRejected, match=r"permission denied for database.*Hint: grant the role CREATE"):
        await owner.commit(package)

    await raw.execute("CREATE SCHEMA data AUTHORIZATION guest")
    await owner.commit(package)
    assert await owner.rows("one") == [{"id": 1}]
    await raw.execute("DROP OWNED BY guest CASCADE")
    await raw.execute("DROP ROLE guest")


# ------------------------------------------------------------------------------------------------ ownership


async def test_a_second_owner_is_told_who_is_busy(destination):
    async with destination.connect(TARGET) as first, destination.connect(TARGET) as second:
        await first.acquire("conformance", "")

        with pytest.raises(PipelineBusy, match="is being run by another owner on dataset 'data'"):
            await second.acquire("conformance", "")

        assert (await second.acquire("conformance", "other")).epoch == 1

    async with destination.connect(TARGET) as third:
        assert (await third.acquire("conformance", "")).epoch == 1


async def test_an_owner_whose_connection_broke_is_still_seen_after_its_next_commit(owner, destination, raw):
    cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"

    async with destination.connect(owner.target) as session, destination.connect(owner.target) as other:
        lease = await owner.acquire(session)
        assert await raw.fetchval(f"SELECT count(*) FROM ({cut})") == 1
        package = await owner.make({"one": pa.table({"id": [1]})})
        await owner.commit_in(session, make_commit(owner.target, lease, package))

        with pytest.raises(PipelineBusy):
            await other.acquire(owner.target.pipeline_name, owner.target.member)


@pytest.mark.slow
async def test_a_pipeline_raises_or_waits_while_another_machine_has_it(destination, tmp_path):
    busy = pipeline_on(destination, tmp_path / "one", on_busy="raise")
    patient = pipeline_on(destination, tmp_path / "two")
    target = Target(pipeline_name="pg", dataset_name="raw")

    async with destination.connect(target) as session:
        await session.acquire("pg", "")

        with pytest.raises(PipelineBusy):
            await busy.run([{"id": 1}], table_name="items")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(patient.run, [{"id": 2}], table_name="items"))
            await anyio.wait_all_tasks_blocked()
            await session.close()

    async with patient.sql_client() as sql:
        assert await sql.execute_sql("SELECT count(*) FROM _dlt_loads") == [(1,)]


async def test_asking_for_a_commit_waits_for_one_that_is_under_way(owner):
    """Its client may have lost the connection: only the end of the transaction tells."""
    package = await owner.make({"one": pa.table({"id": [1]})})
    asked = []

    async def ask():
        asked.append(await owner.committed(package.load_id))

    async with anyio.create_task_group() as tasks:
        seen = anyio.Event()

        def pause(point):
            if point == "postgres.before_commit":
                tasks.start_soon(ask)
                seen.set()

        with installed(pause):
            await owner.commit(package)

        assert seen.is_set()

    assert asked == [{package.load_id}]


# ------------------------------------------------------------------------------------------------ bad rows


async def refused(owner, rows, *tables, match):
    package = await owner.make({"one": rows}, tables=tables)

    with pytest.raises(DestinationRejected, match=match) as caught:
        await owner.commit(package)

    assert (caught.value.load_id, caught.value.table) == (package.load_id, "one")
    assert await owner.committed(package.load_id) == frozenset()

    return caught.value


async def test_text_that_postgres_cannot_hold_is_refused_by_table_column_and_row(owner):
    await refused(
        owner, pa.table({"a": [1, 2], "b": ["fine", "a\0b"]}), match=r"(?i)table 'one'.*column 'b', row 2.*NUL"
    )


async def test_text_that_is_too_long_is_refused_by_column(owner):
    short = Table(name="one", resource="one", columns={"b": Column(name="b", data_type="text", precision=3)})
    await refused(
        owner, pa.table({"b": ["abc", "abcd"]}), short, match=r"column 'b', row 2: the value is longer than 3"
    )


async def test_what_is_unique_stays_so(owner):
    unique = Table(
        name="one", resource="one", columns={"_dlt_id": Column(name="_dlt_id", data_type="text", unique=True)}
    )
    error = await refused(
        owner, pa.table({"_dlt_id": ["x", "x"]}), unique, match=r"not create unique index.*\(x\) is duplicated"
    )
    assert error.code == "23505"

    await owner.run({"one": pa.table({"_dlt_id": ["x", "y"]})}, tables=[unique])
    error = await refused(owner, pa.table({"_dlt_id": ["x"]}), match=r"duplicate key.*\(x\) already exists")
    assert error.code == "23505"


async def test_names_that_postgres_would_cut_off_are_refused(owner):
    package = await owner.make({"one": pa.table({"ü" * 32: [1]})})

    with pytest.raises(DestinationRejected, match="has 64 bytes, Postgres keeps 63"):
        await owner.commit(package)


async def test_indexes_are_left_out_on_demand(postgres_dsn, tmp_path, raw):
    pipeline = pipeline_on(destinations.postgres(postgres_dsn, create_indexes=False), tmp_path)
    await pipeline.run([{"id": 1}], table_name="items")
    assert await raw.fetch("SELECT * FROM pg_indexes WHERE schemaname = 'raw'") == []


async def test_indexes_grants_and_views_survive_a_replace(owner, raw):
    table = Table(name="one", resource="one", write_disposition="replace")
    await owner.run({"one": pa.table({"id": [1, 2]})}, tables=[table], replaced=["one"])
    await raw.execute("CREATE INDEX mine ON data.one (id)")
    await raw.execute("CREATE VIEW data.seen AS SELECT * FROM data.one")
    await owner.run({"one": pa.table({"id": [3]})}, replaced=["one"])

    assert await raw.fetchval("SELECT count(*) FROM pg_indexes WHERE indexname = 'mine'") == 1
    assert [row["id"] for row in await raw.fetch("SELECT id FROM data.seen")] == [3]


async def test_a_reader_of_an_older_snapshot_keeps_what_it_sees(owner, raw):
    table = Table(name="one", resource="one", write_disposition="replace")
    await owner.run({"one": pa.table({"id": [1, 2]})}, tables=[table], replaced=["one"])

    async with raw.transaction(isolation="repeatable_read"):
        assert await raw.fetchval("SELECT count(*) FROM data._dlt_loads") == 1
        await owner.run({"one": pa.table({"id": [3]})}, replaced=["one"])
        assert [row["id"] for row in await raw.fetch("SELECT id FROM data.one ORDER BY id")] == [1, 2]


async def test_columns_of_other_programs_keep_their_values_in_an_upsert(owner, raw):
    table = root_table(id=key("id"))
    upsert = Table(
        **{
            **{name: getattr(table, name) for name in ("name", "columns", "resource", "write_disposition")},
            "hints": {"x-merge-strategy": "upsert"},
        }
    )
    await owner.run(
        {"orders": roots([{"id": 1, "v": "a", "_dlt_id": "k1"}, {"id": 2, "v": "b", "_dlt_id": "k2"}], "l1")},
        tables=[upsert],
    )
    await raw.execute('ALTER TABLE data.orders ADD COLUMN "Note" text')
    await raw.execute("""UPDATE data.orders SET "Note" = 'mine' WHERE id = 1""")
    await owner.run(
        {"orders": roots([{"id": 1, "v": "A", "_dlt_id": "k1"}, {"id": 3, "v": "c", "_dlt_id": "k3"}], "l2")}
    )

    rows = await raw.fetch('SELECT id, v, "Note" FROM data.orders ORDER BY id')
    assert [tuple(row) for row in rows] == [(1, "A", "mine"), (2, "b", None), (3, "c", None)]


async def test_a_column_that_was_widened_by_hand_takes_the_rows(owner, raw):
    small = Table(name="one", resource="one", columns={"n": Column(name="n", data_type="bigint", precision=16)})
    await owner.run({"one": pa.table({"n": [1]})}, tables=[small])
    await raw.execute("ALTER TABLE data.one ALTER COLUMN n TYPE integer")
    await owner.run({"one": pa.table({"n": [2]})})

    assert [row["n"] for row in await raw.fetch("SELECT n FROM data.one ORDER BY n")] == [1, 2]


# --------------------------------------------------------------------------------------------------- reading


@pytest.fixture
async def session(owner):
    rows = pa.table({"id": [1, 2], "t": ["a?", None], "d": [Decimal("1.50"), None]})
    await owner.run({"one": rows})

    async with owner.destination.connect(owner.target) as opened:
        yield opened


@pytest.mark.parametrize(
    "sql, parameters, rows",
    [
        ("SELECT id FROM one WHERE t = ?", ["a?"], [{"id": 1}]),
        ("SELECT id, '?' AS q FROM one WHERE id > ? AND t IS NOT DISTINCT FROM ?", [1, None], [{"id": 2, "q": "?"}]),
        ("SELECT count(*) AS n FROM one WHERE id = ANY ($1::bigint[]);", [[1, 2]], [{"n": 2}]),
        ("SELECT ?::jsonb -> 'a' AS a", [{"a": [1]}], [{"a": "[1]"}]),
        ("SELECT ?::timestamptz AS at", [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], [{"at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}]),
        ("SELECT ?::bytea AS b, ?::uuid AS u", [b"\0\\'", "7f0f7b1e-6d0b-4f3b-8a57-0b9f5f3c2d11"], [{"b": b"\0\\'", "u": "7f0f7b1e-6d0b-4f3b-8a57-0b9f5f3c2d11"}]),
        ("SELECT d, sum(d) OVER () AS s FROM one ORDER BY id LIMIT 1", [], [{"d": Decimal("1.50"), "s": Decimal("1.5")}]),
        ("WITH x AS (SELECT 1 AS n UNION ALL SELECT 2) SELECT * FROM x ORDER BY n DESC -- twice", [], [{"n": 2}, {"n": 1}]),
        ("VALUES (1, 'x')", [], [{"column1": 1, "column2": "x"}]),
        ("SELECT 1 AS same, 2.5 AS same", [], None),
        ("UPDATE one SET t = 'z' WHERE id = 2 RETURNING id, t", [], [{"id": 2, "t": "z"}]),
        ("SHOW search_path", [], [{"search_path": '"data", public'}]),
        ("SELECT ARRAY[1, 2] AS a, '1 day'::interval AS i", [], [{"a": "{1,2}", "i": "1 day"}]),
    ],
)  # fmt: skip
async def test_statements_and_their_parameters(session, sql, parameters, rows):
    found = await session.query(sql, parameters)

    if rows is None:
        assert (found.column_names, [column.to_pylist() for column in found.columns]) == (
            ["same", "same"],
            [[1], [Decimal("2.5")]],
        )
    else:
        assert found.to_pylist() == rows


async def test_decimals_keep_the_digits_of_their_column(session):
    found = await session.query(
        "SELECT d, d::numeric(60, 2) AS wide, 10::numeric(156, 78) AS wei FROM one WHERE id = 1"
    )
    assert found.schema.types == [pa.decimal128(3, 2), pa.decimal256(60, 2), pa.decimal256(76, 0)]


@pytest.mark.parametrize(
    "sql, parameters, error",
    [
        ("SELECT * FROM nowhere", [], UndefinedRelation),
        ("SELEC 1", [], DestinationRejected),
        ("SELECT 1 / (id - 1) FROM one", [], DestinationRejected),
        ("SELECT id FROM one WHERE id = ?", [], DestinationRejected),
        ("SELECT id FROM one WHERE id = ?", ["x"], DestinationRejected),
        ("SELECT id FROM one WHERE id = ?", [1, 2], DestinationRejected),
    ],
)
async def test_statements_that_are_refused(session, sql, parameters, error):
    with pytest.raises(error):
        await session.query(sql, parameters)

    assert (await session.query("SELECT 1 AS one")).to_pylist() == [{"one": 1}]


async def test_a_transaction_that_has_failed_is_not_taken_for_committed(session):
    async def go_on_after_an_error():
        async with session.transaction() as transaction:
            await transaction.query("DELETE FROM one")

            with pytest.raises(UndefinedRelation):
                await transaction.query("SELECT * FROM nowhere")

    with pytest.raises(DestinationRejected, match="has undone all of it"):
        await go_on_after_an_error()

    assert (await session.query("SELECT * FROM one")).num_rows == 2


@pytest.mark.slow
def test_the_factory_needs_no_driver_and_a_run_says_which_one_is_missing(tmp_path):
    program = """
import asyncio, sys
sys.modules["asyncpg"] = None
import asyncelt
pipeline = asyncelt.pipeline("p", destination=asyncelt.destinations.postgres("postgresql://h/d"), pipelines_dir=sys.argv[1])
try:
    asyncio.run(pipeline.run([{"id": 1}], table_name="t"))
except asyncelt.errors.ConfigError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert "needs the package 'asyncpg': pip install 'asyncelt[postgres]'" in found.stdout


async def test_a_statement_without_result_has_no_columns(session):
    assert (await session.query("DELETE FROM one")).num_columns == 0
    assert (await session.query("SELECT * FROM one")).num_rows == 0


async def test_a_stream_of_a_failing_query_fails_while_it_is_read(session):
    sql = "SELECT 1 / (5000 - n) FROM generate_series(1, 9000) AS n"

    async with session.stream(sql, batch_rows=1000) as stream:
        with pytest.raises(DestinationRejected, match="division by zero"):
            [batch async for batch in stream]


async def test_other_questions_do_not_end_the_rows_that_are_read(session):
    """A stream has a connection of its own; a transaction has one, of which two things at once are refused."""
    async with session.stream("SELECT n FROM generate_series(1, 50000) AS n", batch_rows=10_000) as stream:
        seen = [batch.num_rows async for batch in stream if (await session.query("SELECT 1 AS one")).num_rows]

    assert sum(seen) == 50_000
    refused = []

    async with session.transaction() as transaction:

        async def ask():
            try:
                await transaction.query("SELECT n FROM generate_series(1, 50000) AS n")
            except DestinationRejected as error:
                refused.append(str(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)

    assert len(refused) == 1
    assert "another operation" in refused[0]


async def test_the_error_of_a_run_names_step_and_load(destination, tmp_path):
    with pytest.raises(PipelineStepFailed, match="NUL") as caught:
        await pipeline_on(destination, tmp_path).run([{"t": "a\0b"}], table_name="items")

    assert (caught.value.step, caught.value.has_pending_data) == ("load", True)


@pytest.mark.slow
@pytest.mark.parametrize("count, options", [(20, None), (120, ["toast_tuple_target=8160"])])
async def test_rows_of_many_columns_stay_in_one_piece(destination, raw, tmp_path, count, options):
    pipeline = pipeline_on(destination, tmp_path)
    await pipeline.run([{f"c{n}": "x" * 30 for n in range(count)}], table_name="wide")

    assert await raw.fetchval("SELECT reloptions FROM pg_class WHERE oid = 'raw.wide'::regclass") == options
