"""A catalog that does not answer for a while after a commit's marker: its tables come later, and others go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.config import Retry, Settings
from asyncelt.errors import TablesBehind
from asyncelt.failpoints import installed
from asyncelt.load.committing import load_bundle
from asyncelt.observe import DestinationAway
from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import new_schema
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit, make_package
from asyncelt.types import ColumnName, TableName
from tests.destinations.meanwhile import other_owner

pytestmark = pytest.mark.slow

ONE = pa.table({"id": [1, 2]})
TWO = pa.table({"id": [3]})


def definition(name, kind="iceberg"):
    return Table(name=TableName(name), resource=name, write_disposition="append", hints={"table_format": kind})


@pytest.fixture
def destination(tmp_path):
    # The driver gives up at once.
    return destinations.filesystem(tmp_path / "lake", iceberg_catalog=f"sqlite:///{tmp_path}/catalog.db?timeout=0")


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


@pytest.fixture
def other(destination, tmp_path):
    return other_owner(destination, tmp_path / "others")


@pytest.fixture
def others(other, destination):
    """Makes packages of another pipeline, with a schema of its own."""

    async def make(rows):
        other.clock += 1
        tables = [definition("one"), definition("two", "delta")]
        column = Column(name=ColumnName("id"), data_type="bigint")
        return make_package(
            other.folder,
            f"{other.clock}.25",
            rows,
            target=other.target,
            tables=[replace(one, columns={column.name: column}) for one in tables],
            schema=new_schema("other") if other.last is None else other.last.schema,
            capabilities=destination.capabilities,
            file_format="parquet",
            parent_load_id=None if other.last is None else other.last.load_id,
        )

    return make


@pytest.fixture
def catalog(tmp_path):
    """Somebody who can keep everybody else out of the catalog's database."""
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None, check_same_thread=False)) as connection:
        yield connection


@contextmanager
def locked(catalog, moment):
    """From this failpoint on nobody else gets at the catalog's database."""

    def lock(point):
        if point == moment:
            catalog.execute("BEGIN EXCLUSIVE")

    with installed(lock):
        yield


async def test_the_tables_are_tried_again_until_the_catalog_answers(owner, catalog):
    await owner.run({"one": ONE}, tables=[definition("one")])
    package = await owner.make({"one": TWO})
    failures = []

    def failed(event):
        if isinstance(event, DestinationAway):
            failures.append(event)

            if len(failures) == 2:
                catalog.execute("ROLLBACK")

    async with owner.destination.connect(owner.target) as session:
        commit = make_commit(owner.target, await session.acquire(owner.target.pipeline_name, ""), package)
        retries = Retry(attempts=8, first_s=0.01, max_s=0.1)

        with locked(catalog, "filesystem.after_marker"):
            report = await load_bundle(session, commit, Settings(retry=retries), failed, max_parallel=None)

    assert report.retries >= 2
    assert len(await owner.rows("one")) == 3


async def test_what_needs_none_of_the_tables_goes_on_meanwhile(owner, other, others, catalog):
    await owner.run({"one": ONE, "two": ONE}, tables=[definition("one"), definition("two", "delta")])
    package = await owner.make({"one": TWO}, state="s")

    with locked(catalog, "filesystem.after_marker"), pytest.raises(TablesBehind):
        await owner.commit(package)

    await other.commit(await others({"two": TWO, "plain": ONE}))
    assert len(await other.rows("plain")) == 2
    assert len(await other.rows("two")) == 3
    passing = await others({"one": ONE})

    catalog.execute("ROLLBACK")

    # Its rows were looked at, and then the catalog does not answer again.
    with locked(catalog, "filesystem.before_commit"), pytest.raises(TablesBehind, match=package.load_id):
        await other.commit(passing)

    assert await other.committed(passing.load_id) == frozenset()
    catalog.execute("ROLLBACK")
    await other.commit(passing)
    assert [row["id"] for row in await other.rows("one")].count(3) == 1
    assert len(await other.rows("one")) == 5
    assert (await owner.restore()).state == "s"


async def test_no_version_of_the_schema_comes_before_its_tables(owner, other, catalog):
    """They are written as the newest stored version has them."""
    await owner.run({"one": ONE}, tables=[definition("one")])
    package = await owner.make({"one": TWO})

    with locked(catalog, "filesystem.after_marker"), pytest.raises(TablesBehind):
        await owner.commit(package)

    owner.last = package
    column = Column(name=ColumnName("id"), data_type="bigint")
    changing = await other.make({"plain": ONE}, tables=[replace(definition("one"), columns={column.name: column})])

    with pytest.raises(TablesBehind, match=package.load_id):
        await other.commit(changing)

    catalog.execute("ROLLBACK")
    await other.commit(changing)
    await owner.run({"one": ONE})
    assert len(await owner.rows("one")) == 5
