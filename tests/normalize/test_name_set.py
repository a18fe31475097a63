"""Names and expressions as the settings of a schema give them."""

from __future__ import annotations

import pytest

from asyncelt.normalize.name_set import NOTHING, NameSet


@pytest.mark.parametrize(
    ("name", "is_in"),
    [("id", True), ("ids", False), ("a.b", True), ("axb", False), ("created_at", True), ("at_created", False)],
)
def test_names_are_whole_and_expressions_are_searched_for(name: str, *, is_in: bool) -> None:
    assert (name in NameSet(["id", "a.b", "re:_at$"])) is is_in


def test_nothing_has_no_names() -> None:
    assert "" not in NOTHING
    assert "id" not in NOTHING
