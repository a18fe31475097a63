"""The client of Redis: what it is made with, and which errors of a server pass by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from asyncelt.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = [
    "FORGET",
    "address_of",
    "arguments_of",
    "ask",
    "away",
    "check_url",
    "client_of",
    "failing_over",
    "is_lost_group",
    "is_passing",
]

FORGET: Final = """
for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local known = {}
    for at = 1, #one, 2 do known[one[at]] = one[at + 1] end
    local is_made_up = string.match(known.name, '%-%d+%-%x%x%x%x%x%x%x%x$')
    if is_made_up and known.name ~= ARGV[3] and known.pending == 0 and known.idle > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], known.name)
    end
end
"""
"""Takes names out of a group that nobody will use again. In one step: entries that a consumer is given before it is
deleted would be lost."""
_UNTOUCHED: Final = ("XREADGROUP", "XAUTOCLAIM")
"""Commands whose answers are taken as they come: the client would make a dictionary of each entry."""

_OURS: Final = frozenset({"decode_responses", "encoding", "legacy_responses", "protocol"})
"""Arguments that would make the client read answers in another way."""
_SCHEMES: Final = ("redis", "rediss", "unix")


def arguments_of(options: Mapping[str, object], timeout_s: float) -> dict[str, object]:
    """What a client is made with. Blocking.

    Args:
        options: Of the user.
        timeout_s: A server that is slow to answer is not one that has gone; unless the user says so.
    """
    ours = {"decode_responses": False, "encoding": "utf-8", "protocol": 2}

    return {**_driver_info(), "socket_timeout": timeout_s, **options, **ours}


def client_of(module: ModuleType, url: str, options: Mapping[str, object]) -> Redis:
    """A client that hands out entries as the server has sent them."""
    client = cast("Redis", module.from_url(url, **options))

    for command in _UNTOUCHED:
        cast("Any", client).set_response_callback(command, _as_it_is)

    return client


async def ask(client: Redis, *command: str | int) -> object:
    """Send a command as it is."""
    return await cast("Any", client).execute_command(*command)


def _as_it_is(answer: Any, **_: Any) -> Any:
    return answer


def _driver_info() -> dict[str, object]:
    """What the client tells the server of itself. Left to itself it looks that up on the disk with each connection."""
    try:
        return {"driver_info": importlib.import_module("redis.driver_info").DriverInfo()}
    except ModuleNotFoundError:  # an older client, which does not
        return {}


def check_url(url: str) -> None:
    """Arguments in an address win over those of the program.

    Raises:
        ConfigError: They would make answers unreadable, or it is no address of a Redis.
    """
    if (scheme := urlsplit(url).scheme) not in _SCHEMES:
        raise ConfigError(
            f"redis_stream(url=...): an address begins with {', '.join(f'{one}://' for one in _SCHEMES)}, not with "
            f"{scheme + '://' if scheme else 'its host'!r}."
        )

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
