"""The coverage table is complete, up to date, and says nothing that is not so."""

from __future__ import annotations

import pytest

from tests.coverage.exceptions import ACCEPTED, LEFT_OUT, MISSING
from tests.coverage.members import asked, stored
from tests.coverage.ours import has
from tests.coverage.probes import PROBES
from tests.coverage.proofs import proofs
from tests.coverage.table import FILE, document, exception_of, unproved

MEMBERS = [name for names in stored().values() for name in names]


@pytest.mark.slow
def test_the_list_of_members_is_that_of_the_reference() -> None:
    assert asked()["groups"] == stored(), "run: python -m tests.coverage.members"


def test_every_member_has_a_test() -> None:
    assert unproved(proofs()) == []


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text() == document(), "run: make coverage-table"


def test_marks_name_members_that_exist() -> None:
    assert sorted(set(proofs()) - {*MEMBERS, *PROBES}) == []


def test_what_is_said_to_be_there_is_there_and_nothing_else() -> None:
    absent = {name for name in MEMBERS if (exception_of(name) or ("",))[0] in ("left out", "missing")}

    assert {name for name in MEMBERS if has(name) is False} == absent


def test_exceptions_name_members() -> None:
    named = {*ACCEPTED, *LEFT_OUT, *MISSING}

    assert sorted(named - set(MEMBERS)) == []
    assert len(named) == len(ACCEPTED) + len(LEFT_OUT) + len(MISSING)


def test_what_is_not_there_is_proved_by_no_test() -> None:
    assert sorted(set(proofs()) & {*LEFT_OUT, *MISSING}) == []
