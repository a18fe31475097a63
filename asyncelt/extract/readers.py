"""Reading a source, one item or one batch at a time: asynchronous, synchronous in a thread, or a list at hand.

A reader owns its source from `open_reader` to `close`. All calls must come from one task, because a user's
asynchronous generator may hold task groups and cancel scopes open while it is suspended.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sized
from functools import partial
from time import perf_counter
from typing import Protocol, cast

import anyio
import anyio.lowlevel
import pyarrow as pa

from asyncelt._async import in_thread
from asyncelt.config import Limits
from asyncelt.errors import ExtractError, SourceExhausted
from asyncelt.extract.chain import Chain, Offload, Pull, Request, Run, Work
from asyncelt.extract.items import Kind, iterate_once, kind_of
from asyncelt.extract.sizes import sampled_row_bytes, size_of
from asyncelt.extract.steps import is_async_function
from asyncelt.extract.thread import Closed, OwnThread
from asyncelt.flow import JsonBody

__all__ = ["Driver", "Reader", "open_reader"]

_LIST_ROWS = 512
"""Rows of a list at hand that are passed on together ..."""
_LIST_ITEMS = 32
"""... and elements, where each one has to be looked at."""
_WEIGH_ROWS = 16
_PAGES = (list, JsonBody, pa.Table)
_END = object()


class Driver:
    """Does the work of items on the event loop, without holding it for longer than a slice.

    Args:
        chain: Steps of the resource.
        limits: ``slice_s`` and ``cancel_grace_s`` count here.
        relieve: Awaited at a pause when something is ready: hands it on. This is where back-pressure happens.
        ready: What is ready.
        eager: For the threads of synchronous iterators, see `OwnThread`.
    """

    def __init__(
        self,
        chain: Chain,
        limits: Limits,
        relieve: Callable[[], Awaitable[None]],
        *,
        ready: Sized = (),
        eager: bool = False,
    ) -> None:
        self.chain = chain
        self.limits = limits
        self.eager = eager
        self._relieve = relieve
        self._ready = ready
        self._due = 0.0
        self._blocking = anyio.CapacityLimiter(1)

    def must_pause(self) -> bool:
        """Whether `pause` has anything to do."""
        return bool(self._ready) or perf_counter() >= self._due

    async def pause(self) -> None:
        """Hand on what is ready, and let others run if this task has run for a slice."""
        if self._ready:
            await self._relieve()

        if perf_counter() >= self._due:
            await anyio.lowlevel.checkpoint()
            self._due = perf_counter() + self.limits.slice_s

    async def drive(self, work: Work) -> None:
        """Do all the work of one item. An error, cancellation included, is thrown into it, so that it cleans up."""
        value: object = None
        error: BaseException | None = None

        while True:
            try:
                request = work.send(value) if error is None else work.throw(error)
            except StopIteration:
                return

            value = error = None

            try:
                value = await self._answer(request)
            except BaseException as failure:
                error = failure

    def thread(self, job: Callable[[OwnThread], None], *, eager: bool = False) -> OwnThread:
        """A thread for a synchronous iterator of this resource; not started yet."""
        return OwnThread(
            self.chain.resource,
            job,
            slice_s=self.limits.slice_s,
            grace_s=self.limits.cancel_grace_s,
            eager=eager,
        )

    async def _answer(self, request: Request) -> object:
        if request is None:
            return await self.pause()

        if isinstance(request, Offload):
            return await in_thread(request.function, self._blocking)

        if isinstance(request, Pull):
            return await self._pull(request)

        return await request

    async def _pull(self, request: Pull) -> list[object] | None:
        if request.thread is None:
            request.thread = self.thread(partial(_pull_all, request.iterator))

        return await request.thread.next()


def _pull_all(items: object, thread: OwnThread) -> None:
    """The job of a thread that only reads an iterator, and leaves steps to the loop."""
    try:
        for item in items:  # type: ignore[attr-defined]
            thread.put(item)
            thread.breathe(full=kind_of(type(item)) is not Kind.ROW)
    finally:
        _close(items)


class Reader(Protocol):
    """Brings the items of one source through the chain."""

    async def read(self) -> bool:
        """Read and process the next item or batch. False: the source is at its end."""
        ...

    async def close(self, failure: BaseException | None) -> BaseException | None:
        """Close the source.

        Args:
            failure: Why it is closed early, if it failed.

        Returns:
            The error to raise: ``failure``, or what closing has brought to light instead.
        """
        ...


async def open_reader(data: object, driver: Driver) -> Reader:
    """A reader for whatever a resource was made from. Calls functions, awaits what has to be awaited.

    Raises:
        SourceExhausted: A generator or coroutine that has been started before.
        ResourceExtractionError: User code raised.
    """
    chain = driver.chain
    ensure_fresh(data, chain.resource)

    try:
        if kind_of(type(data)) is not Kind.CALLABLE and not _is_plain_callable(data):
            data = await data if inspect.isawaitable(data) else data
        elif is_async_function(data):
            data = cast("Callable[[], object]", data)()
            data = await data if inspect.isawaitable(data) else data
        else:
            return ThreadReader(cast("Callable[[], object]", data), driver)
    except Exception as error:
        raise chain.error(error, "when it was called") from error

    if isinstance(data, AsyncIterable):
        return AsyncReader(data, driver)

    if isinstance(data, list | tuple):
        return ListReader(data, driver)

    if kind_of(type(data)) is Kind.ITERATOR or (kind_of(type(data)) is Kind.ROW and hasattr(data, "__iter__")):
        return ThreadReader(lambda: data, driver)

    return ListReader((data,), driver)


def ensure_fresh(data: object, resource: str) -> None:
    """Refuse what can be read only once and has been started.

    Raises:
        SourceExhausted: See above.
    """
    used = False

    if inspect.isgenerator(data):
        used = inspect.getgeneratorstate(data) != inspect.GEN_CREATED
    elif inspect.iscoroutine(data):
        used = inspect.getcoroutinestate(data) != inspect.CORO_CREATED
    elif inspect.isasyncgen(data):
        frame = data.ag_frame
        used = frame is None or data.ag_running or frame.f_lasti > _FIRST_INSTRUCTION

    if used:
        raise SourceExhausted(
            f"The data of resource {resource!r} can be read only once, and has been. Pass a new generator, or the "
            "generator function itself: it is called anew for each run."
        )


async def _unstarted() -> AsyncIterator[None]:
    yield None


_FIRST_INSTRUCTION = cast("int", _unstarted().ag_frame.f_lasti)  # type: ignore[attr-defined]


def _is_plain_callable(data: object) -> bool:
    """Callable objects, unless they are data: classes with ``__call__``, but no iterables, models or frames."""
    return callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__aiter__") and (
        kind_of(type(data)) is Kind.ROW and not inspect.isawaitable(data)
    )


def _close(items: object) -> None:
    close = getattr(items, "close", None)

    if callable(close):
        close()


class ListReader:
    """Reads a list or tuple that is at hand, piece by piece, on the loop. The list itself is not changed."""

    def __init__(self, items: list[object] | tuple[object, ...], driver: Driver) -> None:
        self._items = items
        self._driver = driver
        self._position = 0

    async def read(self) -> bool:
        """Process the next few elements."""
        chain = self._driver.chain
        piece = list(self._items[self._position : self._position + _LIST_ROWS])

        if chain.done or not piece:
            return False

        if chain.is_plain and all(kind_of(kind) is Kind.ROW for kind in set(map(type, piece))):
            self._position += len(piece)
            chain.rows += len(piece)
            chain.emit(chain.table, Run(piece))
        else:
            for item in piece[:_LIST_ITEMS]:
                self._position += 1
                await self._driver.drive(chain.process(item))

                if chain.done:
                    break

        await self._driver.pause()

        return True

    async def close(self, failure: BaseException | None) -> BaseException | None:
        """Nothing to close."""
        return failure


class AsyncReader:
    """Reads an asynchronous iterable in the calling task."""

    def __init__(self, source: AsyncIterable[object], driver: Driver) -> None:
        self._source = source
        self._items: AsyncIterator[object] | None = None
        self._driver = driver
        self._plain_table = driver.chain.table if driver.chain.is_plain else None

    async def read(self) -> bool:
        """Wait for the next item and process it."""
        driver = self._driver
        chain = driver.chain

        if chain.done:
            return False

        is_done = False

        try:
            if self._items is None:
                self._items = aiter(self._source)

            item = await anext(self._items)

            # Rows that need no work, one after the other: most of what many sources give, so no frills here.
            while type(item) is dict and self._plain_table is not None:
                chain.rows += 1
                chain.emit(self._plain_table, item)

                if driver.must_pause():
                    is_done = True
                    break

                item = await anext(self._items)
        except StopAsyncIteration:
            return False
        except Exception as error:
            raise chain.error(error, "in its iterator") from error

        if not is_done:
            await driver.drive(chain.process(item))

        await driver.pause()

        return True

    async def close(self, failure: BaseException | None) -> BaseException | None:
        """Let the generator end where it stands.

        A cancellation is thrown in at its ``yield``: it may come from a task group or timeout that the generator
        holds open, which only the generator itself can turn into the real error.
        """
        items = self._items

        if items is None:
            return failure

        try:
            if isinstance(failure, asyncio.CancelledError) and inspect.isasyncgen(items) and items.ag_frame is not None:
                with contextlib.suppress(StopAsyncIteration):
                    await items.athrow(failure)

            close = getattr(items, "aclose", None)

            if close is not None:
                await close()
        except asyncio.CancelledError as cancelled:
            return failure or cancelled
        except BaseException as error:
            return self._real_error(error, failure)

        return failure

    def _real_error(self, error: BaseException, failure: BaseException | None) -> BaseException | None:
        """What to raise when closing the generator has raised ``error``."""
        rest: BaseException | None = error

        if isinstance(error, BaseExceptionGroup):  # from a task group that saw GeneratorExit
            _, rest = error.split((GeneratorExit, asyncio.CancelledError))

        if rest is None or rest is failure or not isinstance(rest, Exception):
            return rest if failure is None else failure

        if failure is not None and not isinstance(failure, asyncio.CancelledError):
            failure.add_note(f"Closing resource {self._driver.chain.resource!r} failed too: {rest!r}")
            return failure

        wrapped = self._driver.chain.error(rest, "when it was closed" if failure is None else "in a task or timeout of its own")
        wrapped.__cause__ = rest

        return wrapped


class ThreadReader:
    """Reads a synchronous iterable in a thread of its own; the steps run there too.

    Args:
        call: Gives the iterable, or a single item; called in the thread.
        driver: For the loop's side.
    """

    def __init__(self, call: Callable[[], object], driver: Driver) -> None:
        self._call = call
        self._driver = driver
        self._chain = driver.chain
        self._thread = driver.thread(self._job, eager=driver.eager)
        self._outbox = _Outbox(self._thread, eager=driver.eager)
        self._deliver = driver.chain.emit
        driver.chain.emit = self._outbox.emit

    async def read(self) -> bool:
        """Pass on what the thread has produced, or wait for it."""
        batch = await self._thread.next()

        for table, item in cast("list[tuple[str, object]]", batch or ()):
            self._deliver(table, item)
            await self._driver.pause()

        if not batch:
            await self._driver.pause()

        return batch is not None

    async def close(self, failure: BaseException | None) -> BaseException | None:
        """End the thread, within ``cancel_grace_s``."""
        await self._thread.close()

        return failure

    def _job(self, thread: OwnThread) -> None:
        chain = self._chain
        outbox = self._outbox
        table = chain.table
        most = self._driver.limits.gather_bytes
        where = "when it was called"
        items: object = None

        try:
            items = iterate_once(self._call())
            where = "in its iterator"

            while not chain.done and (item := next(items, _END)) is not _END:
                if chain.is_plain and type(item) is dict:
                    chain.rows += 1
                    outbox.emit(table, item)
                else:
                    thread.drive(chain.process(item))

                thread.breathe(full=outbox.weight >= most)

            where = "when it was closed"
        except (Closed, ExtractError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise chain.error(error, where) from error
        finally:
            _close(items)


class _Outbox:
    """What a thread has produced and not handed over yet. Rows that come one by one travel as one `Run`."""

    def __init__(self, thread: OwnThread, *, eager: bool) -> None:
        self._thread = thread
        self._eager = eager
        self._run: list[object] | None = None
        self._table = ""
        self._parks = 0
        self._weight = 0.0

    @property
    def weight(self) -> float:
        """About how many bytes wait."""
        return self._weight if self._parks == self._thread.parks else 0.0

    def emit(self, table: str, item: object) -> None:
        """Leave one item for the loop."""
        if self._parks != self._thread.parks:
            self._parks = self._thread.parks
            self._run = None
            self._weight = 0.0

        if type(item) is not dict and isinstance(item, _PAGES):
            self._run = None
            self._weight += _weight(item)
            self._thread.put((table, item))
            return

        run = self._run

        if run is None or table != self._table or self._eager:
            self._run, self._table = [item], table
            self._weight += size_of(item)
            self._thread.put((table, Run(self._run)))
            return

        run.append(item)

        if len(run) % _WEIGH_ROWS == 0:
            self._weight += size_of(item) * _WEIGH_ROWS


def _weight(item: list[object] | JsonBody | pa.Table) -> float:
    if isinstance(item, JsonBody):
        return len(item.data)

    return item.nbytes if isinstance(item, pa.Table) else sampled_row_bytes(item) * len(item)
