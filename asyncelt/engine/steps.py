"""The boundary of each step: whatever goes wrong inside becomes one `PipelineStepFailed` with one cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from asyncelt._async import unwrap
from asyncelt.engine.environment import Environment
from asyncelt.engine.tracebacks import shortened
from asyncelt.errors import ConfigError, PipelineBusy, PipelineStepFailed
from asyncelt.observe import Stage, reported
from asyncelt.types import LoadId, PipelineStep

__all__ = ["one_error", "stage", "step"]


@contextmanager
def step(name: PipelineStep, *, pipeline_name: str, load_id: LoadId | None = None) -> Iterator[None]:
    """Report errors inside the block as a failure of this step.

    Errors that already name a step pass unchanged, as do wrong arguments, a busy pipeline and cancellation.
    """
    try:
        yield
    except Exception as error:
        cause = shortened(unwrap(error))

        if isinstance(cause, (PipelineStepFailed, ConfigError, PipelineBusy)):
            raise cause from cause.__cause__

        raise PipelineStepFailed(
            _message(name, pipeline_name, load_id, cause), pipeline_name=pipeline_name, step=name, load_id=load_id
        ) from cause


@contextmanager
def stage(
    environment: Environment, name: Stage, load_id: LoadId | None = None, *, is_reported: bool = True
) -> Iterator[None]:
    """Report a stage to observers, and what goes wrong in it as a failure of the step of its name."""
    pipeline = environment.pipeline_name
    shown = reported(environment.emit, pipeline, name) if is_reported else nullcontext()

    with shown, step(name, pipeline_name=pipeline, load_id=load_id), one_error():
        yield


@contextmanager
def one_error() -> Iterator[None]:
    """Take the one real error out of the groups that task groups wrap around it."""
    try:
        yield
    except ExceptionGroup as group:
        cause = unwrap(group)

        if isinstance(cause, ExceptionGroup):
            named = [error for error in cause.exceptions if isinstance(error, PipelineStepFailed)]

            # Several stages failed at once: the one that stands first in the data's way is the cause of the others.
            if named:
                cause = min(named, key=lambda error: _ORDER.get(error.step, 0))

        raise cause from cause.__cause__


_ORDER = {"extract": 0, "normalize": 1, "load": 2}


def _message(name: str, pipeline_name: str, load_id: LoadId | None, cause: BaseException) -> str:
    where = f" in load package {load_id}" if load_id else ""

    if isinstance(cause, BaseExceptionGroup):
        details = "; ".join(f"{type(error).__name__}: {error}" for error in cause.exceptions)
    else:
        details = f"{type(cause).__name__}: {cause}"

    return f"Pipeline {pipeline_name!r} failed at step {name!r}{where}. {details}"
