"""What changes in a dataset between two runs is noticed, although a run that knows the dataset reads little of it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import duckdb
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning
from asyncelt.storage.state import decode_state, encode_state

Change = Callable[[duckdb.DuckDBPyConnection], object]


@asyncelt.resource
async def counter() -> AsyncIterator[dict[str, object]]:
    """Counts its runs in its state."""
    state = asyncelt.current.resource_state()
    state["n"] = int(str(state.get("n", 0))) + 1
    yield {"n": state["n"]}


class Bench:
    """A pipeline into a DuckDB file, that others may change.

    Args:
        folder: For all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "bench.duckdb"

    def pipeline(self, work: str = "work", **options: object) -> asyncelt.Pipeline:
        """A new object each time, as of another process."""
        return asyncelt.pipeline(
            "p",
            destination=asyncelt.destinations.duckdb(str(self.path)),
            dataset_name="data",
            pipelines_dir=self.folder / work,
            **options,  # type: ignore[arg-type]
        )

    def change(self, change: Change) -> None:
        """Do something to the file."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("USE data")
            change(connection)

    def values(self) -> list[object]:
        """What the table holds."""
        with duckdb.connect(str(self.path)) as connection:
            return [row[0] for row in connection.execute("SELECT n FROM data.counter ORDER BY n").fetchall()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """In a folder of its own."""
    return Bench(tmp_path)


def _count_on(connection: duckdb.DuckDBPyConnection) -> None:
    """Write a newer state by hand, of the same load."""
    [(text,)] = connection.execute("SELECT state FROM _dlt_pipeline_state").fetchall()
    state = decode_state(text)
    state["sources"]["p"]["resources"]["counter"]["n"] = 7  # type: ignore[index, call-overload]
    newer = {**state, "_state_version": 9, "_version_hash": "another"}
    connection.execute("UPDATE _dlt_pipeline_state SET state = $1", [encode_state(newer)])


async def test_a_newer_state_of_the_same_load_is_taken(bench: Bench) -> None:
    await bench.pipeline().run(counter())
    bench.change(_count_on)
    await bench.pipeline().run(counter())
    assert bench.values() == [1, 8]


async def test_a_state_that_somebody_deletes_is_still_the_folders(bench: Bench) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    bench.change(lambda connection: connection.execute("DELETE FROM _dlt_pipeline_state"))
    await pipeline.run(counter())
    assert bench.values() == [1, 2]


async def test_a_dropped_table_is_made_again(bench: Bench) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    bench.change(lambda connection: connection.execute("DROP TABLE counter"))
    await pipeline.run(counter())
    assert bench.values() == [2]


@pytest.mark.parametrize("table", ["_dlt_pipeline_state", "_dlt_version"])
async def test_a_dropped_system_table_is_made_again(bench: Bench, table: str) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    bench.change(lambda connection: connection.execute(f"DROP TABLE {table}"))
    await pipeline.run(counter())
    assert bench.values() == [1, 2]
    bench.change(lambda connection: connection.execute(f"SELECT 1 FROM {table}"))


async def test_a_dataset_that_is_dropped_is_loaded_anew(bench: Bench) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    bench.change(lambda connection: connection.execute("USE main; DROP SCHEMA data CASCADE"))

    with pytest.warns(AsynceltWarning, match="does not exist"):
        await pipeline.run(counter())

    assert bench.values() == [1]


async def test_an_older_file_that_is_put_back_counts_from_where_it_was(bench: Bench, tmp_path: Path) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    shutil.copy(bench.path, tmp_path / "backup")
    await pipeline.run(counter())
    shutil.copy(tmp_path / "backup", bench.path)
    await pipeline.run(counter())
    assert bench.values() == [1, 2]


async def test_a_commit_of_another_machine_is_gone_on_from(bench: Bench) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    await bench.pipeline("elsewhere").run(counter())
    await pipeline.run(counter())
    assert bench.values() == [1, 2, 3]


async def test_a_commit_of_another_member_is_gone_on_from(bench: Bench) -> None:
    first, second = bench.pipeline(member="a"), bench.pipeline(member="b")
    await first.run(counter())
    await second.run(counter())
    await first.run(counter())
    await second.run(counter())
    assert bench.values() == [1, 2, 3, 4]


async def test_load_ids_stay_behind_those_of_others(bench: Bench) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    later = "9999999999.5"
    bench.change(
        lambda connection: connection.execute(
            "INSERT INTO _dlt_loads SELECT * REPLACE ($1 AS load_id) FROM _dlt_loads", [later]
        )
    )
    info = await pipeline.run(counter())
    assert float(info.loads_ids[0]) > float(later)


async def test_a_schema_is_compared_with_the_stored_one_when_it_is_synced(bench: Bench) -> None:
    pipeline = bench.pipeline()
    await pipeline.run(counter())
    await pipeline.run(counter())
    assert await pipeline.sync_schema() == {}
    bench.change(lambda connection: connection.execute("DROP TABLE _dlt_version"))
    await pipeline.sync_schema()
    bench.change(lambda connection: connection.execute("SELECT 1 FROM _dlt_version"))
