"""Schemas as text beside those that the reference writes, of a schema that a load has made."""

from __future__ import annotations

import json

import pytest
import yaml

from asyncelt.schema.evolve import bump
from asyncelt.schema.export import parse_schema
from tests.differential import schema_text_worker
from tests.reading.loaded import loaded

pytestmark = [pytest.mark.differential, pytest.mark.slow, pytest.mark.xdist_group("schema text")]


@pytest.fixture(scope="module")
async def both(anyio_backend, tmp_path_factory, dlt_nursery):
    folder = tmp_path_factory.mktemp("schema")
    pipeline = await loaded("memory", folder)
    schema = pipeline.default_schema
    output = folder / "theirs.json"
    assert dlt_nursery.start(schema_text_worker.main, schema.to_dict(), schema.to_pretty_yaml(), output).wait() == 0

    return schema, json.loads(output.read_text())


def test_mermaid_is_the_same_text(both):
    schema, theirs = both
    assert schema.to_mermaid() == theirs["mermaid"]
    assert schema.to_text("mermaid", include_dlt_tables=False) == theirs["mermaid_data"]


def test_yaml_and_json_say_the_same(both):
    schema, theirs = both
    assert yaml.safe_load(schema.to_pretty_yaml()) == yaml.safe_load(theirs["yaml"])
    assert json.loads(schema.to_pretty_json()) == json.loads(theirs["json"])


def test_without_notes_of_loads_the_tables_are_the_same(both):
    """The reference counts that as a new version of the schema; here it is the same one."""
    schema, theirs = both
    ours = yaml.safe_load(schema.to_text("yaml", remove_processing_hints=True))
    assert ours["tables"] == yaml.safe_load(theirs["yaml_without_hints"])["tables"]


def test_each_reads_what_the_other_wrote(both):
    schema, theirs = both
    assert parse_schema(theirs["yaml"]) == schema
    assert bump(parse_schema(theirs["json"])) == schema
    assert theirs["hash_of_ours"] == schema.version_hash
    assert theirs["is_modified"] is False
