"""The thread that makes a session's blocking calls."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest

from asyncelt.destinations._threads import Threads
from asyncelt.destinations._worker import Worker

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture
def worker():
    worker = Worker(Threads("test-worker"), grace_s=5)
    yield worker
    worker.stop()


async def test_all_calls_run_in_one_thread_of_its_own(worker):
    threads = {await worker.call(threading.current_thread) for _ in range(3)}

    assert [thread.name for thread in threads] == ["test-worker"]
    assert threading.current_thread() not in threads


async def test_an_error_reaches_the_caller_and_the_thread_goes_on(worker):
    def fail():
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await worker.call(fail)

    assert await worker.call(lambda: 1) == 1


async def test_the_callers_context_is_seen_in_the_thread(worker):
    VARIABLE.set("mine")
    assert await worker.call(VARIABLE.get) == "mine"


async def test_a_cancelled_call_is_interrupted_and_has_ended_afterwards(worker):
    started, stop, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        started.set()
        stop.wait(5)
        ended.set()

    task = asyncio.ensure_future(worker.call(work, interrupt=stop.set))

    await asyncio.to_thread(started.wait)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert ended.is_set()


async def test_a_call_without_interrupt_is_waited_for_even_if_cancelled_twice(worker):
    started, ended = threading.Event(), threading.Event()

    def work():
        started.set()
        time.sleep(0.05)
        ended.set()

    task = asyncio.ensure_future(worker.call(work))

    await asyncio.to_thread(started.wait)
    task.cancel()
    await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert ended.is_set()


async def test_work_that_waits_its_turn_is_dropped_and_does_not_disturb_what_runs(worker):
    go, interrupted, ran = threading.Event(), threading.Event(), threading.Event()
    first = asyncio.ensure_future(worker.call(go.wait))
    second = asyncio.ensure_future(worker.call(ran.set, interrupt=interrupted.set))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0.05)
    go.set()
    await asyncio.wait([first, second])

    assert first.result()
    assert second.cancelled()
    assert not interrupted.is_set()
    assert not ran.is_set()


async def test_a_call_that_never_ends_is_left_after_the_grace():
    worker, stop = Worker(Threads("stuck"), grace_s=0.02), threading.Event()
    task = asyncio.ensure_future(worker.call(stop.wait))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    stop.set()
    worker.stop()

    assert task.cancelled()


async def test_a_thread_that_the_system_does_not_allow_is_told_and_there_is_none_to_wait_for(worker):
    before = threading.stack_size(1 << 46)

    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await worker.call(lambda: 1)
    finally:
        threading.stack_size(before)

    await worker.ended(lambda: None)


async def test_when_it_has_ended_the_thread_holds_nothing_of_the_session(worker, monkeypatch):
    """What a driver has made must not be taken apart in a thread while the interpreter ends."""
    taken_apart = []
    loop = asyncio.get_running_loop()
    deliver = loop.call_soon_threadsafe

    def deliver_and_dawdle(*arguments):
        deliver(*arguments)
        time.sleep(0.1)

    class Held:
        def __del__(self):
            taken_apart.append(threading.current_thread().name)

        def close(self):
            pass

    await worker.call(lambda: None)
    monkeypatch.setattr(loop, "call_soon_threadsafe", deliver_and_dawdle)
    await worker.ended(Held().close)

    assert len(taken_apart) == 1
