"""Hints that only one destination understands; as in the reference, ``from ....destinations.adapters import ...``."""

from __future__ import annotations

from collections.abc import Sequence

from asyncelt.destinations.postgres_impl.types import GEOMETRY_HINT, INDEX_HINT, SRID_HINT
from asyncelt.errors import ConfigError
from asyncelt.extract.decorators import resource
from asyncelt.extract.resource import Resource
from asyncelt.types import JsonValue

__all__ = ["postgres_adapter"]

_DEFAULT_NAME = "content"
_DEFAULT_SRID = 4326


def postgres_adapter(
    data: object,
    geometry: str | Sequence[str] | None = None,
    srid: int | None = _DEFAULT_SRID,
    *,
    index: str | Sequence[str] | None = None,
) -> Resource:
    """Say what columns are in PostgreSQL.

    Args:
        data: A resource, which is changed, or anything that a resource can be made of.
        geometry: Columns of the PostGIS type ``geometry``; their values are text, WKT or WKB in hexadecimal digits.
        srid: Their spatial reference system.
        index: Columns that get an index each. Not in the reference.

    Returns:
        The resource.

    Raises:
        ConfigError: Neither ``geometry`` nor ``index`` names a column.
    """
    columns: dict[str, dict[str, JsonValue]] = {}

    for name in _names("geometry", geometry):
        columns[name] = {"name": name, GEOMETRY_HINT: True}

        if srid is not None:
            columns[name][SRID_HINT] = srid

    for name in _names("index", index):
        columns.setdefault(name, {"name": name})[INDEX_HINT] = True

    if not columns:
        raise ConfigError("postgres_adapter needs the names of columns: geometry=..., index=...")

    adapted = data if isinstance(data, Resource) else resource(data, name=_name_of(data))

    return adapted.apply_hints(columns=columns)


def _names(argument: str, given: str | Sequence[str] | None) -> Sequence[str]:
    if given is None or isinstance(given, str):
        return [given] if given else []

    if not isinstance(given, list | tuple):
        raise ConfigError(f"postgres_adapter: {argument} must be the name of a column or a list of names.")

    return given


def _name_of(data: object) -> str:
    name = getattr(data, "__name__", None)

    return name if isinstance(name, str) else _DEFAULT_NAME
