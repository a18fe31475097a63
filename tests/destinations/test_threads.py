"""Threads that sessions borrow, one after the other."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from asyncelt.destinations import _threads
from asyncelt.destinations._threads import BorrowedThread, Threads

PATIENCE_S = 60


def done_in(thread: BorrowedThread, work: Callable[[], Any]) -> Any:
    """What ``work`` gives in that thread."""
    results: list[Any] = []
    is_over = threading.Event()

    def do() -> None:
        results.append(work())
        is_over.set()

    thread.do(do)
    assert is_over.wait(PATIENCE_S)

    return results[0]


def given_back(threads: Threads, thread: BorrowedThread) -> None:
    """Give it back, and wait until it can be borrowed again."""
    thread.give_back()

    while not threads._idle.threads:
        threading.Event().wait(0.001)


def test_one_session_after_the_other_gets_the_same_thread() -> None:
    threads = Threads("mine")
    first = threads.borrow()
    native = done_in(first, threading.current_thread)
    assert native.name == "mine"
    given_back(threads, first)
    assert native.name == "asyncelt idle"
    second = threads.borrow()
    assert done_in(second, threading.current_thread) is native
    assert native.name == "mine"
    second.end()


def test_two_sessions_at_a_time_have_two_threads() -> None:
    threads = Threads("mine")
    first, second = threads.borrow(), threads.borrow()
    assert done_in(first, threading.current_thread) is not done_in(second, threading.current_thread)
    first.end()
    second.end()


def test_a_thread_is_given_back_after_all_that_it_was_asked_for() -> None:
    threads = Threads("mine")
    thread = threads.borrow()
    go, seen = threading.Event(), []
    thread.do(lambda: seen.append(go.wait(PATIENCE_S)))
    thread.do(lambda: seen.append("second"))
    thread.give_back()
    assert threads._idle.taken() is None
    go.set()

    while (again := threads._idle.taken()) is None:
        threading.Event().wait(0.001)

    assert seen == [True, "second"]
    assert again is thread
    again.end()


def test_a_thread_that_nobody_wants_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_IDLE_S", 0.001)
    threads = Threads("mine")
    thread = threads.borrow()
    native = done_in(thread, threading.current_thread)
    thread.give_back()
    native.join(PATIENCE_S)
    assert not native.is_alive()
    assert threads._idle.threads == []


def test_threads_end_with_their_destination() -> None:
    threads = Threads("mine")
    idle, busy = threads.borrow(), threads.borrow()
    natives = [done_in(one, threading.current_thread) for one in (idle, busy)]
    given_back(threads, idle)
    gone = weakref.ref(threads)
    del threads
    gc.collect()
    assert gone() is None
    natives[0].join(PATIENCE_S)
    assert not natives[0].is_alive()
    assert done_in(busy, lambda: 1) == 1
    busy.give_back()
    natives[1].join(PATIENCE_S)
    assert not natives[1].is_alive()


def test_what_was_done_is_not_kept_alive_by_a_thread_that_waits() -> None:
    class Large:
        def work(self) -> int:
            return 1

    threads, large = Threads("mine"), Large()
    gone = weakref.ref(large)
    thread = threads.borrow()
    assert done_in(thread, large.work) == 1
    del large
    given_back(threads, thread)
    gc.collect()
    assert gone() is None
    thread.end()
