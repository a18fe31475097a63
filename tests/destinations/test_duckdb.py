"""What is particular to DuckDB; the rest is in the conformance suite."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from random import Random

import anyio
import duckdb
import pyarrow as pa
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.destinations.duckdb_impl import tuning
from asyncelt.destinations.duckdb_impl.types import duckdb_type
from asyncelt.errors import CommitUnknown, ConfigError, DestinationRejected, DestinationUnavailable
from asyncelt.load.protocol import Target
from asyncelt.schema.model import Column, Table
from asyncelt.testing import make_commit, make_package
from asyncelt.testing.fixture import Owner
from asyncelt.testing.merging import child_table, children, key, root_table, roots

ROWS = pa.table({"id": [1, 2]})
HOLDER = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.duckdb"


@pytest.fixture
def owner(path, tmp_path):
    return Owner(destinations.duckdb(path), tmp_path / "packages", "parquet")


@pytest.mark.parametrize(
    "credentials, location",
    [
        (":memory:", "duckdb:///:memory:"),
        ("/data/x.duckdb", "duckdb:////data/x.duckdb"),
        ("duckdb:////data/x.duckdb", "duckdb:////data/x.duckdb"),
        ({"database": "/data/x.duckdb", "settings": {"threads": 1}}, "duckdb:////data/x.duckdb"),
    ],
)
def test_credentials_may_have_several_forms(credentials, location):
    assert destinations.duckdb(credentials).location == location


@pytest.mark.parametrize("wrong", [5, {"path": "x"}, {"database": "x", "settings": 5}])
def test_wrong_credentials_are_refused_before_any_io(wrong):
    with pytest.raises(ConfigError, match="duckdb credentials"):
        destinations.duckdb(wrong)


def test_without_credentials_the_file_is_named_after_the_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert destinations.duckdb().for_pipeline("github").location == f"duckdb:///{tmp_path}/github.duckdb"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "column, expected",
    [
        ({"data_type": "text", "precision": 10}, "VARCHAR"),
        ({"data_type": "bigint"}, "BIGINT"),
        ({"data_type": "bigint", "precision": 8}, "TINYINT"),
        ({"data_type": "bigint", "precision": 12}, "SMALLINT"),
        ({"data_type": "bigint", "precision": 32}, "INTEGER"),
        ({"data_type": "bigint", "precision": 128}, "HUGEINT"),
        ({"data_type": "timestamp"}, "TIMESTAMP WITH TIME ZONE"),
        ({"data_type": "timestamp", "precision": 9}, "TIMESTAMP WITH TIME ZONE"),
        ({"data_type": "timestamp", "timezone": False}, "TIMESTAMP"),
        ({"data_type": "timestamp", "timezone": False, "precision": 9}, "TIMESTAMP_NS"),
        ({"data_type": "time", "precision": 3}, "TIME"),
        ({"data_type": "decimal"}, "DECIMAL(38,9)"),
        ({"data_type": "decimal", "precision": 10, "scale": 2}, "DECIMAL(10,2)"),
        ({"data_type": "wei"}, "DECIMAL(38,0)"),
        ({"data_type": "binary", "precision": 5}, "BLOB"),
        ({"data_type": "json"}, "JSON"),
    ],
)
def test_columns_have_the_types_that_the_reference_gives_them(column, expected):
    assert duckdb_type(Column(name="c", **column)) == expected


def test_a_precision_that_duckdb_lacks_is_refused():
    with pytest.raises(ConfigError, match="at most 128"):
        duckdb_type(Column(name="c", data_type="bigint", precision=256))


async def test_restoring_creates_no_file(owner, path):
    assert not (await owner.restore()).exists
    assert list(path.parent.iterdir()) == []


async def test_a_lease_leaves_no_file_before_the_first_commit(owner, path):
    async with owner.destination.connect(owner.target) as session:
        await owner.acquire(session)

    assert not path.exists()


async def test_system_tables_are_those_of_the_reference(owner, path):
    await owner.run({"one": ROWS}, state="s")

    with duckdb.connect(str(path)) as connection:
        query = (
            "SELECT table_name, list(column_name || ' ' || data_type || CASE is_nullable WHEN 'NO' THEN '!' ELSE '' END "
            "ORDER BY ordinal_position) FROM information_schema.columns WHERE starts_with(table_name, '_dlt') GROUP BY 1"
        )
        found = dict(connection.execute(query).fetchall())

    when = "TIMESTAMP WITH TIME ZONE!"
    assert found == {
        "_dlt_loads": [
            "load_id VARCHAR!",
            "schema_name VARCHAR",
            "status BIGINT!",
            f"inserted_at {when}",
            "schema_version_hash VARCHAR",
        ],
        "_dlt_version": [
            "version BIGINT!",
            "engine_version BIGINT!",
            f"inserted_at {when}",
            "schema_name VARCHAR!",
            "version_hash VARCHAR!",
            "schema VARCHAR!",
        ],
        "_dlt_pipeline_state": [
            "version BIGINT!",
            "engine_version BIGINT!",
            "pipeline_name VARCHAR!",
            "state VARCHAR!",
            f"created_at {when}",
            "version_hash VARCHAR",
            "_dlt_load_id VARCHAR!",
            "_dlt_id VARCHAR!",
        ],
    }


async def test_the_dataset_may_be_called_like_the_file(path, tmp_path):
    target = Target(pipeline_name="p", dataset_name=path.stem)
    owner = Owner(destinations.duckdb(path), tmp_path / "packages", "parquet", target)
    await owner.run({"one": ROWS})
    await owner.run({"one": ROWS})

    assert len(await owner.rows("one")) == 4


async def test_the_callers_connection_is_used_and_stays_open(tmp_path):
    with duckdb.connect(":memory:") as connection:
        owner = Owner(destinations.duckdb(connection), tmp_path / "packages", "parquet")
        await owner.run({"one": ROWS})

        assert connection.execute("SELECT count(*) FROM data.one").fetchone() == (2,)
        assert connection.execute("SELECT current_setting('memory_limit')").fetchone() != ("953.6 MiB",)


async def test_a_file_that_this_process_has_open_with_other_settings_is_used_all_the_same(owner, path):
    with duckdb.connect(str(path)) as connection:
        await owner.run({"one": ROWS})
        assert connection.execute("SELECT count(*) FROM data.data.one").fetchone() == (2,)


async def test_memory_limit_and_threads_are_set(path):
    duckdb.connect(str(path)).close()
    destination = destinations.duckdb(path, memory_limit="300MiB", threads=1)

    async with destination.connect(Target(pipeline_name="p", dataset_name="d")) as session:
        found = await session.query("SELECT current_setting('memory_limit') m, current_setting('threads') t")

    assert found.to_pylist() == [{"m": "300.0 MiB", "t": 1}]


@pytest.mark.parametrize(("columns", "expected"), [(150, "FSST"), (5, "")])
async def test_wide_tables_are_written_without_the_dearest_compression(path, tmp_path, columns, expected):
    destination = destinations.duckdb(path)
    owner = Owner(destination, tmp_path / "packages", "parquet")
    await owner.run({"one": pa.table({f"c{number}": ["x"] for number in range(columns)})})

    async with destination.connect(owner.target) as session:
        found = await session.query("SELECT current_setting('disabled_compression_methods') m")

    assert found["m"].to_pylist() == [expected]


async def test_a_new_file_has_the_storage_version_asked_for_and_an_old_one_keeps_its_own(tmp_path):
    def version_of(path):
        with duckdb.connect(str(path)) as connection:
            found = connection.execute(
                "SELECT tags['storage_version'] FROM duckdb_databases() WHERE path = $1", [str(path)]
            )
            return found.fetchone()[0]

    duckdb.connect(str(tmp_path / "old.duckdb")).close()
    await Owner(destinations.duckdb(tmp_path / "old.duckdb"), tmp_path / "1", "parquet").run({"one": ROWS})
    await Owner(destinations.duckdb(tmp_path / "new.duckdb"), tmp_path / "2", "parquet").run({"one": ROWS})
    asked_for = destinations.duckdb(tmp_path / "asked.duckdb", storage_version=None)
    await Owner(asked_for, tmp_path / "3", "parquet").run({"one": ROWS})

    assert version_of(tmp_path / "old.duckdb") == version_of(tmp_path / "asked.duckdb")
    assert version_of(tmp_path / "new.duckdb").startswith("v1.3.0")


async def test_an_unknown_storage_version_is_refused_in_one_line(tmp_path):
    owner = Owner(destinations.duckdb(tmp_path / "a.duckdb", storage_version="v0.0.1"), tmp_path / "1", "parquet")

    with pytest.raises(DestinationRejected, match=r"v0\.0\.1"):
        await owner.run({"one": ROWS})


async def test_rows_too_long_for_the_usual_memory_get_all_of_it(path, tmp_path):
    destination = destinations.duckdb(path)
    random = Random(1)
    long = pa.table({"v": [random.randbytes(2_000).hex() * 20 for _ in range(3_000)]})
    owner = Owner(destination, tmp_path / "packages", "parquet")
    await owner.run({"one": ROWS})
    assert not destination.config.instance.wants_all_memory

    await owner.run({"two": long})

    assert destination.config.instance.wants_all_memory
    assert await owner.rows("two") == long.sort_by("v").to_pylist()


async def test_a_commit_leaves_the_memory_limit_as_it_was(path, tmp_path):
    destination = destinations.duckdb(path, memory_limit="500MiB")
    owner = Owner(destination, tmp_path / "packages", "parquet")
    await owner.run({"one": ROWS})

    async with destination.connect(owner.target) as session:
        found = await session.query("SELECT current_setting('memory_limit') m")

    assert found["m"].to_pylist() == ["500.0 MiB"]


async def test_commits_of_one_session_keep_neither_job_files_nor_blocks_in_memory(owner, path, monkeypatch):
    monkeypatch.setattr(tuning, "_MANY_COMMITS", 3)
    monkeypatch.setattr(tuning, "_BASE_MIB", 4)
    random = Random(1)
    await owner.run({"one": ROWS})

    async with owner.destination.connect(owner.target) as session:
        owner.lease = await session.acquire(owner.target.pipeline_name, owner.target.member)

        for _ in range(12):
            rows = pa.table({"v": [random.randbytes(500).hex() for _ in range(1_000)]})
            owner.last = await owner.make({"texts": rows})
            await owner.commit_in(session, make_commit(owner.target, owner.lease, owner.last))

        found = await session.query(
            "SELECT sum(memory_usage_bytes) AS held, current_setting('memory_limit') AS allowed, "
            "max(memory_usage_bytes) FILTER (tag = 'EXTERNAL_FILE_CACHE') AS files FROM duckdb_memory()"
        )

    assert path.stat().st_size > 6 * 2**20
    assert found["held"][0].as_py() < 4.5 * 2**20
    assert found["files"][0].as_py() == 0
    assert found["allowed"][0].as_py() == "953.6 MiB"


async def test_a_file_that_another_process_has_open_is_unavailable_then_free_again(path, tmp_path):
    owner = Owner(destinations.duckdb(path, busy_timeout_s=0.05), tmp_path / "packages", "parquet")
    command = [sys.executable, "-c", HOLDER, path]
    holder = await asyncio.to_thread(lambda: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    with holder:
        await asyncio.to_thread(holder.stdout.readline)

        with pytest.raises(DestinationUnavailable, match="one process at a time"):
            await owner.run({"one": ROWS})

        holder.stdin.close()

    await owner.run({"one": ROWS})
    assert len(await owner.rows("one")) == 2


async def test_a_cancelled_query_is_interrupted_and_the_session_can_be_used_again(owner):
    await owner.run({"one": ROWS})

    async with owner.destination.connect(owner.target) as session:
        await session.query("SELECT 1")
        task = asyncio.ensure_future(session.query("SELECT count(*) FROM range(1000000000000)"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])

        assert task.cancelled()
        assert (await session.query("SELECT count(*) AS n FROM one")).to_pylist() == [{"n": 2}]


async def test_a_query_takes_parameters(owner):
    await owner.run({"one": ROWS})

    async with owner.destination.connect(owner.target) as session:
        assert (await session.query("SELECT id FROM one WHERE id > ?", [1])).to_pylist() == [{"id": 2}]


async def test_rows_that_do_not_fit_are_rejected_with_table_and_load(owner):
    table = Table(name="one", resource="one", columns={"id": Column(name="id", data_type="bigint", precision=8)})
    package = await owner.make({"one": pa.table({"id": [1000]})}, tables=[table])

    with pytest.raises(DestinationRejected, match=f"table 'one' of load {package.load_id}"):
        await owner.commit(package)

    assert not await owner.has("one")


async def test_a_required_column_without_value_is_rejected(owner):
    table = Table(name="one", resource="one", columns={"x": Column(name="x", data_type="text", nullable=False)})

    with pytest.raises(DestinationRejected, match="NOT NULL"):
        await owner.run({"one": ROWS}, tables=[table])


async def test_nested_rows_get_their_root_key_when_their_table_begins_to_merge(owner):
    """Else no merge would ever delete them; the reference fails here."""
    plain = [
        Table(name="orders", resource="orders", columns=root_table(id=key("id")).columns),
        child_table("orders__items", "orders", root_key=False),
    ]
    old = roots([{"id": 1, "_dlt_id": "r1"}, {"id": 2, "_dlt_id": "r2"}], "l1")
    nested = children([("r1", "c1", 1), ("r2", "c2", 2)], root_key=False)
    await owner.run({"orders": old, "orders__items": nested}, tables=plain)

    merged = [root_table(id=key("id")), child_table("orders__items", "orders")]
    new = roots([{"id": 1, "_dlt_id": "r3"}], "l2")
    await owner.run({"orders": new, "orders__items": children([("r3", "c3", 3)])}, tables=merged)

    found = {row["value"]: row["_dlt_root_id"] for row in await owner.rows("orders__items")}
    assert found == {2: "r2", 3: "r3"}


async def test_conditions_in_sql_restrict_what_is_merged(owner):
    hints = {"x-merge-source-filter": "v < 10", "x-merge-destination-scope": "{table}.id > 1"}
    base = root_table(id=key("id"))
    table = Table(name="orders", resource="orders", columns=base.columns, write_disposition="merge", hints=hints)
    first = roots([{"id": at, "v": at, "_dlt_id": f"a{at}"} for at in (1, 2, 3)], "l1")
    await owner.run({"orders": first}, tables=[table])
    second = roots([{"id": 4, "v": 4, "_dlt_id": "b4"}, {"id": 5, "v": 50, "_dlt_id": "b5"}], "l2")
    await owner.run({"orders": second})

    assert sorted(row["id"] for row in await owner.rows("orders")) == [1, 4]


async def test_two_destinations_may_commit_to_one_file_at_the_same_time(path, tmp_path):
    owners = [
        Owner(
            destinations.duckdb(path),
            tmp_path / "packages",
            "parquet",
            Target(pipeline_name=f"p{at}", dataset_name="d"),
            clock=1_700_000_000 + 1000 * at,
        )
        for at in range(2)
    ]

    async def commit_three(owner):
        for _ in range(3):
            await owner.run({"one": ROWS})

    async with anyio.create_task_group() as tasks:
        for owner in owners:
            tasks.start_soon(commit_three, owner)

    assert len(await owners[0].rows("one")) == 12


async def test_between_its_calls_a_session_leaves_the_file_to_others(owner, path):
    async with owner.destination.connect(owner.target) as session:
        await owner.commit_in(
            session, make_commit(owner.target, await owner.acquire(session), await owner.make({"one": ROWS}))
        )
        code = "import sys, duckdb; print(duckdb.connect(sys.argv[1]).execute('SELECT count(*) FROM data.data.one').fetchone()[0])"
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code, path], capture_output=True, text=True
        )

    assert done.stdout.strip() == "2", done.stderr


async def test_what_is_no_duckdb_file_is_rejected_not_tried_again(owner, path):
    path.write_text("something else" * 1000)

    with pytest.raises(DestinationRejected, match="not a valid DuckDB"):
        await owner.restore()


async def test_a_session_can_commit_again_once_the_disk_has_room(owner):
    """What DuckDB could not write leaves it a database that has to be attached anew."""
    await owner.run({"one": ROWS})
    many = pa.table({"id": pa.array(range(20_000)), "text": [os.urandom(16).hex() for _ in range(20_000)]})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async with owner.destination.connect(owner.target) as session:
        commit = make_commit(owner.target, await owner.acquire(session), await owner.make({"many": many}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))

        try:
            with pytest.raises((DestinationUnavailable, CommitUnknown)):
                await owner.commit_in(session, commit)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert await session.committed([package.load_id for package in commit.packages]) == frozenset()
        await owner.commit_in(session, commit)

    assert len(await owner.rows("many")) == 20_000


async def test_two_destinations_on_one_file_share_nothing_but_the_file(path, tmp_path):
    target = Target(pipeline_name="p", dataset_name="d")
    package = make_package(tmp_path, "1700000001.5", {"one": ROWS}, target=target)

    async with destinations.duckdb(path).connect(target) as session:
        lease = await session.acquire("p", "")
        await session.commit(make_commit(target, lease, package))

    async with destinations.duckdb(path).connect(target) as session:
        assert (await session.restore("p")).head_load_id == package.load_id


@pytest.mark.parametrize("database", ["data.duckdb", ":memory:"])
async def test_owners_in_one_dataset_take_nothing_from_those_in_another(tmp_path, monkeypatch, database):
    """The second dataset of a pipeline in one file, dev_mode for instance: the first one has had several owners."""
    monkeypatch.chdir(tmp_path)
    destination = destinations.duckdb(database)

    for dataset in ("first", "first", "first", "second", "first"):
        pipeline = asyncelt.pipeline("p", tmp_path / dataset, destination=destination, dataset_name=dataset)
        await pipeline.run([{"id": 1}], table_name="t")

    assert await pipeline.dataset()["t"].select("id").fetchall() == [(1,)] * 4
