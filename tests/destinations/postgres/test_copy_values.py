"""What the codec refuses, and how a stream may be cut: no server needed."""

from __future__ import annotations

import datetime as dt
from decimal import Context, Decimal as D

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from asyncelt.destinations.postgres_impl.copy import CopyColumn, CopyValueError, arrow_type_of, decode, encode
from asyncelt.errors import LoadError, Unsupported

SURROGATE = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xed\xa0\x80")]
)


def sent(array, kind, name="v"):
    return b"".join(encode([pa.record_batch({name: array})], [CopyColumn(name, kind)]))


REFUSED = {
    "NUL in text": (pa.array(["a", None, "b\0"]), "text", 2, "NUL"),
    "NUL in a dictionary": (pa.array(["a", "b\0", "a"]).dictionary_encode(), "varchar", 1, "NUL"),
    "lone surrogate": (SURROGATE, "text", 1, "Unicode"),
    "lone surrogate in JSON": (SURROGATE, "jsonb", 1, "Unicode"),
    "too long": (pa.array(["abc", "abcd"]), "varchar(3)", 1, "longer than 3"),
    "NUL in jsonb": (pa.array(['"\\\\u0000"', '"\\\\\\u0000"']), "jsonb", 1, "NUL"),
    "surrogate in jsonb": (pa.array(['"\\ud83e\\udd86"', '"\\\\ud83e"', '"\\ud83e"']), "jsonb", 2, "surrogate"),
    "NUL in a struct": (pa.array([{"a": "b"}, {"a": "\0"}]), "jsonb", 1, "NUL"),
    "over 16 bits": (pa.array([1, None, 32768]), "smallint", 2, "16 bits"),
    "over 32 bits": (pa.array([1, -(2**31) - 1]), "integer", 1, "32 bits"),
    "over 64 bits": (pa.array([1, 2**63], pa.uint64()), "bigint", 1, "64 bits"),
    "no integer": (pa.array([1.0, 2.5]), "bigint", 1, "no integer"),
    "over real": (pa.array([1e38, float("inf"), 1e39]), "real", 2, "too large"),
    "before 4713 BC": (pa.array([0, -3_000_000], pa.int32()).view(pa.date32()), "date", 1, "4713"),
    "timestamp before 4713 BC": (pa.array([0, -(2**63) + 2], pa.timestamp("us")), "timestamp", 1, "4713"),
    "seconds over 64 bits": (pa.array([0, 2**62], pa.timestamp("s")), "timestamptz", 1, "no timestamp"),
    "no number": (pa.array(["1", "1e", None]), "numeric", 1, "'1e' is no number"),
    "huge number": (pa.array(["1e131071", "1e131072"]), "numeric", 1, "no number"),
    "no UUID": (pa.array(["12345678-1234-5678-1234-567812345678", "x"]), "uuid", 1, "no UUID"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_that_does_not_fit_is_refused_by_column_and_row(case):
    array, kind, row, reason = REFUSED[case]
    before = [pa.record_batch({"w": pa.nulls(7, pa.string())})]
    columns = [CopyColumn("w", kind)]

    with pytest.raises(CopyValueError, match=reason) as caught:
        list(encode([*before, pa.record_batch({"w": array})], columns))

    assert (caught.value.column, caught.value.row) == ("w", 7 + row)
    assert str(caught.value).startswith(f"Column 'w', row {7 + row}: the value ")


@pytest.mark.parametrize(
    "array, kind",
    [
        (pa.array(["1"]), "bigint"),
        (pa.array([True]), "bigint"),
        (pa.array([1]), "text"),
        (pa.array([1]), "boolean"),
        (pa.array(["x"]), "bytea"),
        (pa.array([1]), "date"),
        (pa.array([dt.date(2024, 1, 1)]), "time"),
        (pa.array(["2024-01-01"]), "timestamp"),
        (pa.array([b"1"]), "numeric"),
        (pa.array(["1"]), "real"),
        (pa.array([1]), "uuid"),
    ],
)
def test_a_type_without_a_place_in_the_column_is_refused_by_name(array, kind):
    with pytest.raises(Unsupported, match="Column 'v': values of the Arrow type"):
        sent(array, kind)


@pytest.mark.parametrize("kind", ["interval", "bigint[]", "varchar(n)", "", "my.type"])
def test_unknown_types_are_refused_by_name(kind):
    with pytest.raises(Unsupported, match="cannot be copied"):
        sent(pa.array([1]), kind)


def test_a_column_that_is_not_copied_is_not_lost_silently():
    with pytest.raises(Unsupported, match="'extra'"):
        list(encode([pa.record_batch({"v": pa.array([1]), "extra": pa.array([1])})], [CopyColumn("v", "bigint")]))


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("Character Varying ( 12 )", pa.string()),
        ("NUMERIC(38, 9)", pa.decimal128(38, 9)),
        ("numeric(40)", pa.decimal256(40, 0)),
        ("numeric(156,78)", pa.string()),
        ("timestamp (3) without time zone", pa.timestamp("us")),
        ("timestamp with time zone", pa.timestamp("us", "UTC")),
    ],
)
def test_types_are_understood_in_every_spelling_of_ddl(kind, expected):
    assert arrow_type_of(kind) == expected


# The fields of each column look like starts of rows: the number of columns is one of the lengths and values.
COLUMNS = [
    CopyColumn("a", "text"),
    CopyColumn("b", "bigint"),
    CopyColumn("c", "bytea"),
    CopyColumn("d", "smallint"),
]
SCHEMA = pa.schema([(column.name, arrow_type_of(column.type)) for column in COLUMNS])
FAKE = b"\0\4\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\4\0\0\0\0\xff\xff\xff\xff"
ROWS = st.fixed_dictionaries(
    {
        "a": st.none() | st.text("a\x01\x04", max_size=5),
        "b": st.none() | st.sampled_from([0, 4, 4 << 16, 4 << 32, 4 << 48, -1]),
        "c": st.none() | st.sampled_from([b"", b"\0\4", FAKE, FAKE * 3, b"\xff\xff", bytes(700)]),
        "d": st.none() | st.sampled_from([0, 4, -1]),
    }
)


@pytest.mark.slow
@pytest.mark.fuzz
@given(st.lists(ROWS, max_size=12), st.integers(1, 60), st.integers(1, 5))
def test_rows_are_found_wherever_the_stream_is_cut_and_whatever_looks_like_a_row(rows, cut, batch_rows):
    stream = b"".join(encode([pa.RecordBatch.from_pylist(rows, schema=SCHEMA)], COLUMNS))
    chunks = [stream[start : start + cut] for start in range(0, len(stream), cut)]

    batches = list(decode(chunks, COLUMNS, batch_rows=batch_rows))

    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert [batch.num_rows for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
    assert not batches or 0 < batches[-1].num_rows <= batch_rows


def test_values_larger_than_every_buffer_pass():
    rows = ["x", "y" * 3_000_000, None, "z" * 800_000, ""]
    stream = list(encode([pa.record_batch({"v": pa.array(rows)})], [CopyColumn("v", "text")]))
    found = pa.Table.from_batches(decode(stream, [CopyColumn("v", "text")], batch_rows=3))
    assert found["v"].to_pylist() == rows


def test_a_stream_that_ends_early_is_never_taken_for_a_whole_one():
    stream = sent(pa.array(["a", "bc"]), "text")

    for end in range(len(stream)):
        with pytest.raises(LoadError, match="ended before its trailer"):
            list(decode([stream[:end]], [CopyColumn("v", "text")], batch_rows=10))


def test_a_stream_of_other_columns_is_refused():
    stream = sent(pa.array([1, 2]), "bigint")

    with pytest.raises(LoadError, match="Row 0 of the COPY stream has 1 fields, not 2"):
        list(decode([stream], [CopyColumn("v", "bigint"), CopyColumn("w", "bigint")], batch_rows=10))

    with pytest.raises(CopyValueError, match="Column 'v', row 0: the value has 8 bytes, which is no integer"):
        list(decode([stream], [CopyColumn("v", "integer")], batch_rows=10))

    with pytest.raises(LoadError, match="no binary COPY stream"):
        list(decode([b"1\t2\n" * 10], [CopyColumn("v", "integer")], batch_rows=10))


@pytest.mark.parametrize(
    "text, reason", [("NaN", "is NaN"), ("-Infinity", "is -Infinity"), ("1000", "more digits"), ("0.01", "more digits")]
)
def test_a_numeric_that_the_decimal_cannot_hold_is_refused_not_cut(text, reason):
    stream = sent(pa.array(["1.5", None, text]), "numeric")

    with pytest.raises(CopyValueError, match=reason) as caught:
        list(decode([stream], [CopyColumn("v", "numeric(3,1)")], batch_rows=10))

    assert caught.value.row == 2


@pytest.mark.slow
@pytest.mark.fuzz
@given(st.lists(st.integers(-(10**38) + 1, 10**38 - 1), min_size=1, max_size=6), st.integers(0, 38))
def test_decimals_of_every_scale_come_back(numbers, scale):
    kind = pa.decimal128(38, scale)
    values = pa.array([D(number).scaleb(-scale, Context(prec=80)) for number in numbers], kind)
    found = list(decode([sent(values, "numeric")], [CopyColumn("v", f"numeric(38,{scale})")], batch_rows=10))
    assert found[0]["v"].equals(values)
