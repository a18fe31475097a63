"""`postgres_adapter`: its hints are those of the reference, and what the server has to read by itself is read by it.

The server of the tests has no PostGIS. A type with the same name and a modifier stands in for its own: what is tested
is our part, from the hint to the column, not what PostGIS makes of a point.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from dlt.destinations.impl.postgres import postgres_adapter as reference

import asyncelt
from asyncelt.destinations.adapters import postgres_adapter
from asyncelt.destinations.postgres_impl.indexing import create_index, wanted_indexes
from asyncelt.destinations.sql.names import Dataset
from asyncelt.errors import ConfigError, PipelineStepFailed
from asyncelt.schema.system import new_schema
from tests.destinations.postgres_runs import pipeline_on

STAND_IN = """
CREATE TYPE public.geometry;
CREATE FUNCTION public.geometry_in(cstring) RETURNS public.geometry LANGUAGE internal STRICT IMMUTABLE AS 'textin';
CREATE FUNCTION public.geometry_out(public.geometry) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'textout';
CREATE FUNCTION public.geometry_modifier(cstring[]) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 4326';
CREATE TYPE public.geometry (
    INPUT = public.geometry_in, OUTPUT = public.geometry_out, TYPMOD_IN = public.geometry_modifier, LIKE = text
)
"""


@pytest.fixture
def dsn(postgres_server):
    """Of a database of its own: types outside of a dataset would stay."""
    return postgres_server.new_database()


@pytest.fixture
async def raw(dsn):
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


def places(number=0):
    return [{"id": number, "loc": f"POINT({number} 0)", "name": "x"}]


@pytest.mark.parametrize(
    "arguments", [{"geometry": "loc"}, {"geometry": ["loc", "at"], "srid": 3857}, {"geometry": "loc", "srid": None}]
)
def test_the_hints_are_those_of_the_reference(arguments):
    theirs = reference.postgres_adapter([{"loc": ""}], **arguments)
    ours = postgres_adapter([{"loc": ""}], **arguments)
    expected = {
        name: {hint: value for hint, value in column.items() if hint.startswith("x-")}
        for name, column in theirs.compute_table_schema()["columns"].items()
    }
    assert ours.name == theirs.name
    found = {
        name: {hint: value for hint, value in column.extra.items() if hint.startswith("x-")}
        for name, column in ours.compute_table_schema().columns.items()
    }
    assert found == expected


@pytest.mark.parametrize("arguments", [{}, {"geometry": []}, {"geometry": {"loc": 1}}])
def test_without_a_column_it_is_refused(arguments):
    with pytest.raises(ConfigError, match="postgres_adapter"):
        postgres_adapter([], **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [None, 0])
@pytest.mark.parametrize("disposition", ["append", "replace", "merge"])
async def test_text_becomes_a_geometry(raw, dsn, tmp_path, disposition, threshold):
    await raw.execute(STAND_IN)
    pipeline = pipeline_on(asyncelt.destinations.postgres(dsn, staging_threshold=threshold), tmp_path)

    for number in (1, 2):
        data = asyncelt.resource(places(number), name="places", write_disposition=disposition, primary_key="id")
        await pipeline.run(postgres_adapter(data, geometry="loc", index="name"))

    kinds = await raw.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'raw.places'::regclass AND attname IN ('loc', 'name')"
    )
    assert {name: kind.removeprefix("public.") for name, kind in kinds} == {
        "loc": "geometry(4326)",
        "name": "character varying",
    }
    points = [row[0] for row in await raw.fetch("SELECT loc::text FROM raw.places ORDER BY id")]
    assert points == (["POINT(2 0)"] if disposition == "replace" else ["POINT(1 0)", "POINT(2 0)"])
    assert await raw.fetchval("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%(name)'") == 1


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [None, 0])
@pytest.mark.parametrize("disposition", ["append", "merge"])
async def test_bytes_become_a_geometry(raw, dsn, tmp_path, disposition, threshold):
    """The server reads WKB by its digits; for the stand-in they are a text like others."""
    await raw.execute(STAND_IN)
    pipeline = pipeline_on(asyncelt.destinations.postgres(dsn, staging_threshold=threshold), tmp_path)

    async def pages():
        for number in range(3):
            yield [{"id": number, "loc": bytes([1, number]), "at": f"POINT({number} 0)"}]

            # A file of its own: its staging table has rows then.
            await asyncio.sleep(0)

    data = asyncelt.resource(pages, name="places", write_disposition=disposition, primary_key="id")
    await pipeline.run(postgres_adapter(data, geometry=["loc", "at"]))
    found = [tuple(row) for row in await raw.fetch("SELECT loc::text, at::text FROM raw.places ORDER BY id")]
    assert found == [(f"010{number}", f"POINT({number} 0)") for number in range(3)]


def test_a_geometry_is_indexed_by_where_it_is():
    """A plain index would refuse long ones, and answer nothing that is asked of places."""
    data = postgres_adapter(asyncelt.resource([{"loc": ""}], name="places"), geometry="loc", index=["loc", "name"])
    table = data.compute_table_schema()
    typed = {name: replace(one, data_type="text") for name, one in table.columns.items()}
    schema = replace(new_schema("s"), tables={table.name: replace(table, columns=typed)})
    found = {index.columns[0]: create_index(Dataset("d"), index) for index in wanted_indexes(schema, table.name)}
    assert found["loc"] == 'CREATE INDEX ON "d"."places" USING gist("loc")'
    assert found["name"] == 'CREATE INDEX ON "d"."places" USING btree("name")'


@pytest.mark.slow
async def test_the_column_is_named_whose_value_is_no_geometry(raw, dsn, tmp_path):
    # The stand-in reads numbers only.
    await raw.execute(STAND_IN.replace("'textin'", "'int4in'"))
    data = asyncelt.resource(places(), name="places")

    with pytest.raises(PipelineStepFailed, match=r"table 'places' of load .*invalid input.* \(column 'loc'\)"):
        await pipeline_on(asyncelt.destinations.postgres(dsn), tmp_path).run(postgres_adapter(data, geometry="loc"))


@pytest.mark.slow
async def test_a_server_without_postgis_is_named(dsn, tmp_path):
    with pytest.raises(PipelineStepFailed, match=r'type "geometry" does not exist Hint: .*CREATE EXTENSION postgis'):
        await pipeline_on(asyncelt.destinations.postgres(dsn), tmp_path).run(postgres_adapter(places(), geometry="loc"))
