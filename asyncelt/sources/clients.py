"""Clients of brokers, which are imported when a stream needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from asyncelt.errors import ConfigError

__all__ = ["import_client"]


def import_client(factory: str, package: str, extra: str, *modules: str) -> ModuleType:
    """Import a client. Blocking.

    Args:
        factory: What of `asyncelt.sources` needs it.
        package: What has to be installed.
        extra: Of asyncelt, which installs it.
        modules: All that will be used of it.

    Returns:
        The first of the modules.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        first, *_ = [importlib.import_module(name) for name in modules]
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"asyncelt.sources.{factory} needs the package {package!r}: pip install 'asyncelt[{extra}]'"
        ) from error

    return first
