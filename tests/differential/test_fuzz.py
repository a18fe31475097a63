"""Documents nobody thought of: the same tables as the reference, or a departure that is known.

Where the reference gives up on a value that fits neither its column nor the variant column, asyncelt has to load the
document, with a variant of the variant. Any other failure of the reference is a failure of this test: look at it.

The suite draws the same few documents each time; ``make fuzz`` draws thousands of others.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.differential.cases import Case
from tests.differential.comparing import compare
from tests.differential.ours import run_case
from tests.differential.reference import Outcome, Reference
from tests.differential.strategies import append_cases, keyed_cases, steady_cases
from tests.support.fuzzing import examples

pytestmark = [pytest.mark.differential, pytest.mark.fuzz, pytest.mark.slow, pytest.mark.timeout(3600)]

FORMS = ("pages", "bytes", "one-by-one")
VARIANT_OF_VARIANT = re.compile(r"__v_[a-z]+__v_[a-z]+$")
GIVES_UP = "CannotCoerceColumnException"


def _settings(percent: int) -> settings:
    """Five documents, or a part of those that the profile of make fuzz asks for."""
    return settings(
        max_examples=examples(5, percent),
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        print_blob=True,
    )


async def _check(case: Case, reference: Reference) -> None:
    expected = reference.ask(case)

    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            actual = await run_case(case, form, Path(folder))

        assert actual.error is None, f"asyncelt failed ({form}): {actual.error}"
        _check_outcome(expected, actual, case, form)


def _check_outcome(expected: Outcome, actual: Outcome, case: Case, form: str) -> None:
    if expected.error is not None:
        assert GIVES_UP in expected.error, f"the reference failed in a way that is not known: {expected.error}"
        columns = [name for table in actual.dataset.tables.values() for name in table.names]
        assert any(VARIANT_OF_VARIANT.search(name) for name in columns)

        return

    differences = compare(expected.dataset, actual.dataset, exact_ids=case.exact_ids)
    assert not differences, f"{form}:\n" + "\n".join(str(difference) for difference in differences)


@_settings(15)
@given(case=append_cases())
async def test_documents_of_mixed_types(case: Case, reference_process: Reference) -> None:
    await _check(case, reference_process)


@_settings(5)
@given(case=steady_cases())
async def test_documents_that_keep_their_types(case: Case, reference_process: Reference) -> None:
    await _check(case, reference_process)


@_settings(10)
@given(case=keyed_cases())
async def test_keyed_rows(case: Case, reference_process: Reference) -> None:
    await _check(case, reference_process)
