"""Traces of calls: collected step by step, kept as JSON in the working folder."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar
from uuid import uuid4

from asyncelt.info.steps import StepInfo
from asyncelt.info.streams import StreamStats
from asyncelt.info.trace import PipelineTrace, StepTrace, joined, step_trace

__all__ = ["Kept", "Note", "Recorder", "StreamRecorder", "keep_trace", "read_trace", "traced"]

_FILE: Final = "trace.json"

I = TypeVar("I", bound=StepInfo)  # noqa: E741 - of the info of a call
Note: TypeAlias = Callable[[StepInfo | None, BaseException | None], None]
"""Notes the steps of a call: with its info when it has ended well, else with its error."""


class Kept(Generic[I]):
    """A call that is being recorded."""

    info: I
    """What it has done; there when it has ended well."""


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


class StreamRecorder:
    """The one step of a stream: each trace takes the place of the one before, so that a stream's never grows."""

    def __init__(self, pipeline_name: str) -> None:
        self._pipeline_name = pipeline_name
        self._began = step_trace("stream", datetime.now(UTC))
        self._transaction_id = uuid4().hex

    def trace(
        self, stats: StreamStats, error: BaseException | None = None, *, is_running: bool = False
    ) -> PipelineTrace:
        """The trace of a stream that has come so far, or ended so. Blocking."""
        step = step_trace("stream", self._began.started_at, error=error, pipeline_name=self._pipeline_name)
        step = replace(
            step, span_id=self._began.span_id, step_info=asdict(stats), text=str(stats), is_running=is_running
        )

        return replace(
            joined(None, (step,), execution_context(), self._pipeline_name), transaction_id=self._transaction_id
        )


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
