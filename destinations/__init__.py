"""Destinations shipped with asyncelt; always imported as ``asyncelt.destinations``.

Each name is a factory that does no I/O and is resolved when it is first used, so that importing this package
imports no driver::

    asyncelt.destinations.duckdb("data.duckdb")
    asyncelt.destinations.filesystem("file:///data/lake")
    asyncelt.destinations.memory()
    asyncelt.destinations.postgres("postgresql://user@host/database")

The implementations live in modules of other names, so that a factory is never shadowed by its module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from asyncelt.configuration.injection import configured_factory

if __name__ != "asyncelt.destinations":
    raise ImportError(f"import asyncelt.destinations, not {__name__}: this folder is its source")

if TYPE_CHECKING:
    from asyncelt.destinations.duckdb_impl.factory import duckdb as duckdb
    from asyncelt.destinations.filesystem_impl.factory import filesystem as filesystem
    from asyncelt.destinations.memory_impl.factory import memory as memory
    from asyncelt.destinations.postgres_impl.factory import postgres as postgres

__all__ = ["duckdb", "filesystem", "memory", "postgres"]

_FACTORIES = {
    "duckdb": "asyncelt.destinations.duckdb_impl.factory",
    "filesystem": "asyncelt.destinations.filesystem_impl.factory",
    "memory": "asyncelt.destinations.memory_impl.factory",
    "postgres": "asyncelt.destinations.postgres_impl.factory",
}


def __getattr__(name: str) -> object:
    module = _FACTORIES.get(name)

    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(_FACTORIES)}")

    # What is not passed to it is looked for in the configuration.
    return configured_factory(getattr(importlib.import_module(module), name), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACTORIES])
