"""What goes wrong between us and a bucket: refusals, broken connections, a server that is killed and comes back."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.config import Retry, Settings
from asyncelt.errors import DestinationRejected, DestinationUnavailable, PipelineStepFailed
from asyncelt.failpoints import installed
from asyncelt.load.committing import load_bundle
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit
from tests.support.proxy import Fault, FaultProxy
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.slow

ROWS = 1_000
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message><Key>x</Key></Error>"
PATIENT = Settings(retry=Retry(attempts=8, first_s=0.05))
AT_ONCE = {"attempts": 1, "read_timeout_s": 3.0, "connect_timeout_s": 3.0}
"""Of the driver: the engine's own retries are what is tested here. Long enough for a server on a busy machine."""


def changed(destination, **changes):
    """The destination with other settings."""
    return replace(destination, site=replace(destination.site, config=replace(destination.site.config, **changes)))


@asynccontextmanager
async def about_to_load(owner, table="one", rows=ROWS):
    """A session and the commit of a package that replaces the table."""
    data = pa.table({"id": range(rows), "noise": [os.urandom(16).hex() for _ in range(rows)]})
    package = await owner.make({table: data}, state="s", replaced=[table])

    async with owner.destination.connect(owner.target) as session:
        lease = owner.lease = await session.acquire(owner.target.pipeline_name, owner.target.member)

        yield session, make_commit(owner.target, lease, package)

    owner.last = package


async def load(session, commit):
    """As the engine does; returns how often it was tried again."""
    report = await load_bundle(session, commit, PATIENT, lambda event: None, max_parallel=None)

    return report.retries


async def check(destination, tmp_path, commit):
    """The package is there, once, and nothing else lies about."""
    owner = Owner(destination, tmp_path, "parquet")

    async with destination.connect(owner.target) as session:
        found = await session.query("SELECT id FROM one ORDER BY id")
        assert found.column("id").to_pylist() == list(range(ROWS))
        assert await session.committed([commit.packages[-1].load_id])
        names, counted = await asyncio.to_thread(
            lambda: (session._dataset.store.names("one"), session._dataset.table_files()["one"])
        )
        assert [f"one/{name}" for name in names] == counted


# --------------------------------------------------------------------------------------------------- refusals


@asynccontextmanager
async def answering(status, body, headers=b""):
    """A service that gives the same answer to everything, as AWS words it."""
    asked = []

    async def serve(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                asked.append(head)
                lines = b"HTTP/1.1 %d X\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n" % (
                    status,
                    len(body),
                )
                writer.write(lines + headers + b"\r\n" + (b"" if head.startswith(b"HEAD") else body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


def error(code, message="No.", more=""):
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()


@pytest.mark.parametrize(
    "status, body, headers, says",
    [
        (400, error("ExpiredToken", "The token has expired."), b"", "for a time, which is over: get new ones"),
        (400, error("AuthorizationHeaderMalformed", more="<Region>eu-west-3</Region>"), b"", "region_name='eu-west-3'"),
        (301, error("PermanentRedirect"), b"x-amz-bucket-region: eu-west-3\r\n", "pass region_name='eu-west-3'"),
        (403, error("RequestTimeTooSkewed"), b"", "The clock of this machine is wrong"),
        (403, error("AccessDenied", "Access\nDenied."), b"", "Access Denied. Hint: These credentials may not do this"),
        (404, error("NoSuchBucket"), b"", "Create the bucket 'lake'"),
    ],
)
async def test_a_refusal_is_one_line_before_anything_is_extracted(s3, tmp_path, status, body, headers, says):
    extracted = []

    def rows():
        extracted.append(1)
        yield {"id": 1}

    async with answering(status, body, headers) as (endpoint, asked):
        pipeline = asyncelt.pipeline(
            "p", destination=changed(s3, endpoint_url=endpoint), dataset_name="data", pipelines_dir=tmp_path
        )

        with pytest.raises(PipelineStepFailed, match=says) as caught:
            await pipeline.run(rows(), table_name="rows")

    assert extracted == []
    assert caught.value.step == "sync"
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, DestinationRejected)
    assert len(asked) <= 2


async def test_something_that_does_not_speak_s3_is_said(s3, tmp_path):
    async with answering(200, b"<html>\n<body></html>") as (endpoint, _):
        destination = changed(s3, endpoint_url=endpoint, **AT_ONCE)

        with pytest.raises(DestinationUnavailable, match="Does a service that speaks S3 answer at this endpoint_url"):
            await Owner(destination, tmp_path, "parquet").restore()


async def test_objects_that_may_not_be_removed_are_no_success(s3):
    """The answer to a removal of many is 200, whatever became of each."""
    async with answering(200, b"<DeleteResult>" + DENIED + b"</DeleteResult>") as (endpoint, _):
        target = Owner(s3, None, "parquet").target

        async with changed(s3, endpoint_url=endpoint).connect(target) as session:
            with pytest.raises(DestinationRejected, match="deleting x was refused: Access Denied"):
                await session._place.carrier._bucket.remove(["x"])


# ---------------------------------------------------------------------------------------------------- the network


@pytest.fixture
async def proxy(seaweed):
    async with FaultProxy(seaweed.url) as started:
        yield started


@pytest.fixture
def owner(s3, proxy, tmp_path):
    """An owner whose requests pass the proxy."""
    return Owner(changed(s3, endpoint_url=proxy.dsn, **AT_ONCE), tmp_path / "packages", "parquet")


@pytest.mark.parametrize("do", ["cut", "half_close", "stall"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_marker_in_doubt_is_settled(proxy, owner, s3, tmp_path, direction, do):
    """What is lost is the request that puts it, or the answer."""
    await owner.run({"one": pa.table({"id": [1]})})

    def arm(point):
        if point == "filesystem.before_marker" and not proxy.done:
            at = b"PUT /lake/" if direction == "up" else b"HTTP/1.1 200"
            proxy.next_fault = Fault(direction=direction, at=at, further=4, do=do)

    async with about_to_load(owner) as (session, commit):
        with installed(arm):
            retries = await load(session, commit)

    assert len(proxy.done) == 1
    # Where only the answer was lost, the marker is found and not put again.
    assert retries == 0 or direction == "up"
    await check(s3, tmp_path, commit)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_connection_may_break_at_any_byte(proxy, owner, s3, tmp_path, direction):
    async with about_to_load(owner) as (session, commit):
        proxy.passed[direction] = 0
        await load(session, commit)
        total = proxy.passed[direction]

    for at in range(1, total, total // 4):
        async with about_to_load(owner) as (session, commit):
            proxy.passed[direction] = 0
            proxy.next_fault = Fault(direction=direction, at=at, do="cut")
            await load(session, commit)

        await check(s3, tmp_path, commit)


@dataclass(slots=True)
class Cutter:
    """Stands before a server and breaks bodies of data files off, after their first bytes, so many times."""

    times: int = 0
    cut: int = 0

    async def serve(self, url, reader, writer):
        from_server, to_server = await asyncio.open_connection(url.hostname, url.port)

        async def down():
            while chunk := await from_server.read(65536):
                if self.cut < self.times and b"PAR1" in chunk:
                    self.cut += 1
                    writer.write(chunk[: chunk.index(b"PAR1") + 2])
                    await writer.drain()
                    break

                writer.write(chunk)
                await writer.drain()

        async def up():
            while chunk := await reader.read(65536):
                to_server.write(chunk)
                await to_server.drain()

        tasks = [asyncio.create_task(one()) for one in (up, down)]
        _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

        for one in left:
            one.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        to_server.close()


@pytest.fixture
async def cutter(seaweed):
    cutter, url = Cutter(), urlsplit(seaweed.url)
    server = await asyncio.start_server(lambda *pair: cutter.serve(url, *pair), "127.0.0.1", 0)
    cutter_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield cutter, cutter_url
    server.close()


async def test_a_body_that_breaks_off_is_read_again_and_never_refused_for_good(s3, cutter, tmp_path):
    proxy, endpoint = cutter
    owner = Owner(changed(s3, endpoint_url=endpoint, attempts=3), tmp_path / "packages", "parquet")
    await owner.run({"one": pa.table({"id": range(3)})})
    # Nobody has the bytes yet: first it breaks off as often as it is tried, then less often.
    proxy.times = 3

    with pytest.raises(DestinationUnavailable):
        await owner.rows("one")

    assert proxy.cut == 3
    proxy.times = 5
    assert len(await owner.rows("one")) == 3
    assert proxy.cut == 5


# ------------------------------------------------------------------------------------------------------ the server


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    """A server that may be killed."""
    with Seaweed(tmp_path_factory.mktemp("mortal")) as server:
        yield server


@pytest.mark.xdist_group("mortal")
@pytest.mark.parametrize("point", ["filesystem.before_complete", "filesystem.before_marker", "filesystem.after_marker"])
async def test_a_server_that_is_killed_and_comes_back_is_ridden_out(mortal, tmp_path, point):
    """In the middle of an upload in parts, as the marker is put, and before what follows from it."""
    destination = destinations.filesystem(f"s3://lake/{point}", endpoint_url=mortal.url, credentials=mortal.credentials)
    destination = changed(destination, attempts=2, part_bytes=5 * 1024 * 1024)
    owner = Owner(destination, tmp_path / "packages", "parquet")
    starting = []

    def crash(passed):
        if passed == point and not starting:
            mortal.kill()
            starting.append(threading.Thread(target=mortal.start))
            starting[0].start()

    async with about_to_load(owner) as (session, commit):
        large = pa.table({"noise": [os.urandom(64 * 1024) for _ in range(100)]})
        package = await owner.make({"large": large}, after=commit.packages[-1])
        both = make_commit(owner.target, owner.lease, commit.packages[-1], package)

        with installed(crash):
            await load(session, both)

    await asyncio.to_thread(starting[0].join)
    await check(destination, tmp_path, both)

    async with destination.connect(owner.target) as session:
        rows = await session.query("SELECT count(*) AS n, sum(octet_length(noise)) AS bytes FROM large")
        assert rows.to_pylist() == [{"n": 100, "bytes": 100 * 64 * 1024}]
        assert await session._place.carrier._bucket.uploads(destination.site.config.prefix) == []
