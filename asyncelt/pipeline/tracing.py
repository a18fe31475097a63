"""Traces of calls: collected step by step, kept as JSON in the working folder."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from asyncelt.info.steps import StepInfo
from asyncelt.info.trace import PipelineTrace, StepTrace, joined, step_trace

__all__ = ["Recorder", "keep_trace", "read_trace"]

_FILE: Final = "trace.json"


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


def keep_trace(root: Path, earlier: PipelineTrace | None, steps: Sequence[StepTrace], name: str) -> PipelineTrace:
    """Join steps to what was kept before, and keep that. Blocking."""
    before = earlier if earlier is not None or len(steps) > 1 else read_trace(root)
    trace = joined(before, steps, execution_context(), name)
    # Not by way of a second file: a torn trace is as good as none, and small runs pay for every system call.
    (root / _FILE).write_bytes(trace.to_json())

    return trace


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
