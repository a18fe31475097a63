"""Relations as data of a run: read in pieces, loaded like any other data."""

from __future__ import annotations

import pytest

import asyncelt
from asyncelt.errors import ResourceExtractionError, ResourceNameMissing
from tests.reading.loaded import ITEMS, OWNERS, loaded

COLUMNS = ["id", "name", "price", "at", "_dlt_id", "_dlt_load_id"]


def target(tmp_path, kind="memory", name="copies"):
    made = (
        asyncelt.destinations.memory() if kind == "memory" else asyncelt.destinations.duckdb(tmp_path / "copy.duckdb")
    )

    return asyncelt.pipeline(name, destination=made, dataset_name="copies", pipelines_dir=tmp_path / "pipelines")


@pytest.mark.parametrize("into", ["memory", "duckdb"])
async def test_a_relation_can_be_passed_to_a_run(dataset, tmp_path, into):
    copies = target(tmp_path, into)
    info = await copies.run(dataset["items"].where("id", "gt", 1), table_name="copy")
    copy = copies.dataset()["copy"]
    assert info.row_counts["copy"] == 2
    assert copy.columns == COLUMNS
    ids = await dataset["items"].where("id", "gt", 1).order_by("id").select("id", "name", "_dlt_id").fetchall()
    assert await copy.order_by("id").select("id", "name", "_dlt_id").fetchall() == ids
    assert (await copy.select("_dlt_load_id").fetchall()) == [(info.loads_ids[0],)] * 2


async def test_rows_are_those_of_the_load_that_brings_them_also_where_the_load_id_was_not_selected(dataset, tmp_path):
    copies = target(tmp_path)
    await copies.run(dataset["items"].select("id"), table_name="copy")
    second = await copies.run(dataset("SELECT item AS id FROM owners"), table_name="copy")
    assert copies.dataset()["copy"].columns == ["id", "_dlt_load_id"]
    found = copies.dataset().table("copy", load_ids=second.loads_ids).order_by("id").select("id")
    assert await found.fetchall() == [(1,), (2,), (9,)]


@pytest.mark.parametrize("form", ["resource", "async", "sync", "list", "awaited"])
async def test_a_relation_can_be_given_or_yielded_wherever_data_can(dataset, tmp_path, form):
    owners = dataset["owners"].select("item", "owner")

    @asyncelt.resource(name="copy")
    async def yielded():
        yield owners
        yield owners.limit(0)

    @asyncelt.resource(name="copy")
    def yielded_in_a_thread():
        yield owners

    async def answer():
        return owners

    forms = {
        "resource": asyncelt.resource(owners, name="copy"),
        "async": yielded,
        "sync": yielded_in_a_thread,
        "list": asyncelt.resource([owners], name="copy"),
        "awaited": asyncelt.resource(answer, name="copy"),
    }
    copies = target(tmp_path)
    await copies.run(forms[form])
    found = await copies.dataset()["copy"].order_by("item").select("item", "owner").fetchall()
    assert found == [tuple(row.values()) for row in OWNERS]


async def test_a_relation_is_read_anew_by_each_run_and_a_cursor_looks_at_its_rows(dataset, tmp_path):
    copies = target(tmp_path)
    resource = asyncelt.resource(
        dataset["items"].select("id"), name="copy", incremental=asyncelt.sources.incremental("id")
    )
    assert (await copies.run(resource)).row_counts["copy"] == len(ITEMS)
    assert (await copies.run(resource)).row_counts.get("copy", 0) == 0


async def test_a_relation_is_loaded_into_its_own_dataset(kind, tmp_path):
    pipeline = await loaded(kind, tmp_path)
    await pipeline.run(pipeline.dataset()["items"].select("id", "name"), table_name="copy")
    assert await pipeline.dataset()["copy"].order_by("id").select("name").fetchall() == [("one",), ("two",), (None,)]


async def test_a_relation_has_no_name_of_its_own_and_its_errors_are_those_of_the_resource(dataset, tmp_path):
    copies = target(tmp_path)

    with pytest.raises(ResourceNameMissing, match="This Relation has no name"):
        await copies.run(dataset["items"])

    with pytest.raises(asyncelt.errors.PipelineStepFailed, match="no column 'nope'") as caught:
        await copies.run(dataset["items"].where("nope > 1"), table_name="copy")

    assert isinstance(caught.value.__cause__, ResourceExtractionError)
