"""Delta and Iceberg tables in partitions: by the hint ``partition``, and by `iceberg_adapter` with the reference's hints."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from dlt.destinations.adapters import iceberg_adapter as their_adapter, iceberg_partition as their_partition
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

import asyncelt
from asyncelt import destinations
from asyncelt.destinations.adapters import PartitionSpec, iceberg_adapter, iceberg_partition
from asyncelt.destinations.filesystem_impl.iceberg_partitions import Splitter, spec_of
from asyncelt.destinations.filesystem_impl.partitioning import Partitioning
from asyncelt.errors import ConfigError
from asyncelt.types import ColumnName

MOMENTS = [
    dt.datetime(1969, 12, 31, 23, 59, 59, 1, dt.UTC),
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 13, 5, tzinfo=dt.UTC),
    None,
]
NUMBERS = [-11, -10, 0, 7, 10, None]
DECIMALS = [Decimal("-1.01"), Decimal("10.65"), None]
CASES = [
    ("year", None, TimestamptzType(), pa.timestamp("us", "UTC"), MOMENTS),
    ("month", None, TimestamptzType(), pa.timestamp("us", "UTC"), MOMENTS),
    ("day", None, TimestamptzType(), pa.timestamp("us", "UTC"), MOMENTS),
    ("hour", None, TimestamptzType(), pa.timestamp("us", "UTC"), MOMENTS),
    ("identity", None, TimestamptzType(), pa.timestamp("us", "UTC"), MOMENTS),
    ("bucket", 4, TimestamptzType(), pa.timestamp("us", "UTC"), MOMENTS),
    *(
        (name, None, DateType(), pa.date32(), [one and one.date() for one in MOMENTS])
        for name in ("year", "month", "day")
    ),
    ("truncate", 10, LongType(), pa.int64(), NUMBERS),
    ("bucket", 3, LongType(), pa.int64(), NUMBERS),
    ("truncate", 2, StringType(), pa.large_string(), ["", "a", "äöü", "abc", None]),
    ("bucket", 5, StringType(), pa.large_string(), ["", "a", "äöü", None]),
    ("truncate", 50, DecimalType(9, 2), pa.decimal128(9, 2), DECIMALS),
    ("bucket", 7, DecimalType(9, 2), pa.decimal128(9, 2), DECIMALS),
    ("truncate", 1, BinaryType(), pa.large_binary(), [b"", b"ab", None]),
]


@pytest.mark.parametrize(
    "transform, number, kind, arrow, values", CASES, ids=lambda one: one if isinstance(one, str) else ""
)
def test_partitions_are_those_of_the_format(transform, number, kind, arrow, values):
    """What its own implementation makes of one value after the other."""
    schema = Schema(NestedField(1, "v", kind, required=False))
    spec = spec_of(schema, [Partitioning(ColumnName("v"), transform, number)])
    rows = pa.table({"v": pa.array(values * 2, arrow)})
    physical = [_physical(value) for value in values]
    one_by_one = spec.fields[0].transform.transform(kind)
    expected = {one_by_one(value) for value in physical}
    found = {record[0]: part for record, part in Splitter(spec, schema).split(rows)}

    assert set(found) == expected

    for key, part in found.items():
        own = [value for value, inside in zip(values, physical, strict=True) if one_by_one(inside) == key]
        assert part.column("v").to_pylist() == own * 2


def _physical(value):
    if isinstance(value, dt.datetime):
        return (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)

    return (value - dt.date(1970, 1, 1)).days if isinstance(value, dt.date) else value


def test_without_partitions_rows_stay_together():
    rows = pa.table({"v": [1, 2]})
    schema = Schema(NestedField(1, "v", LongType(), required=False))

    assert [part for _, part in Splitter(UNPARTITIONED_PARTITION_SPEC, schema).split(rows)] == [rows]


def test_the_hints_are_those_of_the_reference():
    def fields(kind):
        return [
            "a",
            kind.identity("b"),
            kind.year("c"),
            kind.month("c", "m"),
            kind.day("c"),
            kind.hour("c"),
            kind.bucket(4, "d"),
            kind.truncate(3, "e", "t"),
        ]

    properties = {"commit.retry.num-retries": "3"}
    ours = iceberg_adapter([{"a": 1}], fields(iceberg_partition), properties)
    theirs = their_adapter([{"a": 1}], fields(their_partition), properties)
    names = ("x-iceberg-partition", "x-iceberg-table-properties")
    schema = theirs.compute_table_schema()

    assert ours.name == theirs.name
    assert {name: ours.compute_table_schema().hints[name] for name in names} == {name: schema[name] for name in names}


@pytest.mark.parametrize("arguments", [{}, {"partition": [1]}, {"table_properties": {"a": 1}}, {"table_properties": 1}])
def test_an_adapter_that_says_nothing_is_refused(arguments):
    with pytest.raises(ConfigError, match="iceberg_adapter"):
        iceberg_adapter([], **arguments)


@pytest.fixture
def pipeline(tmp_path):
    return asyncelt.pipeline(
        "parts",
        destination=destinations.filesystem(tmp_path / "lake"),
        dataset_name="raw",
        pipelines_dir=str(tmp_path / "pipelines"),
    )


def days(first, count, text="a"):
    return [
        {
            "id": n,
            "day": dt.date(2024, 1, 1 + n % 3),
            "at": dt.datetime(2024, 1 + n % 2, 1, n % 24),
            "v": f"{text} {n % 2}/ü%",
        }
        for n in range(first, first + count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
@pytest.mark.parametrize("disposition", ["append", "upsert", "insert-only", "replace"])
async def test_columns_with_the_hint_make_partitions(pipeline, tmp_path, kind, disposition):
    merged = disposition in {"upsert", "insert-only"}
    hint = {"disposition": "merge", "strategy": disposition} if merged else disposition
    hints = {"primary_key": "id", "write_disposition": hint, "table_format": kind}
    hints["columns"] = {"day": {"partition": True}, "v": {"partition": True}}
    second = [*days(4, 4, "b"), {"id": 99, "day": None, "v": "c"}]

    for rows in (days(0, 6), second):
        await pipeline.run(asyncelt.resource(rows, name="rows", **hints))

    expected = {
        "append": [*days(0, 6), *second],
        "replace": second,
        "upsert": [*days(0, 4), *second],
        "insert-only": [*days(0, 6), *second[2:]],
    }[disposition]

    async with pipeline.sql_client() as sql:
        found = await sql.query("SELECT id, day, v FROM rows ORDER BY id, v")
        some = await sql.query("SELECT count(*) AS n FROM rows WHERE v LIKE 'b %' AND day = '2024-01-02'")

    rows = sorted((row["id"], row["day"], row["v"]) for row in expected)
    assert [tuple(row.values()) for row in found.to_pylist()] == rows
    assert some["n"].to_pylist() == [sum(v.startswith("b ") and day == dt.date(2024, 1, 2) for _, day, v in rows)]
    assert partitions(tmp_path / "lake" / "raw" / "rows", kind) == {(day, v) for _, day, v in rows}


def partitions(folder, kind):
    """Values by which the newest files of a table are told apart, as its driver says."""
    if kind == "delta":
        actions = pa.table(DeltaTable(str(folder)).get_add_actions(flatten=True))

        return set(zip(*(actions.column(f"partition.{one}").to_pylist() for one in ("day", "v")), strict=True))

    tasks = newest(folder).scan().plan_files()
    epoch = dt.date(1970, 1, 1)

    return {
        (
            None if task.file.partition[0] is None else epoch + dt.timedelta(task.file.partition[0]),
            task.file.partition[1],
        )
        for task in tasks
    }


def newest(folder):
    return StaticTable.from_metadata(
        str(max(folder.glob("metadata/*.metadata.json"), key=lambda one: int(one.name.partition("-")[0])))
    )


@pytest.mark.slow
async def test_text_that_an_upsert_wrote_into_partitions_can_be_searched(pipeline):
    hints = {"primary_key": "id", "table_format": "delta", "columns": {"day": {"partition": True}}}
    hints["write_disposition"] = {"disposition": "merge", "strategy": "upsert"}

    for first in (0, 2):
        await pipeline.run(asyncelt.resource(days(first, 4), name="rows", **hints))

    async with pipeline.sql_client() as sql:
        found = await sql.query("SELECT id FROM rows WHERE v = 'a 1/ü%' AND starts_with(v, 'a') ORDER BY id")

    assert found["id"].to_pylist() == [1, 3, 5]


@pytest.mark.slow
async def test_an_adapter_makes_partitions_and_properties(pipeline, tmp_path):
    data = asyncelt.resource(days(0, 6), name="rows", table_format="iceberg")
    fields = [iceberg_partition.month("at"), iceberg_partition.bucket(2, "id", "half")]
    await pipeline.run(iceberg_adapter(data, fields, {"comment": "by month"}))
    table = newest(tmp_path / "lake" / "raw" / "rows")

    assert [(one.name, str(one.transform)) for one in table.spec().fields] == [
        ("at_month", "month"),
        ("half", "bucket[2]"),
    ]
    assert table.properties["comment"] == "by month"
    assert {task.file.partition[0] for task in table.scan().plan_files()} == {54 * 12, 54 * 12 + 1}
    january = table.scan(row_filter="at < '2024-02-01T00:00:00+00:00'")
    assert sorted(january.to_arrow().column("id").to_pylist()) == [0, 2, 4]
    assert len(list(january.plan_files())) < len(list(table.scan().plan_files()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields, says",
    [
        ([iceberg_partition.year("id")], "year of id: a column of type bigint has no year"),
        ([iceberg_partition.day("nowhere")], "day of nowhere: there is no such column"),
        (["id", "id"], "partitioned by id twice"),
        ([iceberg_partition.day("at", "id")], "the field cannot be called id"),
        ([PartitionSpec("id", "modulo", 3)], "no transform 'modulo'"),
        ([iceberg_partition.bucket(0, "id")], "bucket with the number 0"),
    ],
)
async def test_what_cannot_be_a_partition_is_refused_in_one_line(pipeline, tmp_path, fields, says):
    data = asyncelt.resource(days(0, 1), name="rows", table_format="iceberg")

    with pytest.raises(ConfigError, match=says):
        await pipeline.run(iceberg_adapter(data, fields))

    assert not (tmp_path / "lake" / "raw" / "rows").exists()


@pytest.mark.slow
async def test_small_files_are_put_together_by_partition(tmp_path):
    pipeline = asyncelt.pipeline(
        "parts",
        destination=destinations.filesystem(tmp_path / "lake", compact_files=3),
        dataset_name="raw",
        pipelines_dir=str(tmp_path / "pipelines"),
    )

    for number, days_of in enumerate([(1, 2), (1,), (1,)]):
        rows = [{"id": number, "day": dt.date(2024, 1, day)} for day in days_of]
        await pipeline.run(
            asyncelt.resource(rows, name="rows", table_format="iceberg", columns={"day": {"partition": True}})
        )

    files = [task.file.partition[0] for task in newest(tmp_path / "lake" / "raw" / "rows").scan().plan_files()]
    first = (dt.date(2024, 1, 1) - dt.date(1970, 1, 1)).days
    assert sorted(files) == [first, first + 1]
    assert pc.sum(newest(tmp_path / "lake" / "raw" / "rows").scan().to_arrow().column("id")).as_py() == 3
