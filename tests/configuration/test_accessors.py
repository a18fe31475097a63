"""Values by dotted keys: which place counts, as what type, and what errors say."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypedDict

import anyio
import anyio.lowlevel
import msgspec
import pydantic
import pytest

import asyncelt
from asyncelt.configuration.lookup import Wanted, find
from asyncelt.configuration.providers import providers
from asyncelt.errors import ConfigError, ConfigValueMissing

SECRET = "hunter2-very-secret"


def test_every_place_outranks_the_next(write, monkeypatch):
    write("a.b = 'home config of dlt'", root="home", folder=".dlt")
    assert asyncelt.config["a.b"] == "home config of dlt"
    write("a.b = 'home config'", root="home")
    assert asyncelt.config["a.b"] == "home config"
    write("a.b = 'config of dlt'", folder=".dlt")
    assert asyncelt.config["a.b"] == "config of dlt"
    write("a.b = 'config'")
    assert asyncelt.config["a.b"] == "config"
    write("a.b = 'secrets'", "secrets.toml", root="home")
    assert asyncelt.config["a.b"] == "secrets"
    monkeypatch.setenv("A__B", "environment")
    assert asyncelt.config["a.b"] == "environment"
    asyncelt.config["a.b"] = "code"
    assert asyncelt.config["a.b"] == "code"


def test_the_project_may_be_elsewhere(write, place, monkeypatch):
    write("a = 1")
    monkeypatch.chdir(place)
    assert "a" not in asyncelt.config
    monkeypatch.setenv("ASYNCELT_PROJECT_DIR", str(place / "project"))
    assert asyncelt.config["a"] == 1
    monkeypatch.delenv("ASYNCELT_PROJECT_DIR")
    monkeypatch.setenv("DLT_PROJECT_DIR", str(place / "project"))
    assert asyncelt.config["a"] == 1


def test_files_are_read_once_and_again_when_told_so(write):
    path = write("a = 1")
    assert asyncelt.config["a"] == 1
    path.write_text("a = 2")
    assert asyncelt.config["a"] == 1
    asyncelt.config.reload()
    assert asyncelt.config["a"] == 2


def test_tables_of_several_files_are_laid_over_each_other(write):
    write("[a]\nx = 1\ny = 1\n[a.z]\np = 1", root="home")
    write("[a]\ny = 2\n[a.z]\nq = 2")
    assert asyncelt.config["a"] == {"x": 1, "y": 2, "z": {"p": 1, "q": 2}}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("12", 12),
        ("1.5", 1.5),
        ("true", True),
        ("False", False),
        ("word", "word"),
        ("0123", "0123"),
        ("[1, 2]", [1, 2]),
        ('{"x": 1}', {"x": 1}),
        ("", ""),
        ('"quoted"', '"quoted"'),
    ],
)
def test_text_of_the_environment_is_read_as_json_would_be(monkeypatch, text, expected):
    monkeypatch.setenv("A", text)
    assert asyncelt.config["a"] == expected
    assert type(asyncelt.config["a"]) is type(expected)


@pytest.mark.parametrize("text", ["12", "true", "1e5"])
def test_a_secret_stays_text(monkeypatch, text):
    monkeypatch.setenv("TOKEN", text)
    assert asyncelt.secrets["token"] == text


def test_a_secret_may_be_an_object(monkeypatch):
    monkeypatch.setenv("KEY", '{"private_key": "x"}')
    assert asyncelt.secrets["key"] == {"private_key": "x"}


def test_values_of_files_are_what_toml_says(write):
    write("text = '5'\nnumber = 5\nday = 2024-01-02")
    assert asyncelt.config["text"] == "5"
    assert asyncelt.config["number"] == 5
    assert asyncelt.config["day"] == dt.date(2024, 1, 2)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 7


class Struct(msgspec.Struct):
    x: int


class Typed(TypedDict):
    x: int


class Model(pydantic.BaseModel):
    x: int
    name: str = "none"


@pytest.mark.parametrize(
    "text, kind, expected",
    [
        ("12", int, 12),
        ("12", str, "12"),
        ("12", float, 12.0),
        ("1.50", Decimal, Decimal("1.50")),
        ("1", bool, True),
        ("true", bool, True),
        ("2024-01-02", dt.date, dt.date(2024, 1, 2)),
        ("2024-01-02T03:04:05Z", dt.datetime, dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        ("/data", Path, Path("/data")),
        ("red", Colour, Colour.RED),
        ("a", Literal["a", "b"], "a"),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ("none", int | None, None),
        ("", int | None, None),
        ("5", int | None, 5),
        ('{"x": 1}', Point, Point(1)),
        ('{"x": 1}', Struct, Struct(1)),
        ('{"x": 1}', Typed, {"x": 1}),
        ('{"x": 1}', Model, Model(x=1)),
        ('{"x": 1}', Model | None, Model(x=1)),
    ],
)
def test_values_have_the_type_that_is_asked_for(monkeypatch, text, kind, expected):
    monkeypatch.setenv("A__B", text)
    assert asyncelt.config.get("a.b", kind) == expected


@pytest.mark.parametrize("kind", [Point, Struct, Typed, Model])
def test_fields_may_stand_in_different_places(write, monkeypatch, kind):
    write("[db.point]\nx = 1\ny = 2\nname = 'n'")
    monkeypatch.setenv("DB__POINT__X", "9")
    found = asyncelt.config.get("db.point", kind)
    assert (found["x"] if isinstance(found, dict) else found.x) == 9


def test_what_is_nowhere_is_the_default():
    assert asyncelt.config.get("a.b") is None
    assert asyncelt.config.get("a.b", int) is None
    assert asyncelt.config.get("a.b", int, 5) == 5
    assert asyncelt.config.get("a.b", Point, Point(1)) == Point(1)
    assert "a.b" not in asyncelt.config


def test_a_missing_value_names_every_place(write):
    path = write("x = 1", "secrets.toml")

    with pytest.raises(ConfigValueMissing) as caught:
        asyncelt.config["sources.github.token"]

    message = str(caught.value)
    assert "environment: SOURCES__GITHUB__TOKEN" in message
    assert "secrets.toml: sources.github.token" in message
    assert f"in {path}" in message
    assert "there is no" in message
    assert "/home/.dlt/config.toml" in message
    assert isinstance(caught.value, KeyError)

    with pytest.raises(ConfigValueMissing) as caught:
        asyncelt.secrets["token"]

    assert "config.toml" not in str(caught.value)


def test_a_secret_is_refused_where_it_does_not_belong(write):
    write(f"token = '{SECRET}'")

    with pytest.raises(ConfigError, match=r"belongs into secrets\.toml") as caught:
        asyncelt.secrets["token"]

    assert SECRET not in str(caught.value)
    assert asyncelt.config["token"] == SECRET


@pytest.mark.parametrize(
    "kind", [int, bool, Decimal, dt.date, Literal["a"], Colour, list[int], Point, Model, Path | None, int | None]
)
def test_a_value_of_the_wrong_type_is_named_but_not_shown(write, kind):
    write(f"[db]\ntoken = ['{SECRET}', {{ x = '{SECRET}' }}]", "secrets.toml")

    with pytest.raises(ConfigError) as caught:
        asyncelt.secrets.get("db.token", kind)

    seen = caught.value
    assert "db.token (secrets.toml) cannot be read as" in str(seen)
    assert SECRET not in repr(seen)
    assert seen.__cause__ is None
    assert seen.__suppress_context__


@pytest.mark.parametrize("content", [f"token = {SECRET}", f"[a\nb = '{SECRET}'", f"x = '{SECRET}'\nx = '{SECRET}'"])
def test_a_broken_file_is_named_but_not_shown(write, content):
    path = write(content, "secrets.toml")

    with pytest.raises(ConfigError, match="is not valid TOML") as caught:
        asyncelt.secrets.get("x")

    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


def test_a_file_that_is_no_text(write):
    write("").write_bytes(b"\xff\xfe\x00")
    asyncelt.config.reload()

    with pytest.raises(ConfigError, match="not UTF-8"):
        asyncelt.config.get("x")


def test_nothing_shows_secrets(write, monkeypatch):
    path = write(f"token = '{SECRET}'", "secrets.toml")
    monkeypatch.setenv("OTHER", SECRET)
    asyncelt.secrets["third"] = SECRET
    assert asyncelt.secrets["token"] == SECRET
    assert repr(asyncelt.secrets) == f"<asyncelt.secrets: environment, {path}>"
    assert repr(asyncelt.config) == f"<asyncelt.config: environment, {path}>"
    assert repr(asyncelt.config.value) == "asyncelt.config.value"
    # Not even in a debugger, or in a traceback with local variables.
    assert SECRET not in repr(providers())
    assert repr(find(Wanted(key="token"))) == "<Found token (secrets.toml)>"


def test_values_can_be_set_for_a_block():
    with asyncelt.config.values({"a.b": 1, "a.c": 2}):
        assert asyncelt.config["a.b"] == 1
        assert asyncelt.config["a"] == {"b": 1, "c": 2}

        with asyncelt.config.values({"a.b": 3}):
            assert asyncelt.config["a.b"] == 3
            assert asyncelt.config["a.c"] == 2

        assert asyncelt.config["a.b"] == 1

    assert "a.b" not in asyncelt.config


def test_what_is_set_as_a_config_value_is_no_secret():
    asyncelt.secrets["token"] = SECRET
    assert asyncelt.config["token"] == SECRET
    asyncelt.config["other"] = "x"

    with pytest.raises(ConfigError, match="is a secret"):
        asyncelt.secrets["other"]


async def test_tasks_do_not_see_what_others_set():
    found = {}

    async def work(name):
        asyncelt.config["name"] = name
        await anyio.lowlevel.checkpoint()
        found[name] = asyncelt.config["name"]

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(work, name)

    assert found == {"a": "a", "b": "b", "c": "c"}
    assert "name" not in asyncelt.config


def test_odd_characters_of_sections_are_underscores_in_variables(monkeypatch):
    monkeypatch.setenv("SOURCES__MY_API__KEY", "x")
    assert asyncelt.config["sources.my-api.key"] == "x"
