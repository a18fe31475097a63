"""What is particular to buckets; the rest is in the conformance suite. Against a real server."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import replace

import botocore.auth
import pyarrow as pa
import pyarrow.parquet
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.destinations.filesystem_impl.s3.bucket import Bucket, digest_of
from asyncelt.destinations.filesystem_impl.s3.carrier import S3Carrier
from asyncelt.destinations.filesystem_impl.s3.client import new_session, opened_client
from asyncelt.destinations.filesystem_impl.s3.holding import Holding, this_process
from asyncelt.errors import (
    ConfigError,
    DestinationRejected,
    DestinationUnavailable,
    LeaseLost,
    PipelineBusy,
)
from asyncelt.failpoints import installed
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit
from tests.support.seaweed import READER

pytestmark = pytest.mark.slow

ONE = pa.table({"id": [1, 2]})
TWO = pa.table({"id": [3]})
MIB = 1024 * 1024


@pytest.fixture
def owner(s3, tmp_path):
    return Owner(s3, tmp_path / "packages", "parquet")


@asynccontextmanager
async def bucket_of(destination, **changes):
    """The bucket behind a destination."""
    config = replace(destination.site.config, **changes)

    async with opened_client(new_session(config), config) as client:
        yield Bucket(client, config)


async def keys_of(destination):
    config = destination.site.config

    async with bucket_of(destination) as bucket:
        return [key.removeprefix(f"{config.prefix}/data/") for key in await bucket.keys(f"{config.prefix}/")]


def raising(point, error):
    def handle(passed):
        if passed == point:
            raise error

    return handle


async def test_files_are_called_as_by_the_reference_with_the_epoch_in_the_file_id(owner, s3):
    package = await owner.make({"one": ONE}, state="c3RhdGU=")
    await owner.commit(package)
    load, [job, _] = package.load_id, package.jobs
    own = [key for key in await keys_of(s3) if not key.startswith("_asyncelt")]

    assert own == [
        f"_dlt_loads/conformance__{load}.jsonl",
        *(key for key in own if key.startswith(f"_dlt_pipeline_state/conformance__{load}__")),
        *(key for key in own if key.startswith(f"_dlt_version/conformance__{load}__")),
        "init",
        f"one/{load}.{job.job_id.removeprefix('one.')}-e1.parquet",
    ]
    assert len(own) == 5


async def test_a_replace_removes_the_old_objects(owner, s3):
    await owner.run({"one": ONE})
    await owner.run({"one": TWO}, replaced=["one"])

    assert len([key for key in await keys_of(s3) if key.startswith("one/")]) == 1


async def test_a_paused_owner_cannot_commit_after_another_took_over(owner, s3):
    """It has checked everything and is about to put its marker when the other one takes over."""
    await owner.run({"one": ONE})
    package = await owner.make({"one": TWO})

    async with s3.connect(owner.target) as paused, s3.connect(owner.target) as other:
        commit = make_commit(owner.target, await owner.acquire(paused), package)
        await paused.load(commit, package, package.jobs[0])
        loop = asyncio.get_running_loop()

        def take_over(point):
            if point == "filesystem.before_marker" and owner.lease.epoch == 1:
                taking = other.acquire(owner.target.pipeline_name, "")
                owner.lease = asyncio.run_coroutine_threadsafe(taking, loop).result()

        with installed(take_over), pytest.raises(LeaseLost, match="taken over by another owner"):
            await paused.commit(commit)

    assert owner.lease.epoch == 2
    assert await owner.rows("one") == ONE.to_pylist()
    await owner.commit(package)
    assert len(await owner.rows("one")) == 3


async def test_a_second_owner_is_told_who_is_alive(s3, tmp_path):
    impatient = replace(s3, busy_timeout_s=0.05)
    owner = Owner(impatient, tmp_path / "packages", "parquet")

    async with impatient.connect(owner.target) as first, impatient.connect(owner.target) as second:
        package = await owner.make({"one": ONE})
        await owner.commit_in(first, make_commit(owner.target, await owner.acquire(first), package))

        with pytest.raises(PipelineBusy, match=f"owned by process {os.getpid()}"):
            await second.acquire(owner.target.pipeline_name, "")

    async with impatient.connect(owner.target) as third:
        assert (await third.acquire(owner.target.pipeline_name, "")).epoch == 2


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"host": "gone", "ttl_s": -1.0}], ids=["process", "host"])
async def test_an_owner_that_is_dead_is_replaced_at_once(owner, s3, change):
    await owner.run({"one": ONE})
    key = f"{s3.site.config.prefix}/data/_asyncelt_leases/conformance__.json"

    async with bucket_of(s3) as bucket:
        holder = {**this_process(), "token": "dead", "epoch": 1, "ttl_s": 1000.0, "released": False, **change}
        await bucket.write(key, json.dumps(holder).encode())

    async with s3.connect(owner.target) as session:
        assert (await session.acquire(owner.target.pipeline_name, "")).epoch == 2


async def test_what_a_dead_owner_has_brought_is_removed_by_the_next(owner, s3):
    await owner.run({"one": ONE})
    dead = await owner.make({"one": TWO, "two": TWO})
    prefix = f"{s3.site.config.prefix}/data/"

    with installed(raising("filesystem.before_commit", RuntimeError("died"))), pytest.raises(RuntimeError):
        await owner.commit(dead)

    left = [key for key in await keys_of(s3) if dead.load_id in key and not key.startswith("_asyncelt")]
    assert len(left) == 2

    async with bucket_of(s3) as bucket, s3.connect(owner.target) as session:
        await bucket.begin(prefix + left[0])
        foreign = (await bucket.begin(prefix + "of/others")).upload
        owner.lease = await session.acquire(owner.target.pipeline_name, "")

        assert [upload for _, upload in await bucket.uploads(prefix)] == [foreign]
        await bucket.abort(prefix + "of/others", foreign)

    keys = await keys_of(s3)
    assert not [key for key in keys if dead.load_id in key or key.startswith("_asyncelt_uploads")]
    assert await owner.rows("one") == ONE.to_pylist()

    owner.last = None
    async with s3.connect(owner.target) as session:
        assert (await session.restore(owner.target.pipeline_name)).head_load_id != dead.load_id


async def test_a_commit_that_died_after_its_marker_is_finished_by_the_next_session(owner, s3):
    await owner.run({"one": ONE}, state="b2xk")
    package = await owner.make({"one": TWO}, replaced=["one"], state="bmV3")

    with installed(raising("filesystem.after_marker", RuntimeError("died"))), pytest.raises(RuntimeError):
        await owner.commit(package)

    assert len([key for key in await keys_of(s3) if key.startswith("one/")]) == 2
    restored = await owner.restore()
    assert (restored.state, restored.head_load_id) == ("bmV3", package.load_id)
    assert len([key for key in await keys_of(s3) if key.startswith("one/")]) == 1


async def test_a_marker_whose_answer_was_lost_commits_once(owner, s3, monkeypatch):
    """The driver sends a request again when its answer is lost; the second one finds what the first has written."""
    await owner.run({"one": ONE})
    create = Bucket.create

    async def twice(self, key, content):
        await create(self, key, content)

        return await create(self, key, content)

    monkeypatch.setattr(Bucket, "create", twice)
    await owner.run({"one": TWO})

    assert len(await owner.rows("one")) == 3
    assert len(await owner.rows("_dlt_loads")) == 2


@pytest.fixture
def folded_often(monkeypatch):
    monkeypatch.setattr("asyncelt.destinations.filesystem_impl.pieces.FOLDED", 2)


@pytest.fixture
def requests(monkeypatch):
    """Every request that is made, by operation and key."""
    made = []
    raw = Bucket._raw

    async def noted(self, operation, **arguments):
        made.append((operation, str(arguments.get("Key", arguments.get("Prefix", "")))))

        return await raw(self, operation, **arguments)

    monkeypatch.setattr(Bucket, "_raw", noted)

    return made


async def test_a_late_commit_costs_what_an_early_one_did(owner, folded_often, requests):
    costs = []

    for at in range(7):
        requests.clear()
        await owner.run({"one": pa.table({"id": [at]})}, replaced=["one"] if at == 3 else [], state=str(at))
        costs.append(len(requests))
        entries = [key for operation, key in requests if operation == "get_object" and "_asyncelt_commits/0" in key]
        assert len(entries) <= 2
        # All load rows are listed by a pipeline that is new, by a replace (rows of the reference), and by a fold.
        listed = {0: 2, 3: 1}.get(at, int(at % 2 == 0))
        assert len([key for _, key in requests if key.endswith("/_dlt_loads/")]) == listed

    # The third checkpoint is the first that removes an old one.
    assert (costs[6], costs[5]) == (costs[4] + 1, costs[1])
    assert sorted(row["id"] for row in await owner.rows("one")) == [3, 4, 5, 6]
    assert len(await owner.rows("_dlt_loads")) == 7
    restored = await owner.restore()
    assert (restored.state, restored.head_load_id) == ("6", owner.last.load_id)


async def test_a_checkpoint_that_is_old_or_lost_costs_time_and_nothing_else(owner, s3, folded_often):
    for at in range(3):
        await owner.run({"one": pa.table({"id": [at]})})

    prefix = f"{s3.site.config.prefix}/data/_asyncelt_checkpoints/"

    async with bucket_of(s3) as bucket:
        old = await bucket.read(prefix + "latest.json")
        assert json.loads(old)["number"] == 2

        for at in range(3, 7):
            await owner.run({"one": pa.table({"id": [at]})}, replaced=["one"] if at == 3 else [])

        # A session that had fallen asleep puts back what it has made; its list of files is gone by now.
        assert prefix + "0000000002.json" not in await bucket.keys(prefix)
        await bucket.write(prefix + "latest.json", old)
        assert sorted(row["id"] for row in await owner.rows("one")) == list(range(3, 7))
        await owner.run({"one": TWO})
        assert json.loads(await bucket.read(prefix + "latest.json"))["number"] == 7

    assert len(await owner.rows("one")) == 5


async def test_a_commit_that_dies_while_it_makes_a_checkpoint_is_made_again(owner, folded_often):
    for at in range(2):
        await owner.run({"one": pa.table({"id": [at]})})

    package = await owner.make({"one": TWO})

    with installed(raising("filesystem.before_checkpoint", RuntimeError("died"))), pytest.raises(RuntimeError):
        await owner.commit(package)

    assert len(await owner.rows("one")) == 2
    await owner.commit(package)
    assert len(await owner.rows("one")) == 3


@asynccontextmanager
async def carrying(destination, target, **changes):
    async with bucket_of(destination, **changes) as bucket:
        carrier = S3Carrier(bucket, "parts/", target, Holding(bucket, "parts/", this_process()))

        try:
            yield bucket, carrier
        finally:
            await carrier.close()


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(MIB) * 13 + b"end")

    return path


async def test_large_files_go_in_parts_of_which_few_are_in_memory(s3, owner, large, monkeypatch):
    held, most = set(), 0
    part = Bucket.part

    async def counted(self, key, upload, number, content, digest):
        nonlocal most
        held.add(number)
        most = max(most, len(held))
        assert len(content) <= 5 * MIB

        try:
            return await part(self, key, upload, number, content, digest)
        finally:
            held.remove(number)

    monkeypatch.setattr(Bucket, "part", counted)

    async with carrying(s3, owner.target, part_bytes=5 * MIB, slots=2) as (bucket, carrier):
        await carrier.bring(large, "a.bin", "")

        assert most == 2
        assert await bucket.read("parts/a.bin") == large.read_bytes()
        assert await bucket.uploads("parts/") == []


async def test_no_part_is_hashed_on_the_event_loop(s3, owner, large, monkeypatch):
    hashed = []
    sha256 = botocore.auth.sha256

    def noted(content=b""):
        hashed.append(len(content))

        return sha256(content)

    monkeypatch.setattr(botocore.auth, "sha256", noted)

    async with carrying(s3, owner.target, part_bytes=5 * MIB) as (bucket, carrier):
        await carrier.bring(large, "a.bin", "")
        small = large.with_name("small.bin")
        small.write_bytes(b"x" * MIB)
        await carrier.bring(small, "b.bin", "")

        assert hashed
        assert max(hashed) < MIB / 8
        assert await bucket.read("parts/a.bin") == large.read_bytes()
        assert await bucket.read("parts/b.bin") == small.read_bytes()

        # What arrives as something else is refused all the same.
        with pytest.raises(DestinationRejected, match=r"parts/c\.bin"):
            await bucket.write("parts/c.bin", b"other bytes", digest_of(b"bytes"))


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_cancelled_upload_leaves_nothing_open(s3, owner, large, monkeypatch, number):
    """Cancelled while it begins (0), or while a part is on its way."""
    reached = asyncio.Event()
    begin, part = Bucket.begin, Bucket.part

    async def begun(self, key):
        if number == 0:
            reached.set()

        return await begin(self, key)

    async def sent(self, key, upload, at, content, digest):
        if at == number:
            reached.set()

        return await part(self, key, upload, at, content, digest)

    monkeypatch.setattr(Bucket, "begin", begun)
    monkeypatch.setattr(Bucket, "part", sent)

    async with carrying(s3, owner.target, part_bytes=5 * MIB) as (bucket, carrier):
        task = asyncio.create_task(carrier.bring(large, f"cancelled-{number}.bin", ""))
        await reached.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert await bucket.uploads("parts/") == []
        assert await bucket.read(f"parts/cancelled-{number}.bin") is None


async def test_reading_takes_the_ranges_that_a_query_needs(s3, tmp_path, monkeypatch):
    owner = Owner(s3, tmp_path / "packages", "parquet")
    wide = pa.table({"id": range(200_000), "noise": [os.urandom(16).hex() for _ in range(200_000)]})
    await owner.run({"wide": wide})
    taken = 0
    read = Bucket.read

    async def counted(self, key, span=None):
        nonlocal taken
        content = await read(self, key, span)
        taken += len(content or b"") if key.endswith(".parquet") else 0

        return content

    monkeypatch.setattr(Bucket, "read", counted)

    async with s3.connect(owner.target) as session:
        assert (await session.query("SELECT sum(id) AS s FROM wide")).to_pylist() == [{"s": 19_999_900_000}]
        assert 0 < taken < wide.nbytes / 4


async def test_a_pipeline_runs_into_a_bucket_and_is_read_back(s3, tmp_path):
    async def pages():
        for page in range(3):
            yield [{"id": page * 10 + at, "tags": ["a", "b"]} for at in range(10)]

    for _ in range(2):
        pipeline = asyncelt.pipeline("lake", destination=s3, dataset_name="raw", pipelines_dir=str(tmp_path))
        await pipeline.run(pages(), table_name="readings", loader_file_format="parquet")

    async with pipeline.sql_client() as sql:
        assert (await sql.query("SELECT count(*) AS n, max(id) AS m FROM readings")).to_pylist() == [{"n": 60, "m": 29}]

    chunks = [chunk.num_rows async for chunk in pipeline.dataset().readings__tags.iter_arrow(50)]
    assert sum(chunks) == 120
    assert max(chunks) == 50


@asynccontextmanager
async def faulty(server, faults):
    """A door to the server; each new connection meets the next fault, and none when they are used up."""
    tasks = set()

    async def pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        fault = faults.pop(0) if faults else None

        if fault == "slow down":
            await reader.readuntil(b"\r\n\r\n")
            body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            head = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: "
            writer.write(head + str(len(body)).encode() + b"\r\n\r\n" + body)
            await writer.drain()

        if fault is not None:
            writer.close()
            return

        back, forth = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, forth), pump(back, writer), return_exceptions=True)

    door = await asyncio.start_server(serve, "127.0.0.1", 0)

    try:
        yield f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}"
    finally:
        door.close()

        for task in tasks:
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("fault", ["slow down", "cut"])
async def test_requests_that_fail_for_the_moment_are_repeated(s3, seaweed, tmp_path, fault):
    faults = [fault, fault]

    async with faulty(seaweed, faults) as endpoint:
        owner = Owner(other(s3, endpoint=endpoint), tmp_path / "packages", "parquet")
        await owner.run({"one": ONE}, state="s")
        assert faults == []

    assert await Owner(s3, tmp_path, "parquet").rows("one") == ONE.to_pylist()


async def test_a_service_that_stays_overloaded_may_be_tried_again_later(s3, seaweed, owner):
    async with (
        faulty(seaweed, ["slow down"] * 50) as endpoint,
        impatient(other(s3, endpoint=endpoint)).connect(owner.target) as session,
    ):
        with pytest.raises(DestinationUnavailable, match="SlowDown"):
            await session.restore(owner.target.pipeline_name)


def impatient(destination):
    """Pauses between attempts take seconds; how often it tries is tested above."""
    return replace(destination, site=replace(destination.site, config=replace(destination.site.config, attempts=1)))


def other(s3, **changes):
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "testtest", **changes}
    url = f"s3://{credentials.pop('bucket', 'lake')}/{s3.site.config.prefix}"
    endpoint = credentials.pop("endpoint", s3.site.config.endpoint_url)

    made = destinations.filesystem(url, endpoint_url=endpoint, credentials=credentials)

    # The description of the service is the same for everybody.
    return replace(made, site=replace(s3.site, config=made.site.config))


@pytest.mark.parametrize(
    "changes, kind, says",
    [
        ({"bucket": "no-such-bucket"}, DestinationRejected, "Create the bucket 'no-such-bucket'"),
        ({"aws_access_key_id": "stranger"}, DestinationRejected, "Correct the credentials"),
        ({"aws_secret_access_key": "wr0ng-s3cret"}, DestinationRejected, "Correct the credentials"),
        ({"profile_name": "nobody"}, ConfigError, "Correct profile_name"),
    ],
)
async def test_what_cannot_work_is_said_in_one_line_before_anything_moves(s3, owner, changes, kind, says):
    with pytest.raises(kind, match=says) as caught:
        async with other(s3, **changes).connect(owner.target) as session:
            await session.restore(owner.target.pipeline_name)

    assert "\n" not in str(caught.value)
    assert "wr0ng-s3cret" not in str(caught.value)


async def test_somebody_who_may_only_read_is_told_before_data_moves(s3, tmp_path):
    owner = Owner(other(s3, **READER), tmp_path / "packages", "parquet")
    package = await owner.make({"one": ONE})

    async with owner.destination.connect(owner.target) as session:
        commit = make_commit(owner.target, await owner.acquire(session), package)

        with pytest.raises(DestinationRejected, match="may not do this"):
            await session.migrate(commit)

    assert await keys_of(s3) == []


async def test_a_server_that_is_not_there_may_be_tried_again(s3, owner):
    async with impatient(other(s3, endpoint="http://127.0.0.1:9")).connect(owner.target) as session:
        with pytest.raises(DestinationUnavailable, match="Is the server reachable"):
            await session.restore(owner.target.pipeline_name)


def test_secrets_are_not_printed(s3):
    assert s3.site.config.secret_access_key not in repr(s3).replace("'lake'", "").replace(s3.location, "")
    assert "secret" not in repr(s3)


@pytest.mark.parametrize(
    "url, credentials, says",
    [
        ("s3://", None, "no bucket"),
        ("s3://key:secret@bucket/x", None, "do not belong into the address"),
        ("s3://b", {"aws_access_key_id": "a"}, "aws_secret_access_key is missing"),
        ("s3://b", {"key": "hidden"}, "unknown keys: key"),
        ("s3://b", "hidden", "takes a mapping"),
        ("folder", {"aws_access_key_id": "a"}, "has no endpoint_url"),
    ],
)
def test_wrong_arguments_are_refused_without_their_secrets(url, credentials, says):
    with pytest.raises(ConfigError, match=says) as caught:
        destinations.filesystem(url, credentials=credentials)

    assert "hidden" not in str(caught.value)
    assert "secret@" not in str(caught.value)
