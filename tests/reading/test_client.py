"""The SQL client, by its own calls and by those of the reference."""

from __future__ import annotations

import pytest

import asyncelt
from asyncelt.errors import ConfigError, DestinationRejected, SchemaNotFound, UndefinedRelation, Unsupported, UsageError
from asyncelt.reading.client import with_question_marks
from tests.reading.loaded import loaded, make_pipeline

CHANGES = ["CREATE TABLE t (a INT)", "DELETE FROM items", "INSERT INTO owners VALUES (1)", "DROP TABLE items"]


@pytest.fixture
async def client(pipeline):
    async with pipeline.sql_client() as client:
        yield client


async def test_a_client_whose_block_has_ended_says_so(pipeline, kind):
    if kind == "memory":
        pytest.skip("memory has no connection that could be closed")

    async with pipeline.sql_client() as client:
        pass

    with pytest.raises(UsageError, match="async with"):
        await client.query("SELECT 1")


async def test_a_query_is_an_arrow_table(client):
    assert (await client.query("SELECT id FROM items WHERE id > ? ORDER BY id", [1])).to_pydict() == {"id": [2, 3]}
    assert (await client.query("SELECT id FROM items WHERE id = $1", [1])).to_pydict() == {"id": [1]}


@pytest.mark.parametrize(
    "sql, args, expected",
    [
        ("SELECT id FROM items WHERE id > %s AND name = %s", (1, "two"), [(2,)]),
        ("SELECT '100%%', '%s', id AS \"%s\" FROM items WHERE id = %s -- %s", (1,), [("100%%", "%s", 1)]),
        ("SELECT 7 %% 4 FROM items WHERE id = %s", (1,), [(3,)]),
        ("SELECT id FROM items WHERE name LIKE '%o%' AND id = ?", (2,), [(2,)]),
        ("SELECT id FROM items WHERE name LIKE '%%o%%' ORDER BY id", (), [(1,), (2,)]),
    ],
)
async def test_statements_with_values(client, sql, args, expected):
    assert await client.execute_sql(sql, *args) == expected


def test_only_placeholders_are_replaced():
    assert with_question_marks("a = %s /* %s */ AND b = 'it''s %s' %% c") == "a = ? /* %s */ AND b = 'it''s %s' % c"
    assert with_question_marks("a LIKE '%%x' AND b %% 2") == "a LIKE '%%x' AND b %% 2"


async def test_a_cursor_goes_on_where_it_stopped(client):
    async with client.execute_query("SELECT id FROM items WHERE id < %s ORDER BY id", 9) as cursor:
        assert cursor.columns == ["id"]
        assert await cursor.fetchone() == (1,)
        assert await cursor.fetchmany(1) == [(2,)]
        assert await cursor.fetchall() == [(3,)]
        assert await cursor.fetchone() is None
        assert (await cursor.arrow()).num_rows == 0

    async with client.execute_query("SELECT id FROM items ORDER BY id") as cursor:
        assert (await cursor.arrow(1)).to_pydict() == {"id": [1]}
        assert list((await cursor.df(1))["id"]) == [2]
        assert (await cursor.polars())["id"].to_list() == [3]

    async with client.execute_query("SELECT id FROM items ORDER BY id") as cursor:
        assert [chunk async for chunk in cursor.iter_fetch(2)] == [[(1,), (2,)], [(3,)]]

    async with client.execute_query("SELECT count(*) FROM items") as cursor:
        assert await cursor.fetchscalar() == 3


async def test_names_are_found_from_everywhere(client, kind):
    name = client.make_qualified_table_name("items")
    assert name == {"duckdb": '"data"."raw"."items"', "postgres": '"raw"."items"'}.get(kind, '"items"')
    assert client.make_qualified_table_name("items", quote=False) == name.replace('"', "")
    assert await client.execute_sql(f"SELECT count(*) FROM {name}") == [(3,)]
    assert client.escape_column_name('a"b') == '"a""b"'
    assert client.dataset_name == "raw"
    assert client.staging_dataset_name == "raw_staging"
    assert client.capabilities.sqlglot_dialect == ("postgres" if kind == "postgres" else "duckdb")


async def test_a_file_that_is_called_like_the_dataset(tmp_path):
    pipeline = asyncelt.pipeline(
        "raw",
        destination=asyncelt.destinations.duckdb(tmp_path / "raw.duckdb"),
        dataset_name="raw",
        pipelines_dir=tmp_path,
    )
    await pipeline.run([{"id": 1}], table_name="items")
    assert len(await pipeline.dataset()["items"].fetchall()) == 1

    async with pipeline.sql_client() as client:
        name = client.make_qualified_table_name("items")
        assert await client.execute_sql(f"SELECT id FROM {name}") == [(1,)]


async def test_another_dataset_of_the_destination(kind, tmp_path):
    pipeline = await loaded(kind, tmp_path)
    other = asyncelt.pipeline(
        "other", destination=pipeline.destination, dataset_name="second", pipelines_dir=tmp_path / "pipelines"
    )
    await other.run([{"x": 1}], table_name="things")

    async with pipeline.sql_client() as client:
        assert await client.has_dataset()

        async with client.with_alternative_dataset_name("second") as second:
            assert await second.execute_sql("SELECT x FROM things") == [(1,)]

        async with client.with_staging_dataset() as staging:
            assert staging.dataset_name == "raw_staging"
            assert not await staging.has_dataset()


async def test_what_is_not_there_is_an_error_of_its_own(client):
    with pytest.raises(UndefinedRelation, match="nope"):
        await client.query("SELECT * FROM nope")

    with pytest.raises(UndefinedRelation, match="nope"):
        async with client.execute_query("SELECT * FROM nope"):
            pass

    with pytest.raises(DestinationRejected) as caught:
        await client.query("SELEC 1")

    assert not caught.value.retryable


@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize("place", ["filesystem", "memory"])
async def test_what_is_in_no_database_is_not_changed_in_silence(place, statement, tmp_path):
    pipeline = await loaded(place, tmp_path)

    async with pipeline.sql_client() as client:
        with pytest.raises(Unsupported, match="read with SQL, not changed"):
            await client.execute_sql(statement)

        with pytest.raises(Unsupported, match="no transactions"):
            async with client.begin_transaction():
                pass

        with pytest.raises(Unsupported, match="has no name in SQL"):
            await client.drop_dataset()

    assert len(await pipeline.dataset()["items"].fetchall()) == 3


async def test_statements_that_change_a_database(tmp_path):
    pipeline = await loaded("duckdb", tmp_path)

    async with pipeline.sql_client() as client:
        assert await client.execute_sql("DELETE FROM items WHERE id = %s", 1) == [(1,)]
        assert await client.execute_many(["CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1), (2)"]) == [[], [(2,)]]
        await client.truncate_tables("t")
        assert await client.execute_sql("SELECT count(*) FROM t") == [(0,)]
        await client.drop_tables("t", "never_there")

        with pytest.raises(UndefinedRelation):
            await client.query("SELECT * FROM t")

        async with client.with_alternative_dataset_name("fresh") as fresh:
            await fresh.create_dataset()
            await fresh.execute_sql(f"CREATE TABLE {fresh.make_qualified_table_name('t')} AS SELECT 1 AS a")
            assert await fresh.execute_sql("SELECT a FROM t") == [(1,)]
            await fresh.drop_dataset()

            with pytest.raises(UndefinedRelation):
                await fresh.query(f"SELECT a FROM {fresh.make_qualified_table_name('t')}")

    assert len(await pipeline.dataset()["items"].fetchall()) == 2


async def test_a_statement_that_changes_is_done_when_its_cursor_is_closed(tmp_path):
    pipeline = await loaded("duckdb", tmp_path)

    async with pipeline.sql_client("reading") as client:
        async with client.execute_query("DELETE FROM items WHERE id = 1"):
            pass

        async with client.execute_query("DELETE FROM items WHERE id = %s", 2) as cursor:
            assert await cursor.fetchall() == [(1,)]

    assert await pipeline.dataset()["items"].select("id").fetchall() == [(3,)]


@pytest.mark.covers("Pipeline.sql_client.schema_name")
async def test_an_unknown_schema_is_refused(pipeline):
    with pytest.raises(SchemaNotFound, match="no schema 'nope'"):
        async with pipeline.sql_client("nope"):
            pass


async def test_a_transaction_is_committed_or_undone(tmp_path):
    pipeline = await loaded("duckdb", tmp_path)
    items = pipeline.dataset()["items"]

    async with pipeline.sql_client() as client:
        with pytest.raises(RuntimeError, match="changed my mind"):  # noqa: PT012 - the block is what is tested
            async with client.begin_transaction() as transaction:
                await transaction.execute_sql("DELETE FROM items")
                assert await transaction.execute_sql("SELECT count(*) FROM items") == [(0,)]
                assert len(await items.fetchall()) == 3
                raise RuntimeError("changed my mind")

        assert len(await items.fetchall()) == 3

        async with client.begin_transaction() as transaction:
            await transaction.execute_sql("DELETE FROM items WHERE id = 1")
            await transaction.execute_sql("DELETE FROM items WHERE id = 2")

        assert len(await items.fetchall()) == 1

        with pytest.raises(DestinationRejected):  # noqa: PT012 - the same
            async with client.begin_transaction() as transaction:
                await transaction.execute_sql("DELETE FROM items")
                await transaction.execute_sql("SELEC")

        assert len(await items.fetchall()) == 1

    await pipeline.run([{"id": 7}], table_name="items")
    assert len(await items.fetchall()) == 2


async def test_nothing_is_there_before_the_first_load(kind, tmp_path):
    pipeline = make_pipeline(kind, tmp_path)

    async with pipeline.sql_client() as client:
        assert not await client.has_dataset()

        with pytest.raises(DestinationRejected):
            await client.query("SELECT * FROM items")

    assert not (tmp_path / "data.duckdb").exists()


async def test_a_destination_without_sql_is_refused(tmp_path):
    class Silent:
        """A destination that can only be written to."""

        destination_name = "silent"
        destination_type = "test.silent"
        capabilities = asyncelt.destinations.memory().capabilities
        location = "silent://"

        def for_pipeline(self, pipeline_name):
            return self

        def connect(self, target):
            from contextlib import nullcontext

            return nullcontext(object())

    pipeline = asyncelt.pipeline("silent", destination=Silent(), dataset_name="raw", pipelines_dir=tmp_path)

    with pytest.raises(ConfigError, match="'silent' cannot be read with SQL"):
        async with pipeline.sql_client():
            pass
