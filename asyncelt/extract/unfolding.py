"""Items that stand for others: awaitables, functions, frames, lists of pages, iterators. Part of `Chain`'s work."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from asyncelt import current
from asyncelt.errors import UsageError
from asyncelt.extract.functions import is_async_function
from asyncelt.extract.items import Kind, table_of
from asyncelt.extract.messages import Checkpoint, Message, Messages, SafePoint, stream_side
from asyncelt.extract.requests import Ahead, Offload, Pull, Request, Work

if TYPE_CHECKING:
    from asyncelt.extract.chain import Chain

__all__ = ["SETTLED", "UNFOLDED", "called", "each", "received", "settle", "state_of_source", "unfold"]

SETTLED = frozenset({Kind.AWAITABLE, Kind.CALLABLE, Kind.FRAME})
UNFOLDED = frozenset({Kind.NOTHING, Kind.ITERATOR, Kind.ASYNC_ITERABLE, Kind.PAGE})


def settle(chain: Chain, item: object, kind: Kind) -> Generator[Request, object, object]:
    """What an awaitable, a function or a frame stands for."""
    try:
        if kind is Kind.AWAITABLE:
            return (yield Ahead(cast("Awaitable[object]", item)))

        if kind is Kind.FRAME:
            return (yield Offload(partial(table_of, item)))

        function = cast("Callable[[], object]", item)

        return function() if is_async_function(function) else (yield Ahead(Offload(partial(called, function))))
    except Exception as error:
        chain.fail(error, "in what it yielded")


def unfold(chain: Chain, item: object, kind: Kind, index: int, table: str | None) -> Work:
    """What stands for any number of items, none included."""
    if kind is Kind.ITERATOR:
        yield from _pull(chain, cast("Iterator[object]", item), index, table)
    elif kind is Kind.ASYNC_ITERABLE:
        yield from _pull_async(chain, cast("AsyncIterator[object]", item), index, table)
    elif kind is Kind.PAGE:
        yield from each(chain, iter(cast("list[object]", item)), index, table)


def received(chain: Chain, item: Message | Messages | Checkpoint, index: int) -> Work:
    """What messages hold, unless the stream has it already; then the safe point that comes after it."""
    if isinstance(item, Checkpoint):
        chain.settle(finished=False)
        chain.emit(chain.table, SafePoint(state=copy.deepcopy(state_of_source())))

        return

    if isinstance(item, Messages):
        yield from chain.process(item.item, index, item.table_name)
        chain.emit(chain.table, SafePoint(item.receipts, item.origin))

        return

    side = stream_side.get()

    if side is None or side.accept(item.origin, item.receipt):
        yield from chain.process(item.value, index, item.table_name)

    chain.emit(chain.table, SafePoint((item.receipt,), item.origin))


def state_of_source() -> dict[str, object]:
    """The state of the source at hand, its resources' included; an empty one where there is no run."""
    try:
        return current.source_state()
    except UsageError:
        return {}


def each(chain: Chain, items: Iterator[object], index: int, table: str | None) -> Work:
    """The items of an iterator that does not block, one by one."""
    for item in items:
        if chain.ended():
            return

        yield from chain.process(item, index, table)
        yield None


def _pull(chain: Chain, items: Iterator[object], index: int, table: str | None) -> Work:
    """A synchronous iterator that was yielded by a source or a step."""
    pull = Pull(items)

    try:
        while not chain.ended():
            try:
                batch = yield pull
            except Exception as error:
                chain.fail(error, "in what it yielded")

            if batch is None:
                break

            for item in cast("list[object]", batch):
                yield from chain.process(item, index, table)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _closed(pull)
        raise

    yield from _closed(pull)


def _pull_async(chain: Chain, source: AsyncIterator[object], index: int, table: str | None) -> Work:
    """An asynchronous iterable that was yielded by a source or a step."""
    items = source.__aiter__()
    close = getattr(items, "aclose", None)

    try:
        while not chain.ended():
            try:
                item = yield items.__anext__()
            except StopAsyncIteration:
                break
            except Exception as error:
                chain.fail(error, "in what it yielded")

            yield from chain.process(item, index, table)
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
