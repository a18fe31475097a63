"""Column hints, and the Arrow path."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from tests.differential.cases import Case, Run, case

FLAT = pa.table({"id": [1, 2, 3], "name": ["a", None, "c"], "price": [1.5, 2.5, None], "ok": [True, None, False]})
WIDTHS = pa.table(
    {
        "tiny": pa.array([1, 2], pa.int8()),
        "small": pa.array([1, None], pa.int16()),
        "mid": pa.array([1, 2], pa.int32()),
        "float32": pa.array([0.5, 1.5], pa.float32()),
        "moment": pa.array([datetime(2024, 1, 2, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        "day": pa.array([19000, None], pa.int32()).cast(pa.date32()),
        "blob": pa.array([b"a", b"b"], pa.binary()),
        "number": pa.array([1, 2], pa.decimal128(12, 2)),
    }
)
NESTED = pa.table({"id": [1, 2], "s": [{"x": 1}, {"x": 2}], "l": [[1, 2], []], "Camel Name": ["a", "b"]})
NULLS = pa.table({"id": [1, 2], "nothing": pa.nulls(2)})


def _arrow(id: str, *tables: pa.Table, **arguments: object) -> Case:  # noqa: A002
    return Case(id=id, runs=(Run(pages=tuple((table,) for table in tables), arguments=arguments),), forms=("pages",))


CASES: tuple[Case, ...] = (
    case(
        "5.8-columns-before-data",
        {"b": 1, "a": 2},
        columns=[{"name": "a", "data_type": "bigint"}, {"name": "z", "data_type": "text"}],
    ),
    case("5.8-columns-as-dict", {"b": 1}, columns={"Some Name": {"data_type": "text", "description": "words"}}),
    case("5.8-unique", {"a": 1}, {"a": 2}, columns={"a": {"data_type": "bigint", "unique": True}}),
    case("5.8-sort-and-cluster", {"a": 1}, columns={"a": {"data_type": "bigint", "sort": True, "cluster": True}}),
    case("5.8-primary-key-of-append", {"id": 1, "v": 2}, {"id": 1, "v": 3}, primary_key="id"),
    case("5.8-two-primary-keys", {"a": 1, "b": 2, "v": 3}, primary_key=["a", "b"]),
    case("5.8-merge-key-hint", {"a": 1, "b": 2}, hints={"merge_key": "a"}),
    case(
        "5.8-hint-added-in-a-later-run",
        {"a": 1},
        then=[[{"a": 2, "b": "x"}]],
        columns={"b": {"data_type": "text", "x-own": 5}},
    ),
    Case(
        id="5.8-new-compound-hint-replaces-the-old-one",
        runs=(
            Run(pages=(({"a": 1, "b": 2},),), arguments={"primary_key": "a"}),
            Run(pages=(({"a": 3, "b": 4},),), arguments={"primary_key": "b"}),
        ),
    ),
    _arrow("5.10-arrow-flat", FLAT),
    _arrow("5.10-arrow-widths", WIDTHS),
    _arrow("5.10-arrow-nested-becomes-json", NESTED),
    _arrow("5.10-arrow-null-column", NULLS),
    _arrow("5.10-arrow-empty-table", FLAT.slice(0, 0)),
    _arrow("5.10-arrow-batches", FLAT, FLAT.slice(1)),
    _arrow("5.10-arrow-later-batch-has-more", FLAT.select(["id", "name"]), FLAT),
    _arrow("5.10-arrow-later-batch-has-fewer", FLAT, FLAT.select(["name", "id"])),
    _arrow("5.10-arrow-replace", FLAT, write_disposition="replace"),
    _arrow("5.10-arrow-merge", FLAT, write_disposition="merge", primary_key="id"),
)
