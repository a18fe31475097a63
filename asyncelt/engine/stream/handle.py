"""What a caller holds of a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

import anyio
from anyio.abc import TaskGroup

from asyncelt.engine.steps import one_error
from asyncelt.errors import UsageError
from asyncelt.info.streams import StreamStats

__all__ = ["Running", "Stream"]

_DRAIN_S = 30.0


class Running(Protocol):
    """The work of a stream."""

    def drain(self) -> None:
        """End every source at its next safe point, and the stream when all is committed."""
        ...

    def stats(self) -> StreamStats:
        """Figures as of now."""
        ...


class Stream:
    """A stream of a pipeline, made by `Pipeline.stream`. It starts when it is awaited or entered, once.

    ::

        await pipeline.stream(source)                    # until the source ends, or the task is cancelled

        async with pipeline.stream(source) as stream:    # beside the block; drained at its end
            ...

    Args:
        work: Runs the stream to its end; calls its argument when it is about to read.
        empty: Figures of a stream that has done nothing.
    """

    def __init__(self, work: Callable[[Callable[[Running], None]], Awaitable[None]], empty: StreamStats) -> None:
        self._work = work
        self._stats = empty
        self._running: Running | None = None
        self._scope: anyio.CancelScope | None = None
        self._done = anyio.Event()
        self._is_started = False
        self._is_draining = False
        self._tasks: TaskGroup | None = None
        self._host = 0
        """The task that has entered it."""

    @property
    def stats(self) -> StreamStats:
        """Figures as of now, or as of the stream's end."""
        return self._stats if self._running is None else self._running.stats()

    def __await__(self) -> Generator[object, None, StreamStats]:
        return self.run().__await__()

    async def run(self) -> StreamStats:
        """Read, load and acknowledge until the sources end, `drain` is called, or the task is cancelled.

        Returns:
            The figures at the end.

        Raises:
            ConfigError: The source cannot be streamed; before any I/O.
            PipelineBusy: Another owner is at work and ``on_busy`` is ``raise``.
            PipelineStepFailed: Anything else. What was sealed is pending and is committed by the next stream or run;
                other messages are given back to their sources.
            UsageError: It has been started before.

        Cancellation:
            Safe at any await. As after an error, nothing is lost and nothing doubled.
        """
        if self._is_started:
            raise UsageError("A stream can be started once; call pipeline.stream() again.")

        self._is_started = True
        # Made here: a stream may be described where no loop runs yet.
        self._scope = scope = anyio.CancelScope()

        try:
            with scope:
                await self._work(self._begin)
        finally:
            stats = self.stats
            self._stats = replace(stats, is_drained=not scope.cancelled_caught)
            self._running = None
            self._done.set()

        return self._stats

    async def drain(self, deadline: float = _DRAIN_S) -> StreamStats:
        """End in good order: stop reading at safe points, commit and acknowledge what is in flight.

        Args:
            deadline: Seconds until what is still in flight is given up: its messages go back to their sources,
                unacknowledged, and packages that were sealed wait for the next stream or run.

        Returns:
            The figures at the end; ``is_drained`` says whether the deadline was met.
        """
        self._is_draining = True

        if self._running is not None:
            self._running.drain()

        if self._is_started:
            with anyio.move_on_after(deadline):
                await self._done.wait()

            if not self._done.is_set():
                self._cancel()
                await self._done.wait()

        return self._stats

    async def ended(self) -> StreamStats:
        """Wait for the end of a stream that was started elsewhere.

        Returns:
            The figures at the end.
        """
        await self._done.wait()

        return self._stats

    def _begin(self, running: Running) -> None:
        self._running = running

        if self._is_draining:
            running.drain()
            self._cancel()

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        self._host = anyio.get_current_task().id
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.run)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        tasks = self._tasks

        if tasks is None:
            return None

        # Fixtures of tests do so; the task group cannot be left from there.
        if anyio.get_current_task().id != self._host:
            await self.drain()

            raise UsageError(
                "A stream is left in another task than the one that has entered it; it was drained. Where set-up and "
                "clean-up are tasks of their own, start stream.run() in a task, and await stream.drain() at the end."
            )

        with one_error():
            try:
                if error is None:
                    await self.drain()
                else:
                    self._cancel()
            finally:
                left = await tasks.__aexit__(kind, error, traceback)

        return left
