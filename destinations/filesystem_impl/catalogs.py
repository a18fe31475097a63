"""Which catalog keeps the Iceberg tables of a destination. Imports no driver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from asyncelt.errors import ConfigError

__all__ = ["CatalogConfig", "catalog_config", "without_secrets"]

_DEFAULT_NAME = "asyncelt"
_NAME: Final = re.compile(r"[\w.-]+")
_SECRET: Final = re.compile(
    r"password|passwd|secret|token|credential|access-key|sas|account-key|authorization", re.IGNORECASE
)
"""Part of the names of properties, and of parameters of addresses, whose values nobody is to see."""


@dataclass(frozen=True, slots=True)
class CatalogConfig:
    """A catalog as pyiceberg takes it.

    Without properties and a name it is a SQLite file in the dataset's folder.
    """

    name: str = _DEFAULT_NAME
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Its type, address and credentials."""
    named: bool = False
    """Whether pyiceberg's own configuration says the rest."""

    @property
    def is_default(self) -> bool:
        """Whether nothing was configured."""
        return not self.properties and not self.named

    @property
    def places_tables(self) -> bool:
        """Whether the catalog itself decides where a table lies: services do."""
        return self.named or self.properties.get("type", "sql") not in {"sql", "in-memory"}


def catalog_config(given: object) -> CatalogConfig:
    """Check what was passed as ``iceberg_catalog``; does no I/O.

    Raises:
        ConfigError: It cannot be used; the message never has a secret in it.
    """
    if given is None:
        return CatalogConfig()

    if isinstance(given, str) and given.lstrip().startswith("{"):
        given = _parsed(given)

    if isinstance(given, str):
        return _from_text(given)

    if not isinstance(given, Mapping):
        raise ConfigError(
            "filesystem(iceberg_catalog=...) takes an address, a mapping of properties, or a name of pyiceberg's "
            f"configuration, not {type(given).__name__}."
        )

    properties = {str(key): str(value) for key, value in given.items() if value is not None}
    name = properties.pop("name", _DEFAULT_NAME)

    if "uri" not in properties:
        raise ConfigError("filesystem(iceberg_catalog={...}) needs a 'uri': the address of the catalog.")

    if "type" not in properties:
        properties["type"] = _type_of(properties["uri"])

    return CatalogConfig(name, properties)


def without_secrets(text: str, properties: Mapping[str, str]) -> str:
    """A message of a driver that does not show what is secret in a catalog's properties."""
    for secret in sorted(_secrets(properties), key=len, reverse=True):
        text = text.replace(secret, "***")

    return text


def _secrets(properties: Mapping[str, str]) -> Iterator[str]:
    for key, value in properties.items():
        if _SECRET.search(key) and "://" not in value:
            # Of `name:secret` the second part alone, too.
            yield from filter(None, (value, value.rpartition(":")[2]))

        if "://" in value:
            yield from _secrets_of_address(value)


def _secrets_of_address(address: str) -> Iterator[str]:
    # Not `urlsplit().password`: it fails where the port is no number.
    before, at, _ = address.partition("://")[2].rpartition("@")
    _, colon, password = before.partition(":")

    if at and colon and password:
        yield from {password, unquote(password)}

    yield from (value for key, value in parse_qsl(urlsplit(address).query) if _SECRET.search(key) and value)


def _from_text(text: str) -> CatalogConfig:
    if not text.strip():
        raise ConfigError("filesystem(iceberg_catalog=''): the address is empty.")

    if "://" not in text and _NAME.fullmatch(text.strip()) is None:
        raise ConfigError(
            "filesystem(iceberg_catalog='...') is neither an address, which has :// in it, nor a name of pyiceberg's "
            "configuration (letters, digits, points, dashes)."
        )

    if "://" not in text:
        return CatalogConfig(text, named=True)

    return CatalogConfig(properties={"uri": text, "type": _type_of(text)})


def _type_of(uri: str) -> str:
    return "rest" if uri.startswith(("http://", "https://")) else "sql"


def _parsed(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"filesystem(iceberg_catalog='{{...}}') is no JSON: {error}.") from None
