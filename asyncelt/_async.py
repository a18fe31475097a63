"""The only concurrency helpers: work in threads, retries, shields with deadlines, errors out of groups."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync

from asyncelt.config import Retry
from asyncelt.errors import AsynceltError, LoadTimeout

__all__ = ["CLEANUP_S", "backoff_delays", "beating", "each", "in_thread", "retrying", "shielded", "unwrap"]

T = TypeVar("T")
R = TypeVar("R")
CLEANUP_S = 10.0
"""How long a cancelled run may take to leave nothing behind."""
_MOST_TIMEOUTS = 20
"""In a row."""


async def in_thread(work: Callable[[], T], limiter: anyio.CapacityLimiter) -> T:
    """Run ``work`` in a thread of ``limiter``'s share, never in the host's default executor.

    Cancellation:
        Takes effect after ``work`` has returned; so ``work`` has to be short, or cut into slices.
    """
    return await run_sync(work, limiter=limiter)


async def each(work: Callable[[T], Awaitable[R]], items: Sequence[T], *, at_once: int) -> list[R]:
    """Do ``work`` with every item, ``at_once`` of them at a time.

    Returns:
        The results, in the order of the items.

    Raises:
        BaseException: The first error of ``work``; what was going on beside it is cancelled.
    """
    if len(items) == 1:
        return [await work(items[0])]

    results: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for at, item in waiting:
            results[at] = await work(item)

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(min(at_once, len(items))):
                tasks.start_soon(worker)
    except BaseExceptionGroup as group:
        error = unwrap(group)

        raise error from error.__cause__

    return [results[at] for at in range(len(items))]


@asynccontextmanager
async def beating(beat: Callable[[], Awaitable[None]], *, every_s: float) -> AsyncIterator[None]:
    """Await ``beat`` at once and then every so many seconds, as long as the block lasts.

    Raises:
        BaseException: The error of the block, or of ``beat``, which cancels the block.
    """

    async def go_on() -> None:
        while True:
            await beat()
            await anyio.sleep(every_s)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go_on)
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = unwrap(group)

        raise error from error.__cause__


@contextmanager
def shielded(seconds: float = CLEANUP_S) -> Iterator[anyio.CancelScope]:
    """Let clean-up await although the task is cancelled, but no longer than ``seconds``."""
    with anyio.move_on_after(seconds, shield=True) as scope:
        yield scope


def backoff_delays(retry: Retry) -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling, capped, with full jitter over the upper half."""
    delay = retry.first_s

    for _ in range(max(retry.attempts - 1, 0)):
        bounded = min(delay, retry.max_s)
        yield bounded * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret
        delay *= 2


async def retrying(
    attempt: Callable[[], Awaitable[T]], retry: Retry, *, on_retry: Callable[[AsynceltError, float], None] | None = None
) -> T:
    """Await ``attempt`` until it succeeds, raises something that is not ``retryable``, or attempts run out.

    However many attempts there are: what the destination has broken off for taking too long, time after time, is not
    going to be quicker.
    """
    delays = backoff_delays(retry)
    too_slow = 0

    while True:
        try:
            return await attempt()
        except AsynceltError as error:
            delay = next(delays, None) if error.retryable else None
            too_slow = too_slow + 1 if isinstance(error, LoadTimeout) else 0

            if delay is None or too_slow >= _MOST_TIMEOUTS:
                raise

            if on_retry is not None:
                on_retry(error, delay)

        await anyio.sleep(delay)


def unwrap(error: BaseException) -> BaseException:
    """The one real error inside a group, or the group itself where there are several.

    Cancellations inside a group are what the real error caused, so they do not count.
    """
    while isinstance(error, BaseExceptionGroup):
        cancelled = anyio.get_cancelled_exc_class()
        _, rest = error.split(cancelled)
        inner = rest if rest is not None else error

        if len(inner.exceptions) != 1:
            return inner

        error = inner.exceptions[0]

    return error
