"""Coercion kernels: hand-picked edge values for each pair of types, layouts of lanes, and what is kept on purpose."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from asyncelt.errors import SchemaError
from asyncelt.normalize.coerce import DEPARTURES, coerce, parse_timestamps
from asyncelt.normalize.coerce_lanes import first_valid, per_distinct
from tests.support.coercing import can_coerce

US = pa.timestamp("us", tz="UTC")
DECIMAL = pa.decimal128(38, 9)
WEI = pa.decimal128(38, 0)
FAILED = "did not fit"
TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": US,
    "date": pa.date32(),
    "time": pa.time64("us"),
    "binary": pa.binary(),
    "decimal": DECIMAL,
    "wei": WEI,
    "json": pa.string(),
}
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)

# (target, source) -> {value: what becomes of it}
TABLE: dict[tuple[str, str], list[tuple[Any, Any]]] = {
    ("text", "json"): [('{"a":1}', '{"a":1}')],
    ("text", "bool"): [(True, "True"), (False, "False")],
    ("text", "bigint"): [(0, "0"), (-(2**63), "-9223372036854775808")],
    ("text", "double"): [
        *((1.0, "1.0"), (0.1, "0.1"), (1e15, "1000000000000000.0"), (1e16, "1e+16"), (1e10, "10000000000.0")),
        *((123456789012.5, "123456789012.5"), (1e-4, "0.0001"), (1e-5, "1e-05"), (1e-10, "1e-10"), (5e-324, "5e-324")),
        *((0.0, "0.0"), (-0.0, "-0.0"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")),
    ],
    ("text", "decimal"): [(Decimal("1.500000000"), "1.500000000"), (Decimal("0.000000001"), "1E-9")],
    ("text", "wei"): [(Decimal(10) ** 30, "1" + "0" * 30)],
    ("text", "binary"): [(b"", ""), (b"a", "YQ=="), (b"\xff\x00", "/wA=")],
    ("text", "timestamp"): [
        (NEW_YEAR, "2024-01-01T00:00:00+00:00"),
        (NEW_YEAR.replace(microsecond=5), "2024-01-01T00:00:00.000005+00:00"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00+00:00"),
    ],
    ("text", "date"): [(date(2024, 1, 31), "2024-01-31"), (date(1, 1, 1), "0001-01-01")],
    ("text", "time"): [(time(10, 30), "10:30:00"), (time(10, 30, 0, 5), "10:30:00.000005")],
    ("bigint", "text"): [
        *(("1", 1), (" +1 ", 1), ("-0", 0), ("1_000", 1000), ("007", 7), ("٣", 3), ("0x1f", 31), (" 0xFF ", 255)),
        *(("0x-10", -16), ("0x 10", 16), ("0X10", FAILED), ("0xffffffffffffffff", FAILED), ("1.0", FAILED), ("", FAILED)),
        *(("9223372036854775807", 2**63 - 1), ("9223372036854775808", FAILED), ("1__0", FAILED), ("abc", FAILED)),
    ],
    ("bigint", "double"): [
        *((2.0, 2), (-0.0, 0), (2.5, FAILED), (2.0**63, FAILED), (-(2.0**63), -(2**63)), (math.nan, FAILED)),
        *((math.inf, FAILED), (1e16, 10**16)),
    ],
    ("bigint", "decimal"): [(Decimal("3.000"), 3), (Decimal("3.5"), FAILED), (Decimal(10) ** 25, FAILED), (Decimal(-1), -1)],
    ("bigint", "wei"): [(Decimal(2**63 - 1), 2**63 - 1), (Decimal(2**63), FAILED)],
    ("double", "text"): [
        *(("1.5", 1.5), (" 1 ", 1.0), ("1e5", 1e5), ("1_0.5", 10.5), ("inf", math.inf), ("-Infinity", -math.inf)),
        *(("1e400", math.inf), ("0x10", 16.0), ("nan(1)", FAILED), ("1,5", FAILED), ("", FAILED), (".5", 0.5), ("5.", 5.0)),
    ],
    ("double", "bigint"): [(3, 3.0), (2**53 + 1, 2.0**53)],
    ("double", "decimal"): [(Decimal("0.1"), 0.1)],
    ("double", "wei"): [(Decimal(123456789012345678901234567890), 1.2345678901234568e29)],
    ("decimal", "text"): [
        *(("1.50", Decimal("1.5")), ("1e5", Decimal(100000)), (" -1_0 ", Decimal(-10)), ("0x10", Decimal(16))),
        *(("0.0000000005", Decimal("1E-9")), ("-0.0000000005", Decimal("-1E-9")), ("0.00000000049", Decimal(0))),
        *(("nan", FAILED), ("inf", FAILED), ("1e30", FAILED), ("9" * 29, Decimal("9" * 29)), ("9" * 30, FAILED)),
        *(("1e-400", Decimal(0)), ("1e-2000000000", Decimal(0)), ("1e400", FAILED), ("1." + "0" * 100, Decimal(1))),
        *(("9223372036854775807.1234567895", Decimal("9223372036854775807.123456790")), ("", FAILED), (".", FAILED)),
    ],
    ("decimal", "bigint"): [(5, Decimal(5)), (-(2**63), Decimal(-(2**63)))],
    ("decimal", "double"): [
        *((0.1, Decimal("0.1")), (1e16, Decimal(10) ** 16), (1e300, FAILED), (math.nan, FAILED), (5e-324, Decimal(0))),
        *((0.1234567895, Decimal("0.123456790")),),
    ],
    ("decimal", "wei"): [(Decimal(7), Decimal(7)), (Decimal(10) ** 29, FAILED)],
    ("wei", "text"): [("1.5", Decimal(2)), ("2.5", Decimal(3)), ("-2.5", Decimal(-3)), ("9" * 38, Decimal("9" * 38))],
    ("wei", "bigint"): [(5, Decimal(5))],
    ("wei", "double"): [(1e30, Decimal(10) ** 30)],
    ("wei", "decimal"): [(Decimal("2.5"), Decimal(3)), (Decimal("-0.5"), Decimal(-1))],
    ("bool", "text"): [("Yes", True), ("T", True), ("1", True), ("no", False), ("F", False), (" true", FAILED), ("2", FAILED)],
    ("bool", "bigint"): [(0, False), (-1, True)],
    ("bool", "double"): [(0.0, False), (-0.0, False), (0.5, True), (math.nan, True)],
    ("bool", "decimal"): [(Decimal(0), False), (Decimal("0.1"), True)],
    ("bool", "wei"): [(Decimal(0), False), (Decimal(10) ** 30, True)],
    ("timestamp", "text"): [
        *(("2024-01-01T00:00:00Z", NEW_YEAR), ("2024-01-01", NEW_YEAR), ("2024-01-01T02:00:00+02:00", NEW_YEAR)),
        *(("2024-01-01 00", NEW_YEAR), ("20240101T000000Z", NEW_YEAR), ("2024/01/01 00:00", NEW_YEAR), ("2024", NEW_YEAR)),
        *(("2024-W01-1", NEW_YEAR), ("2024-001", NEW_YEAR), ("20240101", NEW_YEAR), ("1704067200", NEW_YEAR)),
        *(("1704067200.5", NEW_YEAR + timedelta(seconds=0.5)), ("2023-12-31T19:00:00-05", NEW_YEAR)),
        *(("2024-01-01T00:00:00.1234567899Z", NEW_YEAR.replace(microsecond=123456)), ("2024-01-01T24:00:00", FAILED)),
        *(("1960-01-01T00:00:00.9999999Z", datetime(1960, 1, 1, 0, 0, 0, 999999, UTC)), ("2023-02-29", FAILED)),
        *(("2024-06-30T23:59:60Z", FAILED), ("0000-01-01", FAILED), ("10:30", FAILED), ("P1D", FAILED), ("", FAILED)),
        *(("0001-01-01T00:00:00+02:00", FAILED), ("9999-12-31T23:59:59-02:00", FAILED), ("1e18", FAILED), ("10:", FAILED)),
        *(("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)), ("2024-01-01T00:00:00+24:00", FAILED)),
    ],
    ("timestamp", "bigint"): [
        *((1704067200, NEW_YEAR), (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)), (10**12, FAILED)),
        *((-62135596800, datetime(1, 1, 1, tzinfo=UTC)), (-62135596801, FAILED), (2**63 - 1, FAILED)),
    ],
    ("timestamp", "double"): [
        *((1704067200.5, NEW_YEAR + timedelta(seconds=0.5)), (1.5e-6, datetime(1970, 1, 1, 0, 0, 0, 2, UTC))),
        *((2.5e-6, datetime(1970, 1, 1, 0, 0, 0, 2, UTC)), (-1e-7, datetime(1970, 1, 1, tzinfo=UTC)), (math.nan, FAILED)),
        *((1e18, FAILED), (math.inf, FAILED), (253402300800.0, FAILED)),
    ],
    ("timestamp", "date"): [(date(2024, 1, 1), NEW_YEAR)],
    ("date", "text"): [
        *(("2024-01-31", date(2024, 1, 31)), ("2024-01-01T01:00:00+02:00", date(2023, 12, 31)), ("0", date(1970, 1, 1))),
        *(("0000-01-01", FAILED), ("31.01.2024", FAILED)),
    ],
    ("date", "timestamp"): [(NEW_YEAR, date(2024, 1, 1)), (datetime(1969, 12, 31, 23, tzinfo=UTC), date(1969, 12, 31))],
    ("date", "bigint"): [(86399, date(1970, 1, 1)), (-1, date(1969, 12, 31)), (10**15, FAILED)],
    ("date", "double"): [(86399.9999999, date(1970, 1, 2)), (math.nan, FAILED)],
    ("time", "text"): [
        *(("10:30", time(10, 30)), ("T103000", time(10, 30)), ("10:30:00.1234567", time(10, 30, 0, 123456))),
        *(("00:30:00+01:00", time(23, 30)), ("2024-01-01", FAILED), ("24:00", FAILED), ("1030", FAILED)),
    ],
    ("binary", "text"): [
        *(("", b""), ("YQ==", b"a"), ("0xab", b"\xab"), ("0x ab cd", b"\xab\xcd"), ("YQ", FAILED), ("YQ==\n", FAILED)),
        *(("0x1", FAILED), ("aGk_", FAILED), ("é", FAILED)),
    ],
    ("binary", "bigint"): [(0, b""), (256, b"\x00\x01"), (255, b"\xff"), (-1, FAILED)],
    ("json", "text"): [
        *((' {"a": 1.10} ', '{"a":1.1}'), ("[1, 2]", "[1,2]"), ('"\\u00e9"', '"é"'), ("null", None), ("NaN", FAILED)),
        *(("", FAILED), ('{"a": 123456789012345678901}', '{"a":123456789012345678901}'), ('{"a":1,"a":2}', '{"a":2}')),
    ],
}  # fmt: skip
LANE_TYPES = TYPES | {"wei": pa.decimal256(76, 0), "decimal": pa.decimal128(38, 9)}


def outcome(values: list[Any], source: str, target: str, target_type: pa.DataType | None = None) -> list[Any]:
    coerced = coerce(pa.array(values, LANE_TYPES[source]), source, target, target_type or TYPES[target])
    failed = [False] * len(values) if coerced.failed is None else coerced.failed.to_pylist()
    assert coerced.failed is None or any(failed)

    return [FAILED if bad else value for value, bad in zip(coerced.values.to_pylist(), failed, strict=True)]


@pytest.mark.parametrize("pair", TABLE, ids="<-".join)
def test_edge_values(pair: tuple[str, str]) -> None:
    """Each value alone, and all of them in one lane with nulls between, become what the table says."""
    target, source = pair
    values, expected = [list(side) for side in zip(*TABLE[pair], strict=True)]
    spread = [item for value in values for item in (None, value)]

    assert told_apart(expected) == told_apart([outcome([value], source, target)[0] for value in values])
    assert told_apart(expected) == told_apart(outcome(spread, source, target)[1::2])
    assert {None} == set(outcome(spread, source, target)[::2])


def told_apart(values: list[Any]) -> list[Any]:
    """Floats by their text, so that NaN equals itself and 0.0 is not -0.0."""
    return [repr(value) if isinstance(value, float) else value for value in values]


@pytest.mark.parametrize("target", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_pairs_without_a_rule_fit_for_no_value(source: Any, target: Any) -> None:
    """What is not in the matrix fails for every value and never for a null."""
    if can_coerce(source, target):
        assert source == target or (target, source) in TABLE
        return

    value = next(rows[0][0] for key, rows in TABLE.items() if key[1] == source)

    assert outcome([value, None], source, target) == [FAILED, None]


@pytest.mark.parametrize("data_type", TYPES)
def test_same_type_is_not_copied(data_type: Any) -> None:
    """A lane that has the column's type already comes back as the same object."""
    values = pa.nulls(3, TYPES[data_type])

    assert values is coerce(values, data_type, data_type, TYPES[data_type]).values
    assert coerce(values, data_type, data_type, TYPES[data_type]).failed is None


@pytest.mark.parametrize("target", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_lanes_of_nothing(source: Any, target: Any) -> None:
    """Empty lanes, lanes of nulls and lanes without a type give arrays of the column's type and no failure."""
    for values in (pa.array([], LANE_TYPES[source]), pa.nulls(2, LANE_TYPES[source]), pa.nulls(2)):
        coerced = coerce(values, source, target, TYPES[target])

        assert TYPES[target] == coerced.values.type
        assert len(values) == coerced.values.null_count
        assert coerced.failed is None


@pytest.mark.parametrize(
    ("values", "source", "target", "expected"),
    [
        (pa.array(["1", None, "2"]).dictionary_encode(), "text", "bigint", [1, None, 2]),
        (pa.array(["1", "2"], pa.large_string()), "text", "bigint", [1, 2]),
        (pa.array(["1", "2"], pa.string_view()), "text", "bigint", [1, 2]),
        (pa.chunked_array([["1"], [], ["2", None]], pa.string()), "text", "bigint", [1, 2, None]),
        (pa.chunked_array([], pa.string()), "text", "bigint", []),
        (pa.array([7], pa.int8()), "bigint", "text", ["7"]),
        (pa.array([2**64 - 1], pa.uint64()), "bigint", "text", ["18446744073709551615"]),
        (pa.array([2**64 - 1, 5], pa.uint64()), "bigint", "bigint", [FAILED, 5]),
        (pa.array([0.5], pa.float32()), "double", "text", ["0.5"]),
        (pa.array([b"a"], pa.large_binary()), "binary", "text", ["YQ=="]),
        (pa.array([b"a"], pa.binary(1)), "binary", "text", ["YQ=="]),
        (pa.array([-1], pa.timestamp("ns", "UTC")), "timestamp", "text", ["1969-12-31T23:59:59.999999+00:00"]),
        (pa.array([0], pa.timestamp("s")), "timestamp", "text", ["1970-01-01T00:00:00"]),
        (pa.array([0], pa.timestamp("us", "+05:30")), "timestamp", "text", ["1970-01-01T05:30:00+05:30"]),
        (pa.array([0], pa.timestamp("us", "America/New_York")), "timestamp", "text", ["1969-12-31T19:00:00-05:00"]),
        (pa.array([2**62], pa.timestamp("s")), "timestamp", "date", [FAILED]),
        (pa.array([1_500], pa.time32("ms")), "time", "text", ["00:00:01.500000"]),
        (pa.array([0], pa.date64()), "date", "text", ["1970-01-01"]),
        (pa.array([Decimal("1.5")], pa.decimal64(5, 1)), "decimal", "text", ["1.5"]),
    ],
)  # fmt: skip
def test_layouts(values: Any, source: Any, target: Any, expected: list[Any]) -> None:
    """Lanes as they come from Arrow, pandas and polars are brought to the usual layout first."""
    coerced = coerce(values, source, target, TYPES[target])
    failed = [False] * len(expected) if coerced.failed is None else coerced.failed.to_pylist()

    assert expected == [FAILED if bad else v for v, bad in zip(coerced.values.to_pylist(), failed, strict=True)]
    assert TYPES[target] == coerced.values.type


@pytest.mark.parametrize(
    ("values", "source", "target", "target_type", "expected"),
    [
        (["127", "128", "-129"], "text", "bigint", pa.int8(), [127, FAILED, FAILED]),
        (["1"], "text", "double", pa.float32(), [1.0]),
        (["x"], "text", "text", pa.large_string(), ["x"]),
        ([Decimal("999.994"), Decimal("999.995")], "decimal", "decimal", pa.decimal128(5, 2), [Decimal("999.99"), FAILED]),
        ([Decimal("0.5")], "decimal", "decimal", pa.decimal128(1, 0), [Decimal(1)]),
        ([Decimal("9.5")], "decimal", "decimal", pa.decimal128(1, 0), [FAILED]),
        ([Decimal(1)], "decimal", "decimal", pa.decimal256(76, 38), [Decimal(1)]),
        ([Decimal(170000000012345678901234567890123455)], "wei", "decimal", DECIMAL, [FAILED]),
        ([time(1, 2, 3, 4567)], "time", "time", pa.time32("ms"), [time(1, 2, 3, 4000)]),
        (["10:30"], "text", "time", pa.time64("ns"), [time(10, 30)]),
        ([NEW_YEAR], "timestamp", "timestamp", pa.timestamp("us"), [NEW_YEAR.replace(tzinfo=None)]),
    ],
)  # fmt: skip
def test_column_types_narrower_than_the_data_type(
    values: list[Any], source: Any, target: Any, target_type: pa.DataType, expected: list[Any]
) -> None:
    """Precision and scale of the column are kept: rounded, cut, or reported."""
    assert expected == outcome(values, source, target, target_type)


@pytest.mark.parametrize(("unit", "expected"), [("s", -2), ("ms", -1_001), ("us", -1_000_001), ("ns", -1_000_001_000)])
def test_units_of_timestamps_round_towards_the_past(unit: Any, expected: int) -> None:
    """A coarser unit never moves a moment into the future, before 1970 neither."""
    values = pa.array([-1_000_001], US)
    target = pa.timestamp(unit, tz="UTC")

    assert [expected] == coerce(values, "timestamp", "timestamp", target).values.view(pa.int64()).to_pylist()


def test_nanoseconds_that_do_not_fit_fail() -> None:
    """Nanoseconds reach from 1677 to 2262."""
    assert outcome([datetime(9999, 1, 1, tzinfo=UTC)], "timestamp", "timestamp", pa.timestamp("ns", "UTC")) == [FAILED]


def test_the_timezone_hint_beats_the_column_type() -> None:
    """False gives a naive column, True one in UTC, whatever the type says."""
    naive = coerce(pa.array(["2024-01-01T01:00:00+01:00"]), "text", "timestamp", US, timezone=False)
    aware = coerce(pa.array([0], pa.timestamp("us")), "timestamp", "timestamp", pa.timestamp("us"), timezone=True)

    assert pa.array([NEW_YEAR.replace(tzinfo=None)], pa.timestamp("us")) == naive.values
    assert aware.values.type == US


@pytest.mark.parametrize(
    ("digits", "source", "target", "expected"),
    [
        ("9" * 80, "bigint", "text", "9" * 80),
        ("9" * 80, "bigint", "bigint", FAILED),
        ("12", "bigint", "bigint", 12),
        ("9" * 80, "bigint", "double", 1e80),
        ("9" * 80, "bigint", "bool", True),
        ("9" * 80, "bigint", "timestamp", FAILED),
        ("256", "bigint", "binary", b"\x00\x01"),
        ("NaN", "decimal", "text", "NaN"),
        ("NaN", "decimal", "decimal", FAILED),
        ("NaN", "decimal", "bool", True),
        ("1.50", "decimal", "text", "1.50"),
        ("1.50", "decimal", "bigint", FAILED),
        ("1E+3", "decimal", "bigint", 1000),
        ("-Infinity", "decimal", "double", -math.inf),
        ("0.00", "decimal", "bool", False),
    ],
)  # fmt: skip
def test_numbers_that_came_as_their_text(digits: str, source: Any, target: Any, expected: Any) -> None:
    """Numbers that no Arrow type holds are coerced as numbers, not as text."""
    coerced = coerce(pa.array([digits]), source, target, TYPES[target])

    assert expected == (FAILED if coerced.failed is not None else coerced.values[0].as_py())


@pytest.mark.parametrize("tail", ["", "Z", "+05:30", ".123456", ".123456789Z"])
@pytest.mark.parametrize(
    "dirt", [[], ["no"], ["2024-02-29"], [None], ["1700000000", "2024-01-01T00:00:00Z", "2024-01-01"]]
)
def test_long_columns_of_text_to_timestamps(tail: str, dirt: list[str | None]) -> None:
    """The road a column takes (whole, in pieces, value by value) does not change what becomes of a value."""
    start = datetime(1969, 12, 1)
    values: list[str | None] = [f"{(start + timedelta(hours=n)).isoformat()}{tail}" for n in range(5_000)]
    values[3:3] = dirt
    alone = {v: outcome([v], "text", "timestamp")[0] for v in {*values[:9], *values[-3:]}}
    together = outcome(values, "text", "timestamp")

    assert [alone[v] for v in values[:9]] == together[:9]
    assert [alone[v] for v in values[-3:]] == together[-3:]


def test_parse_timestamps_gives_values_and_a_mask() -> None:
    """The mask is true where a text was there and is no timestamp."""
    parsed, failed = parse_timestamps(pa.array(["2024-01-01", None, "no"]))

    assert parsed.to_pylist() == [NEW_YEAR, None, None]
    assert failed.to_pylist() == [False, False, True]


def test_each_distinct_value_is_converted_once() -> None:
    """Repeated values cost Python nothing; 0.0 and -0.0 are two values."""
    seen: list[object] = []

    def convert(value: object) -> str:
        seen.append(value)
        return str(value)

    assert (
        per_distinct(pa.array([0.0, -0.0, 0.0] * 50), convert, pa.string()).to_pylist() == ["0.0", "-0.0", "0.0"] * 50
    )
    assert [str(value) for value in seen] == ["0.0", "-0.0"]


def test_a_type_that_cannot_hold_the_data_is_refused() -> None:
    """The error names the data type and the Arrow type."""
    with pytest.raises(SchemaError, match=r"'timestamp'.*int64"):
        coerce(pa.array(["x"]), "text", "timestamp", pa.int64())


def test_departures_are_explained() -> None:
    """Every departure says what happens here and what in the reference."""
    assert all(len(text) > 40 for text in DEPARTURES.values())


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20), st.integers(0, 20))
def test_first_valid(present: list[bool], skipped: int, dropped: int) -> None:
    values = pa.array([1 if here else None for here in present], pa.int64())
    values = values.slice(skipped, max(len(values) - skipped - dropped, 0))
    expected = next((row for row, value in enumerate(values.to_pylist()) if value is not None), None)
    assert first_valid(values) == expected
