"""Names compared with the reference's, bit for bit."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import pytest
from hypothesis import given, settings, strategies as st

from asyncelt.schema.naming import CONVENTIONS, naming_for
from tests.support.strategies import raw_names

pytest.importorskip("dlt")

bounds = st.none() | st.integers(6, 70)


@cache
def reference(name, max_length):
    return import_module(f"dlt.common.normalizers.naming.{name}").NamingConvention(max_length)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(CONVENTIONS)), raw_names, bounds)
def test_identifiers(name, raw, max_length):
    try:
        expected = reference(name, max_length).normalize_identifier(raw)
    except ValueError:
        expected = ""

    assert expected == naming_for(name, max_length)._identifier(raw)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(CONVENTIONS)), raw_names, bounds)
def test_paths(name, raw, max_length):
    expected = reference(name, max_length).normalize_path(raw)

    assert (expected or "_empty") == naming_for(name, max_length).path(raw)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(CONVENTIONS)), st.lists(raw_names, min_size=1, max_size=4), bounds)
def test_joined_names(name, parts, max_length):
    ours, theirs = naming_for(name, max_length), reference(name, max_length)
    final = [ours.path(part) for part in parts]

    assert theirs.shorten_fragments(*final) == ours.join(*final)


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_properties(name):
    ours, theirs = naming_for(name), reference(name, None)

    assert (theirs.name(), theirs.is_case_sensitive, theirs.PATH_SEPARATOR) == (
        ours.name,
        ours.is_case_sensitive,
        ours.path_separator,
    )


def test_the_reference_s_classes_can_be_used():
    naming = naming_for("dlt.common.normalizers.naming.s3_tables")

    assert naming.name == "dlt.common.normalizers.naming.s3_tables.NamingConvention"
    assert naming.path("Some__Thing") == "some__thing"
