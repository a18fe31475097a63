"""What may be passed as the catalog of Iceberg tables."""

from __future__ import annotations

import pytest

from asyncelt import destinations
from asyncelt.destinations.filesystem_impl.catalogs import catalog_config
from asyncelt.errors import ConfigError
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


def test_the_configuration_may_say_it(monkeypatch):
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "lake")
    monkeypatch.setenv("DESTINATION__FILESYSTEM__ICEBERG_CATALOG", '{"uri": "http://c", "warehouse": "w"}')

    found = resolve("filesystem").iceberg_catalog
    assert dict(found.properties) == {"uri": "http://c", "warehouse": "w", "type": "rest"}
