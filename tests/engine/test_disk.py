"""``max_disk``: how much may lie in the working folder, and what a call leaves that comes to more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, DestinationUnavailable, DiskLimitReached, PipelineStepFailed
from asyncelt.failpoints import installed
from asyncelt.storage.disk import DiskMeter

pytestmark = pytest.mark.slow
KIB = 1024
Make = Callable[..., asyncelt.Pipeline]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes pipelines that share a working folder and a destination."""
    memory = asyncelt.destinations.memory()

    def make(max_disk: int | None, **options: object) -> asyncelt.Pipeline:
        limits = asyncelt.Limits(max_disk=max_disk, buffer_max_items=10)

        return asyncelt.pipeline(
            "disk",
            dataset_name="data",
            pipelines_dir=tmp_path / "work",
            settings=asyncelt.Settings(limits=limits, retry=asyncelt.Retry(attempts=9, first_s=0.0)),
            **{"destination": memory, **options},  # type: ignore[arg-type]
        )

    return make


@asyncelt.resource
async def noise(pages: int) -> AsyncIterator[object]:
    """Rows of about a KiB that compression makes half as large at most."""
    for page in range(pages):
        yield [{"id": page * 10 + n, "noise": os.urandom(512).hex()} for n in range(10)]


async def on_disk(pipeline: asyncelt.Pipeline) -> int:
    return await anyio.to_thread.run_sync(DiskMeter(Path(pipeline.working_dir), None).measure)


async def count(pipeline: asyncelt.Pipeline) -> int:
    return len(await pipeline.dataset()["noise"].select("id").fetchall())


async def test_a_run_that_comes_to_more_leaves_nothing_and_says_which_setting(make: Make) -> None:
    with pytest.raises(PipelineStepFailed, match=r"Limits\.max_disk, asyncelt\.limits\.max_disk") as caught:
        await make(64 * KIB).run(noise(20))

    assert isinstance(caught.value.__cause__, DiskLimitReached)
    assert (caught.value.step, caught.value.has_pending_data) == ("normalize", False)
    pipeline = make(1024 * KIB)
    assert not pipeline.has_pending_data
    assert await on_disk(pipeline) == 0

    # What was loaded does not count, only what waits.
    for _ in range(3):
        await pipeline.run(noise(30))

    assert await count(pipeline) == 900


async def test_packages_that_wait_count_until_they_are_loaded(make: Make) -> None:
    pipeline = make(110 * KIB)
    await pipeline.extract(noise(8))
    kept = await on_disk(pipeline)
    assert 70 * KIB < kept < 110 * KIB

    with pytest.raises(PipelineStepFailed, match="rows of table 'noise'") as caught:
        await pipeline.extract(noise(10))

    assert (caught.value.step, len(await pipeline.list_extracted_load_packages())) == ("extract", 1)
    assert await on_disk(pipeline) == kept

    # Pages and job files lie side by side until the pages are sealed as job files.
    with pytest.raises(PipelineStepFailed, match="max_disk allows 112640") as caught:
        await pipeline.normalize()

    assert caught.value.step == "normalize"
    assert await on_disk(pipeline) == kept

    pipeline = make(400 * KIB)
    await pipeline.normalize()
    await pipeline.load()
    assert await on_disk(pipeline) == 0
    await pipeline.extract(noise(20))
    assert await count(pipeline) == 80


async def test_a_stream_waits_for_commits_before_it_writes_more(make: Make) -> None:
    """Short rows, whose ids take more room than they: two packages do not go into the folder side by side."""
    gone, most = 3, 0

    def look(point: str) -> None:
        nonlocal most

        if point == "storage.job_written":
            most = max(most, meter.measure())

    def fault(step: str) -> None:
        nonlocal gone

        if step == "commit" and gone:
            gone -= 1
            raise DestinationUnavailable("It is away.")

    @asyncelt.resource(name="noise")
    async def endless() -> AsyncIterator[object]:
        for page in range(120):
            yield b"\n".join(b'{"id":%d}' % (page * 100 + n) for n in range(100))
            yield asyncelt.checkpoint()

    pipeline = make(48 * KIB, destination=asyncelt.destinations.memory(fault=fault))
    meter = DiskMeter(Path(pipeline.working_dir), None)

    with installed(look), pytest.warns(AsynceltWarning, match="It is away"):
        stats = await pipeline.stream(endless(), roll=asyncelt.Roll(seconds=3600))

    assert (stats.rows, await count(pipeline)) == (12000, 12000)
    assert stats.packages > 5
    assert 24 * KIB < most <= 48 * KIB


def test_what_others_remove_is_noticed_and_nothing_is_counted_without_a_limit(tmp_path: Path) -> None:
    folder = tmp_path / "packages" / "sealed" / "1.0" / "jobs"
    folder.mkdir(parents=True)
    meter = DiskMeter(tmp_path, 100)

    for number in range(5):
        (folder / str(number)).write_bytes(b"x" * 40)
        meter.wrote(40, "t")
        (folder / str(number)).unlink()

    (folder / "large").write_bytes(b"x" * 101)

    with pytest.raises(DiskLimitReached, match="take 101 bytes"):
        meter.wrote(101, "t")

    DiskMeter(tmp_path, None).wrote(10**12, "t")
