"""What is particular to Delta tables: what others have done to them, and what its driver says. The rest: test_lakes.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import asyncelt
from asyncelt import destinations
from asyncelt.destinations.filesystem_impl import delta
from asyncelt.errors import ConfigError, DestinationRejected, DestinationUnavailable
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName

pytestmark = pytest.mark.slow

ONE = pa.table({"id": [1, 2], "v": ["a", "b"]})
TWO = pa.table({"id": [2, 3], "v": ["B", "c"]})
APPENDED = Table(name=TableName("one"), resource="one", write_disposition="append", hints={"table_format": "delta"})
KEY = Column(name=ColumnName("id"), data_type="bigint", primary_key=True, nullable=False)
KEYED = replace(APPENDED, write_disposition="merge", columns={KEY.name: KEY})


@pytest.fixture
def owner(tmp_path):
    return Owner(destinations.filesystem(tmp_path / "lake"), tmp_path / "packages", "parquet")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "lake" / "data" / "one" / "_delta_log"


async def test_a_column_that_no_file_has_is_null(owner):
    gone = Column(name=ColumnName("gone"), data_type="bool", hard_delete=True)
    await owner.run({"one": ONE}, tables=[KEYED])
    await owner.run({"one": pa.table({"id": [9], "gone": [True]})}, tables=[replace(KEYED, columns={gone.name: gone})])

    async with owner.destination.connect(owner.target) as session:
        found = await session.query("SELECT gone FROM one")

    assert found.to_pylist() == [{"gone": None}, {"gone": None}]
    await owner.run({"one": TWO})
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 3]


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping"])
async def test_a_table_whose_files_do_not_have_the_rows_as_they_are_is_refused_by_name(owner, log, feature):
    await owner.run({"one": ONE}, tables=[APPENDED])
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": [feature],
        "writerFeatures": [feature],
    }
    (log / f"{1:020d}.json").write_text(json.dumps({"protocol": protocol}))

    with pytest.raises(DestinationRejected, match=f"data/one: .* switched on {feature}"):
        await owner.rows("one")


async def test_a_merge_reads_only_files_that_may_have_its_keys(owner, tmp_path):
    for start in range(0, 50, 10):
        await owner.run({"one": pa.table({"id": list(range(start, start + 10))})}, tables=[KEYED])

    await owner.run({"one": pa.table({"id": [35], "v": ["new"]})})

    [merged] = [
        one for one in DeltaTable(str(tmp_path / "lake" / "data" / "one")).history(1) if one["operation"] == "MERGE"
    ]
    assert merged["operationMetrics"]["num_target_files_scanned"] == 1, merged
    assert len(await owner.rows("one")) == 50


async def test_a_table_without_the_column_by_which_rows_are_found_gets_all_of_them(tmp_path):
    """Appended first, with lists in lists: those have no link to the root row, which a merge needs."""
    destination = destinations.filesystem(tmp_path / "lake")

    pipeline = asyncelt.pipeline("p", destination=destination, dataset_name="d", pipelines_dir=str(tmp_path / "w"))

    for number, disposition in enumerate(("append", "merge", "merge")):
        rows = [{"id": number, "a": [{"b": [{"n": number}]}]}]
        await pipeline.run(rows, table_name="t", write_disposition=disposition, primary_key="id", table_format="delta")

    async with pipeline.sql_client() as sql:
        found = await sql.query("SELECT n FROM t__a__b ORDER BY n")

    assert found.column("n").to_pylist() == [0, 1, 2]


async def test_a_binary_column_tells_no_partitions_apart(owner):
    column = Column(name=ColumnName("by"), data_type="binary", extra={"partition": True})
    table = replace(APPENDED, columns={column.name: column})

    with pytest.raises(ConfigError, match=r"partition by identity of by: Delta"):
        await owner.run({"one": pa.table({"by": [b"\x00\xff"]})}, tables=[table])


@pytest.mark.parametrize(
    "error, kind",
    [
        (Exception("Cast error: Cannot cast string 'x' to value of Int64 type"), DestinationRejected),
        (ValueError("Invalid table"), DestinationRejected),
        (NotImplementedError("nested"), DestinationRejected),
        (
            delta.DeltaError("Generic S3 error: Error performing PUT in 1s - HTTP error: error sending"),
            DestinationUnavailable,
        ),
        (
            delta.DeltaError("Generic S3 error: Server returned non-2xx status code: 503 Slow Down"),
            DestinationUnavailable,
        ),
        (delta.DeltaError("Generic S3 error: Client error with status 403 Forbidden"), DestinationRejected),
        (OSError("Generic S3 error: error sending request"), DestinationUnavailable),
        (PermissionError("Permission denied"), DestinationRejected),
    ],
)
def test_what_the_driver_says_becomes_an_error_that_names_the_table(error, kind):
    with (
        pytest.raises(kind, match=r"Delta table /lake/one, load 1\.0: ") as caught,
        delta._guarded("/lake/one", ", load 1.0"),
    ):
        raise error

    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
