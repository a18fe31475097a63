"""Whole sources, defined once and run by both: transformers, dynamic hints, marks, cursors. The same tables and state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import asyncelt
from tests.differential.comparing import compare
from tests.differential.definitions import DATASET, DEFINITIONS, DEPARTURES, PIPELINE, RUNS, Definition, main
from tests.differential.reading import Dataset, read_dataset

pytestmark = [pytest.mark.differential, pytest.mark.slow]

RunDlt = Callable[..., Awaitable[None]]


async def both(definition: Definition, name: str, folder: Path, run_dlt: RunDlt) -> tuple[Dataset, Dataset]:
    """What the reference and asyncelt make of a definition, run after run."""
    await run_dlt(main, folder, name)
    pipeline = asyncelt.pipeline(
        PIPELINE,
        destination=asyncelt.destinations.duckdb(str(folder / "ours.duckdb")),
        dataset_name=DATASET,
        pipelines_dir=str(folder / "ours"),
    )

    for run in range(RUNS):
        await pipeline.run(definition(asyncelt, run))

    return read_dataset(folder / "theirs.duckdb", DATASET), read_dataset(folder / "ours.duckdb", DATASET)


@pytest.mark.covers(
    "resource.data",
    "resource.name",
    "resource.max_table_nesting",
    "resource.section",
    "resource.selected",
    "resource.table_name",
    "resource.write_disposition",
    "resource.columns",
    "resource.primary_key",
    "resource.merge_key",
    "resource.schema_contract",
    "resource.table_format",
    "resource.file_format",
    "resource.references",
    "resource.nested_hints",
    "transformer.f",
    "transformer.data_from",
    "transformer.name",
    "transformer.max_table_nesting",
    "transformer.table_name",
    "transformer.write_disposition",
    "transformer.columns",
    "transformer.primary_key",
    "transformer.merge_key",
    "transformer.schema_contract",
    "transformer.table_format",
    "transformer.file_format",
    "transformer.references",
    "transformer.nested_hints",
    "source.name",
    "source.section",
    "source.max_table_nesting",
    "source.root_key",
    "source.schema_contract",
    "Source.clone.with_name",
    "Source.add_limit.max_items",
    "Resource.add_limit.max_items",
    "Resource.add_map",
    "Resource.add_filter",
    "Resource.apply_hints.table_name",
    "Resource.apply_hints.write_disposition",
    "Resource.apply_hints.columns",
    "Resource.apply_hints.primary_key",
    "Resource.apply_hints.merge_key",
    "Resource.apply_hints.schema_contract",
    "Resource.apply_hints.table_format",
    "Resource.apply_hints.file_format",
    "Resource.apply_hints.references",
    "Resource.apply_hints.nested_hints",
    "Resource.apply_hints.incremental",
    "mark.make_hints",
    "mark.make_hints.table_name",
    "mark.make_hints.write_disposition",
    "mark.make_hints.columns",
    "mark.make_hints.primary_key",
    "mark.make_hints.merge_key",
    "mark.make_hints.schema_contract",
    "mark.make_hints.table_format",
    "mark.make_hints.file_format",
    "mark.make_hints.references",
    "mark.make_hints.nested_hints",
    "mark.make_hints.additional_table_hints",
    "mark.with_hints",
    "mark.with_table_name",
    "mark.materialize_table_schema",
    "Incremental.start_value",
    "Incremental.last_value",
    "incremental.initial_value",
)
@pytest.mark.parametrize("name", DEFINITIONS)
async def test_the_same_source_gives_the_same_tables(name: str, tmp_path: Path, run_dlt: RunDlt) -> None:
    theirs, ours = await both(DEFINITIONS[name], name, tmp_path, run_dlt)

    assert not [str(difference) for difference in compare(theirs, ours)]


EXPECTED = {
    "cursor-of-a-transformer": ([(3, 0)], [(1, 0), (3, 0)]),
    "cursor-that-is-merged": ([(5, 0), (7, 0)], [(3, 0), (5, 0)]),
}
"""(n, run) of the rows in the reference and in asyncelt."""


@pytest.mark.parametrize("name", DEPARTURES)
async def test_what_both_sides_make_of_a_departure(name: str, tmp_path: Path, run_dlt: RunDlt) -> None:
    found = []

    for side in await both(DEPARTURES[name], name, tmp_path, run_dlt):
        data = side.tables["items"]
        found.append(sorted((row[data.names.index("n")], row[data.names.index("run")]) for row in data.rows))

    assert tuple(found) == EXPECTED[name]
