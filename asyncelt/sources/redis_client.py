"""The client of Redis: what it is made with, and which errors of a server pass by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Final
from urllib.parse import parse_qs, urlsplit

from asyncelt.errors import ConfigError

__all__ = ["address_of", "arguments_of", "away", "check_url", "failing_over", "is_lost_group", "is_passing"]

_OURS: Final = frozenset({"decode_responses", "encoding", "legacy_responses", "protocol"})
"""Arguments that would make the client read answers in another way."""


def arguments_of(options: Mapping[str, object], timeout_s: float) -> dict[str, object]:
    """What a client is made with. Blocking.

    Args:
        options: Of the user.
        timeout_s: A server that is slow to answer is not one that has gone; unless the user says so.
    """
    ours = {"decode_responses": False, "encoding": "utf-8", "protocol": 2}

    return {**_driver_info(), "socket_timeout": timeout_s, **options, **ours}


def _driver_info() -> dict[str, object]:
    """What the client tells the server of itself. Left to itself it looks that up on the disk with each connection."""
    try:
        return {"driver_info": importlib.import_module("redis.driver_info").DriverInfo()}
    except ModuleNotFoundError:  # an older client, which does not
        return {}


def check_url(url: str) -> None:
    """Arguments in an address win over those of the program.

    Raises:
        ConfigError: They would make answers unreadable.
    """
    if found := sorted(_OURS & parse_qs(urlsplit(url).query, keep_blank_values=True).keys()):
        raise ConfigError(f"redis_stream(url=...?{found[0]}=): answers are read as they come; leave it out.")


def address_of(url: str) -> str:
    """Without user, password and arguments."""
    parts = urlsplit(url)

    return parts.netloc.rpartition("@")[2] or parts.path


def away(errors: ModuleType) -> tuple[type[Exception], ...]:
    """The server does not answer."""
    return errors.ConnectionError, errors.TimeoutError


def failing_over(errors: ModuleType) -> tuple[type[Exception], ...]:
    """What a server answers that is not, or not yet, the one to ask."""
    return errors.ReadOnlyError, errors.ClusterDownError, errors.TryAgainError


def is_lost_group(error: Exception) -> bool:
    """Whether stream or group are gone, before the command or while it waited."""
    return str(error).startswith(("NOGROUP", "UNBLOCKED"))


def is_passing(error: Exception) -> bool:
    """Whether the server takes nothing just now: its disk is full, replicas are missing, a script runs."""
    return str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY "))
