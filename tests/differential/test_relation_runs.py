"""Resources that copy what is new of a table, run after run, through both libraries: the same rows, the same cursor."""

from __future__ import annotations

import json
import shutil
import warnings

import duckdb
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning
from tests.differential import relation_runs_worker
from tests.reading.loaded import loaded

# The reference takes seconds for each run, and more where others use the machine.
pytestmark = [
    pytest.mark.differential,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("relation runs"),
]

MORE = [
    "INSERT INTO raw.items (id, name, _dlt_load_id, _dlt_id) VALUES (3, 'again', '1', 'x'), (4, 'new', '1', 'y')",
    "INSERT INTO raw.items (id, name, _dlt_load_id, _dlt_id) VALUES (2, 'late', '1', 'z'), (9, 'new', '1', 'w')",
]
CASES = [
    {"key": key, "cursor": {"cursor_path": "id", "on_cursor_value_missing": "exclude", **options}, "between": MORE}
    for key, options in [
        (None, {}),
        (None, {"range_start": "open"}),
        (None, {"range_end": "closed"}),
        ("id", {}),
        ("id", {"lag": 1}),
    ]
]


@pytest.fixture(scope="module")
async def folder(anyio_backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("relation_runs")
    await loaded("duckdb", folder)

    return folder


@pytest.fixture(scope="module")
def theirs(folder, dlt_nursery):
    """Their answers, in the order of the cases."""
    output = folder / "theirs.json"
    assert dlt_nursery.start(relation_runs_worker.main, folder, CASES, output).wait() == 0

    return json.loads(output.read_text())


@pytest.mark.covers("Incremental.is_unique_cursor", "Incremental.unique_boundary_consumed")
@pytest.mark.parametrize("number", range(len(CASES)))
async def test_an_advanced_cursor_gives_the_same_rows_and_state(folder, theirs, tmp_path, number):
    case = CASES[number]
    file = tmp_path / "source.duckdb"
    shutil.copy(folder / "data.duckdb", file)
    pipeline = asyncelt.pipeline("copy", destination="memory", dataset_name="copy", pipelines_dir=tmp_path / "copies")

    @asyncelt.resource(name="copied", primary_key=case["key"])
    async def copied(at=asyncelt.sources.incremental(**case["cursor"])):
        dataset = await asyncelt.dataset(asyncelt.destinations.duckdb(file), "raw")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AsynceltWarning)
            new = await dataset["items"].advance(at)

        async for chunk in new.select("id").iter_arrow(1000):
            yield chunk

    found = []

    for statement in ["SELECT 1", *case["between"]]:
        with duckdb.connect(str(file)) as connection:
            connection.execute(statement)

        await pipeline.run(copied())
        state = pipeline.state["sources"]["copy"]["resources"]["copied"]["incremental"]["id"]
        rows = await pipeline.dataset()["copied"].select("id").fetchall()
        found.append([sorted(row[0] for row in rows), state["last_value"]])

    assert found == theirs[number]
