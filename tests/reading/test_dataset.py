"""What a dataset knows without asking, and what it asks."""

from __future__ import annotations

import subprocess
import sys

import pytest

import asyncelt
from asyncelt.errors import (
    ConfigError,
    DestinationRejected,
    InvalidQuery,
    PipelineConfigMissing,
    SchemaNotFound,
    UnknownColumn,
    UnknownTable,
    UsageError,
)
from asyncelt.schema.system import new_schema
from tests.reading.loaded import destination, loaded, make_pipeline

DATA = ["items", "items__tags", "items__tags__of", "owners"]
SYSTEM = ["_dlt_version", "_dlt_loads", "_dlt_pipeline_state"]


@pytest.mark.covers(
    "Dataset.tables",
    "Dataset.dataset_name",
    "Dataset.schema",
    "Dataset.schemas",
)
async def test_tables_are_listed_those_of_the_engine_last(dataset):
    assert sorted(dataset.tables[:4]) == DATA
    assert dataset.tables[4:] == SYSTEM
    assert dataset.dataset_name == "raw"
    assert [schema.name for schema in dataset.schemas] == ["reading"]
    assert dataset.schema.name == "reading"


@pytest.mark.covers("Dataset.table", "Dataset.table.table_name")
async def test_a_table_can_be_named_in_three_ways(dataset):
    for relation in (dataset["items"], dataset.table("items"), dataset.items):
        assert len(await relation.fetchall()) == 3


async def test_an_unknown_table_is_the_error_that_the_way_of_asking_has(dataset):
    with pytest.raises(KeyError):
        dataset["nope"]

    with pytest.raises(ValueError, match=r"no table 'nope'\. It has: items, "):
        dataset.table("nope")

    with pytest.raises(AttributeError, match="no table 'nope'"):
        dataset.nope  # noqa: B018


@pytest.mark.covers("Dataset.query", "Dataset.query.query")
async def test_a_query_is_a_relation(dataset):
    query = dataset("SELECT name, price * 2 AS twice FROM items WHERE id < ?", parameters=[3])
    assert query.columns == ["name", "twice"]
    assert await query.order_by("twice", "desc").fetchall() == [("two", 5.0), ("one", 3.0)]
    assert await query.where("twice", "gt", 3).select("name").fetchall() == [("two",)]
    assert repr(query).startswith("<asyncelt.Relation query 'SELECT name")


@pytest.mark.parametrize(
    "sql, expected",
    [
        ("SELECT count(*) FROM items", [(3,)]),
        ("SELECT sum(id) AS s FROM raw.items", [(6,)]),
        ("WITH few AS (SELECT id FROM items WHERE id > 2) SELECT * FROM few", [(3,)]),
        ("SELECT id FROM items WHERE id = 1 UNION ALL SELECT item FROM owners WHERE item = 9", [(1,), (9,)]),
        (
            "SELECT i.id, t.tag FROM items i JOIN items__tags t ON t._dlt_parent_id = i._dlt_id WHERE i.id = 1",
            [(1, "a")],
        ),
    ],
)
async def test_queries_of_many_kinds(dataset, sql, expected):
    assert await dataset(sql).fetchall() == expected


DIALECTS = {
    "duckdb": [
        ('SELECT "ID" FROM "RAW"."Items" WHERE id = 1;', [(1,)]),
        ("SELECT n FROM range(2) AS r(n)", [(0,), (1,)]),
        ("FROM items SELECT id WHERE id = 3", [(3,)]),
    ],
    "postgres": [
        ("SELECT ID FROM RAW.Items WHERE id = 1;", [(1,)]),
        ("SELECT n FROM generate_series(0, 1) AS r(n)", [(0,), (1,)]),
        ("SELECT DISTINCT ON (id > 0) id FROM items ORDER BY id > 0, id DESC", [(3,)]),
    ],
}


async def test_queries_of_one_database_only(dataset):
    for sql, expected in DIALECTS[dataset.dialect]:
        assert await dataset(sql).fetchall() == expected


@pytest.mark.covers("Dataset.query.query_dialect")
async def test_a_query_in_another_dialect_is_translated(dataset):
    assert await dataset("SELECT `id` FROM `items` WHERE `id` = 2", "mysql").fetchall() == [(2,)]


async def test_steps_work_on_the_result_of_a_query(dataset):
    assert await dataset("SELECT id FROM items ORDER BY id LIMIT 2").where("id", "gt", 1).fetchall() == [(2,)]
    both = dataset("SELECT id FROM items UNION SELECT item FROM owners")
    assert await both.order_by("id", "desc").limit(1).fetchall() == [(9,)]


async def test_columns_of_a_query_have_the_types_that_the_schema_implies(dataset):
    columns = dataset("SELECT id, price, at, count(*) AS n, upper(name) AS u FROM items GROUP BY ALL").columns_schema
    found = {name: column.data_type for name, column in columns.items()}
    assert found == {"id": "bigint", "price": "double", "at": "timestamp", "n": "bigint", "u": "text"}


@pytest.mark.parametrize(
    "sql, error, message",
    [
        ("SELECT nope FROM items", UnknownColumn, "nope"),
        ("SELECT id FROM nope", UnknownTable, "no table 'nope'. It has: _dlt"),
        ("SELECT id FROM other.items", UnknownTable, "reads one dataset"),
        ("DELETE FROM items", InvalidQuery, "one SELECT, not DELETE"),
        ("SELECT 1; SELECT 2", InvalidQuery, "2 statements"),
        ("SELECT id FROM items WHERE", InvalidQuery, "not SQL that can be read"),
        ("", InvalidQuery, "0 statements"),
        ("SELECT id, id FROM items WHERE id = ?", InvalidQuery, "has no value"),
    ],
)
async def test_wrong_queries_are_refused_before_the_destination_is_asked(dataset, sql, error, message):
    with pytest.raises(error, match=message):
        await dataset(sql).arrow()


async def test_two_columns_of_one_name_can_be_read_but_not_worked_on(dataset):
    twice = dataset("SELECT id, id FROM items WHERE id = 1")
    assert await twice.fetchall() == [(1, 1)]

    with pytest.raises(InvalidQuery, match="two columns of the same name"):
        await twice.limit(1).fetchall()


@pytest.mark.covers(
    "Dataset.row_counts",
    "Dataset.row_counts.data_tables",
    "Dataset.row_counts.dlt_tables",
    "Dataset.row_counts.table_names",
)
async def test_rows_are_counted(dataset):
    counts = await dataset.row_counts().fetchall()
    assert sorted(counts) == [("items", 3), ("items__tags", 3), ("items__tags__of", 1), ("owners", 3)]
    everything = dict(await dataset.row_counts(dlt_tables=True).fetchall())
    assert set(everything) == {*DATA, *SYSTEM}
    assert await dataset.row_counts(table_names=["owners"]).fetchall() == [("owners", 3)]
    assert await dataset.row_counts(data_tables=False).fetchall() == []
    assert dataset.row_counts().columns == ["table_name", "row_count"]

    with pytest.raises(UnknownTable):
        dataset.row_counts(table_names=["nope"])


@pytest.mark.covers(
    "Dataset.load_ids",
    "Dataset.load_ids.schema_name",
    "Dataset.latest_load_id",
    "Dataset.latest_load_id.schema_name",
    "Dataset.loads_table",
    "Dataset.table.load_ids",
    "Dataset.row_counts.load_id",
    "Relation.from_loads",
    "Relation.from_loads.load_ids",
    "Relation.from_loads.add_load_id_column",
    "Relation.with_load_id_col",
)
async def test_loads_are_known_and_rows_by_load(kind, tmp_path):
    pipeline = await loaded(kind, tmp_path)
    await pipeline.run([{"id": 4, "tags": [{"tag": "d"}]}], table_name="items")
    dataset = pipeline.dataset()
    first, second = await dataset.load_ids()
    assert await dataset.latest_load_id() == second
    assert await dataset.load_ids("other") == []
    assert await dataset.latest_load_id("other") is None
    assert len(await dataset.loads_table().fetchall()) == 2
    assert await dataset.table("items", load_ids=[second]).select("id").fetchall() == [(4,)]
    assert await dataset.table("items", load_ids=[]).fetchall() == []
    assert await dataset["items__tags"].from_loads([second]).select("tag").fetchall() == [("d",)]
    kept = dataset["items__tags"].from_loads([first], add_load_id_column=True)
    assert kept.columns == [*dataset["items__tags"].columns, "_dlt_root___dlt_load_id"]
    assert {row[-1] for row in await kept.fetchall()} == {first}
    assert dataset["items"].select("id").with_load_id_col().columns == ["id", "_dlt_load_id"]
    nested = dataset["items__tags"].with_load_id_col()
    assert nested.with_load_id_col() is nested, "it is there already"
    counts = dict(await dataset.row_counts(load_id=second).fetchall())
    assert counts == {"items": 1, "owners": 0}

    with pytest.raises(InvalidQuery, match="tables only"):
        dataset("SELECT id FROM items").from_loads([first])

    with pytest.raises(InvalidQuery, match="have no load ids"):
        dataset["_dlt_version"].with_load_id_col()


@pytest.mark.covers("Pipeline.dataset")
async def test_a_dataset_follows_what_its_pipeline_loads(kind, tmp_path):
    pipeline = make_pipeline(kind, tmp_path)
    dataset = pipeline.dataset()
    assert dataset.tables == SYSTEM[:2]
    await pipeline.run([{"a": 1}], table_name="new")
    assert await dataset["new"].select("a").fetchall() == [(1,)]
    await pipeline.run([{"a": 2, "b": "x"}], table_name="new")
    assert await dataset["new"].order_by("a").select("a", "b").fetchall() == [(1, None), (2, "x")]


async def test_a_table_that_was_replaced_by_nothing_is_empty(kind, tmp_path):
    pipeline = await loaded(kind, tmp_path)
    await pipeline.run(asyncelt.resource([], name="owners", write_disposition="replace"))
    assert await pipeline.dataset()["owners"].fetchall() == []


@pytest.mark.covers("Pipeline.dataset", "Pipeline.dataset.schema")
async def test_several_schemas_are_read_together_or_alone(kind, tmp_path):
    pipeline = make_pipeline(kind, tmp_path)

    @asyncelt.source(name="other")
    def other():
        return asyncelt.resource([{"x": 1}], name="things")

    await pipeline.run([{"id": 1}], table_name="items")
    await pipeline.run(other())
    assert pipeline.dataset().tables[0] == "items"
    assert "things" in pipeline.dataset().tables
    assert "items" not in pipeline.dataset("other").tables
    assert await pipeline.dataset(pipeline.schemas["other"])["things"].select("x").fetchall() == [(1,)]

    with pytest.raises(SchemaNotFound, match="no schema 'nope'"):
        pipeline.dataset("nope")


async def test_names_that_need_quotes(kind, tmp_path):
    pipeline = make_pipeline(kind, tmp_path)
    await pipeline.run([{"select": 1, "Group By": 2}], table_name="order")
    dataset = pipeline.dataset()
    assert await dataset["order"].where("group_by", "eq", 2).select("select").fetchall() == [(1,)]
    assert dict(await dataset.row_counts().fetchall()) == {"order": 1}


@pytest.mark.covers("Dataset.is_same_dataset", "Dataset.is_same_dataset.other")
async def test_datasets_are_the_same_when_they_hold_the_same_data(kind, pipeline, tmp_path):
    one = pipeline.dataset()
    again = await asyncelt.dataset(pipeline.destination, "raw")
    assert one.is_same_dataset(one) and one.is_same_dataset(again) and again.is_same_dataset(one)
    assert not one.is_same_dataset(await asyncelt.dataset(pipeline.destination, "other", one.schema))

    first, second = [await asyncelt.dataset(destination(kind, tmp_path), "raw", one.schema) for _ in range(2)]
    assert first.is_same_dataset(second) == (kind != "memory"), "what is in memory is in one object only"
    assert not first.is_same_dataset(one)


async def test_the_same_database_of_other_settings_or_another_kind_is_told_apart(tmp_path):
    duckdb, filesystem = asyncelt.destinations.duckdb, asyncelt.destinations.filesystem
    schema = new_schema("empty")
    path = tmp_path / "data.duckdb"
    made = (
        duckdb(path),
        duckdb(path, threads=1),
        duckdb(tmp_path / "b.duckdb"),
        duckdb(":memory:"),
        duckdb(":memory:"),
    )
    one, same, *others = [await asyncelt.dataset(each, "raw", schema) for each in (*made, filesystem(path))]
    assert one.is_same_dataset(same)
    assert not any(one.is_same_dataset(other) for other in others)
    assert not others[1].is_same_dataset(others[2])


@pytest.mark.covers("Dataset.sqlglot_schema", "Dataset.destination_dialect", "Relation.query_dialect")
async def test_what_a_dataset_says_to_the_sql_builder(dataset):
    found = dataset.sqlglot_schema
    assert found.column_names("items") == ["id", "name", "price", "at", "_dlt_load_id", "_dlt_id"]
    assert found.get_column_type("items", "id").sql() == "BIGINT"
    assert dataset.destination_dialect == dataset.dialect == dataset["items"].query_dialect


@pytest.mark.covers("Relation.sqlglot_expression", "Relation.destination_dialect")
async def test_a_relation_as_an_expression_can_be_built_on_and_asked_again(dataset):
    few = dataset["items"].where("id", "lt", 3).select("id")
    expression = few.sqlglot_expression
    assert expression.sql(dialect=few.destination_dialect) == few.to_sql()
    assert await dataset.query(expression.limit(0)).fetchall() == []
    assert await dataset.query(expression.where("id > 1")).fetchall() == [(2,)]


@pytest.mark.covers("Dataset.destination_client")
async def test_the_engine_can_be_asked_about_a_dataset(dataset):
    async with dataset.destination_client() as session:
        assert list((await session.restore("")).schemas) == ["reading"]


# ----------------------------------------------------------------------------------------------- connections


@pytest.mark.covers("Dataset.sql_client")
async def test_an_open_dataset_uses_one_connection(dataset):
    async with dataset as opened:
        assert opened is dataset

        async with dataset.session() as first, dataset.session() as second:
            assert first is second

        assert len(await dataset["items"].fetchall()) == 3

        async with dataset.sql_client() as client:
            assert client.session is first

        with pytest.raises(UsageError, match="open already"):
            await dataset.__aenter__()

    assert len(await dataset["items"].fetchall()) == 3


@pytest.mark.covers("dataset.destination", "dataset.dataset_name", "dataset.schema")
async def test_a_dataset_can_be_read_without_its_pipeline(pipeline):
    dataset = await asyncelt.dataset(pipeline.destination, "raw")
    assert sorted(dataset.tables) == sorted([*DATA, *SYSTEM])
    assert len(await dataset["items"].fetchall()) == 3
    assert (await asyncelt.dataset(pipeline.destination, "raw", "reading")).schema.name == "reading"
    assert (await asyncelt.dataset(pipeline.destination, "raw", pipeline.default_schema)).tables == dataset.tables

    with pytest.raises(SchemaNotFound, match="There are: reading"):
        await asyncelt.dataset(pipeline.destination, "raw", "nope")


async def test_a_dataset_that_is_not_there_has_only_the_tables_of_the_engine(kind, tmp_path):
    dataset = await asyncelt.dataset(destination(kind, tmp_path), "nothing")
    assert dataset.tables == SYSTEM[:2]

    with pytest.raises(DestinationRejected):
        await dataset.loads_table().fetchall()

    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_without_a_destination_has_no_dataset(tmp_path):
    with pytest.raises(PipelineConfigMissing):
        asyncelt.pipeline("none", pipelines_dir=tmp_path).dataset()


def test_a_destination_without_sql_is_refused(tmp_path):
    silent = asyncelt.destinations.memory()
    object.__setattr__(silent, "capabilities", type(silent.capabilities)(sqlglot_dialect=None))

    with pytest.raises(ConfigError, match="cannot be read with SQL"):
        asyncelt.pipeline("none", pipelines_dir=tmp_path, destination=silent, dataset_name="raw").dataset()


def test_describing_a_relation_imports_no_sql_builder_and_no_driver(tmp_path):
    code = f"""
import sys, asyncelt
dataset = asyncelt.pipeline("p", destination="duckdb", dataset_name="d", pipelines_dir={str(tmp_path)!r}).dataset()
dataset.loads_table().select("load_id").where("status", "eq", 0).order_by("load_id").limit(1).max()
dataset("SELECT 1").limit(5)
print(*sorted({{"sqlglot", "duckdb"}} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


async def test_columns_and_tables_that_are_still_pending_are_not_asked_for(kind, tmp_path):
    pipeline = await loaded(kind, tmp_path)
    dataset = pipeline.dataset()
    before = dataset["items"].columns
    await pipeline.extract([{"id": 4, "later": True, "tags": [{"more": 1}]}], table_name="items")
    await pipeline.extract([{"id": 5}], table_name="pending", schema=new_schema("other"))
    await pipeline.normalize()
    assert "later" in pipeline.default_schema.tables["items"].columns

    assert dataset["items"].columns == before
    assert len(await dataset["items"].fetchall()) == 3
    assert "more" not in (await dataset["items__tags"].arrow()).column_names
    assert "pending" not in dataset.tables
    assert await pipeline.dataset("other").row_counts(dlt_tables=False).fetchall() == []

    await pipeline.load()
    assert await dataset["items"].select("id", "later").where("later", "eq", value=True).fetchall() == [(4, True)]
    assert await dataset["pending"].select("id").fetchall() == [(5,)]
