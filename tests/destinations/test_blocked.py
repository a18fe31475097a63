"""A table in a table format that refuses rows of a load that is committed: it holds up itself, and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyiceberg.types import NestedField, StringType, StructType

import asyncelt
from asyncelt import destinations
from asyncelt.config import Retry, Settings
from asyncelt.destinations.filesystem_impl.catalogs import catalog_config
from asyncelt.destinations.filesystem_impl.iceberg_catalog import Tables, opened
from asyncelt.errors import DestinationRejected, PipelineStepFailed, TableBlocked, UsageError
from asyncelt.failpoints import installed
from asyncelt.schema.model import Column, Table
from asyncelt.testing.fixture import Owner
from asyncelt.types import ColumnName, TableName
from tests.destinations.meanwhile import other_owner

pytestmark = pytest.mark.slow

ONE = pa.table({"id": [1, 2]})
TWO = pa.table({"id": [3]})
OTHERS = pa.table({"id": [{"of": "others"}]})


def definition(name, kind="delta", disposition="append", **more):
    return Table(
        name=TableName(name), resource=name, write_disposition=disposition, hints={"table_format": kind}, **more
    )


def merged(name, kind="delta"):
    key = Column(name=ColumnName("id"), data_type="bigint", primary_key=True, nullable=False)

    return definition(name, kind, "merge", columns={ColumnName("id"): key})


@pytest.fixture(params=["local", "s3"])
def place(request):
    return request.param


@pytest.fixture
def destination(place, request, tmp_path):
    if place == "local":
        return destinations.filesystem(tmp_path / "lake")

    catalog = catalog_config(f"sqlite:///{tmp_path}/catalog.db")

    return replace(request.getfixturevalue("s3"), iceberg_catalog=catalog)


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


@pytest.fixture
def other(destination, tmp_path):
    return other_owner(destination, tmp_path / "others")


@pytest.fixture
def others(other):
    """Rows of another pipeline, whose schema has the same name and the same tables."""

    async def run(rows):
        column = Column(name=ColumnName("id"), data_type="bigint")
        tables = [definition(name, columns={column.name: column}) for name in ("one", "two")]
        package = await other.make(rows, tables=tables)
        await other.commit(package)

    return run


async def put_in_place(owner, name, rows):
    """What somebody else does to a Delta table: other rows, and other types."""
    async with owner.destination.connect(owner.target) as session:
        address, options = session._dataset.store.table_address(name)

        await session._run(
            lambda: write_deltalake(address, rows, mode="overwrite", schema_mode="overwrite", storage_options=options)
        )


@contextmanager
def altered_after_the_marker(destination, name, rows=OTHERS):
    """The table changes in the moment after the commit."""

    def alter(point):
        if point == "filesystem.after_marker":
            address = str(destination.site.root / "data" / name)
            write_deltalake(address, rows, mode="overwrite", schema_mode="overwrite")

    with installed(alter):
        yield


@contextmanager
def refusing(times=1_000):
    """Tables that refuse, without being asked what: so many writes of a commit."""
    left = times

    def refuse(point):
        nonlocal left

        if point == "filesystem.before_table" and left:
            left -= 1

            raise DestinationRejected("for a reason")

    with installed(refuse):
        yield


async def files_of(owner, folder):
    async with owner.destination.connect(owner.target) as session:
        return await session._run(lambda: sorted(session._dataset.store.names(folder)))


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_the_owner_is_told_and_everybody_else_goes_on(owner, other, others, destination):
    await owner.run({"one": ONE, "two": ONE}, tables=[definition("one"), definition("two")])
    package = await owner.make({"one": TWO, "two": TWO}, state="s")

    with altered_after_the_marker(destination, "one"), pytest.raises(TableBlocked) as raised:
        await owner.commit(package)

    for part in (package.load_id, "Table one: ", "Mend the table", "fail_pending_job()"):
        assert part in str(raised.value)

    assert (raised.value.load_id, raised.value.table) == (package.load_id, "one")
    assert len(await owner.rows("two")) == 3
    assert await owner.committed(package.load_id) == {package.load_id}
    assert (await owner.restore()).state == "s"

    with pytest.raises(TableBlocked, match="Table one"):
        await owner.rows("one")

    # Another pipeline goes on, but for rows that would pass those which came before them.
    await others({"two": ONE, "plain": ONE})
    assert len(await other.rows("two")) == 5
    passing = await other.make({"one": TWO})

    with pytest.raises(TableBlocked, match=r"table one: nothing was committed.*'conformance'"):
        await other.commit(passing)

    assert await other.committed(passing.load_id) == frozenset()


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_each_try_of_the_owner_tries_it_again_until_the_table_is_mended(owner, destination):
    await owner.run({"one": ONE}, tables=[definition("one")])
    package = await owner.make({"one": TWO})

    with altered_after_the_marker(destination, "one"), pytest.raises(TableBlocked):
        await owner.commit(package)

    for _ in range(2):
        with pytest.raises(TableBlocked, match=package.load_id):
            await owner.commit(package)

    assert package.load_id not in {row["load_id"] for row in await owner.rows("_dlt_loads")}
    await put_in_place(owner, "one", ONE)
    assert (await owner.commit(package)).already_committed
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 3]
    assert package.load_id in {row["load_id"] for row in await owner.rows("_dlt_loads")}
    assert await files_of(owner, "_asyncelt_staged") == []
    assert await files_of(owner, "_asyncelt_blocked") == []


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
async def test_it_is_written_down_in_every_place_and_format(owner, kind, monkeypatch):
    monkeypatch.setattr("asyncelt.destinations.filesystem_impl.pieces.FOLDED", 2)
    await owner.run({"one": ONE}, tables=[definition("one", kind)])
    package = await owner.make({"one": TWO})

    with refusing(), pytest.raises(TableBlocked, match="for a reason"):
        await owner.commit(package)

    # Other commits, over which the journal is folded, and a new owner.
    owner.lease = None
    later = None

    for at in range(4):
        later = await owner.make({"plain": pa.table({"id": [at]})}, after=later or package)
        await owner.commit(later)

        if at == 0:
            assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 3]

    assert len(await owner.rows("_dlt_loads")) == 6


async def test_a_block_outlives_folded_journals(owner, other, others, monkeypatch):
    monkeypatch.setattr("asyncelt.destinations.filesystem_impl.pieces.FOLDED", 2)
    await owner.run({"one": ONE}, tables=[definition("one")])
    package = await owner.make({"one": TWO})

    with refusing(), pytest.raises(TableBlocked):
        await owner.commit(package)

    for at in range(4):
        await others({"plain": pa.table({"id": [at]})})

    with pytest.raises(TableBlocked, match="for a reason"):
        await other.rows("one")

    assert (await owner.commit(package)).already_committed
    assert sorted(row["id"] for row in await other.rows("one")) == [1, 2, 3]


def other_type(found):
    with found.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("id")

    with found.update_schema(allow_incompatible_changes=True) as update:
        update.add_column("id", StructType(NestedField(9, "of", StringType(), required=False)))


def damaged(found):
    Path(found.metadata_location).write_text("{")


def gone(found):
    Path(found.metadata_location).unlink()


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("alter", [other_type, damaged, gone])
async def test_whatever_is_wrong_with_an_iceberg_table_holds_up_that_table_only(owner, alter):
    await owner.run({"one": ONE, "two": ONE}, tables=[definition("one", "iceberg"), definition("two", "iceberg")])
    package = await owner.make({"one": TWO, "two": TWO})

    async with owner.destination.connect(owner.target) as session:
        dataset = session._dataset

        def after_the_marker(point):
            if point == "filesystem.after_marker":
                with opened(Tables(dataset.catalog, dataset.namespace), dataset.store) as source:
                    alter(source.find("one"))

        with installed(after_the_marker), pytest.raises(TableBlocked, match="Table one: Iceberg table one, load"):
            await owner.commit(package)

    assert len(await owner.rows("two")) == 3

    with pytest.raises(TableBlocked, match="Table one"):
        await owner.rows("one")


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("point", ["filesystem.before_block", "filesystem.before_load_row"])
async def test_an_owner_that_dies_on_the_way_leaves_nothing_undone(owner, others, point):
    await owner.run({"one": ONE}, tables=[definition("one")])
    package = await owner.make({"one": TWO})

    class Died(Exception):
        pass

    def refuse_and_die(passed):
        if passed == point:
            raise Died

        if passed == "filesystem.before_table" and point == "filesystem.before_block":
            raise DestinationRejected("for a reason")

    with installed(refuse_and_die), pytest.raises(Died):
        await owner.commit(package)

    with refusing():
        await others({"plain": ONE})

    assert await owner.committed(package.load_id) == {package.load_id}
    assert (await owner.commit(package)).already_committed
    assert sorted(row["id"] for row in await owner.rows("one")) == [1, 2, 3]


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_nested_rows_wait_with_their_root_table(owner):
    nested = replace(
        definition("one__v", disposition="merge"),
        parent=TableName("one"),
        columns={
            ColumnName(name): Column(name=ColumnName(name), data_type="text", **hint)
            for name, hint in {
                "_dlt_id": {"unique": True, "row_key": True},
                "_dlt_parent_id": {"parent_key": True},
                "_dlt_root_id": {"root_key": True},
            }.items()
        },
    )
    row_id = Column(name=ColumnName("_dlt_id"), data_type="text", unique=True, row_key=True)
    root = merged("one")
    root = replace(root, columns={**root.columns, row_id.name: row_id})

    def rows(tag, ids):
        return {
            "one": pa.table({"id": ids, "_dlt_id": [f"{tag}{one}" for one in ids]}),
            "one__v": pa.table(
                {
                    "value": [tag for _ in ids],
                    "_dlt_id": [f"{tag}{one}v" for one in ids],
                    "_dlt_parent_id": [f"{tag}{one}" for one in ids],
                    "_dlt_root_id": [f"{tag}{one}" for one in ids],
                }
            ),
        }

    await owner.run(rows("a", [1, 2]), tables=[root, nested])
    package = await owner.make(rows("b", [2, 3]))

    # The nested table comes first; its old rows are found by the root table as it was.
    with refusing(1), pytest.raises(TableBlocked, match=r"Table one__v: for a reason.*Table one: It waits"):
        await owner.commit(package)

    await owner.commit(package)
    assert sorted(row["_dlt_id"] for row in await owner.rows("one")) == ["a1", "b2", "b3"]
    assert sorted(row["_dlt_id"] for row in await owner.rows("one__v")) == ["a1v", "b2v", "b3v"]


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_load_that_replaces_all_rows_ends_it(owner, destination):
    await owner.run({"one": ONE}, tables=[definition("one")])
    package = await owner.make({"one": TWO})

    with altered_after_the_marker(destination, "one"), pytest.raises(TableBlocked):
        await owner.commit(package)

    await put_in_place(owner, "one", ONE)
    new = await owner.make({"one": pa.table({"id": [9]})}, replaced=["one"], after=package)

    # It is tried first, and refused once more.
    with refusing(1):
        await owner.commit(new)

    assert [row["id"] for row in await owner.rows("one")] == [9]
    assert {row["load_id"] for row in await owner.rows("_dlt_loads")} >= {package.load_id, new.load_id}
    assert await files_of(owner, "_asyncelt_staged") == []


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_run_is_told_what_to_do_and_may_give_the_rows_up(destination, tmp_path):
    settings = Settings(retry=Retry(attempts=1), auto_abort_on_terminal_error=True)
    pipeline = asyncelt.pipeline(
        "lake", destination=destination, dataset_name="data", pipelines_dir=str(tmp_path), settings=settings
    )

    @asyncelt.source(name="shop")
    def shop():
        return (
            asyncelt.resource([{"id": 1}], name="bad", table_format="delta"),
            asyncelt.resource([{"id": 1}], name="good", table_format="delta"),
        )

    await pipeline.run(shop())

    with altered_after_the_marker(destination, "bad"), pytest.raises(PipelineStepFailed) as raised:
        await pipeline.run(shop())

    for part in ("Table bad: ", "Mend the table", "fail_pending_job('"):
        assert part in str(raised.value)

    assert "abort_packages" not in str(raised.value)

    with pytest.raises(UsageError, match="is committed at the destination"):
        await pipeline.abort_packages()

    with pytest.raises(PipelineStepFailed, match="Table bad: "):
        await pipeline.run()

    [load_id] = await pipeline.list_normalized_load_packages()
    [(file, _)] = await pipeline.list_pending_retry_jobs_in_package(load_id)
    assert file.startswith("bad.")
    await pipeline.fail_pending_job(load_id, file)
    await pipeline.run()
    assert not pipeline.has_pending_data
    await pipeline.run([{"id": 2}], table_name="good", table_format="delta")

    async with pipeline.sql_client() as sql:
        assert (await sql.query("SELECT count(*) AS n FROM good")).to_pylist() == [{"n": 3}]
        assert (await sql.query("SELECT count(*) AS n FROM bad")).to_pylist() == [{"n": 1}]
