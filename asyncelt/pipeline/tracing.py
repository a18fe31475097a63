"""Traces of calls: collected step by step, kept as JSON in the working folder."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, Self, TypeAlias, TypeVar
from uuid import uuid4

from asyncelt.engine.tracebacks import shortened
from asyncelt.errors import PipelineStepFailed
from asyncelt.info.steps import StepInfo
from asyncelt.info.streams import StreamStats
from asyncelt.info.trace import PipelineTrace, StepTrace, joined, step_trace

__all__ = ["Note", "Recorder", "Recording", "StreamRecorder", "keep_trace", "read_trace", "traced"]

_FILE: Final = "trace.json"

I = TypeVar("I")  # noqa: E741 - of the info of a call
Note: TypeAlias = Callable[[I | None, BaseException | None], None]
"""Notes the steps of a call: with its info when it has ended well, else with its error."""


class Recording(Generic[I]):
    """Around the work of a call: keeps its trace, however it ends; an error says what was done, and is short.

    A class: what `contextlib` makes of a generator gives an error all of its traceback back.

    Args:
        record: Keeps the trace.
        info: What has been done, as of now.
        note: Called before that, with the info or with the error.
    """

    info: I
    """What was done; there when the block has ended well."""

    def __init__(self, record: Callable[[], Awaitable[None]], info: Callable[[], I], note: Note[I]) -> None:
        self._record = record
        self._info = info
        self._note = note

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.end(error)

    async def end(self, error: BaseException | None) -> None:
        """Keep the trace of a call that has ended, even before its block could begin."""
        if error is None:
            self.info = self._info()
            self._note(self.info, None)
        else:
            if isinstance(error, PipelineStepFailed):
                shortened(error)
                error.step_info = self._info()

            self._note(None, error)

        await self._record()


class Recorder:
    """The steps of one call."""

    def __init__(self, pipeline_name: str) -> None:
        self.started_at = datetime.now(UTC)
        self.steps: list[StepTrace] = []
        self._pipeline_name = pipeline_name

    def done(
        self, step: str, info: StepInfo | None = None, error: BaseException | None = None, *, whole: bool = False
    ) -> None:
        """Note one step.

        Args:
            step: Its name.
            info: What it returned.
            error: What it raised.
            whole: Whether it began with the call; else it began and ended as its info says.
        """
        started = info.started_at if info is not None and not whole else None
        finished = info.finished_at if info is not None and not whole else None
        self.steps.append(
            step_trace(
                step,
                started or self.started_at,
                info=info,
                error=error,
                pipeline_name=self._pipeline_name,
                finished_at=finished,
            )
        )

    def noting(self, step: str) -> Note[StepInfo]:
        """Notes the one step of a call."""
        return partial(self.done, step)


class StreamRecorder:
    """The one step of a stream: each trace takes the place of the one before, so that a stream's never grows."""

    def __init__(self, pipeline_name: str) -> None:
        self._pipeline_name = pipeline_name
        self._began = step_trace("stream", datetime.now(UTC))
        self._transaction_id = uuid4().hex
        self._error: BaseException | None = None

    def done(self, stats: StreamStats | None, error: BaseException | None) -> None:
        """Note how it has ended."""
        del stats
        self._error = error

    def trace(self, stats: StreamStats, *, is_running: bool = False) -> PipelineTrace:
        """The trace of a stream that has come so far. Blocking."""
        name, began = self._pipeline_name, self._began
        step = step_trace("stream", began.started_at, error=self._error, pipeline_name=name)
        step = replace(step, span_id=began.span_id, step_info=asdict(stats), text=str(stats), is_running=is_running)

        return replace(joined(None, (step,), execution_context(), name), transaction_id=self._transaction_id)


def traced(root: Path, earlier: PipelineTrace | None, steps: Sequence[StepTrace], name: str) -> PipelineTrace:
    """The trace after further steps. Blocking: what was kept before may be in the working folder only."""
    before = earlier if earlier is not None or len(steps) > 1 else read_trace(root)

    return joined(before, steps, execution_context(), name)


def keep_trace(root: Path, trace: PipelineTrace) -> str | None:
    """Keep it in the working folder. Blocking.

    Returns:
        What went wrong. It is no reason for a call to fail, whose commit stands.
    """
    try:
        # Not by way of a second file: a torn trace is as good as none, and small runs pay for every system call.
        (root / _FILE).write_bytes(trace.to_json())
    except (OSError, TypeError) as error:
        return f"The trace could not be kept in {root / _FILE}: {error}. Nothing else depends on it."

    return None


def read_trace(root: Path) -> PipelineTrace | None:
    """The trace that a working folder keeps; None where there is none or it cannot be read. Blocking."""
    try:
        return PipelineTrace.from_json((root / _FILE).read_bytes())
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def execution_context() -> Mapping[str, object]:
    """Where this process runs."""
    try:
        library = version("asyncelt")
    except PackageNotFoundError:
        library = "unknown"

    return {
        "python": platform.python_version(),
        "cpu": os.cpu_count(),
        "os": {"name": platform.system(), "version": platform.release()},
        "library": {"name": "asyncelt", "version": library},
        "exec_info": ["notebook"] if "ipykernel" in sys.modules else [],
    }
