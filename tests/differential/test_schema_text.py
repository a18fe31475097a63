"""Schemas as text beside those that the reference writes, of a schema that a load has made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from asyncelt.schema.evolve import bump
from asyncelt.schema.export import parse_schema
from tests.reading.loaded import loaded

pytestmark = [pytest.mark.differential, pytest.mark.slow]


@pytest.fixture(scope="module")
async def both(anyio_backend, tmp_path_factory):
    pipeline = await loaded("memory", tmp_path_factory.mktemp("schema"))
    schema = pipeline.default_schema
    output = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        [sys.executable, str(Path(__file__).with_name("schema_text_worker.py"))],
        input=json.dumps({"stored": schema.to_dict(), "yaml": schema.to_pretty_yaml()}),
        capture_output=True,
        text=True,
        check=True,
    )

    return schema, json.loads(output.stdout.splitlines()[-1])


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
