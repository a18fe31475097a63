"""Doing the work of items on the event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sized
from functools import partial
from time import perf_counter
from typing import cast

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from asyncelt._async import in_thread
from asyncelt.config import Limits
from asyncelt.extract.chain import Chain
from asyncelt.extract.items import Kind, kind_of
from asyncelt.extract.requests import Ahead, Offload, Pull, Request, Work
from asyncelt.extract.thread import OwnThread

__all__ = ["Driver", "close_iterator", "pull_all"]


class Driver:
    """Does the work of items on the event loop, without holding it for longer than a slice.

    Args:
        chain: Steps of the resource.
        limits: ``slice_s`` and ``cancel_grace_s`` count here.
        relieve: Awaited at a pause when something is ready: hands it on. This is where back-pressure happens.
        ready: What is ready.
        take_row: Does what the chain's ``emit`` does with a single row.
        eager: For the threads of synchronous iterators, see `OwnThread`.
    """

    def __init__(
        self,
        chain: Chain,
        limits: Limits,
        relieve: Callable[[], Awaitable[None]],
        *,
        ready: Sized = (),
        take_row: Callable[[str, object], None] | None = None,
        eager: bool = False,
    ) -> None:
        self.chain = chain
        self.headway = chain.headway
        self.limits = limits
        self.eager = eager
        self.take_row = take_row or chain.router.emit
        self.at_rest = False
        """Whether the source is being waited for, and all that it gave has been dealt with."""
        self._relieve = relieve
        self._ready = ready
        self._due = 0.0
        self._blocking = anyio.CapacityLimiter(1)
        self._workers = anyio.CapacityLimiter(max(limits.extract_workers, 1))
        self._tasks: TaskGroup | None = None
        self._ahead: deque[tuple[_Slot | None, Work]] = deque()

    def look_ahead(self, tasks: TaskGroup) -> None:
        """From now on, let ``max_parallel_items`` of what has to be awaited be under way in ``tasks``."""
        self._tasks = tasks

    @property
    def has_pending(self) -> bool:
        """Whether work is under way that must come out before any other."""
        return bool(self._ahead)

    async def finish(self) -> None:
        """Wait for all work that is under way."""
        while self._ahead:
            await self._finish_oldest()

    def abandon(self) -> None:
        """Drop the work that is under way; its tasks are the owner's of the task group to cancel."""
        while self._ahead:
            slot, work = self._ahead.popleft()

            if slot is not None:
                slot.dispose()

            work.close()

    def must_pause(self) -> bool:
        """Whether `pause` has anything to do."""
        return bool(self._ready) or perf_counter() >= self._due

    async def pause(self) -> None:
        """Hand on what is ready, and let others run if this task has run for a slice."""
        is_due = perf_counter() >= self._due

        if self._ready or is_due:
            await self._relieve()

        if is_due:
            await anyio.lowlevel.checkpoint()
            self._due = perf_counter() + self.limits.slice_s

    async def process(self, item: object) -> None:
        """Do the work of one item, or begin it, if others may be begun meanwhile."""
        is_quick = type(item) is dict and not self._ahead
        work = self.chain.process_row(cast("dict[object, object]", item)) if is_quick else self.chain.process(item)

        if work is None:
            return

        if self.chain.looks_ahead or kind_of(type(item)) in _PARALLEL:
            await self._drive(work, self._tasks)
        elif self._ahead:
            await self._begin(None, work)
        else:
            await self._drive(work, None)

    async def _begin(self, slot: _Slot | None, work: Work) -> None:
        self._ahead.append((slot, work))

        if len(self._ahead) > self.limits.max_parallel_items:
            await self._finish_oldest()

    async def _drive(
        self, work: Work, tasks: TaskGroup | None, value: object = None, error: BaseException | None = None
    ) -> None:
        """Do all the work of one item. An error, cancellation included, is thrown into it, so that it cleans up."""
        while True:
            try:
                request = work.send(value) if error is None else work.throw(error)
            except StopIteration:
                return

            value = error = None

            if isinstance(request, Ahead) and tasks is not None:
                slot = _Slot(self._awaitable(request))
                tasks.start_soon(slot.run)
                await self._begin(slot, work)

                return

            try:
                value = await self._answer(request)
            except BaseException as failure:
                error = failure

    def thread(self, job: Callable[[OwnThread], None], *, eager: bool = False) -> OwnThread:
        """A thread for a synchronous iterator of this resource; not started yet."""
        return OwnThread(
            self.headway.resource,
            job,
            slice_s=self.limits.slice_s,
            grace_s=self.limits.cancel_grace_s,
            eager=eager,
        )

    async def _answer(self, request: Request) -> object:
        if request is None:
            await self.pause()
            return None

        if isinstance(request, Offload):
            return await in_thread(request.function, self._blocking)

        if isinstance(request, Pull):
            return await self._pull(request)

        return await (self._awaitable(request) if isinstance(request, Ahead) else request)

    def _awaitable(self, request: Ahead) -> Awaitable[object]:
        if isinstance(request.task, Offload):
            return in_thread(request.task.function, self._workers)

        return request.task

    async def _finish_oldest(self) -> None:
        """Go on with the item that was begun first. Whatever else it has to wait for, the others wait for it."""
        slot, work = self._ahead[0]

        if slot is None:
            self._ahead.popleft()
            await self._drive(work, None)
            return

        await slot.done.wait()
        self._ahead.popleft()
        await self._drive(work, None, slot.value, slot.error)

    async def _pull(self, request: Pull) -> list[object] | None:
        if request.thread is None:
            request.thread = self.thread(partial(pull_all, request.iterator))

        return await request.thread.next()


_PARALLEL = frozenset({Kind.AWAITABLE, Kind.CALLABLE})


class _Slot:
    """One coroutine under way, and what came of it."""

    def __init__(self, awaitable: Awaitable[object]) -> None:
        self.value: object = None
        self.error: BaseException | None = None
        self.done = anyio.Event()
        self._awaitable: Awaitable[object] | None = awaitable

    async def run(self) -> None:
        awaitable, self._awaitable = self._awaitable, None

        if awaitable is None:
            return

        try:
            self.value = await awaitable
        except Exception as error:
            self.error = error
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.done.set()

    def dispose(self) -> None:
        """Tell a coroutine that was never begun that nobody will."""
        awaitable, self._awaitable = self._awaitable, None

        if awaitable is not None:
            close_iterator(awaitable)


def pull_all(items: Iterable[object], thread: OwnThread) -> None:
    """The job of a thread that only reads an iterator, and leaves steps to the loop."""
    try:
        for item in items:
            thread.put(item)
            thread.breathe(full=kind_of(type(item)) is not Kind.ROW)
    finally:
        close_iterator(items)


def close_iterator(items: object) -> None:
    """Close a generator, or whatever has a method for it."""
    close = getattr(items, "close", None)

    if callable(close):
        close()
