"""What is particular to folders of files; the rest is in the conformance suite."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.destinations.filesystem_impl.layout import Layout, path_part
from asyncelt.errors import ConfigError, DestinationRejected, DestinationUnavailable, Unsupported
from asyncelt.failpoints import installed
from asyncelt.flow import JobFile, Package
from asyncelt.schema.stored import to_json
from asyncelt.schema.system import new_schema
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import key, root_table, roots
from asyncelt.testing.packages import make_commit

ROWS = pa.table({"id": [1, 2]})
JOB = JobFile(job_id="t.abc", table="t", file_name="t.abc.0.jsonl", file_format="jsonl", rows=1, nbytes=1)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "files"


@pytest.fixture
def owner(root, tmp_path):
    return Owner(destinations.filesystem(root), tmp_path / "packages", "jsonl")


def package_at(folder, load_id):
    return Package(
        load_id=load_id,
        pipeline_name="p",
        dataset_name="d",
        folder=folder,
        schema=new_schema("s"),
        jobs=(JOB,),
        created_at=float(load_id),
    )


def files_of(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "layout, expected",
    [
        ("{table_name}/{load_id}.{file_id}.{ext}", "t/1700000000.25.abc.jsonl"),
        ("{schema_name}/{table_name}/{file_id}", "s/t/abc.jsonl"),
        ("{table_name}/{curr_date}/{file_id}.{ext}", "t/2023-11-14/abc.jsonl"),
        ("{table_name}/{timestamp}.{timestamp_ms}.{file_id}.{ext}", "t/1700000000.1700000000250.abc.jsonl"),
        ("{table_name}/{YYYY}-{MM}-{DD}T{HH}-{mm}-{ss}/{file_id}.{ext}", "t/2023-11-14T22-13-20/abc.jsonl"),
        (
            "{table_name}/{MMMM}.{MMM}.{dddd}.{ddd}.{dd}.{d}.Q{Q}/{file_id}.{ext}",
            "t/november.nov.tuesday.tue.tu.2.Q4/abc.jsonl",
        ),
        (
            "{table_name}/{YY}{Y}{M}{D}{H}{m}{s}.{SSSS}.{SSS}.{SS}.{S}/{file_id}.{ext}",
            "t/2320231114221320.2500.250.25.2/abc.jsonl",
        ),
        ("{table_name}/{region}/{made}/{file_id}.{ext}", "t/eu/s-t-abc/abc.jsonl"),
    ],
)
def test_a_layout_gives_the_paths_that_the_reference_gives(tmp_path, layout, expected):
    extra = {"region": "eu", "made": lambda schema, table, load_id, file_id, ext: f"{schema}-{table}-{file_id}"}
    assert Layout(text=layout, extra=extra).path_of(package_at(tmp_path, "1700000000.25"), JOB) == expected


def test_the_date_may_be_given(tmp_path):
    for now in (datetime(2001, 2, 3, tzinfo=UTC), lambda: datetime(2001, 2, 3, tzinfo=UTC)):
        layout = Layout(text="{table_name}/{YYYY}/{file_id}.{ext}", now=now)
        assert layout.path_of(package_at(tmp_path, "1700000000.25"), JOB) == "t/2001/abc.jsonl"


@pytest.mark.parametrize(
    "layout, complaint",
    [
        ("{table}/{file_id}", "unknown placeholders: table"),
        ("{load_id}.{file_id}", "needs {table_name}"),
        ("{table_name}/{load_id}.{ext}", "needs {file_id}"),
        ("../{table_name}/{file_id}", "leads out"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(layout, complaint):
    with pytest.raises(ConfigError, match=complaint.replace("{", r"\{").replace("}", r"\}")):
        destinations.filesystem("files", layout=layout)


@pytest.mark.parametrize("name, part", [("a/b", "a%2Fb"), ("..", "%2E."), ("plain", "plain")])
def test_a_table_name_cannot_lead_out_of_its_folder(name, part):
    assert path_part(name) == part


@pytest.mark.parametrize("url", ["az://bucket/x", "gs://bucket"])
def test_addresses_of_other_services_are_refused(url):
    with pytest.raises(ConfigError, match="only local folders"):
        destinations.filesystem(url)


@pytest.mark.parametrize("url", ["/data/x", "file:///data/x"])
def test_folders_are_given_as_path_or_file_address(url):
    assert destinations.filesystem(url).location == "file:///data/x"


async def test_files_are_called_as_by_the_reference(owner, root):
    package = await owner.make({"one": ROWS}, state="c3RhdGU=")
    await owner.commit(package)
    load, [job, _] = package.load_id, package.jobs
    own = [name for name in files_of(root / "data") if not name.startswith("_asyncelt")]

    assert own == [
        f"_dlt_loads/conformance__{load}.jsonl",
        *(name for name in own if name.startswith("_dlt_pipeline_state/")),
        *(name for name in own if name.startswith("_dlt_version/")),
        "init",
        f"one/{load}.{job.job_id.removeprefix('one.')}.jsonl",
    ]
    [state] = (root / "data" / "_dlt_pipeline_state").iterdir()
    assert state.name.startswith(f"conformance__{load}__")
    assert list(json.loads(state.read_text())) == [
        "version",
        "engine_version",
        "pipeline_name",
        "state",
        "created_at",
        "version_hash",
        "_dlt_load_id",
    ]


async def test_a_replace_removes_the_old_files(owner, root):
    await owner.run({"one": ROWS})
    [old] = (root / "data" / "one").iterdir()
    await owner.run({"one": ROWS.slice(0, 1)}, replaced=["one"])

    assert not old.exists()
    assert len(list((root / "data" / "one").iterdir())) == 1


async def test_files_that_are_not_committed_are_not_listed(owner, root):
    await owner.run({"one": ROWS})
    (root / "data" / "one" / "1800000000.5.aaaa.jsonl").write_text('{"id": 99}\n')

    assert [row["id"] for row in await owner.rows("one")] == [1, 2]


async def test_a_merge_is_refused_before_anything_is_written(owner, root):
    with pytest.raises(Unsupported, match="cannot merge into plain files"):
        await owner.run({"orders": roots([{"id": 1, "_dlt_id": "a"}], "l1")}, tables=[root_table(id=key("id"))])

    assert not root.exists()


async def test_a_load_that_fails_leaves_no_temporary_file(owner, root):
    class Injected(Exception):
        pass

    def fail(point):
        if point == "filesystem.before_rename":
            raise Injected

    package = await owner.make({"one": ROWS})

    with installed(fail), pytest.raises(Injected):
        await owner.commit(package)

    assert files_of(root) == []


async def test_a_commit_that_died_after_its_marker_is_finished_by_the_next_session(owner, root):
    class Died(Exception):
        pass

    def die(point):
        if point == "filesystem.after_marker":
            raise Died

    await owner.run({"one": ROWS}, state="b2xk")
    package = await owner.make({"one": ROWS.slice(0, 1)}, replaced=["one"], state="bmV3")

    with installed(die), pytest.raises(Died):
        await owner.commit(package)

    assert len(list((root / "data" / "one").iterdir())) == 2
    restored = await owner.restore()
    assert (restored.state, restored.head_load_id) == ("bmV3", package.load_id)
    assert len(list((root / "data" / "one").iterdir())) == 1


async def test_only_the_newest_states_are_kept(root, tmp_path):
    owner = Owner(destinations.filesystem(root, max_state_files=2), tmp_path / "packages", "jsonl")

    for state in ("YQ==", "Yg==", "Yw=="):
        await owner.run({}, state=state)

    assert len(list((root / "data" / "_dlt_pipeline_state").iterdir())) == 2
    assert (await owner.restore()).state == "Yw=="


@pytest.mark.parametrize(
    "table_format",
    [None, pytest.param("delta", marks=pytest.mark.slow), pytest.param("iceberg", marks=pytest.mark.slow)],
)
async def test_numbers_that_json_does_not_have_come_back(root, tmp_path, table_format):
    values = [1.5, math.nan, math.inf, -math.inf]
    pipeline = asyncelt.pipeline(
        "p", destination=destinations.filesystem(root), dataset_name="data", pipelines_dir=tmp_path / "work"
    )
    rows = [{"n": n, "v": value, "items": [{"w": value}]} for n, value in enumerate(values)]
    info = await pipeline.run(rows, table_name="t", table_format=table_format)

    jobs = [job.job_file_info for one in info.load_packages for job in one.jobs["completed_jobs"]]
    formats = {job.file_format for job in jobs if job.table_name in {"t", "t__items"}}
    assert formats == {"jsonl" if table_format is None else "parquet"}

    async with pipeline.sql_client() as sql:
        for query in (
            "SELECT v FROM t ORDER BY n",
            "SELECT w AS v FROM t__items i JOIN t ON t._dlt_id = _dlt_parent_id ORDER BY n",
        ):
            found = (await sql.query(query)).column("v").to_pylist()
            assert str(found) == str(values)


async def test_a_query_has_a_limit_of_memory_and_spills_into_a_folder_that_is_gone_afterwards(
    owner, root, tmp_path, monkeypatch
):
    await owner.run({"one": ROWS})
    small = replace(owner.destination, memory_limit="40MB")
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    spilled = []

    async with small.connect(owner.target) as session:
        assert (await session.query("SELECT current_setting('memory_limit') AS m FROM one")).to_pylist()[0] == {
            "m": "38.1 MiB"
        }

        rows = "SELECT md5(range::text) AS v FROM range(1500000) ORDER BY v"

        async with session.stream(rows, batch_rows=10_000) as batches:
            async for _ in batches:
                spilled = spilled or [path for path in temporary.rglob("*") if path.is_file()]

    assert spilled
    assert list(temporary.iterdir()) == list(here.iterdir()) == []


async def test_a_stream_leaves_its_session_as_it_was(owner):
    await owner.run({"one": ROWS})
    package = await owner.make({"one": ROWS})

    async with owner.destination.connect(owner.target) as session:
        commit = make_commit(owner.target, await owner.acquire(session), package)

        async with session.stream("SELECT id FROM one") as stream:
            assert sum([batch.num_rows async for batch in stream]) == 2

        await owner.commit_in(session, commit)

    assert len(await owner.rows("one")) == 4


def of_the_reference(folder, load_id="1600000000.5", schema=None):
    """What the reference leaves of one load, with two rows."""
    document = {"schema": schema or to_json(new_schema("theirs")), "load_id": load_id}
    files = {
        f"_dlt_loads/theirs__{load_id}.jsonl": json.dumps({"load_id": load_id, "schema_name": "theirs", "status": 0}),
        f"_dlt_version/theirs__{load_id}__00.jsonl": json.dumps(document),
        "one/a1b2c3d4e5.jsonl": '{"id": 71}\n{"id": 72}',
    }

    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)


async def test_own_files_count_once_beside_those_of_the_reference_whatever_the_layout(root, tmp_path):
    of_the_reference(root / "data")
    destination = destinations.filesystem(root, layout="{table_name}/{file_id}.{ext}")
    pipeline = asyncelt.pipeline("p", destination=destination, dataset_name="data", pipelines_dir=tmp_path / "work")

    async def ids():
        async with pipeline.sql_client() as sql:
            return (await sql.query("SELECT id FROM one ORDER BY id")).column("id").to_pylist()

    await pipeline.run([{"id": 1}, {"id": 2}], table_name="one")
    assert await ids() == [1, 2, 71, 72]

    await pipeline.run([{"id": 3}], table_name="one", write_disposition="replace")
    assert await ids() == [3]


async def test_a_schema_that_cannot_be_read_hides_its_own_tables_only(owner, root, caplog):
    await owner.run({"one": ROWS})
    of_the_reference(root / "data", schema='{"engine_version": 5, "name": "theirs"}')

    assert [row["id"] for row in await owner.rows("one")] == [1, 2]
    assert "tables of schema theirs are left out" in caplog.text
    await owner.run({"one": ROWS.slice(1)}, replaced=["one"])
    assert [row["id"] for row in await owner.rows("one")] == [2]


@pytest.mark.parametrize("inside", ["", "deeper/still"])
async def test_a_folder_that_cannot_be_is_found_before_anything_is_extracted(tmp_path, inside):
    (tmp_path / "file").touch()
    asked = []

    def rows():
        asked.append(1)
        yield {"id": 1}

    destination = destinations.filesystem(tmp_path / "file" / inside)
    pipeline = asyncelt.pipeline("p", destination=destination, dataset_name="data", pipelines_dir=tmp_path / "work")

    with pytest.raises(asyncelt.errors.AsynceltError, match="is no folder") as caught:
        await pipeline.run(rows(), table_name="t")

    assert isinstance(caught.value.__cause__ or caught.value, DestinationRejected)
    assert not asked


async def test_what_the_file_system_refuses_while_files_are_brought_is_an_error_of_ours(owner, root):
    package = await owner.make({"one": ROWS})
    (root / "data").mkdir(parents=True)
    (root / "data" / "one").touch()

    async with owner.destination.connect(owner.target) as session:
        commit = make_commit(owner.target, await owner.acquire(session), package)

        with pytest.raises(DestinationUnavailable, match="File exists"):
            await owner.commit_in(session, commit)


async def test_plain_files_are_read_while_somebody_finishes_their_commit(root, tmp_path):
    """Nobody has to be waited for, nor to write anything; the columns of the new schema are there as well."""
    owner = Owner(destinations.filesystem(root, busy_timeout_s=0.01), tmp_path / "packages", "jsonl")
    await owner.run({"one": ROWS})
    seen = []

    async def look():
        seen.extend(await owner.rows("one"))

        with pytest.raises(DestinationUnavailable, match="Another session is committing"):
            await owner.rows("_dlt_loads")

    def after(point):
        if point == "filesystem.before_load_row":
            asyncio.run_coroutine_threadsafe(look(), loop).result()

    loop = asyncio.get_running_loop()

    with installed(after):
        await owner.run({"one": pa.table({"id": [3], "new": ["x"]})})

    assert [(row["id"], row["new"]) for row in seen] == [(1, None), (2, None), (3, "x")]
