"""Sets of positions, against plain sets."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asyncelt.errors import StorageError
from asyncelt.extract.intervals import EMPTY, Intervals

SETS = st.sets(st.integers(1, 60))
SPAN = range(70)


@given(SETS, SETS, st.none() | st.integers(0, 60))
def test_intervals_are_sets(one, other, floor):
    first, second = Intervals.of(one), Intervals.of(other)
    both = first.union(second).raised(floor)
    below = set(range(floor + 1)) if floor is not None else set()

    assert {n for n in SPAN if n in both} == {n for n in SPAN if n in one | other | below}
    assert Intervals.parse(both.text()) == both
    assert first.union(second) == second.union(first)
    assert all(last + 1 < later for (_, last), (later, _) in zip(both.ranges, both.ranges[1:], strict=False))
    assert floor is None or all(start > (both.floor or 0) + 1 for start, _ in both.ranges)
    twice = both.overlap(second)
    assert (twice is None) == (not other)
    assert first.overlap(second) in (one & other or {None})


def test_text_is_short():
    assert Intervals.of([3, 1, 2, 7, 9, 10]).text() == "1-3;7;9-10"
    assert Intervals.of([3, 5]).raised(2).text() == "..3;5"
    assert EMPTY.text() == ""
    assert not EMPTY
    assert Intervals(0)


@pytest.mark.parametrize("text", ["x", "..", "1;y", "-"])
def test_what_is_no_position_is_refused(text):

    with pytest.raises(StorageError, match="is none"):
        Intervals.parse(text)
