"""Old commits are folded, so that a late commit costs what an early one did. Whatever happens meanwhile changes nothing."""

from __future__ import annotations

import json
from decimal import Decimal

import pyarrow as pa
import pytest

from asyncelt import destinations
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit

pytestmark = pytest.mark.slow

DISCARDED = 6
"""Loads before this one are replaced."""
COMMITS = 9


class Died(Exception):
    pass


@pytest.fixture(params=["local", "s3"])
def destination(request, tmp_path, monkeypatch):
    monkeypatch.setattr("asyncelt.destinations.filesystem_impl.pieces.FOLDED", 2)
    monkeypatch.setattr("asyncelt.destinations.filesystem_impl.pieces.LARGE", 8)
    monkeypatch.setattr("asyncelt.destinations.filesystem_impl.load_rows._MANY", 3)

    return destinations.filesystem(tmp_path / "files") if request.param == "local" else request.getfixturevalue("s3")


@pytest.fixture
def owner(destination, tmp_path):
    return Owner(destination, tmp_path / "packages", "parquet")


async def fill(owner, commits=range(COMMITS)):
    for at in commits:
        rows = pa.table({"id": [at]})
        replaced = ["one"] if at in {3, DISCARDED} else []
        await owner.run({"one": rows, "two": rows}, replaced=replaced, state="s" if at == 1 else None)


async def names_of(owner, folder):
    async with owner.destination.connect(owner.target) as session:
        return await session._run(lambda: sorted(session._dataset.store.names(folder)))


async def check(owner, commits=COMMITS):
    assert sorted(row["id"] for row in await owner.rows("one")) == list(range(DISCARDED, commits))
    assert sorted(row["id"] for row in await owner.rows("two")) == list(range(commits))
    loads = [row["load_id"] for row in await owner.rows("_dlt_loads")]
    assert len(loads) == len(set(loads)) == commits
    restored = await owner.restore()
    assert (restored.state, restored.head_load_id, restored.last_load_id) == ("s", max(loads), max(loads))
    assert await owner.committed(*loads) == set(loads)


async def test_what_was_folded_is_read_as_before(owner):
    await fill(owner)
    await check(owner)
    rows = await names_of(owner, "_dlt_loads")
    assert len(rows) < COMMITS
    # The reference looks for the load of a state by its name.
    assert [name for name in rows if name.startswith("conformance__1700000002.25.j")]
    pieces = [name for name in await names_of(owner, "_asyncelt_checkpoints") if name[0].isdigit()]
    assert 1 < len(pieces) < COMMITS / 2
    missing = str(Decimal(owner.last.load_id) - Decimal("0.1"))
    assert await owner.committed(missing) == frozenset()


@pytest.mark.parametrize(
    "point", ["filesystem.before_checkpoint", "filesystem.after_checkpoint", "filesystem.before_rows_removed"]
)
@pytest.mark.parametrize("time", [0, 2])
async def test_a_fold_may_die_anywhere(owner, point, time):
    left = time

    def die(passed):
        nonlocal left

        if passed == point:
            left -= 1

            if left == -1:
                raise Died

    with installed(die):
        for at in range(COMMITS):
            try:
                await fill(owner, [at])
            except Died:
                await fill(owner, [at])

    assert left < 0
    await check(owner)


async def test_who_reads_while_it_is_folded_sees_everything(owner):
    """At each step of it another session looks."""
    seen = []

    async with owner.destination.connect(owner.target) as other:

        def look(point):
            if point in {
                "filesystem.before_checkpoint",
                "filesystem.after_checkpoint",
                "filesystem.before_rows_removed",
            }:
                dataset = other._dataset
                unsettled = dataset.unsettled()
                seen.append((point, len(dataset.table_files()["two"]), len(unsettled)))

        with installed(look):
            for at in range(COMMITS):
                seen.clear()
                await fill(owner, [at])
                assert all(found[1:] == (at, 0) for found in seen), seen


async def test_two_pipelines_that_stay_fold_in_turns(owner, destination, tmp_path):
    other = Owner(destination, tmp_path / "others", "parquet", Target(pipeline_name="other", dataset_name="data"))
    other.clock += 50
    owners = (owner, other)

    async with destination.connect(owner.target) as first, destination.connect(other.target) as second:
        for at in range(2 * COMMITS):
            one, session = owners[at % 2], (first, second)[at % 2]
            package = await one.make({"two": pa.table({"id": [at]})})
            await one.commit_in(session, make_commit(one.target, await one.acquire(session), package))
            one.last = package

    assert sorted(row["id"] for row in await owner.rows("two")) == list(range(2 * COMMITS))
    assert len(await owner.rows("_dlt_loads")) == 2 * COMMITS
    latest = [name for name in await names_of(owner, "_asyncelt_checkpoints") if name == "latest.json"]
    assert latest

    async with destination.connect(owner.target) as session:
        content = await session._run(lambda: session._dataset.store.read("_asyncelt_checkpoints/latest.json"))

    assert json.loads(content)["number"] > COMMITS
