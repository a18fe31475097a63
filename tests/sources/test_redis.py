"""Streams of a real Valkey: what is committed is there once, whatever is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

import asyncelt
from asyncelt.errors import ConfigError, PipelineStepFailed
from asyncelt.extract.messages import ReportsOutages
from asyncelt.sources.redis_entries import position_of
from tests.sources import consumers
from tests.sources.brokers import Valkey, free_port
from tests.sources.consumers import PATIENTLY_S, numbers_in, pipeline_in, source_of, streamed
from tests.support.killing import KILLED, Nursery

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("valkey")]
ROLL = asyncelt.Roll(seconds=0.05)


@pytest.fixture(scope="session")
def server(valkey_server: Valkey) -> Valkey:
    return valkey_server


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return f"s{abs(hash(request.node.nodeid))}"


async def publish(server: Valkey, topic: str, numbers: range) -> None:
    async with Redis.from_url(server.url) as client:
        for n in numbers:
            await client.xadd(topic, {"data": b'{"n": %d, "who": {"name": "x"}}' % n, "kind": "test"})


async def pending(server: Valkey, topic: str) -> int:
    async with Redis.from_url(server.url) as client:
        return (await client.xpending(topic, "g"))["pending"]


async def test_messages_are_loaded_once_and_a_restart_goes_on(server: Valkey, topic: str, tmp_path: Path) -> None:
    await publish(server, topic, range(50))
    first = await streamed(tmp_path, "redis", server.url, topic, 50, claim_after_s=PATIENTLY_S)
    await publish(server, topic, range(50, 80))
    second = await streamed(tmp_path, "redis", server.url, topic, 80, claim_after_s=PATIENTLY_S)

    assert await numbers_in(tmp_path) == list(range(80))
    assert (first.messages, second.messages, second.repeated) == (50, 30, 0)
    assert await pending(server, topic) == 0

    async with Redis.from_url(server.url) as client:
        assert await client.xinfo_consumers(topic, "g") == []  # a name that was made up does not stay


async def test_what_is_stored_stays_small(server: Valkey, topic: str, tmp_path: Path) -> None:
    pipeline = pipeline_in(tmp_path)
    source = asyncelt.sources.events(source_of("redis", server.url, topic), table_name="numbers")

    async with pipeline.stream(source, roll=ROLL) as running:
        for part in range(3):
            await publish(server, topic, range(part * 10, part * 10 + 10))

            while running.stats.messages < part * 10 + 10:
                await asyncio.sleep(0.01)

    async with pipeline.sql_client() as sql:
        (row,) = (await sql.query("SELECT partition, position FROM _asyncelt_positions")).to_pylist()

    # All but the last package is one number; the floor goes with the package after it.
    assert row["partition"] == topic
    assert row["position"].startswith("..")
    assert row["position"].count(";") <= 20


async def test_fields_are_the_row_and_columns_say_where_it_came_from(
    server: Valkey, topic: str, tmp_path: Path
) -> None:
    async with Redis.from_url(server.url) as client:
        await client.xadd(topic, {"a": "1", "b": "x"}, id="1700000000000-7")

    source = asyncelt.sources.redis_stream(topic, group="g", url=server.url)
    pipeline = pipeline_in(tmp_path)
    resource = asyncelt.sources.events(source, name="rows", metadata=["topic", "position", "timestamp"])

    async with pipeline.stream(resource, roll=ROLL) as running:
        while not running.stats.messages:
            await asyncio.sleep(0.01)

    async with pipeline.sql_client() as sql:
        (row,) = (await sql.query("SELECT a, b, _topic, _position, _timestamp FROM rows")).to_pylist()

    assert tuple(row.values()) == ("1", "x", topic, (1_700_000_000_000 << 20) | 7, 1_700_000_000.0)


@pytest.mark.filterwarnings("ignore:.*are in _asyncelt_quarantine")
async def test_an_entry_without_the_payload_is_a_dead_letter(server: Valkey, topic: str, tmp_path: Path) -> None:
    async with Redis.from_url(server.url) as client:
        await client.xadd(topic, {"other": "1"})

    await publish(server, topic, range(2))
    stats = await streamed(tmp_path, "redis", server.url, topic, 2)
    assert stats.dead_letters == 1

    async with pipeline_in(tmp_path).sql_client() as sql:
        (row,) = (await sql.query("SELECT payload FROM _asyncelt_quarantine")).to_pylist()

    assert row["payload"] == "{b'other': b'1'}"


async def test_a_group_that_was_lost_is_made_again_after_what_was_committed(
    server: Valkey, topic: str, tmp_path: Path
) -> None:
    await publish(server, topic, range(20))
    await streamed(tmp_path, "redis", server.url, topic, 20)

    async with Redis.from_url(server.url) as client:
        await client.xgroup_destroy(topic, "g")

    await publish(server, topic, range(20, 30))
    await streamed(tmp_path, "redis", server.url, topic, 30)
    assert await numbers_in(tmp_path) == list(range(30))


async def test_what_a_stream_gives_back_is_for_another_at_once(server: Valkey, topic: str, tmp_path: Path) -> None:
    await publish(server, topic, range(5))
    patient = asyncelt.sources.redis_stream(topic, group="g", url=server.url, field="data", claim_after_s=3600)
    await patient.position({})
    taken = await patient.fetch(3)
    await patient.nack([message.receipt for message in taken[:2]])
    await patient.close()

    other = asyncelt.sources.redis_stream(topic, group="g", url=server.url, field="data", claim_after_s=3600)
    pipeline = pipeline_in(tmp_path)

    async with pipeline.stream(asyncelt.sources.events(other, table_name="numbers"), roll=ROLL) as running:
        while running.stats.messages < 5:
            await asyncio.sleep(0.01)

    assert await numbers_in(tmp_path) == list(range(5))


async def test_a_consumer_with_a_name_has_its_own_again_at_once(server: Valkey, topic: str, tmp_path: Path) -> None:
    await publish(server, topic, range(5))
    first = asyncelt.sources.redis_stream(topic, group="g", consumer="c", url=server.url, claim_after_s=3600)
    await first.position({})
    await first.fetch(3)
    await first.close()
    again = asyncelt.sources.redis_stream(topic, group="g", consumer="c", url=server.url, claim_after_s=3600)
    await again.position({})
    assert [message.receipt.again for message in await again.fetch(10)] == [True] * 3
    assert [message.receipt.again for message in await again.fetch(10)] == [False] * 2
    await again.close()


async def test_ids_that_are_no_positions_are_refused(server: Valkey, topic: str, tmp_path: Path) -> None:
    async with Redis.from_url(server.url) as client:
        await client.xadd(topic, {"data": "{}"}, id=f"1-{2**20}")

    with pytest.raises(PipelineStepFailed, match="too large for a position"):
        await pipeline_in(tmp_path).stream(source_of("redis", server.url, topic))


@pytest.mark.filterwarnings("ignore:.*(could not be acknowledged|broker is away)")
async def test_a_server_that_is_killed_comes_back_and_nothing_is_doubled(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    server.start()

    try:
        await publish(server, "s", range(200))
        pipeline = pipeline_in(tmp_path)
        resource = asyncelt.sources.events(source_of("redis", server.url, "s"), table_name="numbers", batch=20)

        async with pipeline.stream(resource, roll=asyncelt.Roll(rows=20, seconds=0.05)) as running:
            while running.stats.rows < 100:
                await asyncio.sleep(0.01)

            await asyncio.to_thread(server.kill)

            while running.stats.sources_away != ("redis_g",):
                await asyncio.sleep(0.01)

            await asyncio.to_thread(server.start)
            await publish(server, "s", range(200, 300))

            while running.stats.rows < 300:
                await asyncio.sleep(0.01)

        assert await numbers_in(tmp_path) == list(range(300))
    finally:
        server.kill()


async def test_a_wrong_password_is_said(server: Valkey, topic: str, tmp_path: Path) -> None:
    source = asyncelt.sources.redis_stream(topic, group="g", url=server.url.replace("//", "//nobody:wrong@"))

    with pytest.raises(PipelineStepFailed, match="does not let us in"):
        await pipeline_in(tmp_path).stream(source)


async def test_a_stream_more_does_not_make_known_messages_new(server: Valkey, topic: str, tmp_path: Path) -> None:
    await publish(server, topic, range(10))
    await streamed(tmp_path, "redis", server.url, topic, 10)

    async with Redis.from_url(server.url) as client:
        # As if the process had died between the commit and the acknowledgement.
        await client.xgroup_setid(topic, "g", "0")

    other = f"{topic}.other"
    await publish(server, other, range(10, 20))
    source = asyncelt.sources.redis_stream([topic, other], group="g", url=server.url, field="data")
    resource = asyncelt.sources.events(source, table_name="numbers")

    async with pipeline_in(tmp_path).stream(resource, roll=ROLL) as running:
        while running.stats.messages < 20:
            await asyncio.sleep(0.01)

    assert running.stats.repeated == 10
    assert await numbers_in(tmp_path) == list(range(20))


async def test_names_of_dead_consumers_are_forgotten_once_they_hold_nothing(server: Valkey, topic: str) -> None:
    await publish(server, topic, range(4))
    made_up, given, holding = "host-17-0123abcd", "worker", "host-18-0123abcd"

    async with Redis.from_url(server.url) as client:
        await client.xgroup_create(topic, "g", id="0")

        for name in (made_up, given):
            await client.xgroup_createconsumer(topic, "g", name)

        await client.xreadgroup("g", holding, {topic: ">"}, count=1)
        # Silent for longer than the source's patience by now, which the server alone measures.
        source = asyncelt.sources.redis_stream(topic, group="g", url=server.url, field="data", claim_after_s=0.001)
        await source.position({})
        names = {made_up}

        while made_up in names:
            taken = await source.fetch(1)
            await source.nack([message.receipt for message in taken])
            names = {one["name"].decode() for one in await client.xinfo_consumers(topic, "g")}

        assert given in names
        await source.close()


async def test_entries_that_were_deleted_do_not_keep_the_floor_down(server: Valkey, topic: str) -> None:
    """A consumer that died had them; they are acknowledged, or what is committed after them would be listed for ever."""
    await publish(server, topic, range(4))

    async with Redis.from_url(server.url) as client:
        await client.xgroup_create(topic, "g", id="0")
        ((_, taken),) = await client.xreadgroup("g", "worker", {topic: ">"}, count=3)
        await client.xdel(topic, *(entry for entry, _ in taken[:2]))

    source = asyncelt.sources.redis_stream(topic, group="g", consumer="worker", url=server.url, field="data")
    await source.position({})
    assert [one.receipt.token for one in await source.fetch(10)] == [taken[2][0]]
    assert await pending(server, topic) == 1
    (last,) = await source.fetch(10)
    floors = await source.ack([last.receipt])
    assert floors == {topic: position_of(taken[2][0])[1] - 1}
    await source.close()


def reports_of(source: ReportsOutages) -> tuple[list[str | None], asyncio.Event]:
    """What the source tells of its broker, and whether it has."""
    told: list[str | None] = []
    was_told = asyncio.Event()

    def tell(error: str | None) -> None:
        told.append(error)
        was_told.set()

    source.report_to(tell)

    return told, was_told


async def test_a_server_that_takes_nothing_just_now_is_waited_for(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    server.start()

    try:
        await publish(server, "s", range(3))
        source = source_of("redis", server.url, "s", claim_after_s=PATIENTLY_S)
        told, was_told = reports_of(source)
        await source.position({})

        async with Redis.from_url(server.url) as client:
            await client.config_set("min-replicas-to-write", 1)
            fetching = asyncio.create_task(source.fetch(10))
            await was_told.wait()
            await client.config_set("min-replicas-to-write", 0)

        assert len(await fetching) == 3
        assert str(told[0]).startswith("NOREPLICAS")
        assert told[-1] is None
        await source.close()
    finally:
        server.kill()


async def test_a_server_that_has_become_a_replica_is_waited_for(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    server.start()

    try:
        await publish(server, "s", range(3))
        source = source_of("redis", server.url, "s", claim_after_s=PATIENTLY_S)
        told, was_told = reports_of(source)
        await source.position({})
        assert len(await source.fetch(10)) == 3

        async with Redis.from_url(server.url) as client:
            await client.replicaof("127.0.0.1", free_port())
            fetching = asyncio.create_task(source.fetch(10))
            await was_told.wait()
            await client.replicaof("NO", "ONE")
            await publish(server, "s", range(3, 4))

        assert len(await fetching) > 0
        assert told[0] is not None
        assert "read only replica" in told[0]
        assert told[-1] is None
        await source.close()
    finally:
        server.kill()


async def test_a_source_that_is_opened_again_waits_for_its_server(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    server.start()

    try:
        await publish(server, "s", range(3))
        source = source_of("redis", server.url, "s", claim_after_s=PATIENTLY_S)
        await source.position({})
        assert len(await source.fetch(2)) == 2
        await source.close()
        await asyncio.to_thread(server.kill)
        opening = asyncio.create_task(source.position({}))
        await asyncio.sleep(0)
        await asyncio.to_thread(server.start)
        await opening
        assert len(await source.fetch(10)) > 0
        await source.close()
    finally:
        server.kill()


@pytest.mark.kill
@pytest.mark.parametrize("point", ["stream.sealed", "duckdb.after_commit", "stream.before_ack", "stream.after_ack"])
async def test_another_consumer_takes_over_from_a_killed_one(
    point: str, server: Valkey, topic: str, tmp_path: Path, nursery: Nursery
) -> None:
    await publish(server, topic, range(30))
    environment = {"ASYNCELT_FAILPOINT": f"{point}:1"}
    doomed = nursery.start(consumers.stream_all, tmp_path, "redis", server.url, topic, 30, "a", environment=environment)
    assert await asyncio.to_thread(doomed.wait) == KILLED
    await publish(server, topic, range(30, 40))
    await streamed(tmp_path, "redis", server.url, topic, 40, "a")
    assert await numbers_in(tmp_path) == list(range(40))


@pytest.mark.parametrize("argument", ["protocol=3", "decode_responses=", "encoding=latin-1"])
def test_arguments_that_would_change_the_answers_are_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=f"{argument.partition('=')[0]}=.*leave it out"):
        asyncelt.sources.redis_stream("s", group="g", url=f"redis://localhost?db=1&{argument}")


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "localhost", "valkey://localhost"])
def test_an_address_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="begins with redis://, rediss://, unix://, not with"):
        asyncelt.sources.redis_stream("s", group="g", url=url)


async def test_a_server_that_is_not_there_is_said_without_the_password(tmp_path: Path) -> None:
    source = asyncelt.sources.redis_stream("s", group="g", url=f"redis://me:secret@127.0.0.1:{free_port()}/2")

    # A second time as well: it has never been there.
    for _ in range(2):
        with pytest.raises(PipelineStepFailed, match=r"cannot connect to 127\.0\.0\.1:\d+: .*Is the address") as caught:
            await pipeline_in(tmp_path).stream(source)

        assert "secret" not in str(caught.value)


def test_names_are_needed() -> None:
    with pytest.raises(ConfigError, match="both names"):
        asyncelt.sources.redis_stream([], group="g")
