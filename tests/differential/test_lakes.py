"""The same loads into Delta and Iceberg tables by both sides, read as their drivers read them."""

from __future__ import annotations

import asyncio

import pytest
from deltalake import DeltaTable
from pyiceberg.table import StaticTable

import asyncelt
from tests.differential import lakes_worker

pytestmark = [pytest.mark.differential, pytest.mark.slow, pytest.mark.xdist_group("lakes")]

KINDS = ("delta", "iceberg")
UPSERT = {"primary_key": "id", "write_disposition": {"disposition": "merge", "strategy": "upsert"}}
INSERT = {"primary_key": "id", "write_disposition": {"disposition": "merge", "strategy": "insert-only"}}
FIRST = [{"id": 1, "v": "a", "at": "2024-01-02T03:04:05Z", "items": [1, 2]}, {"id": 2, "v": "b", "x": {"y": 1.5}}]
LOADS = {
    "append": ({"write_disposition": "append"}, [FIRST, [{"id": 3, "w": True, "items": [4]}, {"id": 1, "v": "c"}]]),
    "replace": ({"write_disposition": "replace"}, [FIRST, [{"id": 3, "v": "z", "items": [4]}]]),
    "upsert": (UPSERT, [FIRST, [{"id": 2, "v": "n", "items": [7, 8]}, {"id": 3, "v": "z", "items": [9]}]]),
    "inserted": (INSERT, [FIRST, [{"id": 1, "v": "n", "items": [7, 8]}, {"id": 3, "v": "z", "items": [9]}]]),
    "shorter": (UPSERT, [[{"id": 1, "items": [1, 2]}], [{"id": 1, "items": [3]}]]),
}
CASES = {
    f"{kind}_{name}": {"hints": {**hints, "table_format": kind}, "loads": loads}
    for kind in KINDS
    for name, (hints, loads) in LOADS.items()
}
CASES["iceberg_wider"] = {
    "hints": {**UPSERT, "table_format": "iceberg"},
    "loads": [[{"id": 1, "v": "a"}], [{"id": 1, "v": "b"}]],
    "refused": [{"id": 1, "w": 1}],
}
CASES["delta_doubled"] = {
    "hints": {**INSERT, "table_format": "delta"},
    "loads": [[{"id": 1, "v": "a"}], [{"id": 2, "v": "b"}, {"id": 2, "v": "c"}]],
}
CASES["delta_parted"] = {
    "hints": {**UPSERT, "table_format": "delta", "columns": {"v": {"partition": True}}},
    "loads": LOADS["upsert"][1],
}
DEPARTURES = (
    "insert-only-of-doubled-keys-in-table-formats",
    "upsert-of-shorter-lists-in-table-formats",
    "upsert-with-a-new-column-in-iceberg",
)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, dlt_nursery):
    folder = tmp_path_factory.mktemp("theirs")
    assert dlt_nursery.start(lakes_worker.main, folder, CASES).wait() == 0

    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    asyncio.run(load(folder))

    return folder


async def load(folder):
    pipeline = asyncelt.pipeline(
        "lakes",
        destination=asyncelt.destinations.filesystem(folder),
        dataset_name="raw",
        pipelines_dir=str(folder / "pipelines"),
    )

    for number in range(2):
        await pipeline.run(
            [asyncelt.resource(one["loads"][number], name=name, **one["hints"]) for name, one in CASES.items()]
        )

    wider = CASES["iceberg_wider"]
    await pipeline.run(asyncelt.resource(wider["refused"], name="iceberg_wider", **wider["hints"]))


def read(kind, folder, name):
    """A table as its driver reads it: the columns that are not made by the loader, and those that hold something."""
    table = folder / "raw" / name

    if kind == "delta":
        rows = DeltaTable(str(table)).to_pyarrow_table().to_pylist()
    else:
        newest = max(table.glob("metadata/*.metadata.json"), key=lambda one: int(one.name.partition("-")[0]))
        rows = StaticTable.from_metadata(str(newest)).scan().to_arrow().to_pylist()

    own = [
        {key: value for key, value in row.items() if not key.startswith("_dlt") and value is not None} for row in rows
    ]

    return sorted(own, key=repr)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["append", "replace", "upsert", "inserted"])
def test_both_make_the_same_tables(theirs, ours, kind, name):
    for table in (f"{kind}_{name}", f"{kind}_{name}__items"):
        assert read(kind, ours, table) == read(kind, theirs, table), table


@pytest.mark.timeout(600)
def test_both_make_the_same_partitions(theirs, ours):
    found = [DeltaTable(str(folder / "raw" / "delta_parted")) for folder in (theirs, ours)]

    assert [one.metadata().partition_columns for one in found] == [["v"], ["v"]]
    assert read("delta", ours, "delta_parted") == read("delta", theirs, "delta_parted")


@pytest.mark.timeout(600)
def test_keys_that_come_twice_in_one_load(theirs, ours):
    """docs/departures.md: insert-only-of-doubled-keys-in-table-formats."""
    assert [(row["id"], row["v"]) for row in read("delta", theirs, "delta_doubled")] == [(1, "a"), (2, "b"), (2, "c")]
    assert [(row["id"], row["v"]) for row in read("delta", ours, "delta_doubled")] == [(1, "a"), (2, "b")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_lists_that_become_shorter(theirs, ours, kind):
    """docs/departures.md: upsert-of-shorter-lists-in-table-formats."""
    table = f"{kind}_shorter__items"

    assert [row["value"] for row in read(kind, theirs, table)] == [2, 3]
    assert [row["value"] for row in read(kind, ours, table)] == [3]


@pytest.mark.timeout(600)
def test_an_upsert_with_a_new_column(theirs, ours):
    """docs/departures.md: upsert-with-a-new-column-in-iceberg."""
    assert "Target schema's field names are not matching" in (theirs / "said").read_text()
    assert read("iceberg", theirs, "iceberg_wider") == [{"id": 1, "v": "b"}]
    assert read("iceberg", ours, "iceberg_wider") == [{"id": 1, "w": 1}]
