"""One thread that makes a session's blocking calls, one after the other.

A driver that blocks is imported, called and closed in the same thread for its whole life: never on the event
loop, never in the host's default executor.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from asyncelt.destinations._threads import BorrowedThread, Threads
from asyncelt.destinations.closed import closed_session

__all__ = ["Worker", "wait_out"]

T = TypeVar("T")

_AGAIN_S = 0.02
"""Pause between two interrupts of a call that goes on: an interrupt between two statements is lost."""


@dataclass(slots=True)
class _Job:
    """What caller and thread tell each other about one call."""

    running: bool = False
    unwanted: bool = False


class Worker:
    """The thread. Borrowed by the first call; the worker belongs to the event loop that made it.

    Args:
        threads: Where it is borrowed.
        grace_s: Longest wait for a call that goes on after it was cancelled.
    """

    def __init__(self, threads: Threads, *, grace_s: float = 30.0) -> None:
        self._threads = threads
        self._grace_s = grace_s
        self._thread: BorrowedThread | None = None
        self._is_stopped = False

    async def call(self, work: Callable[[], T], *, interrupt: Callable[[], None] | None = None) -> T:
        """Run ``work`` in the thread and wait for it.

        Raises:
            UsageError: The thread has been told to end.

        Cancellation:
            ``interrupt`` is called, from the event loop, until ``work`` has ended; then the cancellation goes
            on. Without ``interrupt``, waits for ``work`` to end. In both cases no longer than ``grace_s``. Work
            that has not begun yet never does.
        """
        if self._is_stopped:
            raise closed_session()

        job = _Job()

        return await self._answer(self._submit(work, job), job, interrupt)

    def stop(self) -> None:
        """Give the thread back after the calls that were made. Nothing can be called afterwards."""
        self._give_back(None)

    async def ended(self, last: Callable[[], None] | None = None) -> None:
        """Make a last call, if any was made before, and stop; wait until the thread holds nothing of the session.

        What a driver has made is taken apart in C++ where its last reference goes. In a thread that is at that while
        the interpreter ends, this would abort the process.

        Raises:
            BaseException: That of ``last``. The thread is given back all the same.
        """
        if self._thread is None or self._is_stopped:
            self._is_stopped = True
            return

        loop = asyncio.get_running_loop()
        let_go: asyncio.Future[None] = loop.create_future()

        def heard() -> None:
            if not let_go.done():
                let_go.set_result(None)

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(heard)

        job = _Job()
        future = None if last is None else self._submit(last, job)
        self._give_back(tell)

        try:
            if future is not None:
                await self._answer(future, job, None)
        finally:
            await wait_out(let_go, grace_s=self._grace_s)

    def _give_back(self, then: Callable[[], None] | None) -> None:
        if self._thread is not None and not self._is_stopped:
            self._thread.give_back(then)

        self._is_stopped = True

    async def _answer(self, future: asyncio.Future[T], job: _Job, interrupt: Callable[[], None] | None) -> T:
        """What comes of a call that was submitted; see `call`."""
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            job.unwanted = True

            def stop() -> None:
                # Only this call: others of the session may be waiting in the same queue.
                if interrupt is not None and job.running:
                    interrupt()

            await wait_out(future, grace_s=self._grace_s, interrupt=None if interrupt is None else stop)
            raise

        return future.result()

    def _submit(self, work: Callable[[], T], job: _Job) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return

            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

        def run() -> None:
            result: T | None = None
            failure: BaseException | None = None
            job.running = True

            try:
                if not job.unwanted:
                    result = context.run(work)
            except BaseException as error:
                # Whatever it is, it belongs to the caller; the thread has to go on.
                failure = error
            finally:
                job.running = False

            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, result, failure)

        if self._thread is None:
            self._thread = self._threads.borrow()

        self._thread.do(run)

        return future


async def wait_out(future: asyncio.Future[T], *, grace_s: float, interrupt: Callable[[], None] | None = None) -> None:
    """Wait for something that nobody wants any more, whatever else is cancelled meanwhile; its outcome is dropped.

    Args:
        future: Cancelled when it has not ended after ``grace_s``.
        grace_s: Longest wait.
        interrupt: Called until it has ended.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + grace_s

    with anyio.CancelScope(shield=True):
        while not future.done() and (left := deadline - clock()) > 0:
            if interrupt is not None:
                interrupt()

            try:
                await asyncio.wait([future], timeout=left if interrupt is None else min(left, _AGAIN_S))
            except asyncio.CancelledError:
                continue

    if not future.done():
        future.cancel()
    elif not future.cancelled():
        # An error that nobody asks for would be reported as forgotten.
        future.exception()
