"""What is particular to folders of files; the rest is in the conformance suite."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.destinations.filesystem_impl.layout import Layout, path_part
from asyncelt.errors import ConfigError, Unsupported
from asyncelt.failpoints import installed
from asyncelt.flow import JobFile, Package
from asyncelt.schema.system import new_schema
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import key, root_table, roots

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
