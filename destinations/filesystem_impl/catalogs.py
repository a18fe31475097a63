"""Which catalog keeps the Iceberg tables of a destination. Imports no driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from asyncelt.errors import ConfigError

__all__ = ["CatalogConfig", "catalog_config"]

_DEFAULT_NAME = "asyncelt"


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


def _from_text(text: str) -> CatalogConfig:
    if not text.strip():
        raise ConfigError("filesystem(iceberg_catalog=''): the address is empty.")

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
