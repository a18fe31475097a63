"""A thread of its own for each synchronous iterator, for its whole life, with one request in flight.

The thread works until it has produced enough (or for some milliseconds), leaves the results in a box, wakes the
loop once and waits to be asked for more. So a slow consumer stops the producer, nothing is polled, and the thread
and the loop never run user code of the same resource at the same time. The thread is a daemon: user code that
ignores its end cannot keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter

import anyio

from asyncelt.extract.requests import Ahead, Offload, Pull, Work

__all__ = ["Closed", "OwnThread"]


class Closed(BaseException):
    """Raised inside the thread where it waits or pauses after the loop has closed it."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Something the loop has to await for the thread."""

    ticket: int
    awaitable: Awaitable[object]


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came of it; ticket 0 means go on."""

    ticket: int
    value: object = None
    error: BaseException | None = None


_GO = _Reply(0)


class OwnThread:
    """Runs ``job`` in a new thread; the loop receives what the job puts, batch by batch.

    Args:
        name: Name of the resource, for the thread's name and for warnings.
        job: Called once in the thread, with this object; uses `put`, `breathe` and `drive`.
        slice_s: After this long the job hands over what it has.
        grace_s: How long `close` waits for the job before the thread is abandoned.
        eager: Wake the loop for every `put`, so that what is there can be used while the job blocks. Then nothing
            that was put may be changed afterwards.
    """

    def __init__(
        self, name: str, job: Callable[[OwnThread], None], *, slice_s: float, grace_s: float, eager: bool = False
    ) -> None:
        self.parks = 0
        """How often the job has handed over. What was put before the last time belongs to the loop."""
        self._name = name
        self._job = job
        self._slice_s = slice_s
        self._grace_s = grace_s
        self._eager = eager
        self._loop = asyncio.get_running_loop()
        self._box: deque[object] = deque()
        self._go: SimpleQueue[_Reply | None] = SimpleQueue()
        self._woken = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._wanted: _Wanted | None = None
        self._error: BaseException | None = None
        self._parked = False
        self._ended = False
        self._closing = False
        self._seen_closed = False
        self._tickets = 0
        self._due = 0.0

    # ------------------------------------------------------------------ on the loop

    async def next(self) -> list[object] | None:
        """What the job has put since the last call, perhaps nothing; None when it has ended.

        Raises whatever the job has raised.

        Cancellation:
            Safe; call `close` afterwards.
        """
        if self._thread is None:
            self._start()
        elif self._wanted is not None:
            await self._serve()
        elif self._parked:
            self._continue(_GO)

        # Unless it is eager, the job may still be adding to what it has put, until it parks.
        await self._until(lambda: self._parked or self._ended or (self._eager and bool(self._box)))
        batch = self._drain()

        if batch or self._wanted is not None or not self._ended:
            return batch

        if self._error is not None:
            raise self._error

        return None

    async def close(self) -> None:
        """End the job and wait for it, no longer than ``grace_s``; then the thread is left alone, with a warning.

        Cancellation:
            Shielded. A job that has ended already costs nothing.
        """
        if self._thread is None or self._ended:
            return

        self._closing = True
        self._drain()
        self._dispose()
        self._go.put(None)

        with anyio.move_on_after(self._grace_s, shield=True):
            while not self._ended:
                await self._until(lambda: bool(self._box) or self._ended)
                self._drain()

                if self._wanted is not None:
                    await self._serve()

        if not self._ended:
            warnings.warn(
                f"Resource {self._name!r}: its synchronous code did not return within {self._grace_s:g} s after the "
                "run had ended; its thread has been abandoned.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _start(self) -> None:
        context = copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._main,), name=f"asyncelt-{self._name}", daemon=True
        )
        self._thread.start()

    def _continue(self, reply: _Reply) -> None:
        self._parked = False
        self._go.put(reply)

    def _drain(self) -> list[object]:
        batch: list[object] = []

        while self._box:
            item = self._box.popleft()

            if isinstance(item, _Wanted):
                self._wanted = item
            else:
                batch.append(item)

        return batch

    async def _until(self, condition: Callable[[], bool]) -> None:
        # Cleared before the look, so that a wake-up between look and wait is not lost.
        self._woken.clear()

        while not condition():
            await self._woken.wait()
            self._woken.clear()

    def _dispose(self) -> None:
        """Nobody will await this any more; say so to a coroutine, which would complain otherwise."""
        wanted, self._wanted = self._wanted, None

        if wanted is not None:
            getattr(wanted.awaitable, "close", _nothing)()

    async def _serve(self) -> None:
        wanted, self._wanted = self._wanted, None

        if wanted is None:
            return

        value: object = None
        failure: Exception | None = None

        try:
            value = await wanted.awaitable
        except Exception as error:
            failure = error

        self._continue(_Reply(wanted.ticket, value, failure))

    # ------------------------------------------------------------------ in the thread

    def put(self, item: object) -> None:
        """Leave something for the loop."""
        self._box.append(item)

        if self._eager and not self._woken.is_set():
            self._wake()

    def call_on_loop(self, function: Callable[[], object]) -> None:
        """Let the loop call this soon, and do not wait for it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to do
            self._loop.call_soon_threadsafe(function)

    def breathe(self, *, full: bool = False) -> None:
        """Hand over and wait to be asked for more, if it is time to or ``full``.

        Raises:
            Closed: The job is to end.
        """
        if self._closing:
            self._seen_closed = True
            raise Closed

        if full or perf_counter() >= self._due:
            self._park()
            self._due = perf_counter() + self._slice_s

    def drive(self, work: Work) -> None:
        """Do the work of one item; what has to be awaited is awaited on the loop."""
        value: object = None
        error: BaseException | None = None

        while True:
            try:
                request = work.send(value) if error is None else work.throw(error)
            except StopIteration:
                return

            value = error = None

            try:
                if request is None:
                    self.breathe()
                elif isinstance(request, Offload):
                    value = request.function()
                elif isinstance(request, Pull):
                    value = _pulled(request)
                elif isinstance(request, Ahead) and isinstance(request.task, Offload):
                    value = request.task.function()
                else:
                    value = self.wait_for(request.task if isinstance(request, Ahead) else request)  # type: ignore[arg-type]
            except BaseException as failure:
                error = failure

    def _main(self) -> None:
        self._due = perf_counter() + self._slice_s

        try:
            self._job(self)
        except Closed:
            pass
        except BaseException as error:
            self._error = error

        self._ended = True
        self._wake()

    def _park(self) -> None:
        self.parks += 1
        self._parked = True
        self._wake()

        if self._go.get() is None:
            self._seen_closed = True
            raise Closed

    def wait_for(self, awaitable: Awaitable[object]) -> object:
        """Let the loop await this, and wait for what comes of it.

        Raises:
            Closed: The job is to end.
            Exception: What the awaitable has raised.
        """
        if self._closing and not self._seen_closed:
            self._seen_closed = True
            getattr(awaitable, "close", _nothing)()
            raise Closed

        self._tickets += 1
        ticket = self._tickets
        self.parks += 1
        self._box.append(_Wanted(ticket, awaitable))
        self._parked = True
        self._wake()

        while True:
            reply = self._go.get()

            if reply is None and not self._seen_closed:
                self._seen_closed = True
                raise Closed

            if reply is not None and reply.ticket == ticket:
                break

        if reply.error is not None:
            raise reply.error

        return reply.value

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:  # the loop is closed: nobody will ever ask again
            self._closing = True


def _nothing() -> None:
    """Stand in for a close method."""


def _pulled(pull: Pull) -> list[object] | None:
    try:
        return [next(pull.iterator)]
    except StopIteration:
        return None
