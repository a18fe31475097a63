"""The client of Kafka: what it is made with, and which of its errors pass by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from asyncelt.errors import ConfigError

__all__ = ["arguments_of", "check_options", "is_passing"]

_NEVER_MS: Final = 2**31 - 1
_MARGIN_MS: Final = 10_000
_OURS: Final = {
    "auto_offset_reset": "start= says where a partition starts, on_gap= what happens when messages are gone",
    "bootstrap_servers": "use servers=",
    "enable_auto_commit": "offsets are committed after the rows",
    "group_id": "use group=",
    "key_deserializer": "use asyncelt.sources.events(source, decode=...)",
    "value_deserializer": "use asyncelt.sources.events(source, decode=...)",
}
"""Arguments of the client that would say something else than ours."""


def check_options(topics: object, options: Iterable[str]) -> None:
    """Only what the source does not decide itself may be given.

    Raises:
        ConfigError: More is.
    """
    for name in options:
        if name in _OURS:
            raise ConfigError(f"kafka({topics!r}, {name}=...): {_OURS[name]}.")


def arguments_of(
    servers: Sequence[str], group: str, revoke_deadline_s: float, options: Mapping[str, object]
) -> dict[str, object]:
    """What a client is made with."""
    revoke_ms = int(revoke_deadline_s * 1000)
    # A stream whose destination is away reads nothing, and yet is alive: its heartbeats say so. A member that
    # gives partitions back may take its time, and those who wait for it ask for that long.
    defaults = {
        "max_poll_interval_ms": _NEVER_MS,
        "rebalance_timeout_ms": revoke_ms + _MARGIN_MS,
        "request_timeout_ms": max(40_000, revoke_ms + 2 * _MARGIN_MS),
    }
    ours = {
        "bootstrap_servers": list(servers),
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
    }

    return {**defaults, **options, **ours}


def is_passing(error: Exception) -> bool:
    """Whether it may help to try again. The client does not say so of answers that did not come in time."""
    timed_out = importlib.import_module("aiokafka.errors").KafkaTimeoutError  # it has been imported off the loop

    return bool(getattr(error, "retriable", False)) or isinstance(error, timed_out)
