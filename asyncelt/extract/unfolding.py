"""Items that stand for others: awaitables, functions, frames, lists of pages, iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import TypeAlias, cast

from asyncelt import current
from asyncelt.errors import UsageError
from asyncelt.extract.functions import is_async_function
from asyncelt.extract.headway import Headway
from asyncelt.extract.items import Kind, table_of
from asyncelt.extract.requests import Ahead, Offload, Pull, Request, Work

__all__ = ["SETTLED", "UNFOLDED", "Onward", "called", "each", "settle", "state_of_source", "unfold"]

SETTLED = frozenset({Kind.AWAITABLE, Kind.CALLABLE, Kind.FRAME})
"""What stands for one item."""
UNFOLDED = frozenset({Kind.NOTHING, Kind.ITERATOR, Kind.ASYNC_ITERABLE, Kind.PAGE})
"""What stands for any number of items."""
Onward: TypeAlias = Callable[[object], Work]
"""The work of one of the items that another one stands for, from where that one has come to."""


def settle(item: object, kind: Kind, headway: Headway) -> Generator[Request, object, object]:
    """What an awaitable, a function or a frame stands for."""
    try:
        if kind is Kind.AWAITABLE:
            return (yield Ahead(cast("Awaitable[object]", item)))

        if kind is Kind.FRAME:
            return (yield Offload(partial(table_of, item)))

        function = cast("Callable[[], object]", item)

        return function() if is_async_function(function) else (yield Ahead(Offload(partial(called, function))))
    except Exception as error:
        headway.fail(error, "in what it yielded")


def unfold(item: object, kind: Kind, onward: Onward, headway: Headway) -> Work:
    """The items that one stands for, one after the other."""
    if kind is Kind.ITERATOR:
        yield from _pull(cast("Iterator[object]", item), onward, headway)
    elif kind is Kind.ASYNC_ITERABLE:
        yield from _pull_async(cast("AsyncIterator[object]", item), onward, headway)
    elif kind is Kind.PAGE:
        yield from each(iter(cast("list[object]", item)), onward, headway)


def state_of_source() -> dict[str, object]:
    """The state of the source at hand, its resources' included; an empty one where there is no run."""
    try:
        return current.source_state()
    except UsageError:
        return {}


def each(items: Iterator[object], onward: Onward, headway: Headway) -> Work:
    """The items of an iterator that does not block, one by one."""
    for item in items:
        if headway.ended():
            return

        yield from onward(item)
        yield None


def _pull(items: Iterator[object], onward: Onward, headway: Headway) -> Work:
    """A synchronous iterator that was yielded by a source or a step."""
    pull = Pull(items)

    try:
        while not headway.ended():
            try:
                batch = yield pull
            except Exception as error:
                headway.fail(error, "in what it yielded")

            if batch is None:
                break

            for item in cast("list[object]", batch):
                yield from onward(item)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _closed(pull)
        raise

    yield from _closed(pull)


def _pull_async(source: AsyncIterator[object], onward: Onward, headway: Headway) -> Work:
    """An asynchronous iterable that was yielded by a source or a step."""
    items = source.__aiter__()
    close = getattr(items, "aclose", None)

    try:
        while not headway.ended():
            try:
                item = yield items.__anext__()
            except StopAsyncIteration:
                break
            except Exception as error:
                headway.fail(error, "in what it yielded")

            yield from onward(item)
    except GeneratorExit:
        raise
    except BaseException:
        if close is not None:
            yield close()

        raise

    if close is not None:
        yield close()


def called(function: Callable[[], object]) -> object:
    """The result of ``function``. StopIteration must not get out: it would end whoever drives this."""
    try:
        return function()
    except StopIteration as stop:
        raise RuntimeError(f"{function!r} raised StopIteration") from stop


def _closed(pull: Pull) -> Work:
    """Close an iterator where it lives: in the thread that its driver has opened, or here."""
    if pull.thread is not None:
        yield pull.thread.close()
    else:
        getattr(pull.iterator, "close", _nothing)()


def _nothing() -> None:
    """Stand in for a close method."""
