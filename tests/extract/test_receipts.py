"""Receipts in columns are the receipts that were given, however they are asked for."""

from __future__ import annotations

import pytest

from asyncelt import Receipt
from asyncelt.extract.receipts import Columns, Receipts, Span, parts_of
from asyncelt.extract.tickets import Tickets

GIVEN = [
    Receipt("a", 1, "reply"),
    Receipt("a", 2, again=True),
    Receipt("b", -(2**63), b"id"),
    Receipt("a", 2**63, object()),
    Receipt(),
]


def columns_of(receipts: list[Receipt]) -> Columns:
    columns = Columns()

    for one in receipts:
        columns.append(one)

    return columns


def test_each_receipt_is_given_back_as_it_was() -> None:
    columns = columns_of(GIVEN)
    found = Receipts([Span(columns, 0, 2), Span(columns, 2, 2), Span(columns, 2, 5)])

    assert len(found) == 5
    assert list(found) == GIVEN
    assert [found[at] for at in (0, 2, 4, -1, -5)] == [GIVEN[at] for at in (0, 2, 4, -1, -5)]
    assert list(parts_of(found)) == list(parts_of(GIVEN))
    assert GIVEN[3] in found
    assert found.index(GIVEN[2]) == 2

    for at in (5, -6):
        with pytest.raises(IndexError):
            found[at]


@pytest.mark.parametrize("part", [slice(None), slice(1, 4), slice(3, 1), slice(-2, None), slice(None, None, -2)])
def test_parts_are_those_of_a_list(part: slice) -> None:
    columns = columns_of(GIVEN)
    found = Receipts([Span(columns, 0, 2), Span(columns, 2, 5)])

    assert list(found[part]) == GIVEN[part]
    assert list(parts_of(found[part])) == list(parts_of(GIVEN[part]))


def test_what_comes_later_makes_no_difference() -> None:
    columns = columns_of(GIVEN[:2])
    found = Receipts([Span(columns, 0, 2)])
    columns.append(GIVEN[3])

    assert list(found) == GIVEN[:2]


def test_tickets_keep_their_order_in_runs() -> None:
    tickets = Tickets([3, 4, 5, 9, 1])
    tickets.extend(Tickets([2, 3]))
    tickets.add(4, 10)

    assert list(tickets.runs()) == [(3, 6), (9, 10), (1, 14)]
    assert len(tickets) == 3 + 1 + 13
    assert list(Tickets().runs()) == []
