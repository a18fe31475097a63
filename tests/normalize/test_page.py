"""The normalizer as the engine uses it: values that are kept or refused, threads, slices, the end of a package."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from asyncelt.errors import BadRecord, NormalizeError
from asyncelt.flow import Rows
from asyncelt.normalize.bound import check_bound
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import new_schema
from asyncelt.types import ColumnName, TableName
from tests.normalize.running import as_array, as_lines, as_rows, linked, normalizer, outcome, raw, run


def values(*rows: object, form: Any = as_rows, **options: Any) -> list[dict[str, Any]]:
    """Rows of the root table, without system columns."""
    found = outcome(*run(form([list(rows)]), **options))

    return [{k: v for k, v in row.items() if not k.startswith("_dlt")} for row in found.rows["items"]]


def test_nan_and_infinities_are_kept() -> None:
    first, second, third = values({"a": float("nan")}, {"a": float("inf")}, {"a": None})

    assert first["a"] != first["a"]
    assert second == {"a": float("inf")}
    assert third == {}


def test_nan_is_found_beside_integers_text_and_in_nested_values() -> None:
    rows = values({"a": {"b": float("nan")}, "c": float("nan")}, {"a": {"b": 1}, "c": "x"}, {"a": {"b": 1.5}})

    assert set(rows[0]) == {"a__b", "c"}
    assert rows[1] == {"a__b": 1.0, "c__v_text": "x"}


WIDE = 2**70
HUGE = 10**50


@pytest.mark.parametrize("form", [as_rows])
def test_integers_over_64_bits(form: Any) -> None:
    assert values({"a": WIDE}, {"a": 1}, form=form) == [{"a": Decimal(WIDE)}, {"a": Decimal(1)}]
    assert values({"a": 1}, {"a": WIDE}, form=form) == [{"a": 1}, {"a__v_wei": Decimal(WIDE)}]
    assert values({"a": 1}, {"a": HUGE}, form=form) == [{"a": 1}, {"a__v_text": str(HUGE)}]
    assert values({"a": HUGE}, {"a": 1}, form=form) == [{"a": str(HUGE)}, {"a": "1"}]


def test_wide_integers_take_what_the_destination_holds() -> None:
    large = normalizer(capabilities=Capabilities(wei_precision=(76, 0)))

    assert values({"a": 1}, {"a": HUGE}, worker=large) == [{"a": 1}, {"a__v_wei": Decimal(HUGE)}]


@pytest.mark.parametrize(
    "bad", [{1, 2}, 1 + 2j, timedelta(1), object(), [frozenset()], {"x": {"y": object()}}, "\ud800"]
)
def test_what_no_column_can_hold_is_refused_by_row(bad: object) -> None:
    with pytest.raises(BadRecord, match=r"table 'items.*row 1") as caught:
        values({"id": 1}, {"id": 2, "a": bad})

    assert caught.value.row == 1


def test_objects_of_other_libraries() -> None:
    class Struct(msgspec.Struct):
        x: int
        inner: list[int]

    assert values({"a": Struct(1, [2]), "b": np.int64(3), "c": np.float32(0.5), "d": np.array([1, 2])}) == [
        {"a__x": 1, "b": 3, "c": 0.5}
    ]


def test_times_of_numpy_are_times_to_the_microsecond() -> None:
    fine, after = np.datetime64("2024-01-01T00:00:00.123456789"), datetime(2024, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)

    assert values({"a": fine}) == [{"a": after}]
    assert values({"a": datetime(2024, 1, 1)}, {"a": fine})[1] == {"a": after}
    assert outcome(*run(as_rows([[{"a": np.array([fine])}]]))).rows["items__a"][0]["value"] == after


def test_long_doubles_of_numpy_are_doubles() -> None:
    assert values({"a": np.longdouble(1.5)}) == [{"a": 1.5}]


@pytest.mark.parametrize(
    "outside", [np.datetime64("20000-01-01"), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))]
)
def test_a_time_that_the_calendar_does_not_have_is_refused(outside: object) -> None:
    with pytest.raises(BadRecord, match="outside of the years 1 to 9999"):
        values({"a": outside})


def test_a_row_without_values_is_kept() -> None:
    found = outcome(*run(as_rows([[None, {}, {"a": 1}]])))

    assert len(found.rows["items"]) == 3


def test_an_empty_page_makes_the_table_and_gives_no_rows() -> None:
    schema, (done,) = run([Rows([])])

    assert done.batches == ()
    assert list(schema.tables[TableName("items")].columns) == ["_dlt_load_id", "_dlt_id"]


def test_pages_of_dates_take_the_other_road_and_lose_nothing() -> None:
    rows = [{"id": i, "at": datetime(2024, 1, 1) + timedelta(seconds=i), "l": [{"x": i}]} for i in range(3000)]
    found = outcome(*run(as_rows([rows, rows])))

    assert len(found.rows["items"]) == len(found.rows["items__l"]) == 6000
    assert [row["x"] for row in found.rows["items__l"]] == [*range(3000), *range(3000)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.0, 1.5, 2.0]) | st.sampled_from(["x", "1", ""]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4), min_size=1, max_size=6)


def exactly(tables: dict[str, list[dict[str, Any]]]) -> str:
    """Rows as text, in which 1, 1.0 and True are three things."""
    return repr([(name, [sorted(row.items()) for row in tables[name]]) for name in sorted(tables)])


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, data=st.data())
def test_neither_form_nor_cut_changes_the_result(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    expected = outcome(*run(as_rows([rows])))
    cut = data.draw(st.integers(0, len(rows)))
    pages = [page for page in (rows[:cut], rows[cut:]) if page]

    for form in (as_rows, as_array, as_lines):
        for ahead in (False, True):
            found = outcome(*run(form(pages), ahead=ahead))
            assert found.columns == expected.columns
            assert exactly(linked(found)) == exactly(linked(expected))


def test_many_threads_give_what_one_gives() -> None:
    pages = [
        [{"id": i, "a": i if i % 2 else str(i), "n": {"x": [i, {"y": page}]}} for i in range(50)] for page in range(20)
    ]
    worker = normalizer()
    schema = new_schema("test")
    alone = outcome(*run(as_rows(pages)))

    with ThreadPoolExecutor(4) as pool:
        batches = [raw(payload, page=number) for number, payload in enumerate(as_rows(pages))]
        shredded = list(pool.map(lambda batch: worker.shred(batch, schema), batches))
        list(pool.map(lambda page: worker.conform(page, schema), shredded))

    _, done = run(as_rows(pages), worker=worker)
    found = outcome(_, done)

    assert found.columns == alone.columns
    assert linked(found) == linked(alone)


class Counting:
    """A gate that counts how often it is passed, and checks that nobody passes it twice at a time."""

    def __init__(self) -> None:
        self.passed = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        assert self._lock.acquire(blocking=False)
        self.passed += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def test_long_pieces_are_cut() -> None:
    gate = Counting()
    worker = normalizer(gate=gate, slice_s=0.0)
    run([Rows([{"a": {1: i}} for i in range(200)])], worker=worker)

    assert gate.passed > 200


def test_a_declared_column_without_a_value() -> None:
    schema = new_schema("test")
    columns = {
        ColumnName("a"): Column(name=ColumnName("a")),
        ColumnName("key"): Column(name=ColumnName("key"), nullable=False, primary_key=True),
    }
    table = Table(name=TableName("items"), columns=columns, resource="items", write_disposition="append")
    schema = replace(schema, tables={**schema.tables, table.name: table})

    with pytest.raises(NormalizeError, match=r"No value ever came for items\.key"):
        check_bound(schema, [table.name])

    table = replace(table, columns={ColumnName("a"): columns[ColumnName("a")]})
    (notice,) = check_bound(replace(schema, tables={table.name: table}), [table.name])

    assert (notice.kind, notice.column) == ("null_only_column", "a")
