"""Each meant difference, with what both sides make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.differential import test_lakes
from tests.differential.cases import Case
from tests.differential.conftest import Ours
from tests.differential.definitions import DEPARTURES
from tests.differential.ours import forms_of, quick_forms
from tests.differential.reading import Dataset
from tests.differential.reference import Outcome
from tests.differential.rules.departures import ALL, Departure, Rows
from tests.support.marks import FORMS

pytestmark = pytest.mark.differential

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "departures.md"


def _rows(dataset: Dataset, tables: Rows) -> dict[str, Counter[tuple[tuple[str, str], ...]]]:
    found = {}

    for name in tables:
        data = dataset.tables[name]
        rows = [dict(zip(data.names, row, strict=True)) for row in data.rows]
        found[name] = _bag([{key: value for key, value in row.items() if not key.startswith("_dlt")} for row in rows])

    return found


def _bag(rows: list[dict[str, object]]) -> Counter[tuple[tuple[str, str], ...]]:
    return Counter(
        tuple(sorted((key, _exactly(value)) for key, value in row.items() if value is not None)) for row in rows
    )


def _exactly(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else repr(value)


@pytest.mark.parametrize("departure", [pytest.param(item, id=item.name) for item in ALL])
def test_what_the_reference_does(departure: Departure, reference: Callable[[Case], Outcome]) -> None:
    outcome = reference(departure.case)

    if isinstance(departure.reference, str):
        assert departure.reference in (outcome.error or "")
    else:
        assert outcome.error is None
        expected = {name: _bag(rows) for name, rows in departure.reference.items()}
        assert expected == _rows(outcome.dataset, departure.reference)


@pytest.mark.parametrize(
    "departure,form",
    [
        pytest.param(
            item, form, id=f"{item.name}-{form}", marks=() if form in quick_forms(item.case, number) else FORMS
        )
        for number, item in enumerate(ALL)
        for form in forms_of(item.case)
    ],
)
async def test_what_asyncelt_does(departure: Departure, form: str, run_ours: Ours) -> None:
    outcome = await run_ours(departure.case, form)

    assert outcome.error is None
    assert {name: _bag(rows) for name, rows in departure.ours.items()} == _rows(outcome.dataset, departure.ours)

    if departure.notice is not None:
        assert departure.notice in outcome.notices


def test_each_departure_is_documented() -> None:
    headings = [line.removeprefix("## ") for line in DOCUMENT.read_text().splitlines() if line.startswith("## ")]

    assert sorted({*(item.name for item in ALL), *DEPARTURES, *test_lakes.DEPARTURES}) == sorted(headings)
