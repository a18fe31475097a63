"""Arguments of resources, sources and destinations that nobody has passed."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import Any

import pytest

import asyncelt
from asyncelt.configuration.injection import configured
from asyncelt.errors import ConfigError, ConfigValueMissing, PipelineStepFailed

SECRET = "hunter2-very-secret"
FOLDERS = itertools.count()


@dataclass
class Login:
    user: str
    password: str
    port: int = 5432


@asyncelt.source(name="github")
def github(
    token: str = asyncelt.secrets.value,
    page_size: int = asyncelt.config.value,
    label=None,
    limit: int = 5,
    client: Any = object,
):
    return asyncelt.resource([{"token": token, "page_size": page_size, "label": label, "limit": limit}], name="seen")


async def rows_of(data, table="seen"):
    pipeline = asyncelt.pipeline(
        "configured",
        destination=asyncelt.destinations.memory(),
        dataset_name="raw",
        pipelines_dir=f"pipelines-{next(FOLDERS)}",
    )
    await pipeline.run(data)
    found = await pipeline.dataset()[table].arrow()

    return [{key: row[key] for key in row if not key.startswith("_dlt")} for row in found.to_pylist()]


@pytest.mark.covers("resource.section", "source.section")
@pytest.mark.parametrize(
    "variable",
    [
        "SOURCES__TEST_INJECTION__GITHUB__TOKEN",
        "SOURCES__TEST_INJECTION__TOKEN",
        "SOURCES__GITHUB__TOKEN",
        "SOURCES__TOKEN",
        "TOKEN",
        "CONFIGURED__SOURCES__GITHUB__TOKEN",
        "CONFIGURED__TOKEN",
    ],
)
async def test_an_argument_is_found_in_every_section_of_the_reference(monkeypatch, variable):
    asyncelt.pipeline("configured")
    monkeypatch.setenv(variable, SECRET)
    monkeypatch.setenv("SOURCES__PAGE_SIZE", "10")
    assert (await rows_of(github()))[0]["token"] == SECRET


async def test_the_most_particular_place_counts_and_the_pipelines_most_of_all(monkeypatch):
    monkeypatch.setenv("TOKEN", "a")
    monkeypatch.setenv("SOURCES__GITHUB__TOKEN", "b")
    monkeypatch.setenv("SOURCES__PAGE_SIZE", "10")
    assert (await rows_of(github()))[0]["token"] == "b"
    monkeypatch.setenv("CONFIGURED__TOKEN", "c")
    asyncelt.pipeline("configured")
    assert (await rows_of(github()))[-1]["token"] == "c"
    asyncelt.pipeline("another")
    assert github().resources


async def test_what_is_passed_always_wins(monkeypatch):
    monkeypatch.setenv("SOURCES__GITHUB__TOKEN", "configured")
    monkeypatch.setenv("SOURCES__GITHUB__LIMIT", "99")
    assert (await rows_of(github("passed", page_size=3, limit=7)))[0] == {"token": "passed", "page_size": 3, "limit": 7}


async def test_plain_defaults_can_be_configured_but_not_by_their_bare_name(monkeypatch):
    monkeypatch.setenv("LIMIT", "1")
    monkeypatch.setenv("LABEL", "no")
    assert (await rows_of(github("t", 1)))[0] == {"token": "t", "page_size": 1, "limit": 5}
    monkeypatch.setenv("SOURCES__GITHUB__LIMIT", "9")
    monkeypatch.setenv("SOURCES__LABEL", "yes")
    assert (await rows_of(github("t", 1)))[-1] == {"token": "t", "page_size": 1, "limit": 9, "label": "yes"}


@pytest.mark.covers("resource.section", "transformer.section")
async def test_resources_of_every_kind(write):
    write("[sources.test_injection.plain]\nn = 1\n[sources.test_injection]\nn = 2\n[sources.mine]\nn = 3")

    @asyncelt.resource
    def plain(n: int = asyncelt.config.value):
        return [{"n": n}]

    @asyncelt.resource
    def generator(n: int = asyncelt.config.value):
        yield {"n": n}

    @asyncelt.resource
    async def coroutine(n: int = asyncelt.config.value):
        return [{"n": n}]

    @asyncelt.resource(section="mine")
    async def asynchronous(n: int = asyncelt.config.value):
        yield {"n": n}

    @asyncelt.transformer
    async def twice(row, n: int = asyncelt.config.value):
        yield {"n": row["n"] + n}

    @asyncelt.transformer(section="mine")
    async def more(row, n: int = asyncelt.config.value):
        yield {"n": row["n"] + n}

    for data, name, expected in [
        (plain, "plain", 1),
        (generator(), "generator", 2),
        (coroutine, "coroutine", 2),
        (asynchronous(), "asynchronous", 3),
        (asynchronous(n=8), "asynchronous", 8),
        (generator | twice, "twice", 4),
        (generator | more, "more", 5),
    ]:
        assert (await rows_of(data, name))[-1] == {"n": expected}, name


async def test_sources_of_every_kind(write):
    write("[sources]\nn = 4")

    def seen(n):
        return asyncelt.resource([{"n": n}], name="seen")

    @asyncelt.source
    async def coroutine(n: int = asyncelt.config.value):
        return seen(n)

    @asyncelt.source
    async def asynchronous(n: int = asyncelt.config.value):
        yield seen(n)

    @asyncelt.source
    def plain(n: int = asyncelt.config.value):
        yield seen(n)

    for made in (await coroutine(), await asynchronous(), plain(), plain.clone("other")()):
        assert (await rows_of(made))[-1] == {"n": 4}


async def test_credentials_may_be_a_type_of_the_users(write, monkeypatch):
    write("[sources.login]\nuser = 'ann'\nport = 1", "secrets.toml")
    monkeypatch.setenv("SOURCES__LOGIN__PASSWORD", SECRET)

    @asyncelt.resource
    def seen(login: Login = asyncelt.secrets.value):
        yield {"user": login.user, "password": login.password, "port": login.port}

    assert await rows_of(seen()) == [{"user": "ann", "password": SECRET, "port": 1}]


async def test_a_missing_argument_names_the_function_and_every_place():
    with pytest.raises(ConfigValueMissing) as caught:
        github()

    message = str(caught.value)
    assert message.startswith("The secret 'token' of source 'github' is missing. Pass it, or set one of these")
    assert "SOURCES__TEST_INJECTION__GITHUB__TOKEN, SOURCES__TEST_INJECTION__TOKEN, SOURCES__GITHUB__TOKEN" in message
    assert "sources.token, token" in message


async def test_an_argument_of_the_wrong_type_is_named_but_not_shown(monkeypatch):
    monkeypatch.setenv("SOURCES__GITHUB__PAGE_SIZE", SECRET)

    with pytest.raises(ConfigError, match=r"SOURCES__GITHUB__PAGE_SIZE .* cannot be read as int") as caught:
        github(token="x")

    assert SECRET not in str(caught.value)


async def test_a_run_that_fails_shows_no_secret(monkeypatch, caplog, capfd):
    monkeypatch.setenv("SOURCES__FAILING__TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)

    @asyncelt.resource
    async def failing(token: str = asyncelt.secrets.value):
        assert token == SECRET
        yield {"a": 1}
        raise RuntimeError("the server is gone")

    resource = failing()

    with pytest.raises(PipelineStepFailed) as caught:
        await rows_of(resource)

    seen, texts = caught.value, [repr(resource), caplog.text, *capfd.readouterr()]

    while seen is not None:
        texts += [str(seen), repr(seen)]
        seen = seen.__cause__

    assert "the server is gone" in str(texts)
    assert SECRET not in str(texts)


def test_a_function_without_anything_to_look_for_is_left_alone():
    def plain(row, *rest, client=object(), **others):  # noqa: B008 - no plain default
        return row

    assert configured(plain, sections=("sources",), label="x") is plain
    assert configured(print, sections=("sources",), label="x") is not None


def test_a_function_keeps_its_name_and_signature():
    import inspect

    def named(a, b: int = asyncelt.config.value):
        """What it does."""

    found = configured(named, sections=("sources",), label="x")
    assert found.__name__ == "named"
    assert found.__doc__ == "What it does."
    assert str(inspect.signature(found)) == "(a, b: 'int' = asyncelt.config.value)"


# ------------------------------------------------------------------------------------------------ destinations


def test_destinations_take_what_is_not_passed(write, monkeypatch, place):
    write(
        f"[destination.duckdb]\ncredentials = '{place}/a.duckdb'\nmemory_limit = '64MB'\n"
        f"[destination.second]\ncredentials = '{place}/b.duckdb'",
        "secrets.toml",
    )
    first = asyncelt.destinations.duckdb()
    assert first.location.endswith("/a.duckdb")
    assert first.config.memory_limit == "64MB"
    assert asyncelt.destinations.duckdb(destination_name="second").location.endswith("/b.duckdb")
    assert asyncelt.destinations.duckdb(destination_name="second").config.memory_limit == "64MB"
    assert asyncelt.destinations.duckdb(place / "c.duckdb").location.endswith("/c.duckdb")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", ":memory:")
    assert asyncelt.destinations.duckdb().location == "duckdb:///:memory:"
    monkeypatch.setenv("DESTINATION__DUCKDB__THREADS", "3")
    monkeypatch.setenv("DESTINATION__BUSY_TIMEOUT_S", "1.5")
    found = asyncelt.destinations.duckdb()
    assert (found.config.threads, found.config.busy_timeout_s) == (3, 1.5)


def test_a_destination_by_name_is_configured_too(write, place):
    write(
        f"[destination.filesystem]\nbucket_url = '{place}/lake'\nlayout = '{{table_name}}/{{load_id}}.{{file_id}}.{{ext}}'"
    )
    pipeline = asyncelt.pipeline("p", destination="filesystem", dataset_name="d")
    assert pipeline.destination is not None
    assert pipeline.destination.location == f"file://{place}/lake"


def test_credentials_of_the_reference_as_an_object(monkeypatch, place):
    monkeypatch.setenv("CREDENTIALS", f'{{"database": "{place}/x.duckdb", "settings": {{"threads": 1}}}}')
    found = asyncelt.destinations.duckdb()
    assert found.location.endswith("/x.duckdb")
    assert found.config.settings == {"threads": "1"}
    assert "settings" not in repr(found)


def test_what_a_destination_needs_is_asked_for():
    with pytest.raises(ConfigValueMissing) as caught:
        asyncelt.destinations.filesystem()

    assert "'bucket_url' of destination 'filesystem'" in str(caught.value)
    assert "DESTINATION__FILESYSTEM__BUCKET_URL" in str(caught.value)


def test_credentials_in_the_plain_file_are_refused(write):
    write(f"[destination.duckdb]\ncredentials = '{SECRET}'")

    with pytest.raises(ConfigError, match=r"belongs into secrets\.toml") as caught:
        asyncelt.destinations.duckdb()

    assert SECRET not in str(caught.value)


def test_destinations_of_others_are_configured_too(monkeypatch):
    import sys
    import types

    module = types.ModuleType("their_package")

    def theirs(*, label: str):
        return asyncelt.destinations.memory(destination_name=label)

    module.theirs = theirs
    monkeypatch.setitem(sys.modules, "their_package", module)
    monkeypatch.setenv("DESTINATION__THEIRS__LABEL", "configured")
    pipeline = asyncelt.pipeline("p", destination="their_package:theirs", dataset_name="d")
    assert pipeline.destination is not None
    assert pipeline.destination.destination_name == "configured"
