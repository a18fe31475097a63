"""Resources that fail while they are read: what each policy makes of them, and where the next run goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, PipelineStepFailed, ResourceExtractionError
from asyncelt.extract.resource import Resource
from asyncelt.types import OnError
from tests.support.bad_rows import DESTINATIONS, Row, make, rows_of


class Counter:
    """An incremental source that fails as often as it is told."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.seen: list[object] = []

    def resource(self, on_error: OnError, **hints: Any) -> Resource:
        """The resource; each row of it is committed at most once."""

        async def counted(
            n: Any = asyncelt.sources.incremental("n", initial_value=0),
        ) -> AsyncIterator[list[Row]]:
            start = n.last_value
            self.seen.append(start)
            yield [{"n": start + 1}, {"n": start + 2}]

            if self.failures:
                self.failures -= 1
                raise ConnectionError("gone")

            yield [{"n": start + 3}]

        return asyncelt.resource(counted, name="counted", on_error=on_error, **hints)()


def good() -> Resource:
    return asyncelt.resource([{"id": 1}], name="good")


@pytest.mark.parametrize("on_error", ["skip", "quarantine"])
@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_the_others_commit_and_the_next_run_reads_it_again(
    tmp_path: Path, destination: str, on_error: OnError
) -> None:
    pipeline, counter = make(tmp_path, destination), Counter(failures=1)

    with pytest.warns(AsynceltWarning, match=r"'counted' has failed.*gone"):
        info = await pipeline.run([good(), counter.resource(on_error)])

    assert [(one.resource, one.schema_name) for one in info.failed_resources] == [("counted", "p")]
    assert "gone" in info.failed_resources[0].message
    assert "resource 'counted' has failed and nothing of it was taken" in str(info)
    assert await rows_of(pipeline, "good", "id") == [(1,)]
    assert "counted" not in info.row_counts
    assert "counted" not in pipeline.state.get("sources", {}).get("p", {}).get("resources", {})  # type: ignore[attr-defined]

    info = await pipeline.run([good(), counter.resource(on_error)])

    assert counter.seen == [0, 0]
    assert info.failed_resources == ()
    assert await rows_of(pipeline, "counted", "n") == [(1,), (2,), (3,)]


async def test_state_of_earlier_runs_is_kept(tmp_path: Path) -> None:
    pipeline, counter = make(tmp_path, "memory"), Counter(failures=0)
    await pipeline.run(counter.resource("skip"))
    before = pipeline.state["sources"]
    counter.failures = 1

    with pytest.warns(AsynceltWarning, match="gone"):
        info = await pipeline.run(counter.resource("skip"))

    assert info.is_empty
    assert pipeline.state["sources"] == before

    await pipeline.run(counter.resource("skip"))
    assert counter.seen == [0, 3, 3]
    assert await rows_of(pipeline, "counted", "n") == [(n,) for n in range(1, 7)]


async def test_by_default_it_fails_the_run(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")

    with pytest.raises(PipelineStepFailed, match="gone") as caught:
        await pipeline.run([good(), Counter(failures=1).resource("fail")])

    assert isinstance(caught.value.__cause__, ResourceExtractionError)
    assert pipeline.schema_names == []


async def test_a_table_that_was_to_be_replaced_keeps_its_rows(tmp_path: Path) -> None:
    pipeline, counter = make(tmp_path, "memory"), Counter(failures=0)
    await pipeline.run(counter.resource("skip", write_disposition="replace"))
    counter.failures = 1

    with pytest.warns(AsynceltWarning, match="gone"):
        await pipeline.run([good(), counter.resource("skip", write_disposition="replace")])

    assert await rows_of(pipeline, "counted", "n") == [(1,), (2,), (3,)]


async def test_what_reads_from_a_failing_resource_goes_with_it(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")

    @asyncelt.resource(on_error="skip")
    async def users() -> AsyncIterator[list[Row]]:
        yield [{"id": n} for n in range(5)]
        raise ConnectionError("gone")

    @asyncelt.transformer(data_from=users)
    async def details(page: list[Row]) -> list[Row]:
        return [{"user": row["id"]} for row in page]

    with pytest.warns(AsynceltWarning, match="has failed"):
        info = await pipeline.run([users, details, good()])

    assert {one.resource for one in info.failed_resources} == {"users", "details"}
    assert "'users', which it reads from, failed" in info.failed_resources[1].message
    assert {name for name in info.row_counts if not name.startswith("_dlt")} == {"good"}


async def test_a_failing_transformer_leaves_what_it_reads_from(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")

    @asyncelt.resource
    async def users() -> AsyncIterator[list[Row]]:
        yield [{"id": n} for n in range(5)]

    @asyncelt.transformer(data_from=users, on_error="skip")
    async def details(page: list[Row]) -> list[Row]:
        raise ConnectionError("gone")

    with pytest.warns(AsynceltWarning, match="'details' has failed"):
        info = await pipeline.run([users, details])

    assert [one.resource for one in info.failed_resources] == ["details"]
    assert info.row_counts["users"] == 5
    assert "details" not in info.row_counts


async def test_state_that_resources_share_makes_a_failure_fail_the_run(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")

    @asyncelt.resource(on_error="skip")
    async def sharing() -> AsyncIterator[list[Row]]:
        asyncelt.current.source_state()["token"] = "new"
        yield [{"id": 1}]
        raise ConnectionError("gone")

    with pytest.raises(PipelineStepFailed, match="gone"):
        await pipeline.run([sharing, good()])


async def test_a_refresh_makes_a_failure_fail_the_run(tmp_path: Path) -> None:
    pipeline, counter = make(tmp_path, "memory"), Counter(failures=0)
    await pipeline.run(counter.resource("skip"))
    counter.failures = 1

    with pytest.raises(PipelineStepFailed, match="gone"):
        await pipeline.run(counter.resource("skip"), refresh="drop_data")

    assert await rows_of(pipeline, "counted", "n") == [(1,), (2,), (3,)]


async def test_step_by_step_it_is_left_out_of_the_package(tmp_path: Path) -> None:
    pipeline, counter = make(tmp_path, "memory"), Counter(failures=1)

    with pytest.warns(AsynceltWarning, match="'counted' has failed"):
        extracted = await pipeline.extract([good(), counter.resource("skip", write_disposition="replace")])

    assert [one.resource for one in extracted.failed_resources] == ["counted"]
    assert "nothing of it was taken" in str(extracted)
    await pipeline.normalize()
    info = await pipeline.load()
    assert {name for name in info.row_counts if not name.startswith("_dlt")} == {"good"}


async def test_pages_in_waiting_leave_nothing_behind_when_a_run_is_cancelled(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    waiting = anyio.Event()

    @asyncelt.resource(on_error="skip")
    async def endless() -> AsyncIterator[list[Row]]:
        yield [{"id": n} for n in range(5)]
        waiting.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipeline.run, endless)
        await waiting.wait()
        tasks.cancel_scope.cancel()

    building = Path(pipeline.working_dir) / "packages" / "building"
    assert list(building.iterdir()) == []
    assert (await pipeline.run(good())).row_counts["good"] == 1


async def test_pages_in_waiting_of_a_dead_process_are_removed(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    await pipeline.run(good())
    building = Path(pipeline.working_dir) / "packages" / "building"
    (building / "1700000000.5.held1" / "pages").mkdir(parents=True)
    (building / "1700000000.5.held1" / "pages" / "t.00000001.0.json").write_bytes(b"[1]")
    await pipeline.run(Counter(failures=0).resource("skip"))

    assert list(building.iterdir()) == []


async def test_state_of_a_feeding_resource_that_fails_is_kept_too(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    fails = [False, True]

    @asyncelt.resource(on_error="skip", selected=False)
    async def users() -> AsyncIterator[list[Row]]:
        state = asyncelt.current.resource_state()
        state["runs"] = state.get("runs", 0) + 1  # type: ignore[operator]
        yield [{"id": 1}]

        if fails.pop(0):
            raise ConnectionError("gone")

    @asyncelt.transformer(data_from=users)
    async def details(page: list[Row]) -> list[Row]:
        return [{"user": row["id"]} for row in page]

    await pipeline.run(details)

    with pytest.warns(AsynceltWarning, match="has failed"):
        await pipeline.run(details)

    sources: Any = pipeline.state["sources"]
    assert sources["p"]["resources"]["users"] == {"runs": 1}
    assert await rows_of(pipeline, "details", "user") == [(1,)]
