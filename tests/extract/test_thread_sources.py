"""Synchronous sources: one thread each for their whole life, stopped by a slow consumer, closed in their thread."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

import asyncelt
from asyncelt.errors import ResourceExtractionError
from asyncelt.extract.pages import Page
from asyncelt.extract.pump import pump
from tests.extract.pumping import Pumped, pumped

ONE_ROW = asyncelt.Limits(gather_rows=1)

pytestmark = pytest.mark.all_loops


def threads() -> list[str]:
    """Threads of resources that are still there; one that has said its last word gets the time to vanish."""
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("asyncelt-")]

    for thread in ours:
        thread.join(1)

    return [thread.name for thread in ours if thread.is_alive()]


async def test_sqlite_can_be_read_because_the_thread_never_changes() -> None:
    seen: set[int] = set()

    @asyncelt.resource
    def numbers() -> Iterator[object]:
        connection = sqlite3.connect(":memory:")  # refuses to be used in another thread
        connection.execute("create table t (a)")
        connection.executemany("insert into t values (?)", [(number,) for number in range(100)])

        try:
            for (number,) in connection.execute("select a from t order by a"):
                seen.add(threading.get_ident())
                yield {"a": number}
        finally:
            connection.close()
            seen.add(threading.get_ident())

    result = await pumped(numbers(), limits=asyncelt.Limits(gather_rows=10, slice_s=0.0))

    assert result.rows() == [{"a": number} for number in range(100)]
    assert len(seen) == 1
    assert threading.get_ident() not in seen
    assert threads() == []


async def test_steps_run_in_the_thread_of_the_source_and_coroutines_on_the_loop() -> None:
    where: dict[str, set[int]] = {"source": set(), "step": set(), "async step": set(), "table": set()}

    def table(row: object) -> str:
        where["table"].add(threading.get_ident())
        return "t"

    @asyncelt.resource(table_name=table)
    def rows() -> Iterator[object]:
        for number in range(20):
            where["source"].add(threading.get_ident())
            yield {"a": number}

    def step(row: object) -> object:
        where["step"].add(threading.get_ident())
        return row

    async def async_step(row: object) -> object:
        await asyncio.sleep(0)
        where["async step"].add(threading.get_ident())
        return row

    result = await pumped(rows().add_map(step).add_map(async_step))

    assert result.rows() == [{"a": number} for number in range(20)]
    assert where["source"] == where["step"] == where["table"]
    assert where["async step"] == {threading.get_ident()}


async def test_context_variables_go_with_it() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("from the task")

    def rows() -> Iterator[object]:
        yield {"a": variable.get()}

    assert (await pumped(asyncelt.resource(rows(), name="r"))).rows() == [{"a": "from the task"}]


async def test_a_slow_send_stops_the_producer() -> None:
    yielded = 0
    release = anyio.Event()
    sent: list[Page] = []

    def rows() -> Iterator[object]:
        nonlocal yielded

        while yielded < 50:
            yielded += 1
            yield [{"a": yielded}] * 10

    async def send(page: Page) -> None:
        sent.append(page)

        if len(sent) == 2:
            await release.wait()

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await pump(
                asyncelt.resource(rows(), name="r"), limits=asyncelt.Limits(gather_rows=10, slice_s=0.0), send=send
            )

        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.01)
        assert yielded <= 4
        release.set()

    assert yielded == 50
    assert len(sent) == 50


@pytest.mark.covers("probe.1.generators")
async def test_order_is_kept_over_every_kind_of_item() -> None:
    async def later(number: int) -> object:
        await asyncio.sleep(0)
        return {"a": number}

    async def many(*numbers: int) -> AsyncIterator[object]:
        for number in numbers:
            yield {"a": number}

    def rows() -> Iterator[object]:
        yield {"a": 0}
        yield later(1)
        yield [{"a": 2}, {"a": 3}]
        yield many(4, 5)
        yield iter([{"a": 6}, later(7)])
        yield lambda: {"a": 8}

    assert (await pumped(asyncelt.resource(rows(), name="r"))).rows() == [{"a": number} for number in range(9)]


async def test_an_error_names_resource_and_position() -> None:
    def rows() -> Iterator[object]:
        yield {"a": 1}
        raise KeyError("lost")

    with pytest.raises(ResourceExtractionError, match="'r' failed in its iterator after 1 rows: KeyError") as caught:
        await pumped(asyncelt.resource(rows(), name="r"))

    assert isinstance(caught.value.__cause__, KeyError)
    assert threads() == []


async def test_an_error_in_the_function_and_in_close() -> None:
    def broken() -> Iterator[object]:
        raise ValueError("at once")

    with pytest.raises(ResourceExtractionError, match="when it was called after 0 rows: ValueError: at once"):
        await pumped(asyncelt.resource(name="r")(broken))

    def closing() -> Iterator[object]:
        try:
            yield {"a": 1}
        finally:
            raise ValueError("while closing")

    with pytest.raises(ResourceExtractionError, match="when it was closed after 1 rows: ValueError: while closing"):
        await pumped(asyncelt.resource(closing(), name="r").add_limit(1))


async def test_an_early_end_closes_the_generator_in_its_thread() -> None:
    where: list[int] = []

    def rows() -> Iterator[object]:
        where.append(threading.get_ident())

        try:
            while True:
                yield {"a": 1}
        finally:
            where.append(threading.get_ident())

    result = await pumped(asyncelt.resource(rows(), name="r").add_limit(3))

    assert len(result.rows()) == 3
    assert len(set(where)) == 1
    assert threads() == []


@pytest.mark.parametrize("phase", ["source", "send", "step", "nested"])
async def test_cancel_in_every_phase_ends_the_thread(phase: str) -> None:
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    closed: list[str] = []

    def busy() -> None:
        loop.call_soon_threadsafe(reached.set)
        time.sleep(0.02)

    async def inner() -> AsyncIterator[object]:
        try:
            yield {"a": 1}

            if phase == "nested":
                reached.set()
                await anyio.sleep_forever()
        finally:
            closed.append("inner")

    def rows() -> Iterator[object]:
        try:
            while True:
                if phase == "source":
                    busy()

                yield {"a": 1}
                yield inner()
        finally:
            closed.append("rows")

    async def step(row: object) -> object:
        if phase == "step":
            reached.set()
            await anyio.sleep_forever()

        return row

    async def send(page: Page) -> None:
        if phase == "send":
            reached.set()
            await anyio.sleep_forever()

    resource = asyncelt.resource(rows(), name="r").add_map(step)

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await pump(resource, limits=ONE_ROW, send=send)

        group.start_soon(run)
        await reached.wait()
        group.cancel_scope.cancel()

    assert closed[-1] == "rows"
    assert phase != "nested" or "inner" in closed
    assert threads() == []


async def test_code_that_does_not_return_is_abandoned_with_a_warning() -> None:
    go_on = threading.Event()
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def rows() -> Iterator[object]:
        loop.call_soon_threadsafe(reached.set)
        go_on.wait(5)
        yield {"a": 1}

    async def run() -> None:
        await pump(
            asyncelt.resource(rows(), name="stuck"), limits=asyncelt.Limits(cancel_grace_s=0.02), send=Pumped().send
        )

    async def cancelled() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await reached.wait()
            group.cancel_scope.cancel()

    with pytest.warns(RuntimeWarning, match="Resource 'stuck': its synchronous code did not return within 0.02 s"):
        await cancelled()

    go_on.set()
    assert threads() == []


async def test_an_iterator_yielded_by_an_async_source_has_a_thread_too() -> None:
    where: set[int] = set()

    def inner() -> Iterator[object]:
        for number in range(3):
            where.add(threading.get_ident())
            yield {"a": number}

    async def rows() -> AsyncIterator[object]:
        yield inner()
        yield {"a": 3}

    assert (await pumped(asyncelt.resource(rows(), name="r"))).rows() == [{"a": number} for number in range(4)]
    assert len(where) == 1
    assert threading.get_ident() not in where

    async def endless() -> AsyncIterator[object]:
        def numbers() -> Iterator[object]:
            while True:
                yield {"a": 1}

        yield numbers()

    assert len((await pumped(asyncelt.resource(endless(), name="r").add_limit(2))).rows()) == 2
    assert threads() == []


async def test_rows_are_not_held_back_by_a_thread_that_blocks() -> None:
    go_on = threading.Event()

    def rows() -> Iterator[object]:
        yield {"a": 1}
        yield {"a": 2}
        assert go_on.wait(5)
        yield {"a": 3}

    result = Pumped()

    async def send(page: Page) -> None:
        await result.send(page)

        if len(result.rows()) >= 2:
            go_on.set()

    await pump(asyncelt.resource(rows(), name="r"), limits=asyncelt.Limits(), send=send, flush_after_s=0.01)

    assert result.rows() == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert len(result.pages) >= 2


async def test_pages_are_cut_the_same_whatever_the_form_and_the_timing() -> None:
    data = [{"a": number, "b": "x" * (number % 700)} for number in range(300)]

    async def agen() -> AsyncIterator[object]:
        for row in data:
            yield row

    def cuts(result: Pumped) -> list[tuple[int, int]]:
        return [(page.rows, page.nbytes) for page in result.pages]

    expected: list[tuple[int, int]] | None = None

    for form in (agen(), (row for row in data), list(data)):
        for slice_s in (0.0, 1.0):
            limits = asyncelt.Limits(gather_bytes=2_000, slice_s=slice_s)
            source = form if isinstance(form, list) else (agen() if hasattr(form, "__anext__") else iter(list(data)))
            result = await pumped(asyncelt.resource(source, name="r"), limits=limits)
            expected = expected or cuts(result)
            assert cuts(result) == expected
            assert result.rows() == data

        if hasattr(form, "aclose"):
            await form.aclose()

    assert expected is not None
    assert len(expected) > 10


def test_a_closed_loop_ends_the_thread() -> None:
    """The host's loop may die without unwinding; the thread notices when it next has something to say."""

    def rows() -> Iterator[object]:
        while True:
            time.sleep(0.001)
            yield {"a": 1}

    async def abandon() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(pumped(asyncelt.resource(rows(), name="r")))
        await anyio.sleep(0.01)
        loop.stop()
        await asyncio.sleep(0)
        del task

    loop = asyncio.new_event_loop()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main = loop.create_task(abandon())
        loop.run_forever()

        for task in asyncio.all_tasks(loop):
            task.cancel()

        loop.run_until_complete(asyncio.sleep(0.02))
        loop.close()
        assert main.done()

    assert threads() == []
