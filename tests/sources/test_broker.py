"""What the sources of brokers share: a client that may not be installed, and one that is not there yet."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

import anyio
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


TO: dict[str, Callable[[int], EventSource]] = {
    "kafka": lambda port: asyncelt.sources.kafka("t", group="g", servers=f"127.0.0.1:{port}"),
    "nats": lambda port: asyncelt.sources.nats("s", durable="d", servers=f"nats://127.0.0.1:{port}"),
    "redis_stream": lambda port: asyncelt.sources.redis_stream("s", group="g", url=f"redis://127.0.0.1:{port}"),
}
INFO = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}\r\n'


@pytest.mark.slow
@pytest.mark.parametrize(("name", "greeting"), [("kafka", b""), ("nats", b""), ("nats", INFO), ("redis_stream", b"")])
async def test_cancelled_while_it_connects_it_leaves_nothing_behind(name: str, greeting: bytes) -> None:
    """The server takes the connection, and says no more than its greeting."""
    came, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)

        # Of NATS the client waits to be greeted.
        if name != "nats" or greeting:
            await reader.read(1)

        came.set()

        while await reader.read(1000):
            pass

        writer.close()
        gone.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        before = asyncio.all_tasks()
        source = TO[name](server.sockets[0].getsockname()[1])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.position, {})
            await came.wait()

            # Until the client has made objects of its connection as well, and waits.
            for _ in range(100):
                await asyncio.sleep(0)

            tasks.cancel_scope.cancel()

        await source.close()
        gc.collect()
        await gone.wait()

        # The server's own go when they have seen it.
        while left := asyncio.all_tasks() - before:
            assert all("silent" in repr(one) for one in left)
            await asyncio.sleep(0)

    with pytest.raises(UsageError, match="is not connected"):
        await source.fetch(1)
