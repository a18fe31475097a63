"""NATS JetStream on a real server: what is committed is there once, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.js.api import AckPolicy, ConsumerConfig

import asyncelt
from asyncelt.errors import AsynceltWarning, ConfigError, ExtractError, PipelineStepFailed
from asyncelt.sources import outages
from asyncelt.sources.jetstream_consumer import delivery_of
from tests.sources import worker
from tests.sources.brokers import free_port
from tests.sources.server import NatsServer
from tests.sources.worker import pipeline_in, streamed
from tests.support.killing import KILLED, Nursery

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nats")]
nats = pytest.importorskip("nats")


@pytest.fixture(scope="session")
def server(nats_server: NatsServer) -> NatsServer:
    return nats_server


@pytest.fixture
async def stream(server: NatsServer, request: pytest.FixtureRequest) -> str:
    """A stream of this test's own; messages are published to ``<name>.x``."""
    name = f"s{abs(hash(request.node.nodeid))}"
    await add_stream(server, name)

    return name


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.orders.loaders.1.4711.12.1764229813123456000.0",
        "$JS.ACK.orders.loaders.3.4711.12.1764229813123456000.0",
        "$JS.ACK.hub.ACCOUNT.orders.loaders.1.4711.12.1764229813123456000.0",
        "$JS.ACK._.ACCOUNT.orders.loaders.2.4711.12.1764229813123456000.0.RANDOM",
    ],
)
def test_what_a_reply_says_is_what_the_client_reads_from_it(reply: str) -> None:
    known = nats.aio.msg.Msg.Metadata._from_reply(reply)
    position, is_again, timestamp = delivery_of(reply)

    assert (position, is_again) == (known.sequence.stream, known.num_delivered > 1)
    assert timestamp == pytest.approx(known.timestamp.timestamp(), abs=1e-6, rel=0)


async def add_stream(server: NatsServer, name: str) -> None:
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    await client.close()


async def publish(server: NatsServer, stream: str, numbers: range, subject: str = "x") -> None:
    client = await nats.connect(server.url)
    jetstream = client.jetstream()

    for n in numbers:
        await jetstream.publish(f"{stream}.{subject}", b'{"n": %d, "who": {"name": "x"}}' % n)

    await client.close()


async def numbers_in(folder: Path) -> list[int]:
    async with pipeline_in(folder).sql_client() as client:
        found = await client.query("SELECT n FROM numbers ORDER BY n")

    return [int(row["n"]) for row in found.to_pylist()]


async def test_messages_are_loaded_once_and_a_restart_goes_on(server: NatsServer, stream: str, tmp_path: Path) -> None:
    await publish(server, stream, range(50))
    first = await streamed(tmp_path, server.url, stream, 50)
    await publish(server, stream, range(50, 80))
    second = await streamed(tmp_path, server.url, stream, 80)

    assert await numbers_in(tmp_path) == list(range(80))
    assert (first.messages, second.messages, second.repeated) == (50, 30, 0)

    async with pipeline_in(tmp_path).sql_client() as client:
        found = (await client.query("SELECT * FROM _asyncelt_positions")).to_pylist()

    # Everything is acknowledged, so the positions are a mere watermark by now, or two pieces.
    assert len(found) == 1
    assert found[0]["partition"].startswith(f"{stream}@")
    assert found[0]["position"].count(";") <= 1


async def test_a_lost_consumer_is_made_again_after_what_was_committed(
    server: NatsServer, stream: str, tmp_path: Path
) -> None:
    await publish(server, stream, range(20))
    await streamed(tmp_path, server.url, stream, 20)
    client = await nats.connect(server.url)
    await client.jetstream().delete_consumer(stream, "d")
    await client.close()
    await publish(server, stream, range(20, 30))
    await streamed(tmp_path, server.url, stream, 30)

    assert await numbers_in(tmp_path) == list(range(30))


async def test_only_some_subjects_and_columns_of_the_message(server: NatsServer, stream: str, tmp_path: Path) -> None:
    await publish(server, stream, range(3), "a")
    await publish(server, stream, range(3, 5), "b")
    source = asyncelt.sources.nats(stream, durable="d", subject=f"{stream}.b", servers=server.url)
    pipeline = pipeline_in(tmp_path)
    resource = asyncelt.sources.events(source, table_name="numbers", metadata=["topic", "position"])

    async with pipeline.stream(resource, roll=asyncelt.Roll(rows=2, seconds=3600)) as running:
        while not running.stats.messages:
            await asyncio.sleep(0.01)

    async with pipeline.sql_client() as client:
        found = await client.query("SELECT n, _topic, _position FROM numbers ORDER BY n")

    assert [tuple(row.values()) for row in found.to_pylist()] == [(3, f"{stream}.b", 4), (4, f"{stream}.b", 5)]


@pytest.mark.filterwarnings("ignore:.*(could not be acknowledged|broker is away)")
async def test_a_server_that_is_killed_comes_back_and_nothing_is_doubled(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()

    try:
        await add_stream(server, "s")
        await publish(server, "s", range(200))
        source = asyncelt.sources.nats("s", durable="d", servers=server.url, ack_wait_s=1.0)
        pipeline = pipeline_in(tmp_path)
        resource = asyncelt.sources.events(source, table_name="numbers", batch=20)

        async with pipeline.stream(resource, roll=asyncelt.Roll(rows=20, seconds=0.05)) as running:
            while running.stats.rows < 100:
                await asyncio.sleep(0.01)

            await asyncio.to_thread(server.kill)

            while running.stats.sources_away != ("nats_s_d",):
                await asyncio.sleep(0.01)

            await asyncio.to_thread(server.start)
            await publish(server, "s", range(200, 300))

            while running.stats.rows < 300:
                await asyncio.sleep(0.01)

        assert await numbers_in(tmp_path) == list(range(300))
        assert running.stats.sources_away == ()
    finally:
        server.kill()


@pytest.mark.parametrize("options", [{}, {"user": "x", "password": "wrong"}], ids=["address", "password"])
async def test_a_server_that_cannot_be_reached_is_said(options: dict[str, object], tmp_path: Path) -> None:
    """One line, although the client tries several times; and nothing of it stays behind."""
    port = free_port()
    server = NatsServer(tmp_path / "nats", port, user="x:right") if options else None

    if server is not None:
        server.start()

    try:
        source = asyncelt.sources.nats("s", durable="d", servers=f"nats://127.0.0.1:{port}", **options)

        with pytest.raises(PipelineStepFailed, match=f"cannot connect to 127.0.0.1:{port}.*(Connect call|Authoriz)"):
            await pipeline_in(tmp_path).stream(source)
    finally:
        if server is not None:
            server.kill()


async def test_what_a_server_says_is_told_although_its_connections_break_then(tmp_path: Path) -> None:
    tries = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1

        if tries == 1:
            writer.write(b'INFO {"max_payload":1048576}\r\n')
            await reader.readline()
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            await writer.drain()
        else:
            broken: socket.socket = writer.get_extra_info("socket")
            broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        source = asyncelt.sources.nats("s", durable="d", servers=f"nats://127.0.0.1:{port}")

        with pytest.raises(PipelineStepFailed, match=r"cannot connect to .*Authoriz"):
            await pipeline_in(tmp_path).stream(source)

    assert tries > 1


async def test_a_stream_that_does_not_exist_is_said(server: NatsServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no stream 'nowhere'"):
        await pipeline_in(tmp_path).stream(asyncelt.sources.nats("nowhere", durable="d", servers=server.url))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"deliver_subject": "there"}, "push consumer"),
        ({"max_deliver": 5}, "max_deliver is 5"),
        ({"ack_policy": AckPolicy.ALL}, "ack_policy is 'all'"),
    ],
    ids=["push", "deliveries", "all"],
)
async def test_a_consumer_that_would_lose_messages_is_refused(
    config: dict[str, object], why: str, server: NatsServer, stream: str, tmp_path: Path
) -> None:
    client = await nats.connect(server.url)
    await client.jetstream().add_consumer(stream, ConsumerConfig(durable_name="d", **config))
    await client.close()

    with pytest.raises(ConfigError, match=why):
        await pipeline_in(tmp_path).stream(asyncelt.sources.nats(stream, durable="d", servers=server.url))


async def test_the_limits_of_a_consumer_are_kept_to(server: NatsServer, stream: str) -> None:
    await publish(server, stream, range(3))
    client = await nats.connect(server.url)
    config = {"durable_name": "d", "ack_policy": "explicit", "max_batch": 2, "max_expires": 2_000_000_000}
    request = json.dumps({"stream_name": stream, "config": {**config, "max_ack_pending": 50}}).encode()
    await client.request(f"$JS.API.CONSUMER.CREATE.{stream}.d", request, timeout=60)
    await client.close()
    source = asyncelt.sources.nats(stream, durable="d", servers=server.url)

    with pytest.warns(AsynceltWarning, match="max_ack_pending=50"):
        await source.position({})

    found = 0

    while found < 3:
        found += (got := len(await source.fetch(1000)))
        assert got <= 2

    await source.close()


async def test_large_messages_do_not_end_the_requests(server: NatsServer, stream: str) -> None:
    client = await nats.connect(server.url)

    for _ in range(12):
        await client.jetstream().publish(f"{stream}.x", bytes(1_000_000))

    await client.close()
    source = asyncelt.sources.nats(stream, durable="d", servers=server.url)
    told: list[str | None] = []
    source.report_to(told.append)
    await source.position({})
    found = 0

    while found < 12:
        found += len(await source.fetch(1000))

    assert told == []
    await source.close()


async def change(server: NatsServer, stream: str, **config: object) -> None:
    """Make the consumer of a stream, or make it another one."""
    client = await nats.connect(server.url)
    fixed = {"durable_name": "d", "ack_policy": "explicit", "max_ack_pending": -1}
    request = {"stream_name": stream, "config": {**fixed, **config}}
    answer = await client.request(f"$JS.API.CONSUMER.CREATE.{stream}.d", json.dumps(request).encode(), timeout=60)
    assert "error" not in json.loads(answer.data)
    await client.close()


async def test_what_the_server_refuses_is_asked_for_again_after_a_pause(
    server: NatsServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 409 each time: the message is larger than what the consumer lets anybody ask for."""
    pauses: list[int] = []
    often = asyncio.Event()

    def delays(_: object) -> Iterator[float]:
        while True:
            pauses.append(len(told))

            if len(pauses) == 3:
                often.set()

            yield 0.0

    monkeypatch.setattr(outages, "backoff_delays", delays)
    await change(server, stream, max_bytes=100)
    client = await nats.connect(server.url)
    await client.jetstream().publish(f"{stream}.x", bytes(1000))
    await client.close()
    source = asyncelt.sources.nats(stream, durable="d", servers=server.url)
    told: list[str | None] = []
    source.report_to(told.append)
    await source.position({})
    fetching = asyncio.create_task(source.fetch(10))
    await often.wait()
    refused = [one for one in told if one is not None]
    assert len(refused) == 3
    assert {one[:3] for one in refused} == {"409"}
    # One pause after each refusal, and none without.
    assert [told[:at].count(None) + number for number, at in enumerate(pauses[:3], 1)] == pauses[:3]

    await change(server, stream)
    assert [len(str(one.value)) > 0 for one in await fetching] == [True]
    assert told[-1] is None
    await source.close()


async def test_a_message_is_one_whatever_its_headers_say(server: NatsServer, stream: str) -> None:
    """Answers to requests have a header "Status" and no body."""
    client = await nats.connect(server.url)
    await client.jetstream().publish(f"{stream}.x", b"", headers={"Status": "409", "Description": "Consumer Deleted"})
    await client.close()
    source = asyncelt.sources.nats(stream, durable="d", servers=server.url)
    told: list[str | None] = []
    source.report_to(told.append)
    await source.position({})
    (found,) = await source.fetch(10)
    assert (found.value, found.headers["Status"], told) == (b"", "409", [])
    await source.close()


@pytest.mark.filterwarnings("ignore:.*(broker is away|could not)")
async def test_a_client_that_may_not_try_for_ever_gives_up_in_one_line(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()

    try:
        await add_stream(server, "s")
        source = asyncelt.sources.nats("s", durable="d", servers=server.url, max_reconnect_attempts=1)
        await source.position({})
        assert source._client is not None
        server.kill()

        while not source._client.is_closed:
            await asyncio.sleep(0.01)

        with pytest.raises(ExtractError, match=r"is given up after max_reconnect_attempts=1: .*Without that argument"):
            await source.fetch(1)

        await source.close()
    finally:
        server.kill()


@pytest.mark.filterwarnings("ignore:.*broker is away")
async def test_a_consumer_that_is_deleted_meanwhile_is_made_again(
    server: NatsServer, stream: str, tmp_path: Path
) -> None:
    await publish(server, stream, range(10))
    source = asyncelt.sources.nats(stream, durable="d", servers=server.url)
    resource = asyncelt.sources.events(source, table_name="numbers")

    async with pipeline_in(tmp_path).stream(resource, roll=asyncelt.Roll(seconds=0.05)) as running:
        while running.stats.messages < 10:
            await asyncio.sleep(0.01)

        client = await nats.connect(server.url)
        await client.jetstream().delete_consumer(stream, "d")
        await client.close()
        await publish(server, stream, range(10, 20))

        while running.stats.rows < 20:
            await asyncio.sleep(0.01)

    assert await numbers_in(tmp_path) == list(range(20))


@pytest.mark.filterwarnings("ignore:.*(broker is away|could not)")
@pytest.mark.parametrize("is_made_anew", [False, True])
async def test_a_stream_that_is_deleted_meanwhile_is_an_error(
    is_made_anew: bool, server: NatsServer, stream: str, tmp_path: Path
) -> None:
    await publish(server, stream, range(10))
    running = pipeline_in(tmp_path).stream(
        asyncelt.sources.nats(stream, durable="d", servers=server.url), roll=asyncelt.Roll(seconds=0.05)
    )
    task = asyncio.create_task(running.run())

    while running.stats.messages < 10:
        await asyncio.sleep(0.01)

    client = await nats.connect(server.url)
    await client.jetstream().delete_stream(stream)

    if is_made_anew:
        await client.jetstream().add_stream(name=stream, subjects=[f"{stream}.>"])

    with pytest.raises(PipelineStepFailed, match=r"made anew|there is no stream"):
        await task

    await client.close()


POINTS = [
    "stream.roll",
    "stream.sealed",
    "stream.committed",
    "stream.before_ack",
    "stream.after_ack",
    "package.before_seal",
    "package.after_seal",
    "package.before_done",
    "duckdb.before_commit",
    "duckdb.after_commit",
    "load.before_commit",
    "load.after_commit",
]


@pytest.mark.kill
@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_process_loses_and_doubles_nothing(
    point: str, server: NatsServer, stream: str, tmp_path: Path, nursery: Nursery
) -> None:
    await publish(server, stream, range(30))
    environment = {"ASYNCELT_FAILPOINT": f"{point}:1"}
    doomed = nursery.start(worker.stream_all, tmp_path, server.url, stream, 30, environment=environment)
    assert await asyncio.to_thread(doomed.wait) == KILLED
    await publish(server, stream, range(30, 40))
    await released(server, stream)
    await streamed(tmp_path, server.url, stream, 40)

    assert await numbers_in(tmp_path) == list(range(40))


@pytest.mark.kill
@pytest.mark.parametrize("point", ["stream.before_ack", "package.after_seal"])
async def test_another_member_takes_over_from_a_killed_one(
    point: str, server: NatsServer, stream: str, tmp_path: Path, nursery: Nursery
) -> None:
    await publish(server, stream, range(30))
    environment = {"ASYNCELT_FAILPOINT": f"{point}:1"}
    doomed = nursery.start(worker.stream_all, tmp_path, server.url, stream, 30, "a", environment=environment)
    assert await asyncio.to_thread(doomed.wait) == KILLED
    await released(server, stream)
    await streamed(tmp_path, server.url, stream, 30, "b")

    assert await numbers_in(tmp_path) == list(range(30))

    # What the dead one had sealed, it would commit now; others have its messages, so it gives the package up.
    await publish(server, stream, range(30, 35))

    if point == "package.after_seal":
        with pytest.warns(AsynceltWarning, match="were given up"):
            await streamed(tmp_path, server.url, stream, 35, "a")
    else:
        await streamed(tmp_path, server.url, stream, 35, "a")

    assert await numbers_in(tmp_path) == list(range(35))


async def released(server: NatsServer, stream: str) -> None:
    """Let the server deliver at once what the dead process has not acknowledged, not after its patience has ended."""
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    config = (await jetstream.consumer_info(stream, "d")).config
    config.ack_wait = 0.2
    await jetstream.add_consumer(stream, config)
    await client.close()


@pytest.mark.parametrize("name", ["a b", "a.b", "*", "a>", "a/b", "a\r\nPUB x 0"])
async def test_names_that_would_be_something_else_are_refused(name: str) -> None:
    for stream, durable in ((name, "d"), ("s", name)):
        with pytest.raises(ConfigError, match="names of streams and consumers have no spaces"):
            asyncelt.sources.nats(stream, durable=durable)


async def test_names_are_needed() -> None:
    with pytest.raises(ConfigError, match="both names"):
        asyncelt.sources.nats("", durable="d")
