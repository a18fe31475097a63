"""Arrow to a real server and back: by our own decoder, and as asyncpg and the server itself read it."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Context, Decimal as D

import pyarrow as pa
import pytest
from hypothesis import example, given, settings, strategies as st

from asyncelt.destinations.postgres_impl.copy import CopyColumn, arrow_type_of, decode, encode

UTC = dt.UTC
DAY_MAX, MICRO_MAX = 2**31 - 1, 2**63 - 1

# type, Arrow array, what asyncpg reads
CASES = {
    "bigint": ("bigint", pa.array([-(2**63), None, 2**63 - 1]), [-(2**63), None, 2**63 - 1]),
    "bigint from uint64": ("bigint", pa.array([1, None], pa.uint64()), [1, None]),
    "bigint from int8": ("bigint", pa.array([-128, None], pa.int8()), [-128, None]),
    "bigint from double": ("bigint", pa.array([2.0, None]), [2, None]),
    "integer": ("integer", pa.array([-(2**31), None, 7]), [-(2**31), None, 7]),
    "smallint": ("smallint", pa.array([-(2**15), None, 7]), [-(2**15), None, 7]),
    "double": ("double precision", pa.array([1.5, None, float("inf")]), [1.5, None, float("inf")]),
    "double from half": ("double precision", pa.array([1.5, None], pa.float16()), [1.5, None]),
    "real": ("real", pa.array([0.5, None, float("-inf")]), [0.5, None, float("-inf")]),
    "boolean": ("boolean", pa.array([True, None, False]), [True, None, False]),
    "text": ("text", pa.array(["é\n\t\\", None, "", "🦆"]), ["é\n\t\\", None, "", "🦆"]),
    "varchar": ("varchar(3)", pa.array(["éäö", None, "ab     "]), ["éäö", None, "ab "]),
    "large text": ("varchar", pa.array(["a", None], pa.large_string()), ["a", None]),
    "text view": ("text", pa.array(["a" * 40, None, "b"], pa.string_view()), ["a" * 40, None, "b"]),
    "dictionary": ("text", pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    "bytea": ("bytea", pa.array([b"\0\xff", None, b""]), [b"\0\xff", None, b""]),
    "bytea view": ("bytea", pa.array([b"\0" * 30, None], pa.binary_view()), [b"\0" * 30, None]),
    "bytea fixed": ("bytea", pa.array([b"ab", None], pa.binary(2)), [b"ab", None]),
    "date": (
        "date",
        pa.array([dt.date(1969, 7, 20), None, dt.date(1, 1, 1)]),
        [dt.date(1969, 7, 20), None, dt.date(1, 1, 1)],
    ),
    "date64": ("date", pa.array([dt.date(2024, 2, 29)], pa.date64()), [dt.date(2024, 2, 29)]),
    "time": ("time(6)", pa.array([1, None, 86399999999], pa.time64("us")), [dt.time(0, 0, 0, 1), None, dt.time.max]),
    "time ns": ("time without time zone", pa.array([1999, None], pa.time64("ns")), [dt.time(0, 0, 0, 1), None]),
    "time s": ("time", pa.array([61, None], pa.time32("s")), [dt.time(0, 1, 1), None]),
    "timestamp": (
        "timestamp",
        pa.array([-1, None], pa.timestamp("us")),
        [dt.datetime(1969, 12, 31, 23, 59, 59, 999999), None],
    ),
    "timestamp s": (
        "timestamp (3)",
        pa.array([-1, None], pa.timestamp("s")),
        [dt.datetime(1969, 12, 31, 23, 59, 59), None],
    ),
    "timestamp ms": (
        "timestamp",
        pa.array([-1, None], pa.timestamp("ms")),
        [dt.datetime(1969, 12, 31, 23, 59, 59, 999000), None],
    ),
    "timestamp of a date": ("timestamp", pa.array([dt.date(1999, 12, 31)]), [dt.datetime(1999, 12, 31)]),
    "timestamptz ns": (
        "timestamp (6) with time zone",
        pa.array([-1, None, 1999], pa.timestamp("ns", "UTC")),
        [dt.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), None, dt.datetime(1970, 1, 1, 0, 0, 0, 1, UTC)],
    ),
    "timestamptz of Vienna": (
        "timestamptz(6)",
        pa.array([0, None], pa.timestamp("us", "Europe/Vienna")),
        [dt.datetime(1970, 1, 1, tzinfo=UTC), None],
    ),
    "decimal": (
        "numeric(38,9)",
        pa.array([D("-1.000000001"), None, D(0)], pa.decimal128(38, 9)),
        [D("-1.000000001"), None, D(0)],
    ),
    "decimal rounded": ("numeric(5,1)", pa.array([D("1.25"), None], pa.decimal128(9, 2)), [D("1.3"), None]),
    "decimal256": ("numeric(76,20)", pa.array([D("-1E+50"), None], pa.decimal256(76, 20)), [D("-1E+50"), None]),
    "decimal of tens": ("numeric", pa.array([D(1200), None], pa.decimal128(5, -2)), [D(1200), None]),
    "decimal32": ("numeric(9,2)", pa.array([D("1.20"), None], pa.decimal32(9, 2)), [D("1.20"), None]),
    "numeric of integers": ("numeric", pa.array([2**63 - 1, None, -10000]), [2**63 - 1, None, -10000]),
    "numeric of uint64": ("numeric", pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
    "numeric of floats": ("numeric", pa.array([0.1, None, 1e22]), [D("0.1"), None, D(10**22)]),
    "wei": ("numeric(156,78)", pa.array([str(2**256), None, "-0." + "0" * 77 + "1"]), [D(2**256), None, D("-1E-78")]),
    "jsonb": (
        "jsonb",
        pa.array(['{"a": "\\\\u0000"}', None, '"\\ud83e\\udd86"']),
        ['{"a": "\\\\u0000"}', None, '"🦆"'],
    ),
    "jsonb of structs": ("jsonb", pa.array([{"b": [1, None]}, None]), ['{"b": [1, null]}', None]),
    "jsonb of lists": ("jsonb", pa.array([[D("1.5")], None, []]), ['["1.5"]', None, "[]"]),
    "json": ("json", pa.array(['{"a":  "\\u0000"}', None]), ['{"a":  "\\u0000"}', None]),
    "uuid": (
        "uuid",
        pa.array(["12345678123456781234567812345678", None]),
        [uuid.UUID("12345678-1234-5678-1234-567812345678"), None],
    ),
    "uuid bytes": ("uuid", pa.array([b"\1" * 16, None], pa.binary(16)), [uuid.UUID(bytes=b"\1" * 16), None]),
    "uuid type": (
        "uuid",
        pa.array([b"\1" * 16, None], pa.binary(16)).cast(pa.uuid()),
        [uuid.UUID(bytes=b"\1" * 16), None],
    ),
    "null": ("bytea", pa.nulls(2), [None, None]),
    "nulls of a type": ("jsonb", pa.nulls(2, pa.int64()), [None, None]),
}


@pytest.mark.parametrize("case", CASES)
def test_asyncpg_reads_what_was_sent(copying, case):
    kind, array, expected = CASES[case]
    columns = [CopyColumn("v", kind)]

    copying.copy_in([pa.record_batch({"v": array})], columns)

    assert [row["v"] for row in copying.fetch()] == expected
    # A slice that starts inside gives the same.
    copying.copy_in([pa.record_batch({"v": array}).slice(1)], columns)
    assert [row["v"] for row in copying.fetch()] == expected[1:]


@pytest.mark.parametrize("case", CASES)
def test_the_decoder_reads_what_asyncpg_reads(copying, case):
    kind, array, _ = CASES[case]
    columns = [CopyColumn("v", kind)]
    copying.copy_in([pa.record_batch({"v": array})], columns)

    found = copying.copy_out(columns)["v"]

    assert found.type == arrow_type_of(kind)
    shown = found.to_pylist()
    expected = [row["v"] for row in copying.fetch()]

    if pa.types.is_string(found.type) and kind.startswith(("numeric", "uuid")):
        expected = [row["v"] for row in copying.fetch("SELECT v::text AS v FROM t")]

    assert shown == expected


def test_infinity_passes_both_ways_as_the_ends_of_the_type(copying):
    columns = [CopyColumn("d", "date"), CopyColumn("t", "timestamp"), CopyColumn("z", "timestamptz")]
    days = pa.array([DAY_MAX, -DAY_MAX], pa.int32()).view(pa.date32())
    micros = pa.array([MICRO_MAX, -MICRO_MAX], pa.int64())
    arrays = [days, micros.view(pa.timestamp("us")), micros.view(pa.timestamp("us", "UTC"))]

    copying.copy_in([pa.record_batch(arrays, names=["d", "t", "z"])], columns)

    shown = copying.fetch("SELECT d::text, t::text, z::text FROM t")
    assert [tuple(row) for row in shown] == [("infinity",) * 3, ("-infinity",) * 3]
    assert copying.copy_out(columns).equals(pa.table(arrays, names=["d", "t", "z"]))


def test_the_first_and_last_days_of_the_server_pass(copying):
    columns = [CopyColumn("d", "date")]
    copying.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (d date)")
    copying.execute("INSERT INTO t VALUES ('4714-11-24 BC'), ('1999-12-31'), ('5874897-12-31')")
    before = copying.raw()

    found = list(decode([before], columns, batch_rows=10))
    copying.copy_in(found, columns)

    assert copying.raw() == before


def test_columns_are_found_by_name_and_missing_ones_are_null(copying):
    columns = [CopyColumn("a", "bigint"), CopyColumn("b", "text"), CopyColumn("c", "boolean")]
    batches = [
        pa.record_batch({"c": pa.array([True]), "a": pa.array([1])}),
        pa.record_batch({"b": pa.array(["x"], pa.large_string())}),
    ]

    copying.copy_in(batches, columns)

    assert [tuple(row) for row in copying.fetch()] == [(1, None, True), (None, "x", None)]


@pytest.mark.parametrize("batches", [[], [pa.record_batch({"a": pa.array([], pa.int64())})]])
def test_a_stream_without_rows_is_valid(copying, batches):
    columns = [CopyColumn("a", "bigint")]
    copying.copy_in(batches, columns)
    assert copying.fetch() == []
    assert list(decode([copying.raw()], columns, batch_rows=5)) == []


@pytest.mark.slow
def test_many_slices_and_chunks_keep_every_row_in_order(copying):
    columns = [CopyColumn("n", "bigint"), CopyColumn("s", "text")]
    numbers = pa.array(range(30_000))
    batch = pa.record_batch([numbers, numbers.cast(pa.string())], names=["n", "s"])

    copying.copy_in([batch, batch], columns, chunk_bytes=10_000)

    assert copying.fetch("SELECT count(*), count(DISTINCT n), bool_and(n::text = s) FROM t")[0][:] == (
        60_000,
        30_000,
        True,
    )
    assert copying.copy_out(columns).equals(pa.Table.from_batches([batch, batch]))


DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=D("-1e28"), max_value=D("1e28"))
WIDE = st.integers(-(10**76) + 1, 10**76 - 1).map(lambda n: D(n).scaleb(-30, Context(prec=80)))
ROWS = st.fixed_dictionaries(
    {
        "i": st.integers(-(2**63), 2**63 - 1),
        "f": st.floats(allow_nan=False),
        "b": st.booleans(),
        "s": st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
        "x": st.binary(max_size=20),
        "d": st.dates(),
        "t": st.datetimes(timezones=st.just(UTC)),
        "h": st.times(),
        "n": DECIMALS,
        "w": WIDE,
    }
)
NULLABLE = st.tuples(ROWS, st.sets(st.sampled_from("ifbsxdthnw"))).map(
    lambda p: {k: None if k in p[1] else v for k, v in p[0].items()}
)
MIXED = [
    CopyColumn("i", "bigint"),
    CopyColumn("f", "double precision"),
    CopyColumn("b", "boolean"),
    CopyColumn("s", "text"),
    CopyColumn("x", "bytea"),
    CopyColumn("d", "date"),
    CopyColumn("t", "timestamptz"),
    CopyColumn("h", "time"),
    CopyColumn("n", "numeric(38,9)"),
    CopyColumn("w", "numeric(76,30)"),
]
MIXED_SCHEMA = pa.schema([(column.name, arrow_type_of(column.type)) for column in MIXED])


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=20)
@given(st.lists(NULLABLE, max_size=8))
def test_any_rows_come_back_as_they_were(copying, rows):
    batch = pa.RecordBatch.from_pylist(rows, schema=MIXED_SCHEMA)

    copying.copy_in([batch], MIXED)

    assert copying.copy_out(MIXED).to_pylist() == rows
    assert [dict(row) for row in copying.fetch()] == rows


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=30)
@given(
    st.lists(
        st.decimals(allow_nan=True, allow_infinity=True).filter(
            lambda d: str(d) not in {"-NaN", "sNaN", "-sNaN"} and not d.is_snan()
        ),
        max_size=8,
    )
)
@example([D("1E+131071"), D("1E-16383"), D("-0"), D("NaN"), D("Infinity"), D("-Infinity"), D("0.00010"), D(-10000)])
def test_numerics_of_any_size_are_the_server_s_own(copying, numbers):
    texts = [str(number) for number in numbers]
    columns = [CopyColumn("v", "numeric")]
    copying.copy_in([pa.record_batch({"v": pa.array(texts, pa.string())})], columns)
    shown = [row["v"] for row in copying.fetch("SELECT v::text AS v FROM t")]
    literal = ", ".join(f"('{text}'::numeric)" for text in texts)

    if numbers:
        assert shown == [row["v"] for row in copying.fetch(f"SELECT v::text AS v FROM (VALUES {literal}) AS x(v)")]
        assert copying.copy_out(columns)["v"].to_pylist() == shown


def test_the_wire_form_of_decimals_is_the_server_s(copying):
    numbers = [D("0.0001"), D(10000), D("-99999999.9999"), D("1.10"), D(0), D("123456789.000000001")]
    columns = [CopyColumn("v", "numeric(30,9)")]
    ours = b"".join(encode([pa.record_batch({"v": pa.array(numbers, pa.decimal128(30, 9))})], columns))

    copying.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (v numeric(30,9))")
    copying.execute(f"INSERT INTO t VALUES {', '.join(f'({number})' for number in numbers)}")

    assert copying.raw() == ours
