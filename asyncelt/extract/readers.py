"""Reading a source, one item or one batch at a time: asynchronous, synchronous in a thread, or a list at hand.

A reader owns its source from `open_reader` to `close`. All calls must come from one task, because a user's
asynchronous generator may hold task groups and cancel scopes open while it is suspended.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol, cast

from asyncelt.errors import SourceExhausted
from asyncelt.extract.driver import Driver, close_iterator, pull_all
from asyncelt.extract.feeds import Feed
from asyncelt.extract.functions import is_async_function, is_function
from asyncelt.extract.items import Kind, is_exhausted, is_iterable_data, iterate_once, kind_of
from asyncelt.extract.outbox import Outbox
from asyncelt.extract.requests import Singles
from asyncelt.extract.thread import Closed, OwnThread

__all__ = ["AsyncReader", "Reader", "open_reader"]

_LIST_ROWS = 512
"""Rows of a list at hand that are passed on together ..."""
_LIST_ITEMS = 32
"""... and elements, where each one has to be looked at."""
_PARALLEL = frozenset({Kind.AWAITABLE, Kind.CALLABLE})
_END = object()


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
    if isinstance(data, Feed):
        if driver.chain.looks_ahead:
            return AsyncReader(data.items(), driver)

        return ThreadReader(data.items_in, driver)

    ensure_fresh(data, driver.headway.resource)

    try:
        if not is_function(data):
            data = await data if inspect.isawaitable(data) else data
        elif is_async_function(data):
            data = cast("Callable[[], object]", data)()
            data = await data if inspect.isawaitable(data) else data
        else:
            return _thread_reader(cast("Callable[[], object]", data), driver)
    except Exception as error:
        driver.headway.fail(error, "when it was called")

    if isinstance(data, AsyncIterable):
        return AsyncReader(data, driver)

    if isinstance(data, list | tuple):
        return ListReader(data, driver)

    return _thread_reader(lambda: data, driver) if is_iterable_data(data) else ListReader((data,), driver)


def _thread_reader(call: Callable[[], object], driver: Driver) -> Reader:
    return RawThreadReader(call, driver) if driver.chain.looks_ahead else ThreadReader(lambda _: call(), driver)


def ensure_fresh(data: object, resource: str) -> None:
    """Refuse what can be read only once and has been started.

    Raises:
        SourceExhausted: See above.
    """
    if is_exhausted(data):
        raise SourceExhausted(
            f"The data of resource {resource!r} can be read only once, and has been. Pass a new generator, or the "
            "generator function itself: it is called anew for each run."
        )


class ListReader:
    """Reads a list or tuple that is at hand, piece by piece, on the loop. The list itself is not changed."""

    def __init__(self, items: list[object] | tuple[object, ...], driver: Driver) -> None:
        self._items = items
        self._driver = driver
        self._position = 0

    async def read(self) -> bool:
        """Process the next few elements."""
        chain, headway = self._driver.chain, self._driver.headway
        piece = list(self._items[self._position : self._position + _LIST_ROWS])

        if headway.ended() or not piece:
            return False

        if (
            chain.is_plain
            and not self._driver.has_pending
            and all(kind_of(kind) is Kind.ROW for kind in set(map(type, piece)))
        ):
            self._position += len(piece)
            headway.rows += len(piece)
            chain.router.emit(chain.router.table, Singles(piece))
        else:
            for item in piece[:_LIST_ITEMS]:
                self._position += 1
                await self._driver.process(item)

                if headway.ended():
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

    async def read(self) -> bool:
        """Wait for the next item and process it."""
        driver = self._driver
        chain, headway = driver.chain, driver.headway

        if headway.ended():
            return False

        is_done = False
        table = None if driver.has_pending or not chain.is_plain else chain.router.table
        take_row = driver.take_row

        driver.at_rest = not driver.has_pending

        try:
            if self._items is None:
                self._items = aiter(self._source)

            item = await anext(self._items)

            # Rows that need no work, one after the other: most of what many sources give, so no frills here.
            while type(item) is dict and table is not None:
                headway.rows += 1
                take_row(table, item)

                if driver.must_pause():
                    is_done = True
                    break

                item = await anext(self._items)
        except StopAsyncIteration:
            return False
        except Exception as error:
            headway.fail(error, "in its iterator")
        finally:
            driver.at_rest = False

        if not is_done:
            await driver.process(item)

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
            failure.add_note(f"Closing resource {self._driver.headway.resource!r} failed too: {rest!r}")
            return failure

        wrapped = self._driver.headway.error(
            rest, "when it was closed" if failure is None else "in a task or timeout of its own"
        )
        wrapped.__cause__ = rest

        return wrapped


class ThreadReader:
    """Reads a synchronous iterable in a thread of its own; the steps run there too.

    Args:
        call: Gives the iterable, or a single item; called in the thread, with the thread.
        driver: For the loop's side.
    """

    def __init__(self, call: Callable[[OwnThread], object], driver: Driver) -> None:
        self._call = call
        self._driver = driver
        self._chain = driver.chain
        self._router = driver.chain.router
        self._headway = driver.headway
        self._thread = driver.thread(self._job, eager=driver.eager)
        self._outbox = Outbox(self._thread, eager=driver.eager)
        self._deliver = self._router.emit
        self._router.emit = self._outbox.emit

    async def read(self) -> bool:
        """Pass on what the thread has produced, or wait for it."""
        batch = await self._thread.next()

        for table, item in cast("list[tuple[str, object]]", batch or ()):
            if not isinstance(item, _Raw):
                self._deliver(table, item)
            elif self._headway.ended():
                return False
            else:
                self._router.emit = self._deliver  # from the first of these on, the steps run on the loop
                await self._driver.process(item.item)

            await self._driver.pause()

        if not batch:
            await self._driver.pause()

        return batch is not None

    async def close(self, failure: BaseException | None) -> BaseException | None:
        """End the thread, within ``cancel_grace_s``."""
        await self._thread.close()

        return failure

    def _job(self, thread: OwnThread) -> None:
        items: object = None

        try:
            items = self._guarded(lambda: iterate_once(self._call(thread)), "when it was called")
            self._read_all(cast("Iterator[object]", items), thread)
        except BaseException:
            with contextlib.suppress(Exception):  # there is an error already
                close_iterator(items)

            raise

        self._guarded(lambda: close_iterator(items), "when it was closed")

    def _read_all(self, items: Iterator[object], thread: OwnThread) -> None:
        chain, router, headway = self._chain, self._router, self._headway
        outbox = self._outbox
        is_plain = chain.is_plain
        table = router.table
        most = self._driver.limits.gather_bytes

        while not headway.ended():
            try:
                item = next(items, _END)
            except BaseException as error:
                self._fail(error, "in its iterator")

            if item is _END:
                return

            if type(item) is not dict:
                if kind_of(type(item)) in _PARALLEL:
                    self._leave_to_loop(item, items, thread)
                    return

                thread.drive(chain.process(item))
                table = router.table  # hints that came with the item may have changed it
            elif is_plain:
                headway.rows += 1
                outbox.emit_row(table, item)
            elif (work := chain.process_row(item)) is not None:
                thread.drive(work)

            is_full = outbox.weight >= most
            thread.breathe(full=is_full)

            if is_full:
                outbox.begin()

    def _leave_to_loop(self, item: object, items: Iterator[object], thread: OwnThread) -> None:
        """Only read, from here on: what has to be awaited or called may run side by side, which is for the loop."""
        while item is not _END:
            thread.put(("", _Raw(item)))
            thread.breathe()

            try:
                item = next(items, _END)
            except BaseException as error:
                self._fail(error, "in its iterator")

    def _guarded(self, call: Callable[[], object], where: str) -> object:
        try:
            return call()
        except BaseException as error:
            self._fail(error, where)

    def _fail(self, error: BaseException, where: str) -> NoReturn:
        """Raise ``error`` as the resource's own. A cancellation too: nobody has cancelled the thread."""
        if isinstance(error, Closed | KeyboardInterrupt | SystemExit):
            raise error

        self._headway.fail(error, where)


class RawThreadReader:
    """Reads a synchronous iterable in a thread of its own, and leaves the steps to the loop."""

    def __init__(self, call: Callable[[], object], driver: Driver) -> None:
        self._call = call
        self._driver = driver
        self._thread = driver.thread(self._job)

    async def read(self) -> bool:
        """Process what the thread has read."""
        try:
            batch = await self._thread.next()
        except Exception as error:
            self._driver.headway.fail(error, "in its iterator")

        for item in batch or ():
            if self._driver.headway.ended():
                return False

            await self._driver.process(item)

        await self._driver.pause()

        return batch is not None

    async def close(self, failure: BaseException | None) -> BaseException | None:
        """End the thread, within ``cancel_grace_s``."""
        await self._thread.close()

        return failure

    def _job(self, thread: OwnThread) -> None:
        pull_all(iterate_once(self._call()), thread)


@dataclass(frozen=True, slots=True)
class _Raw:
    """An item that went through no step yet."""

    item: object
