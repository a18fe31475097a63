"""The kernels against the reference's own function, value by value, on generated values of every kind."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asyncelt.normalize.coerce import coerce
from tests.support.coercing import can_coerce
from tests.support.fuzzing import examples

helpers = pytest.importorskip("dlt.common.data_types.type_helpers", reason="the reference is not installed")
reference_time = pytest.importorskip("dlt.common.time")

UTC_US = pa.timestamp("us", tz="UTC")
TARGETS: dict[str, pa.DataType] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": UTC_US,
    "date": pa.date32(),
    "time": pa.time64("us"),
    "binary": pa.binary(),
    "decimal": pa.decimal128(38, 9),
    "wei": pa.decimal128(38, 0),
    "json": pa.string(),
}
LANES: dict[str, pa.DataType] = TARGETS | {"decimal": pa.decimal256(76, 20), "wei": pa.decimal256(76, 0)}
MISSING = object()
FAILED = object()

PIECES = (
    *("2024", "1999", "0001", "9999", "0000", "01", "02", "12", "13", "24", "28", "29", "30", "31", "59", "60"),
    *("-", "-", ":", ":", "T", " ", "Z", "+", ".", ",", "W", "/", "|", "e", "E", "x", "0x", "_", "nan", "inf", "(1)"),
    *("2024-02-29", "2024-01-01", "2023-02-29", "20240101", "T10:30:00", " 10:30:00", "T103000", "10:30", "+05:30"),
    *("+0530", "-23:59", "+24:00", "-00:00", "+05", ".123456", ".1234567", ".999999999", "2024-W05-1", "2024-001"),
    *("0", "1", "9", "00", "9223372036854775807", "1234567890123456789012345", "٣", "\u00a0", "\n", "\t", "é", "="),
    *("true", "No", "YQ==", "null", "{", "}", '"a"', "[", "]", "[1, 2]", '{"a": 1}'),
)
WHOLE = (
    *("2024-01-01T10:30:00Z", "2024-01-01 10:30:00+02:00", "2024-01-01T10:30", "2024-01-01T10", "2024-01", "2024"),
    *("1700000000", "1700000000.5", "202401", "20240101T103000.5Z", "2024/01/15", "2024/01/15 10:30:00.5", "10:30:00Z"),
    *("2024-01-01T10:30:00.123456789+01:00", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00", "T10:30"),
    *(
        "1.5",
        " 1 ",
        "+1",
        "-0",
        "1e5",
        "1E-7",
        "0.1234567895",
        "0.12345678949",
        "-0.5",
        "12345678901234567890.5",
        "1_0",
    ),
    *("0x10", "0X10", "0x-10", "0xffffffffffffffff", "1e400", "1e-400", "Infinity", "sNaN", "YES", "f", "YWI=", "0xab"),
)
TEXTS = st.one_of(
    st.sampled_from(WHOLE),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
    st.tuples(st.sampled_from(WHOLE), st.integers(0, 30), st.sampled_from(PIECES)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    ),
    st.datetimes().map(str),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.times().map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.decimals(allow_nan=False, places=12).map(str),
    st.text(max_size=4),
)
FLOATS = st.one_of(
    st.floats(),
    st.floats(-1e12, 1e12),
    st.integers(-(2**64), 2**64).map(float),
    st.integers(-(10**15), 10**15).map(lambda number: number / 1_000_000),
    st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "bigint": st.one_of(
        st.integers(-(2**63), 2**63 - 1), st.integers(-(10**12), 10**12), st.sampled_from([0, 255, 256])
    ),
    "double": FLOATS,
    "bool": st.booleans(),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
    "date": st.dates(),
    "time": st.times(),
    "binary": st.binary(max_size=6),
    "decimal": st.one_of(
        st.integers(-(10**30), 10**30).map(lambda digits: Decimal(digits).scaleb(-20, Context(prec=76))),
        st.integers(-(10**75), 10**75).map(lambda digits: Decimal(digits).scaleb(-20, Context(prec=76))),
        st.integers(-(10**22), 10**22).map(lambda digits: Decimal(digits).scaleb(0)),
    ),
    "wei": st.one_of(st.integers(-(10**76) + 1, 10**76 - 1), st.integers(-(10**20), 10**20)).map(Decimal),
    "json": st.one_of(
        st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=2), st.lists(st.integers(0, 9))
    ).map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))),
}
PAIRS = [(target, source) for target in TARGETS for source in VALUES if can_coerce(source, target)]  # type: ignore[arg-type]


def reference(target: str, source: str, value: Any) -> Any:
    """What the reference makes of one value, brought to what a column of the target's type can hold."""
    given_value = json.loads(value) if source == "json" else value

    if source == "decimal":
        # A lane has one scale, and so has every value of it.
        given_value = value.quantize(Decimal(1).scaleb(-20), context=Context(prec=76))

    try:
        if (target, source) == ("date", "text") and len(value) == len("2024-01-01") and value[4] != "-":
            # Python 3.11's date.fromisoformat reads "2024010113" as a date and drops the end.
            given_value = stored("timestamp", helpers.coerce_value("timestamp", "text", value))
            return given_value.date()

        return stored(target, helpers.coerce_value(target, source, given_value))
    except (ValueError, TypeError, OverflowError, OSError, InvalidOperation):
        return FAILED


def stored(target: str, value: Any) -> Any:
    if target == "bigint":
        return value if -(2**63) <= value < 2**63 else FAILED

    if target in ("decimal", "wei"):
        return rounded(value, TARGETS[target]) if value.is_finite() else FAILED

    if target == "timestamp":
        return reference_time.ensure_datetime_in_tz(value, UTC)

    if target == "date":
        return date(value.year, value.month, value.day)

    if target == "time":
        return time(value.hour, value.minute, value.second, value.microsecond)

    if target == "json":
        return MISSING if value is None else value

    return value


def rounded(value: Decimal, column: pa.DataType) -> Any:
    try:
        return Decimal(value).quantize(Decimal(1).scaleb(-column.scale), ROUND_HALF_UP, Context(prec=column.precision))
    except InvalidOperation:
        return FAILED


def ours(target: str, source: str, values: list[Any]) -> list[Any]:
    coerced = coerce(pa.array(values, LANES[source]), source, target, TARGETS[target])
    failed = [False] * len(values) if coerced.failed is None else coerced.failed.to_pylist()
    results = coerced.values.to_pylist()
    assert coerced.values.type == TARGETS[target]
    assert len(results) == len(values)

    return [FAILED if bad else MISSING if value is None else value for value, bad in zip(results, failed, strict=True)]


def same(target: str, expected: Any, result: Any) -> bool:
    if expected is FAILED or expected is MISSING or result is FAILED or result is MISSING:
        return expected is result

    if target == "double":
        return struct.pack("<d", expected) == struct.pack("<d", result) or (math.isnan(expected) and math.isnan(result))

    if target == "json":
        # Integers over 64 bits are floats for the reference, and for its reader.
        return bool(expected in (json.loads(result), orjson.loads(result)))

    return bool(expected == result)


def wrong_values(target: str, source: str, values: list[Any]) -> list[tuple[Any, Any, Any]]:
    """(value, what the reference makes of it, what we make of it) where the two differ."""
    results = ours(target, source, values)
    expected = [MISSING if value is None else reference(target, source, value) for value in values]
    triples = zip(values, expected, results, strict=True)

    return [(value, want, got) for value, want, got in triples if not same(target, want, got)]


def check(target: str, source: str, examples: int) -> None:
    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(st.none(), VALUES[source]), min_size=1, max_size=12))
    def attempt(values: list[Any]) -> None:
        assert wrong_values(target, source, values) == []

    attempt()


@pytest.mark.parametrize(("target", "source"), PAIRS)
def test_value_by_value(target: str, source: str) -> None:
    """Every value of a generated lane comes out as the reference's function gives it."""
    check(target, source, 15)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize(("target", "source"), PAIRS)
def test_value_by_value_at_length(target: str, source: str) -> None:
    """The same with many values."""
    check(target, source, examples(30))


@pytest.mark.parametrize("target", TARGETS)
def test_texts_one_by_one(target: str) -> None:
    """A lane of one value takes the road of clean columns; what comes out does not depend on the neighbours."""
    assert [triple for text in WHOLE for triple in wrong_values(target, "text", [text])] == []


def test_the_matrix_is_the_reference_s() -> None:
    """The same pairs of types have a rule."""
    pairs = {(target, source) for target in TARGETS for source in TARGETS if can_coerce(source, target)}

    assert pairs == {*helpers._COERCE_DISPATCH, *((target, target) for target in TARGETS)}
