"""Destinations by name: our own and third-party ones register in the same entry-point group.

::

    [project.entry-points."asyncelt.destinations"]
    name = "their_package.module:factory"
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import cast

from asyncelt.configuration.injection import configured_factory
from asyncelt.errors import ConfigError, UnknownDestination
from asyncelt.load.protocol import Destination

__all__ = ["GROUP", "known_destinations", "resolve", "with_credentials"]

GROUP = "asyncelt.destinations"

_BUILT_IN: Mapping[str, str] = {
    "duckdb": "asyncelt.destinations:duckdb",
    "filesystem": "asyncelt.destinations:filesystem",
    "memory": "asyncelt.destinations:memory",
    "postgres": "asyncelt.destinations:postgres",
}
"""For a checkout that is not installed, which has no entry points. The same factories that they name."""

_EXTRAS: Mapping[str, str] = {"asyncpg": "postgres", "pgpq": "postgres", "aiobotocore": "s3", "fsspec": "s3"}
"""Package that is missing -> extra of asyncelt that installs it. What every installation has is in none."""


def known_destinations() -> tuple[str, ...]:
    """Names of all registered destinations, sorted. Imports none of them."""
    return tuple(sorted(_registered()))


def resolve(destination: str | Destination | Callable[[], object] | ModuleType) -> Destination:
    """The destination object that a user means. Does no I/O; imports only the one that is asked for.

    Args:
        destination: A registered name, also in the long form ``asyncelt.destinations.<name>`` and in the
            reference's ``dlt.destinations.<name>``; ``package.module.factory`` or ``package.module:factory`` of one
            that is not registered; a destination; a factory that can be called without arguments; or a module
            that has a factory of its own name.

    Raises:
        UnknownDestination: No destination of this name.
        ConfigError: What was passed, or what the factory returned, is no destination; or a package is missing.
    """
    if isinstance(destination, str):
        _refuse_address(destination)

        return _made(_factory_of(destination), repr(destination))

    if isinstance(destination, ModuleType):
        name = destination.__name__.rpartition(".")[2]
        factory = getattr(destination, name, None)

        if not callable(factory):
            raise ConfigError(f"Module {destination.__name__!r} has no destination factory {name!r}.")

        return _made(factory, f"module {destination.__name__!r}")

    if not isinstance(destination, type) and isinstance(destination, Destination):
        return destination

    if callable(destination):
        return _made(destination, getattr(destination, "__name__", repr(destination)))

    raise ConfigError(
        f"{type(destination).__name__} is no destination. Pass a name ({', '.join(known_destinations())}), a "
        "destination such as asyncelt.destinations.duckdb('data.duckdb'), or a factory of one."
    )


def with_credentials(destination: Destination, credentials: object) -> Destination:
    """Another destination of the same type and name, with these credentials.

    Raises:
        ConfigError: Destinations of this type take no credentials.
    """
    factory = cast("Callable[..., object]", _factory_of(destination.destination_type))
    kind = destination.destination_type.rpartition(".")[2]
    named = {} if destination.destination_name == kind else {"destination_name": destination.destination_name}

    return _made(lambda: factory(credentials, **named), repr(destination.destination_name), how="with such credentials")


def _refuse_address(text: str) -> None:
    """Say what to call with an address or a path. The address is not shown: there may be a password in it."""
    scheme, is_address, _ = text.partition("://")
    scheme = scheme.partition("+")[0]

    if is_address:
        made = _MADE_OF.get(scheme, "a factory of asyncelt.destinations")

        raise UnknownDestination(f"An address ({scheme}://...) was passed as destination; pass it to {made}.")

    if "/" in text or "\\" in text:
        raise UnknownDestination(
            f"{text!r} is no destination; a folder is asyncelt.destinations.filesystem({text!r}), a DuckDB file "
            f"asyncelt.destinations.duckdb({text!r})."
        )


_DATABASES = (".duckdb", ".ddb", ".db")
_MADE_OF: Mapping[str, str] = {
    **dict.fromkeys(("postgresql", "postgres"), 'asyncelt.destinations.postgres("postgresql://...")'),
    **dict.fromkeys(("s3", "s3a", "file"), 'asyncelt.destinations.filesystem("<address>")'),
    "duckdb": 'asyncelt.destinations.duckdb("<path>")',
}


@lru_cache(maxsize=1)
def _registered() -> Mapping[str, str]:
    # Reading the metadata of all installed packages takes milliseconds: once is enough.
    return {**_BUILT_IN, **{point.name: point.value for point in entry_points(group=GROUP)}}


def _factory_of(reference: str) -> Callable[[], object]:
    known = _registered()
    name = reference

    for prefix in ("asyncelt.destinations.", "dlt.destinations."):
        name = name.removeprefix(prefix)

    if name in _BUILT_IN:
        return _import(known[name], name)

    # What those of others need may be configured as well.
    if name in known:
        return configured_factory(_import(known[name], name), name)

    if ":" in reference or "." in name:
        module, _, attribute = reference.replace(":", ".").rpartition(".")

        return configured_factory(_import(f"{module}:{attribute}", reference), attribute)

    close = get_close_matches(name.lower(), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""

    raise UnknownDestination(
        f"No destination is registered as {reference!r}.{hint} Registered are: {', '.join(known_destinations())}."
    )


def _import(value: str, name: str) -> Callable[[], object]:
    module_name, _, attribute = value.partition(":")

    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            meant = f" A file is asyncelt.destinations.duckdb({name!r})." if name.endswith(_DATABASES) else ""

            raise UnknownDestination(
                f"Destination {name!r}: there is no module {module_name!r}.{meant} Registered destinations are: "
                f"{', '.join(known_destinations())}."
            ) from error

        raise _missing_package(name, error) from error

    try:
        factory = getattr(module, attribute)
    except AttributeError as error:
        raise UnknownDestination(f"Destination {name!r}: module {module_name!r} has no {attribute!r}.") from error
    except ModuleNotFoundError as error:
        raise _missing_package(name, error) from error

    return cast("Callable[[], object]", factory)


def _missing_package(name: str, error: ModuleNotFoundError) -> ConfigError:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    remedy = f"pip install 'asyncelt[{extra}]'" if extra else f"pip install {package}"

    return ConfigError(f"Destination {name!r} needs the package {package!r}, which is not installed: {remedy}")


def _made(factory: Callable[[], object], what: str, *, how: str = "without arguments") -> Destination:
    try:
        made = factory()
    except TypeError as error:
        raise ConfigError(
            f"The destination {what} cannot be made {how}: {str(error).rstrip('.')}. Call its factory and pass the "
            "result."
        ) from error

    if not isinstance(made, Destination):
        raise ConfigError(f"The factory {what} returned {type(made).__name__}, which is no destination.")

    return made
