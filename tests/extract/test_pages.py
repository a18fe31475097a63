"""Gathering and cutting: sizes, order, kinds; and sizes of Python values."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from asyncelt.config import Limits
from asyncelt.extract.pages import Gatherer, Page
from asyncelt.extract.sizes import sampled_row_bytes, size_of
from asyncelt.flow import ArrowPage, JsonBody, JsonPages, Rows


def pages(gatherer: Gatherer) -> list[Page]:
    gatherer.flush()
    return list(gatherer.ready)


@given(st.lists(st.one_of(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=20))), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_no_page_is_larger_than_allowed(items: list[int | list[int]], most: int) -> None:
    gatherer = Gatherer("r", Limits(gather_rows=most))
    expected: list[int] = []

    for item in items:
        if isinstance(item, int):
            gatherer.add_row("t", item)
            expected.append(item)
        else:
            gatherer.add_rows("t", list(item))
            expected += item

    found = pages(gatherer)

    assert [row for page in found for row in page.payload.items] == expected  # type: ignore[union-attr]
    assert all(page.rows <= most for page in found)
    assert all(page.rows == most for page in found[:-1])


@given(st.lists(st.text(max_size=300), max_size=300), st.randoms())
@settings(max_examples=30, deadline=None)
def test_rows_that_were_handed_over_together_are_cut_like_single_ones(rows: list[str], random) -> None:
    limits = Limits(gather_bytes=5_000)
    single, together = Gatherer("r", limits), Gatherer("r", limits)

    for row in rows:
        single.add_row("t", row)

    start = 0

    while start < len(rows):
        length = random.randint(1, 40)
        together.add_run("t", list(rows[start : start + length]))
        start += length

    assert pages(single) == pages(together)


def test_pages_are_about_as_large_as_asked_for() -> None:
    rows: list[object] = [{"text": "x" * 1_000} for _ in range(1_000)]
    gatherer = Gatherer("r", Limits(gather_bytes=50_000))
    gatherer.add_rows("t", rows)

    for row in rows:
        gatherer.add_row("u", row)

    assert all(70_000 <= page.nbytes <= 130_000 for page in list(gatherer.ready))
    assert sum(page.rows for page in pages(gatherer)) == 2_000


@pytest.mark.parametrize("at_once", [1, 700, 9_000, 40_000])
@pytest.mark.parametrize(
    ("size", "gather_bytes", "expected"),
    [(50, 500_000, 10_000), (1_000, 3_600_000, 4_000), (5_000, 5_000_000, 2_000)],
    ids=["small", "middling", "large"],
)
def test_pages_of_many_rows_are_half_as_large(at_once: int, size: int, gather_bytes: int, expected: int) -> None:
    rows: list[object] = [f"{number:0{size - 49}}" for number in range(40_000 if size == 50 else 10_000)]
    gatherer = Gatherer("r", Limits(gather_bytes=gather_bytes))

    for start in range(0, len(rows), at_once):
        gatherer.add_rows("t", rows[start : start + at_once])

    whole = [page.rows for page in gatherer.ready]

    assert whole
    assert all(0.9 * expected <= rows <= 1.1 * expected for rows in whole), whole
    assert sum(page.rows for page in pages(gatherer)) == len(rows)


def test_one_huge_row_is_noticed_at_once() -> None:
    gatherer = Gatherer("r", Limits(gather_bytes=100_000))
    gatherer.add_row("t", {"text": "x" * 1_000_000})

    assert [page.rows for page in gatherer.ready] == [1]


def test_a_change_of_kind_keeps_the_order() -> None:
    gatherer = Gatherer("r", Limits())
    gatherer.add_row("t", {"a": 1})
    gatherer.add_body("t", JsonBody(b"{}"))
    gatherer.add_rows("t", [{"a": 2}])
    gatherer.add_arrow("t", pa.table({"a": [3]}))
    gatherer.add_arrow("t", pa.table({"b": [4]}))
    gatherer.add_run("t", [{"a": 5}])

    assert [type(page.payload) for page in pages(gatherer)] == [Rows, JsonPages, Rows, ArrowPage, ArrowPage, Rows]


def test_small_arrow_pages_are_joined_and_large_ones_sliced() -> None:
    small = pa.table({"a": [1, 2]})
    gatherer = Gatherer("r", Limits(buffer_max_items=1_000))

    for _ in range(5):
        gatherer.add_arrow("t", small)

    gatherer.add_arrow("u", pa.table({"a": range(2_500)}))
    found = pages(gatherer)

    assert sorted(page.rows for page in found if page.table_name == "u") == [832, 834, 834]
    assert [page.rows for page in found if page.table_name == "t"] == [10]
    assert sum(page.nbytes for page in found) == 2_500 * 8 + 5 * 16


def test_bodies_are_joined_but_not_beyond_the_limit() -> None:
    gatherer = Gatherer("r", Limits(gather_bytes=10))

    for body in (b"1234", b"1234", b"1234", b"1" * 50, b"12"):
        gatherer.add_body("t", JsonBody(body))

    assert [page.nbytes for page in pages(gatherer)] == [8, 4, 50, 2]


def test_many_tables_together_hold_back_a_bounded_amount() -> None:
    gatherer = Gatherer("r", Limits(gather_bytes=2_500))

    for number in range(2_000):
        gatherer.add_row(f"t{number}", {"text": "x" * 100})

    held = 2_000 - sum(page.rows for page in gatherer.ready)

    assert 0 < held * 250 < 100_000


def test_it_is_told_when_something_begins_to_be_held_back() -> None:
    calls: list[int] = []
    gatherer = Gatherer("r", Limits(), lambda: calls.append(1))

    gatherer.add_row("t", {"a": 1})
    gatherer.add_row("u", {"a": 1})
    assert len(calls) == 1
    gatherer.flush()
    assert gatherer.is_empty
    gatherer.add_row("t", {"a": 1})
    assert len(calls) == 2


@dataclass
class Person:
    name: str


class Struct(msgspec.Struct):
    name: str


class Slots:
    __slots__ = ("name",)

    def __init__(self) -> None:
        self.name = "x" * 1_000


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000,
        b"x" * 1_000,
        {"a": {"b": ["x" * 1_000]}},
        ["x" * 10] * 100,
        [{"a": "x" * 10}] * 1_000,
        Person("x" * 1_000),
        Struct("x" * 1_000),
        Slots(),
    ],
)
def test_sizes_see_what_is_inside(value: object) -> None:
    assert size_of(value) >= 1_000


def test_a_sample_stands_for_all_rows() -> None:
    rows: list[object] = ["x" * (number % 100) for number in range(10_000)]
    exact = sum(map(size_of, rows)) / len(rows)

    assert abs(sampled_row_bytes(rows) - exact) < exact / 3
    assert sampled_row_bytes(["x" * 100, "", ""]) == (size_of("x" * 100) + size_of("")) / 2
    assert sampled_row_bytes([]) == 0


def test_deep_values_end() -> None:
    value: list[object] = []
    value.append(value)

    assert size_of(value) > 0


def test_objects_that_point_at_each_other_end() -> None:
    """Each of them holds all others: walked along every path, that would be 30 to the power of 12 looks."""
    people = [Person("ada") for _ in range(30)]

    for person in people:
        person.friends = people  # type: ignore[attr-defined]

    assert size_of({"id": 1, "person": people[0]}) > 0


def test_a_module_has_a_size() -> None:
    assert size_of(os) > 0
