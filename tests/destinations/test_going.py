"""Which rows of a data file go."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from asyncelt.destinations.filesystem_impl.going import Going, places_of

ROWS = 3_000


def batches(size):
    for start in range(0, ROWS, size):
        rows = range(start, min(start + size, ROWS))
        yield pa.record_batch({"n": rows, "text": [f"row {n}" for n in rows]}), np.arange(rows.start, rows.stop)


@pytest.mark.parametrize("size", [1, 7, 8, 2_048])
@pytest.mark.parametrize("seed", range(3))
def test_those_that_were_named_go_and_the_others_stay_in_order(size, seed):
    draw = random.Random(seed)
    gone = draw.sample(range(ROWS), draw.choice([1, 40, ROWS - 1]))
    going = Going()

    for start in range(0, len(gone), 13):
        going.add(places_of(pa.array(gone[start : start + 13], pa.int64())))

    rest = [going.rest_of(batch, places) for batch, places in batches(size)]

    assert going
    assert [n for batch in rest for n in batch.column("n").to_pylist()] == sorted(set(range(ROWS)) - set(gone))
    assert all(text == f"row {n}" for batch in rest for n, text in zip(*batch.to_pydict().values(), strict=True))


def test_of_a_file_that_has_none_of_them_all_rows_stay_as_they_are():
    going = Going()
    going.add(places_of(pa.array([], pa.int64())))

    assert not going
    assert all(going.rest_of(batch, places) is batch for batch, places in batches(100))
