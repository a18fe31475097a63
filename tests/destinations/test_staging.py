"""``staging="filesystem"``: job files go there first, and DuckDB loads them from there. On folders and a real S3 server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

import asyncelt
from asyncelt.config import Retry, Settings
from asyncelt.errors import AsynceltWarning, ConfigError, PipelineStepFailed
from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target
from tests.destinations import staged_worker
from tests.support.killing import KILLED
from tests.support.seaweed import KEY, SECRET

IMPATIENT = Settings(retry=Retry(attempts=1))
TABLES = ("_dlt_pipeline_state", "rows", "rows__tags")
KINDS = ["folder", pytest.param("bucket", marks=pytest.mark.slow)]


@dataclass
class Place:
    """A staging destination, and what lies there."""

    destination: Any
    reader: str
    """Location of the destination that loads."""

    async def paths(self) -> list[str]:
        """All files of tables, relative to the dataset."""

        def look(store: Any) -> list[str]:
            return sorted(f"{table}/{name}" for table in TABLES for name in store.names(table))

        found: list[str] = await self._with_store(look)

        return found

    async def lists(self) -> list[str]:
        """Packages that somebody is staging."""
        staging = self.destination.staging(Target(pipeline_name="p", dataset_name="data"), self.reader)

        async with staging as files:
            return sorted(await asyncio.to_thread(files._place.store.names, files._folder))

    async def write(self, path: str, content: bytes) -> None:
        await self._with_store(lambda store: store.write_all({path: content}))

    async def remove(self, path: str) -> None:
        await self._with_store(lambda store: store.remove([path]))

    async def _with_store(self, work: Callable[[Any], Any]) -> Any:
        async with self.destination.site.opened("data", Target(pipeline_name="p", dataset_name="data")) as place:
            return await asyncio.to_thread(work, place.store)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    if kind == "folder":
        made = asyncelt.destinations.filesystem(tmp_path / "stage")
        (tmp_path / "stage.txt").write_text(f"{tmp_path / 'stage'}")
    else:
        made = request.getfixturevalue("s3")
        server = request.getfixturevalue("seaweed")
        (tmp_path / "stage.txt").write_text(f"{made.location} {server.url} {KEY} {SECRET}")

    return Place(made, reader=f"duckdb:///{tmp_path / 'd.duckdb'}")


@pytest.fixture
def make(place: Place, tmp_path: Path) -> Callable[..., asyncelt.Pipeline]:
    def build(*, settings: Settings = IMPATIENT, **options: Any) -> asyncelt.Pipeline:
        return asyncelt.pipeline(
            "p",
            destination=asyncelt.destinations.duckdb(tmp_path / "d.duckdb", **options),
            staging=place.destination,
            dataset_name="data",
            pipelines_dir=tmp_path / "work",
            settings=settings,
        )

    return build


def rows(first: int = 0) -> list[dict[str, Any]]:
    return [{"id": number, "tags": ["a", "b"]} for number in range(first, first + 3)]


def loaded(tmp_path: Path, table: str = "rows") -> int:
    with duckdb.connect(tmp_path / "d.duckdb", read_only=True) as connection:
        found = connection.execute(f"SELECT count(*) FROM data.{table}").fetchone()
        assert found is not None

        return int(found[0])


class Points:
    """Counts the failpoints that are passed, and does something at one of them, once."""

    def __init__(self, at: str = "", do: Callable[[], object] | None = None) -> None:
        self.passed: Counter[str] = Counter()
        self.at, self.do = at, do

    def __call__(self, name: str) -> None:
        self.passed[name] += 1

        if name == self.at and self.do is not None and self.passed[name] == 1:
            self.do()


def fail() -> None:
    raise OSError("the disk has gone away")


@pytest.mark.covers("pipeline.staging", "Pipeline.staging", "Pipeline.run.staging", "run.staging")
@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
async def test_the_destination_loads_from_staging(
    make: Any, place: Place, tmp_path: Path, file_format: Any, kind: str
) -> None:
    """Not from the package, whose files are damaged once they have been staged."""
    staged: list[str] = []
    loop = asyncio.get_running_loop()

    def damage() -> None:
        staged.extend(asyncio.run_coroutine_threadsafe(place.paths(), loop).result())

        for path in (tmp_path / "work" / "p").rglob(f"jobs/*.{file_format}"):
            path.unlink()

    with installed(Points("duckdb.before_begin", damage)):
        info = await make().run(rows(), table_name="rows", loader_file_format=file_format)

    load_id = info.loads_ids[0]
    assert [path.partition(".")[0] for path in staged] == [f"{table}/{load_id.partition('.')[0]}" for table in TABLES]
    assert all(load_id in path and path.endswith(file_format) for path in staged)
    assert (loaded(tmp_path), loaded(tmp_path, "rows__tags")) == (3, 6)
    assert await place.paths() == await place.lists() == []
    assert f"The filesystem staging destination used {place.destination.location} location" in str(info)


async def test_staged_files_stay_where_that_is_set(make: Any, place: Place, tmp_path: Path) -> None:
    pipeline = make(truncate_tables_on_staging_destination_before_load=False)
    first = await pipeline.run(rows(), table_name="rows")
    second = await pipeline.run(rows(3), table_name="rows")
    kept = [path for path in await place.paths() if path.startswith("rows/")]

    assert [path.rsplit(".", 2)[0] for path in kept] == [f"rows/{one.loads_ids[0]}" for one in (first, second)]
    assert await place.lists() == []
    assert loaded(tmp_path) == 6


@pytest.mark.parametrize("damaged", [None, "gone", "half"])
async def test_a_package_that_is_tried_again_brings_only_what_is_missing(
    make: Any, place: Place, tmp_path: Path, damaged: str | None
) -> None:
    first, again = Points("duckdb.before_commit", fail), Points()

    with installed(first), pytest.raises(PipelineStepFailed, match="gone away"):
        await make().run(rows(), table_name="rows")

    [path] = [path for path in await place.paths() if path.startswith("rows/")]
    assert len(await place.lists()) == 1

    if damaged == "gone":
        await place.remove(path)
    elif damaged == "half":
        await place.write(path, b"PAR1")

    with installed(again):
        await make().run()

    assert (first.passed["staging.put"], again.passed["staging.put"]) == (3, 0 if damaged is None else 1)
    assert loaded(tmp_path) == 3
    assert await place.paths() == await place.lists() == []


async def test_a_file_that_somebody_removes_is_brought_again(make: Any, place: Place, tmp_path: Path) -> None:
    """Between staging and commit, within one call."""
    loop = asyncio.get_running_loop()

    def remove() -> None:
        [path] = [one for one in asyncio.run_coroutine_threadsafe(place.paths(), loop).result() if "rows/" in one]
        asyncio.run_coroutine_threadsafe(place.remove(path), loop).result()

    points = Points("duckdb.before_begin", remove)

    with installed(points), pytest.warns(AsynceltWarning, match="Trying again"):
        await make(settings=Settings(retry=Retry(attempts=2, first_s=0.001))).run(rows(), table_name="rows")

    assert points.passed["staging.put"] == 4
    assert loaded(tmp_path) == 3


async def test_what_was_staged_for_a_package_that_is_given_up_goes_with_the_next(
    make: Any, place: Place, tmp_path: Path
) -> None:
    pipeline = make()

    with installed(Points("duckdb.before_commit", fail)), pytest.raises(PipelineStepFailed):
        await pipeline.run(rows(), table_name="rows")

    await pipeline.abort_packages()
    assert len(await place.paths()) == 3
    await pipeline.run(rows(10), table_name="rows")
    assert await place.paths() == await place.lists() == []
    assert loaded(tmp_path) == 3


@pytest.mark.slow
@pytest.mark.parametrize("point", ["staging.put", "duckdb.before_commit", "duckdb.after_commit"])
async def test_nothing_is_lost_or_doubled_or_left_after_kill_9(
    nursery: Any, place: Place, tmp_path: Path, point: str
) -> None:
    doomed = nursery.start(staged_worker.run_once, tmp_path, 1, environment={"ASYNCELT_FAILPOINT": f"{point}:1"})
    assert await asyncio.to_thread(doomed.wait) == KILLED
    await staged_worker.run(tmp_path, 1)
    assert loaded(tmp_path) == 3

    await staged_worker.run(tmp_path, 2)
    assert loaded(tmp_path) == 6
    assert await place.paths() == await place.lists() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"destination": "postgres", "staging": "filesystem"},
            "'postgres' takes no staging destination, so 'filesystem'",
        ),
        ({"destination": "memory", "staging": "filesystem"}, "'memory' takes no staging destination, so 'filesystem'"),
        ({"destination": "duckdb", "staging": "memory"}, "'memory' cannot keep files for 'duckdb'"),
        ({"destination": "duckdb", "staging": "layout"}, "'filesystem' cannot be used for staging: its layout"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, options: dict[str, str], says: str) -> None:
    made: dict[str, Callable[[], Any]] = {
        "filesystem": lambda: asyncelt.destinations.filesystem(tmp_path / "stage"),
        "layout": lambda: asyncelt.destinations.filesystem(tmp_path / "stage", layout="{table_name}/{file_id}.{ext}"),
        "memory": asyncelt.destinations.memory,
        "postgres": lambda: asyncelt.destinations.postgres("postgresql://nobody@127.0.0.1:9/none"),
        "duckdb": lambda: asyncelt.destinations.duckdb(tmp_path / "d.duckdb"),
    }

    with pytest.raises(ConfigError, match=says):
        asyncelt.pipeline(
            "p", pipelines_dir=tmp_path / "work", **{name: made[value]() for name, value in options.items()}
        )

    assert list(tmp_path.iterdir()) == []


async def test_a_destination_that_does_not_fit_is_refused_later_too(make: Any, tmp_path: Path) -> None:
    pipeline = make()

    with pytest.raises(ConfigError, match="takes no staging destination"):
        await pipeline.run(rows(), table_name="rows", destination=asyncelt.destinations.memory())

    with pytest.raises(ConfigError, match="takes no staging destination"):
        pipeline.destination = asyncelt.destinations.memory()

    assert pipeline.destination.destination_name == "duckdb"


async def test_the_place_may_be_named_and_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", str(tmp_path / "stage"))
    monkeypatch.setenv("DESTINATION__DUCKDB__TRUNCATE_TABLES_ON_STAGING_DESTINATION_BEFORE_LOAD", "false")
    monkeypatch.chdir(tmp_path)
    pipeline = asyncelt.pipeline(
        "p", destination="duckdb", staging="filesystem", dataset_name="data", pipelines_dir=tmp_path / "work"
    )
    await pipeline.run(rows(), table_name="rows")

    assert len(list((tmp_path / "stage" / "data" / "rows").iterdir())) == 1
    assert await pipeline.dataset().rows.select("id").order_by("id").fetchall() == [(0,), (1,), (2,)]
