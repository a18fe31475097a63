from __future__ import annotations

import pyarrow as pa
import pytest

from asyncelt.errors import SchemaError
from asyncelt.schema.arrow import arrow_schema, arrow_type, column_from_arrow
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Column

CAPS = Capabilities()
WIDE = Capabilities(max_decimal_precision=76, wei_precision=(78, 0))


@pytest.mark.parametrize(
    "column,expected",
    [
        ({"data_type": "text"}, pa.string()),
        ({"data_type": "bigint", "precision": 16}, pa.int64()),
        ({"data_type": "double"}, pa.float64()),
        ({"data_type": "bool"}, pa.bool_()),
        ({"data_type": "date"}, pa.date32()),
        ({"data_type": "binary", "precision": 8}, pa.binary()),
        ({"data_type": "json"}, pa.string()),
        ({"data_type": "time"}, pa.time64("us")),
        ({"data_type": "time", "precision": 9}, pa.time64("ns")),
        ({"data_type": "timestamp"}, pa.timestamp("us", "UTC")),
        ({"data_type": "timestamp", "timezone": True}, pa.timestamp("us", "UTC")),
        ({"data_type": "timestamp", "timezone": False}, pa.timestamp("us")),
        ({"data_type": "timestamp", "precision": 0}, pa.timestamp("us", "UTC")),
        ({"data_type": "timestamp", "precision": 2}, pa.timestamp("us", "UTC")),
        ({"data_type": "timestamp", "precision": 7}, pa.timestamp("ns", "UTC")),
        ({"data_type": "decimal"}, pa.decimal128(38, 9)),
        ({"data_type": "decimal", "precision": 10, "scale": 2}, pa.decimal128(10, 2)),
        ({"data_type": "decimal", "precision": 10}, pa.decimal128(10, 9)),
        ({"data_type": "decimal", "scale": 4}, pa.decimal128(38, 4)),
        ({"data_type": "wei"}, pa.decimal128(38, 0)),
    ],
)
def test_arrow_types(column, expected):
    assert expected == arrow_type(Column(name="a", **column), CAPS)


def test_wide_decimals_where_the_destination_holds_them():
    assert pa.decimal256(60, 5) == arrow_type(Column(name="a", data_type="decimal", precision=60, scale=5), WIDE)
    assert pa.decimal256(76, 0) == arrow_type(Column(name="a", data_type="wei"), WIDE)


@pytest.mark.parametrize("column", [Column(name="a"), Column(name="a", data_type="decimal", precision=39)])
def test_what_has_no_arrow_type(column):
    with pytest.raises(SchemaError, match="'a'"):
        arrow_type(column, CAPS)


def test_arrow_schema_leaves_out_columns_without_a_type():
    found = arrow_schema([Column(name="a", data_type="bool", nullable=False), Column(name="b")], CAPS)

    assert pa.schema([pa.field("a", pa.bool_())]) == found


@pytest.mark.parametrize("kind", [pa.duration("s"), pa.month_day_nano_interval()])
def test_what_has_no_column_type(kind):
    with pytest.raises(SchemaError, match="cast it"):
        column_from_arrow("a", pa.field("a", kind))


@pytest.mark.parametrize(
    "kind,data_type",
    [
        (pa.string_view(), "text"),
        (pa.binary_view(), "binary"),
        (pa.uuid(), "binary"),
        (pa.map_(pa.string(), pa.int8()), "json"),
        (pa.null(), None),
        (pa.dictionary(pa.int8(), pa.bool_()), "bool"),
    ],
)
def test_types_beyond_the_reference_s(kind, data_type):
    assert data_type == column_from_arrow("a", pa.field("a", kind)).data_type


def test_loaded_data_counts_as_utc_at_the_destination_s_precision():
    field = pa.field("a", pa.timestamp("us"), nullable=False)

    assert Column(name="a", data_type="timestamp", nullable=False) == column_from_arrow("a", field, CAPS)
    assert column_from_arrow("a", field).timezone is False
    assert column_from_arrow("a", pa.field("a", pa.timestamp("ns")), CAPS).precision == 9


ORACLE_TYPES = [
    pa.string(), pa.large_string(), pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(),
    pa.float64(), pa.bool_(), pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
    pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("ns"), pa.binary(),
    pa.large_binary(), pa.binary(16), pa.decimal128(10, 2), pa.decimal256(60, 3), pa.struct([("a", pa.int8())]),
    pa.list_(pa.int64()), pa.large_list(pa.string()), pa.dictionary(pa.int32(), pa.string()), pa.null(),
]  # fmt: skip


@pytest.mark.parametrize("kind", ORACLE_TYPES, ids=str)
def test_columns_of_arrow_data_equal_the_reference_s(kind):
    theirs = pytest.importorskip("dlt.common.libs.pyarrow").get_column_type_from_py_arrow(kind)
    ours = column_from_arrow("a", pa.field("a", kind))
    found = {prop: getattr(ours, prop) for prop in ("data_type", "precision", "scale", "timezone")}

    assert {k: v for k, v in theirs.items() if k != "x-nested-type"} == {
        k: v for k, v in found.items() if v is not None
    }
