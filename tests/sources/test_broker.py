"""What the sources of brokers share: a client that may not be installed, and one that is not there yet."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import asyncelt
from asyncelt.errors import ConfigError, UsageError
from asyncelt.extract.messages import EventSource

SOURCES: dict[str, Callable[[], EventSource]] = {
    "kafka": lambda: asyncelt.sources.kafka("t", group="g"),
    "nats": lambda: asyncelt.sources.nats("s", durable="d"),
    "redis_stream": lambda: asyncelt.sources.redis_stream("s", group="g"),
}


@pytest.mark.parametrize(
    ("name", "module", "package", "extra"),
    [
        ("kafka", "aiokafka", "aiokafka", "kafka"),
        ("nats", "nats.aio.client", "nats-py", "nats"),
        ("redis_stream", "redis.asyncio", "redis", "redis"),
    ],
)
async def test_a_client_that_is_not_installed_is_named_with_what_installs_it(
    name: str, module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigError) as caught:
        await SOURCES[name]().position({})

    assert str(caught.value) == (
        f"asyncelt.sources.{name} needs the package {package!r}: pip install 'asyncelt[{extra}]'"
    )


@pytest.mark.parametrize("name", SOURCES)
async def test_a_source_that_nobody_has_connected_says_so(name: str) -> None:
    with pytest.raises(UsageError, match=r"source '.*' is not connected. Pass it to pipeline.stream\(\)"):
        await SOURCES[name]().fetch(1)
