from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings, strategies as st

from asyncelt.errors import ConfigError
from asyncelt.schema.naming import CACHE_SIZE, CONVENTIONS, Naming, key_text, naming_for
from tests.support.strategies import raw_names

SNAKE = naming_for("snake_case")

IDENTIFIERS = [
    ("camelCase", "camel_case"),
    ("HTTPServer", "http_server"),
    ("userID", "user_id"),
    ("UserIDs", "user_i_ds"),
    ("XMLHttpRequest2", "xml_http_request2"),
    ("2024Sales", "_2024_sales"),
    ("a b", "a_b"),
    ("a.b", "a_b"),
    ("a/b", "a_b"),
    ("a-b", "a_b"),
    ("user@mail", "useramail"),
    ("café", "cafx"),
    ("Straße", "stra_e"),
    ("日本", "x"),
    ("😀", "x"),
    ("%", "x"),
    ("_", "x"),
    ("name_", "namex"),
    ("$ref", "_ref"),
    ("@type", "atype"),
    ("__name", "_name"),
    ("a__b", "a_b"),
    ("name__", "namexx"),
    ("  spaced  ", "spaced"),
]


@pytest.mark.parametrize("raw,final", IDENTIFIERS)
def test_snake_case_identifiers(raw, final):
    assert final == SNAKE.identifier(raw)


@pytest.mark.parametrize(
    "raw,final",
    [
        ("__name", "name"),
        ("name__", "name"),
        ("a__b", "a__b"),
        ("a____b", "a__b"),
        ("CamelCase__SnakeCase", "camel_case__snake_case"),
        ("", "_empty"),
        ("   ", "_empty"),
        ("__", "_empty"),
        (1, "_1"),
        (1.5, "_1_5"),
        (None, "null"),
        (True, "true"),
        (2**70, f"_{2**70}"),
    ],
)
def test_snake_case_paths(raw, final):
    assert final == SNAKE.path(raw)


def test_shortening_keeps_head_and_tail():
    assert naming_for("snake_case", 20).identifier("averyveryverylongidentifier") == "averyvej6zmlwntifier"


def test_join_shortens_as_a_whole_and_drops_blanks():
    naming = naming_for("snake_case", 20)

    assert naming.join("a", "", "b") == "a__b"
    assert len(naming.join("a" * 15, "b" * 15)) == 20


def test_blank_identifier_is_refused():
    with pytest.raises(ConfigError, match="blank"):
        SNAKE.identifier("  ")


def test_keys_that_are_no_text_become_what_json_writes():
    assert [key_text(key) for key in (1, None, False, "x", (1, 2))] == ["1", "null", "false", "x", "(1, 2)"]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(CONVENTIONS)), raw_names, st.none() | st.integers(6, 70))
def test_paths_are_never_blank_or_too_long(name, raw, max_length):
    once = naming_for(name, max_length).path(raw)

    assert once.strip()
    assert max_length is None or len(once) <= max_length


@settings(max_examples=50, deadline=None)
@given(raw_names)
def test_snake_case_is_idempotent(raw):
    once = SNAKE.path(raw)

    assert once == SNAKE.path(once)


@settings(max_examples=50, deadline=None)
@given(raw_names, st.integers(1, 5))
def test_bounds_shorter_than_the_tag_hold_too(raw, max_length):
    assert len(naming_for("snake_case", max_length).join(SNAKE.path(raw))) <= max_length


def test_the_cache_is_bounded():
    naming = naming_for("snake_case")

    for number in range(CACHE_SIZE + 10):
        naming.path(f"id{number}")

    assert naming._path.cache_info().currsize == CACHE_SIZE


class Shouting:
    """A user's convention."""

    def __init__(self, max_length: int | None) -> None:
        self.max_length = max_length

    name = "tests.shouting"
    is_case_sensitive = False
    path_separator = "__"

    def identifier(self, raw: str) -> str:
        return raw.upper()

    def path(self, raw: object) -> str:
        return str(raw).upper()

    def join(self, *parts: str) -> str:
        return "__".join(parts)


def test_a_users_class_an_instance_and_its_text():
    made = naming_for(Shouting, 10)

    assert isinstance(made, Naming)
    assert made.max_length == 10
    assert naming_for(made) is made
    assert naming_for(f"{Shouting.__module__}.Shouting", 5).identifier("a") == "A"


@pytest.mark.parametrize("reference", ["nope", "json.nope", 5, int])
def test_what_is_no_convention_is_refused(reference):
    with pytest.raises(ConfigError, match="naming convention"):
        naming_for(reference)


def test_a_convention_can_be_pickled():
    copy = pickle.loads(pickle.dumps(naming_for("sql_cs_v1", 30)))

    assert (copy.name, copy.max_length, copy.is_case_sensitive) == ("sql_cs_v1", 30, True)
