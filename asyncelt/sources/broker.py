"""What sources of brokers have in common: a client that is imported when it is needed, and waiting for a server."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import TypeVar

import anyio

from asyncelt._async import backoff_delays, in_thread
from asyncelt.config import Retry
from asyncelt.errors import ConfigError, UsageError

__all__ = ["Patience", "connected", "imported"]

T = TypeVar("T")
_ENDLESS = 1_000_000_000
_MAX_S = 5.0


class Patience:
    """Waiting for a server that is away: longer each time, some seconds at most, for ever.

    Args:
        first_s: How long the first time.
    """

    def __init__(self, first_s: float = 0.05) -> None:
        self._retry = Retry(attempts=_ENDLESS, first_s=first_s, max_s=_MAX_S)
        self._delays: Iterator[float] | None = None

    async def wait(self) -> None:
        """Wait before the next attempt."""
        self._delays = self._delays or backoff_delays(self._retry)
        await anyio.sleep(next(self._delays))

    def reset(self) -> None:
        """It is there: the next time that it is away is another one."""
        self._delays = None


async def imported(factory: str, package: str, extra: str, *modules: str) -> ModuleType:
    """Import a client off the loop.

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
        return await in_thread(partial(_import_all, modules), anyio.CapacityLimiter(1))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"asyncelt.sources.{factory} needs the package {package!r}: pip install 'asyncelt[{extra}]'"
        ) from error


def _import_all(modules: Sequence[str]) -> ModuleType:
    first, *_ = [importlib.import_module(name) for name in modules]

    return first


def connected(client: T | None, source: str) -> T:
    """The client of a source.

    Args:
        client: None: there is none yet, or not any more.
        source: Kind and name, as in ``"Kafka source 'a'"``.

    Raises:
        UsageError: There is none.
    """
    if client is None:
        raise UsageError(f"{source} is not connected. Pass it to pipeline.stream().")

    return client
