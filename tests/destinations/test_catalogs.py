"""What may be passed as the catalog of Iceberg tables."""

from __future__ import annotations

import traceback

import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.destinations.filesystem_impl.catalogs import catalog_config, without_secrets
from asyncelt.errors import AsynceltError, ConfigError
from asyncelt.load.registry import resolve


@pytest.mark.parametrize(
    "given, properties, places_tables",
    [
        ("sqlite:////tmp/c.db", {"uri": "sqlite:////tmp/c.db", "type": "sql"}, False),
        ("https://c.example.org", {"uri": "https://c.example.org", "type": "rest"}, True),
        ({"uri": "http://c", "warehouse": "w"}, {"uri": "http://c", "warehouse": "w", "type": "rest"}, True),
        ({"uri": "thrift://c", "type": "hive"}, {"uri": "thrift://c", "type": "hive"}, True),
        ('{"uri": "http://c", "token": "t"}', {"uri": "http://c", "token": "t", "type": "rest"}, True),
        ("production", {}, True),
    ],
)
def test_addresses_mappings_and_names_are_understood(given, properties, places_tables):
    found = catalog_config(given)

    assert dict(found.properties) == properties
    assert found.places_tables is places_tables
    assert not found.is_default


def test_without_one_it_is_a_file_in_the_dataset():
    assert catalog_config(None).is_default
    assert not catalog_config(None).places_tables


@pytest.mark.parametrize(
    "given, says",
    [
        (3, "not int"),
        ("", "empty"),
        ({"type": "rest"}, "needs a 'uri'"),
        ('{"uri"', "no JSON"),
    ],
)
def test_anything_else_is_refused_when_it_is_passed(given, says):
    with pytest.raises(ConfigError, match=says):
        destinations.filesystem("lake", iceberg_catalog=given)


def test_secrets_are_not_shown():
    found = destinations.filesystem("lake", iceberg_catalog={"uri": "http://c", "credential": "me:verysecret"})

    assert "verysecret" not in repr(found)


SECRETS = [
    {"uri": "http://me:verysecret@c:1/x"},
    {"uri": "postgresql+psycopg2://me:very%73ecret@host/db"},
    {"uri": "http://c", "token": "verysecret"},
    {"uri": "http://c", "credential": "me:verysecret"},
    {"uri": "http://c", "s3.secret-access-key": "verysecret"},
    {"uri": "sqlite://host?password=verysecret"},
]


@pytest.mark.parametrize("properties", SECRETS, ids=str)
def test_a_message_of_a_driver_is_shown_without_secrets(properties):
    """Whatever a driver writes into its message."""
    config = catalog_config(properties)
    told = without_secrets(f"cannot reach {properties} as {dict(config.properties)} with verysecret", config.properties)

    assert "secret" not in told.replace("secret-access-key", "")
    assert "cannot reach" in told and "***" in told
    assert "very" not in repr(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "catalog",
    [
        "postgresql+psycopg2//me:verysecret@host/db://",
        "nosuchdriver://me:verysecret@host/db",
        "sqlite://me:verysecret@host/db",
        {"uri": "http://me:verysecret@127.0.0.1:port/x"},
        {"uri": "http://127.0.0.1:1", "type": "rest", "token": "very\nsecret"},
    ],
    ids=str,
)
async def test_a_catalog_that_cannot_be_reached_shows_no_secret(catalog, tmp_path):
    pipeline = asyncelt.pipeline(
        "secrets",
        destination=destinations.filesystem(tmp_path / "lake", iceberg_catalog=catalog),
        pipelines_dir=str(tmp_path / "pipelines"),
    )

    with pytest.raises(AsynceltError) as caught:
        await pipeline.run([{"id": 1}], table_name="one", table_format="iceberg")

    shown = "".join(traceback.format_exception(caught.value)) + repr(pipeline.last_trace) + repr(pipeline.destination)
    assert "verysecret" not in shown and "very\nsecret" not in shown


def test_what_is_no_address_and_no_name_is_refused_unseen():
    with pytest.raises(ConfigError, match="neither an address") as caught:
        destinations.filesystem("lake", iceberg_catalog="postgresql:me:verysecret@host/db")

    assert "verysecret" not in str(caught.value)


WITH_SECRET = [
    '"http://me:verysecret@c/x"',
    '{ uri = "http://c", token = "verysecret" }',
    """'{"uri": "http://c", "credential": "a:verysecret"}'""",
]


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """The destination that a configuration file of this name makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "lake")
    (tmp_path / ".asyncelt").mkdir()

    def look(name, value):
        (tmp_path / ".asyncelt" / name).write_text(f"[destination.filesystem]\niceberg_catalog = {value}\n")

        return resolve("filesystem")

    return look


@pytest.mark.parametrize("value", WITH_SECRET)
def test_a_catalog_with_a_secret_is_refused_where_everybody_reads(value, configured):
    with pytest.raises(ConfigError, match=r"iceberg_catalog .*is a secret: it belongs into secrets.toml") as caught:
        configured("config.toml", value)

    assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize("value", WITH_SECRET)
def test_a_catalog_with_a_secret_may_stand_among_secrets(value, configured):
    assert "uri" in configured("secrets.toml", value).iceberg_catalog.properties


def test_a_catalog_without_a_secret_may_stand_anywhere(configured):
    assert configured("config.toml", '"http://c:8181/x"').iceberg_catalog.properties["uri"] == "http://c:8181/x"


def test_the_configuration_may_say_it(monkeypatch):
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "lake")
    monkeypatch.setenv("DESTINATION__FILESYSTEM__ICEBERG_CATALOG", '{"uri": "http://c", "warehouse": "w"}')

    found = resolve("filesystem").iceberg_catalog
    assert dict(found.properties) == {"uri": "http://c", "warehouse": "w", "type": "rest"}
