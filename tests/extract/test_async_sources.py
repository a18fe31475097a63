"""Asynchronous sources: one task from start to end, clean-up on every way out, errors that say where."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

import asyncelt
from asyncelt.errors import ResourceExtractionError, SourceExhausted
from asyncelt.extract.pages import Page
from asyncelt.extract.pump import pump
from tests.extract.pumping import Pumped, pumped

ONE_ROW = asyncelt.Limits(gather_rows=1)

pytestmark = pytest.mark.all_loops


def tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks()


async def test_a_generator_that_holds_a_task_group_runs_in_one_task() -> None:
    seen: list[object] = []

    async def rows() -> AsyncIterator[object]:
        seen.append(asyncio.current_task())
        send, receive = anyio.create_memory_object_stream[int](0)

        async def produce() -> None:
            async with send:
                for number in range(5):
                    await send.send(number)

        async with anyio.create_task_group() as group:
            group.start_soon(produce)

            async with receive:
                async for number in receive:
                    yield {"a": number}

        seen.append(asyncio.current_task())

    result = await pumped(asyncelt.resource(rows(), name="r"), limits=ONE_ROW)

    assert result.rows() == [{"a": number} for number in range(5)]
    assert seen == [asyncio.current_task()] * 2


async def test_leaving_early_closes_a_generator_that_holds_a_task_group() -> None:
    closed: list[str] = []

    async def rows() -> AsyncIterator[object]:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)

                for number in range(5):
                    yield {"a": number}
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()

            closed.append("rows")

    before = tasks()
    result = await pumped(asyncelt.resource(rows(), name="r").add_limit(2))

    assert result.rows() == [{"a": 0}, {"a": 1}]
    assert closed == ["rows"]
    assert tasks() == before


@pytest.mark.parametrize("kind", ["anyio", "asyncio"])
async def test_the_error_of_a_generators_own_task_is_what_comes_out(kind: str) -> None:
    """The task group cancels the task that is inside `send` then: that must not pass for a cancelled run."""

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("from the task")

    async def rows() -> AsyncIterator[object]:
        if kind == "anyio":
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                yield {"a": 1}
                yield {"a": 2}
        else:
            async with asyncio.TaskGroup() as stdlib:
                stdlib.create_task(fail())
                yield {"a": 1}
                yield {"a": 2}

    async def slow(page: Page) -> None:
        await anyio.sleep(10)

    before = tasks()

    with pytest.raises(
        ResourceExtractionError, match="'r' failed in a task or timeout of its own after 1 rows"
    ) as caught:
        await pump(asyncelt.resource(rows(), name="r"), limits=ONE_ROW, send=slow)

    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [str(error) for error in caught.value.__cause__.exceptions] == ["from the task"]
    assert tasks() == before


async def test_a_timeout_around_a_yield_is_loud() -> None:
    async def rows() -> AsyncIterator[object]:
        with anyio.move_on_after(0.01):
            while True:
                yield {"a": 1}

    async def slow(page: Page) -> None:
        await anyio.sleep(10)

    with pytest.raises(ResourceExtractionError, match="cancelled from inside"):
        await pump(asyncelt.resource(rows(), name="r"), limits=ONE_ROW, send=slow)


async def test_awaiting_something_cancelled_is_an_error_not_a_silent_end() -> None:
    async def rows() -> AsyncIterator[object]:
        yield {"a": 1}
        task = asyncio.ensure_future(anyio.sleep_forever())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    with pytest.raises(ResourceExtractionError, match="after 1 rows: it was cancelled from inside"):
        await pumped(asyncelt.resource(rows(), name="r"))


@pytest.mark.parametrize("phase", ["source", "send", "step", "nested"])
async def test_cancel_in_every_phase_cleans_up_and_leaves_nothing(phase: str) -> None:
    reached = anyio.Event()
    closed: list[str] = []

    async def wait(where: str) -> None:
        if where == phase:
            reached.set()
            await anyio.sleep_forever()

    async def inner() -> AsyncIterator[object]:
        try:
            await wait("nested")
            yield {"a": 2}
        finally:
            closed.append("inner")

    async def rows() -> AsyncIterator[object]:
        try:
            yield {"a": 1}
            yield inner()
            await wait("source")
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()

            closed.append("rows")

    async def step(row: object) -> object:
        await wait("step")
        return row

    async def send(page: Page) -> None:
        await wait("send")

    before = tasks()
    resource = asyncelt.resource(rows(), name="r").add_map(step)

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await pump(resource, limits=ONE_ROW, send=send)

        group.start_soon(run)
        await reached.wait()
        group.cancel_scope.cancel()

    assert closed[-1] == "rows"
    assert tasks() == before
    gc.collect()


async def test_task_cancel_from_asyncio_comes_out_as_cancellation() -> None:
    closed: list[str] = []

    async def rows() -> AsyncIterator[object]:
        try:
            yield {"a": 1}
            await anyio.sleep_forever()
        finally:
            closed.append("rows")

    task = asyncio.ensure_future(pumped(asyncelt.resource(rows(), name="r")))
    await anyio.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert closed == ["rows"]


async def test_clean_up_may_await_after_a_cancel_but_not_for_ever() -> None:
    steps: list[str] = []

    async def rows() -> AsyncIterator[object]:
        try:
            yield {"a": 1}
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(0.01)
            steps.append("awaited")
            await anyio.sleep_forever()

    async def stuck() -> AsyncIterator[object]:
        try:
            yield {"a": 1}
        finally:
            await anyio.sleep_forever()

    limits = asyncelt.Limits(gather_rows=1, cancel_grace_s=0.05)

    async def send(page: Page) -> None:
        await anyio.sleep_forever()

    with pytest.warns(RuntimeWarning, match="'r': its clean-up did not end within 0.05 s"):
        with anyio.move_on_after(0.01):
            await pump(asyncelt.resource(rows(), name="r"), limits=limits, send=send)

    assert steps == ["awaited"]

    with pytest.warns(RuntimeWarning, match="'s': its clean-up"):
        await pumped(asyncelt.resource(stuck(), name="s").add_limit(1), limits=limits)


async def test_an_error_in_the_middle_names_resource_and_position() -> None:
    async def rows() -> AsyncIterator[object]:
        yield [{"a": 1}, {"a": 2}]
        raise KeyError("lost")

    with pytest.raises(
        ResourceExtractionError, match="resource 'r' failed in its iterator after 2 rows: KeyError: 'lost'"
    ) as caught:
        await pumped(asyncelt.resource(rows(), name="r"))

    assert caught.value.resource == "r"
    assert isinstance(caught.value.__cause__, KeyError)


async def test_errors_of_send_are_not_the_users() -> None:
    closed: list[str] = []

    async def rows() -> AsyncIterator[object]:
        try:
            while True:
                yield {"a": 1}
        finally:
            closed.append("rows")

    async def send(page: Page) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await pump(asyncelt.resource(rows(), name="r"), limits=ONE_ROW, send=send)

    assert closed == ["rows"]


async def test_an_error_while_closing_is_a_note_or_the_error() -> None:
    async def rows() -> AsyncIterator[object]:
        try:
            yield {"a": 1}
            yield {"a": 2}
        finally:
            raise ValueError("while closing")

    async def send(page: Page) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full") as caught:
        await pump(asyncelt.resource(rows(), name="r"), limits=ONE_ROW, send=send)

    assert "while closing" in caught.value.__notes__[0]

    with pytest.raises(ResourceExtractionError, match="when it was closed after 1 rows: ValueError: while closing"):
        await pumped(asyncelt.resource(rows(), name="r").add_limit(1))


async def test_a_slow_send_stops_the_producer() -> None:
    yielded = 0
    release = anyio.Event()
    sent: list[Page] = []

    async def rows() -> AsyncIterator[object]:
        nonlocal yielded

        while yielded < 6:
            yielded += 1
            yield {"a": yielded}

    async def send(page: Page) -> None:
        sent.append(page)

        if len(sent) == 3:
            await release.wait()

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await pump(asyncelt.resource(rows(), name="r"), limits=ONE_ROW, send=send)

        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        assert yielded == 3
        release.set()

    assert yielded == 6


async def test_rows_are_not_held_back_longer_than_told() -> None:
    more = anyio.Event()

    async def rows() -> AsyncIterator[object]:
        yield {"a": 1}
        yield {"a": 2}
        await more.wait()
        yield {"a": 3}

    result = Pumped()

    async def send(page: Page) -> None:
        await result.send(page)
        more.set()

    await pump(asyncelt.resource(rows(), name="r"), limits=asyncelt.Limits(), send=send, flush_after_s=0.01)

    assert [page.rows for page in result.pages] == [2, 1]


async def test_errors_come_out_as_they_are_with_a_flusher_too() -> None:
    async def rows() -> AsyncIterator[object]:
        yield {"a": 1}
        raise KeyError("lost")

    with pytest.raises(ResourceExtractionError) as caught:
        await pumped(asyncelt.resource(rows(), name="r"), flush_after_s=10)

    assert isinstance(caught.value.__cause__, KeyError)

    async def quiet() -> AsyncIterator[object]:
        yield {"a": 1}
        await anyio.sleep_forever()

    async def send(page: Page) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await pump(asyncelt.resource(quiet(), name="r"), limits=asyncelt.Limits(), send=send, flush_after_s=0.01)


async def test_a_source_that_never_waits_lets_others_run() -> None:
    ticks = 0
    done = False

    async def tick() -> None:
        nonlocal ticks

        while not done:
            ticks += 1
            await anyio.lowlevel.checkpoint()

    async def rows() -> AsyncIterator[object]:
        for number in range(5_000):
            yield {"a": number}

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await pumped(
            asyncelt.resource(rows(), name="r").add_map(lambda row: row), limits=asyncelt.Limits(slice_s=0.0005)
        )
        done = True

    assert ticks > 5


async def test_a_broken_iterator_is_the_users_error() -> None:
    class Broken:
        def __aiter__(self) -> AsyncIterator[object]:
            raise TypeError("no iterator")

    with pytest.raises(ResourceExtractionError, match="no iterator"):
        await pumped(asyncelt.resource(Broken(), name="r"))

    async def once() -> AsyncIterator[object]:
        yield {"a": 1}

    data = once()
    resource = asyncelt.resource(data, name="r")
    await pumped(resource)

    with pytest.raises(SourceExhausted):
        await pumped(resource.clone())
