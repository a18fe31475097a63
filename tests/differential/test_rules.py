"""Each rule of the reference by a hand-written case: the same tables as the reference, in every form of pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.differential.cases import Case
from tests.differential.comparing import Difference, compare, without_empty_tables
from tests.differential.conftest import Ours
from tests.differential.ours import forms_of, quick_forms
from tests.differential.reference import Outcome
from tests.differential.rules import ALL
from tests.support.marks import FORMS

pytestmark = pytest.mark.differential

DOCUMENTS = frozenset({"schema", "state"})


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xdist_group(case.id)]


def _every_form() -> list[object]:
    return [
        pytest.param(
            case,
            form,
            id=f"{case.id}-{form}",
            marks=_marks(case) if form in quick_forms(case, number) else [*_marks(case), *FORMS],
        )
        for number, case in enumerate(ALL)
        for form in forms_of(case)
    ]


def _differences(reference: Outcome, ours: Outcome, case: Case) -> list[Difference]:
    if case.raises is None:
        assert reference.error is None, f"the reference failed: {reference.error}"
        assert ours.error is None, f"asyncelt failed: {ours.error}"

        return compare(reference.dataset, ours.dataset, exact_ids=case.exact_ids)

    assert reference.error is not None, "the reference did not fail"
    assert ours.error is not None, f"asyncelt loaded what the reference refuses with: {reference.error}"
    assert case.raises in ours.error.lower()

    return compare(without_empty_tables(reference.dataset), without_empty_tables(ours.dataset))


@pytest.mark.parametrize("case,form", _every_form())
async def test_same_tables(case: Case, form: str, reference: Callable[[Case], Outcome], run_ours: Ours) -> None:
    differences = _differences(reference(case), await run_ours(case, form), case)
    shown = [str(difference) for difference in differences if difference.kind not in DOCUMENTS]

    assert not shown, "\n".join(shown)


DEPARTURES = {
    "7.2-replace-as-dict": ["[state] state 0.sources only in asyncelt: {'differential': {}}"],
}
"""Case names -> what differs in the documents because of a departure (docs/departures.md)."""


def _documented() -> list[object]:
    return [pytest.param(case, id=case.id, marks=_marks(case)) for case in ALL if case.raises is None]


@pytest.mark.parametrize("case", _documented())
async def test_same_stored_schema_and_state(case: Case, reference: Callable[[Case], Outcome], run_ours: Ours) -> None:
    differences = _differences(reference(case), await run_ours(case, forms_of(case)[0]), case)
    shown = [str(difference) for difference in differences if difference.kind in DOCUMENTS]

    assert DEPARTURES.get(case.id, []) == shown


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.id for case in ALL]

    assert sorted(set(names)) == sorted(names)
