"""Requests become rows: answered when they are safe, and in the table once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

import asyncelt
from asyncelt.errors import ConfigError, UsageError
from asyncelt.failpoints import installed
from asyncelt.sources import Webhook
from asyncelt.sources.desk import CommittedDesk
from asyncelt.sources.inbox import Inbox

pytestmark = pytest.mark.slow
ROLL = asyncelt.Roll(seconds=0.02)


def pipeline_in(folder: Path) -> asyncelt.Pipeline:
    return asyncelt.pipeline(
        "hooks",
        destination=asyncelt.destinations.duckdb(str(folder / "data.duckdb")),
        dataset_name="data",
        pipelines_dir=folder / "work",
    )


def client_of(app: Webhook) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@asynccontextmanager
async def serving(folder: Path, app: Webhook, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    source = asyncelt.sources.events(app, **options) if options else app

    async with pipeline_in(folder).stream(source, roll=ROLL), client_of(app) as client:
        yield client


async def rows_in(folder: Path, query: str) -> list[tuple[object, ...]]:
    async with pipeline_in(folder).sql_client() as sql:
        return [tuple(row.values()) for row in (await sql.query(query)).to_pylist()]


async def test_202_means_that_it_is_committed(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders")
    committed_before_answers: list[bool] = []
    passed: list[str] = []

    async def order(client: httpx.AsyncClient, number: int) -> None:
        answer = await client.post("/x", content=b'{"id": %d, "items": [{"n": 1}, {"n": 2}]}' % number)
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
        committed_before_answers.append("stream.committed" in passed)

    with installed(passed.append):
        async with serving(tmp_path, app) as client:
            await asyncio.gather(*(order(client, number) for number in range(20)))

    assert committed_before_answers == [True] * 20
    assert await rows_in(tmp_path, "SELECT count(DISTINCT id), count(*) FROM orders") == [(20, 20)]
    assert await rows_in(tmp_path, "SELECT count(*) FROM orders__items") == [(40,)]


async def test_a_request_that_is_sent_again_is_in_the_table_once(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders", dedup_key="Idempotency-Key")

    async with serving(tmp_path, app) as client:
        for _ in range(2):  # in one package, and in two
            answers = await asyncio.gather(
                *(client.post("/", content=b' { "v": 1, "l": [1] } ', headers={"idempotency-key": "a"}) for _ in "12")
            )
            assert [answer.status_code for answer in answers] == [202, 202]

        await client.post("/", json=[{"v": 2}, {"v": 3}], headers={"idempotency-key": "b"})
        await client.post("/", json=[{"v": 2}, {"v": 3}], headers={"idempotency-key": "b"})
        await client.post("/", content=b"{}", headers={"idempotency-key": "c"})
        await client.post("/", json={"v": 9, "_dedup_key": "a"}, headers={"idempotency-key": "d"})
        assert (await client.post("/", json={"v": 1})).status_code == 400

    found = await rows_in(tmp_path, "SELECT _dedup_key, v FROM orders ORDER BY 1")
    assert found == [("a", 1), ("b", 2), ("b#1", 3), ("c", None), ("d", 9)]
    assert await rows_in(tmp_path, "SELECT count(*) FROM orders__l") == [(1,)]


async def test_a_key_may_be_a_function_and_tables_differ_by_message(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("hooks", dedup_key=lambda request: request.headers.get("x-id"))

    async with serving(
        tmp_path, app, table_name=lambda message: message.topic.strip("/"), metadata=["topic"]
    ) as client:
        for _ in range(2):
            await client.post("/paid", json={"v": 1}, headers={"x-id": "1"})
            await client.post("/sent", json={"v": 2}, headers={"x-id": "1"})

    assert await rows_in(tmp_path, "SELECT v, _topic, _dedup_key FROM paid") == [(1, "/paid", "1")]
    assert await rows_in(tmp_path, "SELECT v, _topic, _dedup_key FROM sent") == [(2, "/sent", "1")]


async def test_what_is_refused() -> None:
    async def is_known(request: asyncelt.sources.WebhookRequest) -> bool:
        return request.headers.get("authorization") == "Bearer s" and request.body == b"{}"

    app = asyncelt.sources.webhook(authenticate=is_known, max_body_bytes=10)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"{}"

    async with client_of(app) as client:
        assert (await client.post("/", content=b"{}")).status_code == 401
        assert (await client.get("/")).status_code == 405
        assert (await client.post("/", content=b"x" * 11)).status_code == 413
        assert (await client.post("/", content=parts())).status_code == 413

        await app.close()
        late = await client.post("/", content=b"{}", headers={"authorization": "Bearer s"})
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")


async def test_strangers_are_refused_before_their_bodies_are_read() -> None:
    seen: list[tuple[object, ...]] = []
    received: list[int] = []

    def is_known(request: asyncelt.sources.WebhookRequest) -> bool:
        seen.append((request.headers, request.body, len(received), app._taken))
        return request.headers.get("authorization") == "Bearer s"

    async def receive() -> dict[str, object]:
        # The slots are for others.
        received.append(app._taken)
        return {"type": "http.request", "body": b"{}", "more_body": len(received) < 3}

    async def send(event: MutableMapping[str, object]) -> None:
        answered.append(event.get("status"))

    app = asyncelt.sources.webhook(authenticate=is_known, authenticate_by="headers")
    answered: list[object] = []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"x", b"1")]}
    await app(scope, receive, send)
    assert (answered[0], seen, received) == (401, [({"x": "1"}, b"", 0, 0)], [0, 0, 0])

    await app.close()

    async with client_of(app) as client:
        assert (await client.post("/", content=b"{}", headers={"authorization": "Bearer s"})).status_code == 503

    with pytest.raises(ConfigError, match=r"authenticate_by is 'request' or 'headers', not 'body'"):
        asyncelt.sources.webhook(authenticate_by="body")  # type: ignore[arg-type]


async def test_too_many_waiting_requests_are_429_and_the_others_are_committed(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders", capacity=3)

    async with client_of(app) as client:
        # Nothing reads yet.
        waiting = [asyncio.create_task(client.post("/", json={"id": number})) for number in range(3)]

        while app._taken < 3:
            await asyncio.sleep(0)

        refused = await client.post("/", json={"id": 3})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")

        async with pipeline_in(tmp_path).stream(app, roll=ROLL):
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [202] * 3
            assert (await client.post("/", json={"id": 3})).status_code == 202

    assert await rows_in(tmp_path, "SELECT id FROM orders ORDER BY id") == [(0,), (1,), (2,), (3,)]


async def test_bodies_that_wait_are_bounded() -> None:
    app = Webhook(
        CommittedDesk("orders", 100),
        capacity=100,
        max_body_bytes=100,
        authenticate=None,
        dedup_key=None,
        waiting_bytes=250,
    )

    async with client_of(app) as client:
        # Nothing reads yet.
        waiting = [asyncio.create_task(client.post("/", content=b"x" * 100)) for _ in range(2)]

        while app._taken_bytes < 200:
            await asyncio.sleep(0)

        assert (await client.post("/", content=b"x" * 60)).status_code == 429
        waiting.append(asyncio.create_task(client.post("/", content=b"x" * 50)))

        while app._taken_bytes < 250:
            await asyncio.sleep(0)

        await app.close()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {503}

    assert (app._taken, app._taken_bytes) == (0, 0)


async def test_a_body_that_does_not_come_is_408() -> None:
    app = Webhook(
        CommittedDesk("orders", 100), capacity=1, max_body_bytes=100, authenticate=None, dedup_key=None, body_s=0.01
    )

    async def parts() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with client_of(app) as client:
        assert (await client.post("/", content=parts())).status_code == 408

    await app.close()
    assert (app._taken, app._taken_bytes) == (0, 0)


@pytest.mark.filterwarnings("ignore:.*are in _asyncelt_quarantine")
async def test_poison_is_kept_aside_and_answered_202(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders")

    async with serving(tmp_path, app) as client:
        answers = await asyncio.gather(client.post("/", content=b"{no"), client.post("/", content=b'{"id": 1}'))

    assert [answer.status_code for answer in answers] == [202, 202]
    assert await rows_in(tmp_path, "SELECT origin, payload FROM _asyncelt_quarantine") == [("/", "{no")]


# ---------------------------------------------------------------------------------------------- with a spool


async def test_what_is_on_the_disk_is_loaded_once_by_a_later_stream(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    app = asyncelt.sources.webhook("orders", spool=folder)

    async with client_of(app) as client:  # no stream is there, and 202 all the same
        answers = await asyncio.gather(*(client.post("/a", json={"id": number}) for number in range(10)))

    assert {answer.status_code for answer in answers} == {202}
    await app.close()

    app = asyncelt.sources.webhook("orders", spool=folder)

    async with serving(tmp_path, app, metadata=["topic", "position"]) as client:
        await client.post("/b", json={"id": 10})

        while numbers_of_files(folder) != [11]:
            await asyncio.sleep(0.01)

    again = asyncelt.sources.webhook("orders", spool=folder)

    async with pipeline_in(tmp_path).stream(again, roll=ROLL) as running, client_of(again) as client:
        await client.post("/c", json={"id": 11})

        while not running.stats.messages:
            await asyncio.sleep(0.01)

    assert running.stats.rows == 1
    assert await rows_in(tmp_path, "SELECT id FROM orders ORDER BY id") == [(n,) for n in range(12)]
    assert await rows_in(tmp_path, "SELECT _topic, _position FROM orders WHERE id = 10") == [("/b", 11)]


def numbers_of_files(folder: Path) -> list[int]:
    """Files of committed messages go, but for the newest."""
    return sorted(int(path.stem) for path in folder.glob("*.inbox"))


async def test_a_spool_can_be_read_again(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders", spool=tmp_path / "spool")
    assert app.can_reopen

    async with client_of(app) as client:
        assert (await client.post("/", json={"id": 1})).status_code == 202
        await app.position({})
        (first,) = await app.fetch(10)
        await app.close()
        assert (await client.post("/", json={"id": 2})).status_code == 503

        await app.position({})
        assert (await client.post("/", json={"id": 3})).status_code == 202
        again = [(message.receipt.position, message.value) for message in await app.fetch(10)]

    assert again == [(1, first.value), (2, b'{"id":3}')]
    await app.close()


async def test_a_full_disk_quota_is_429(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders", spool=tmp_path / "spool", spool_bytes=50)

    async with client_of(app) as client:
        assert (await client.post("/", json={"id": 1})).status_code == 202
        assert (await client.post("/", json={"id": 2})).status_code == 429

    await app.close()


async def test_a_disk_that_takes_nothing_is_503_for_everybody(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders", spool=tmp_path / "spool")

    def full(point: str) -> None:
        if point == "inbox.before_write":
            raise OSError(28, "No space left on device")

    async with client_of(app) as client:
        with installed(full):
            answers = await asyncio.gather(*(client.post("/", json={"id": number}) for number in range(3)))

        assert {answer.status_code for answer in answers} == {503}
        assert (await client.post("/", json={"id": 3})).status_code == 202

    await app.close()


def test_an_inbox_that_was_torn_goes_on_after_what_is_whole(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert inbox.append([b"a", b"b"]) == 1
    inbox.close()
    file = next(tmp_path.glob("*.inbox"))
    file.write_bytes(file.read_bytes() + b"\x05\x00\x00\x00torn")

    again = Inbox(tmp_path)
    assert again.append([b"c"]) == 3
    assert again.read(10) == [(1, b"a"), (2, b"b"), (3, b"c")]
    assert again.read(10) == []

    with pytest.raises(UsageError, match="another process"):
        Inbox(tmp_path)

    again.drop(2)
    again.seek(2)
    assert [path.stem for path in tmp_path.glob("*.inbox")] == [f"{3:020}"]
    assert again.read(10) == [(3, b"c")]
    assert again.nbytes == sum(path.stat().st_size for path in tmp_path.glob("*.inbox"))
    again.close()


def test_a_damaged_inbox_says_so(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    inbox.append([b"aaaa", b"bbbb"])
    file = next(tmp_path.glob("*.inbox"))
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)

    with pytest.raises(asyncelt.errors.StorageError, match="message 2 of 2"):
        inbox.read(10)

    inbox.close()


# ---------------------------------------------------------------------------------------------- a real server


async def test_over_a_real_server_mounted_below_a_path(tmp_path: Path) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    app = asyncelt.sources.webhook("orders", dedup_key="x-id")

    async def site(scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "root_path": "/hooks"}

        await app(scope, receive, send)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        free.listen()
        server = uvicorn.Server(uvicorn.Config(site, log_config=None))
        source = asyncelt.sources.events(app, metadata=["topic"])

        async with pipeline_in(tmp_path).stream(source, roll=ROLL), asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[free]))

            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free.getsockname()[1]}") as client:
                answers = await asyncio.gather(
                    *(client.post("/hooks/a", json={"n": n}, headers={"x-id": str(n)}) for n in range(30))
                )
                too_large = await client.post("/hooks/a", content=b"x" * 2_000_000, headers={"x-id": "31"})

            server.should_exit = True

    assert {answer.status_code for answer in answers} == {202}
    assert too_large.status_code == 413
    assert await rows_in(tmp_path, "SELECT count(*), min(_topic) FROM orders") == [(30, "/a")]


def test_limits_are_positive() -> None:
    with pytest.raises(ConfigError, match="capacity is a whole number from 1"):
        asyncelt.sources.webhook(capacity=0)


async def test_an_application_may_be_started_again_in_one_process(tmp_path: Path) -> None:
    app = asyncelt.sources.webhook("orders")

    for number in range(2):
        async with serving(tmp_path, app) as client:
            assert (await client.post("/", json={"id": number})).status_code == 202

        async with client_of(app) as late:
            assert (await late.post("/", json={"id": -1})).status_code == 503

    assert await rows_in(tmp_path, "SELECT id FROM orders ORDER BY id") == [(0,), (1,)]
