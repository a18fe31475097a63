"""The trace of a pipeline: what its last calls did, kept as JSON in the working folder."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast
from uuid import uuid4

import orjson

from asyncelt.configuration.resolved import resolved_values
from asyncelt.info.steps import StepInfo
from asyncelt.info.text import elapsed, iso, plain

__all__ = ["PipelineTrace", "StepTrace"]

ENGINE_VERSION: Final = 2
MAX_STEPS: Final = 100
_NOT_KEPT: Final = frozenset({"pipeline", "step_info", "data_item"})
"""Attributes of errors that are no matter of a file: objects of ours, and the user's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrace:
    """One step of one call."""

    span_id: str
    step: str
    started_at: datetime
    finished_at: datetime
    step_info: StepInfo | Mapping[str, object] | None = None
    """The info that the step returned; as plain values where the trace comes from the disk."""
    step_exception: str | None = None
    """Text of the error, where the step failed."""
    exception_traces: tuple[Mapping[str, object], ...] = ()
    """The error and its causes, outermost first."""
    text: str = ""
    """The info as it prints; for traces that come from the disk."""
    is_running: bool = False
    """Of a stream that goes on: ``finished_at`` is when this was noted."""

    def asdict(self) -> dict[str, object]:
        """Plain values."""
        info = self.step_info.asdict() if isinstance(self.step_info, StepInfo) else self.step_info
        text = str(self.step_info) if isinstance(self.step_info, StepInfo) else self.text

        # What run returns is what load returned: once is enough.
        if self.step == "run":
            info, text = None, ""

        return {
            "span_id": self.span_id,
            "step": self.step,
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "step_info": info,
            "step_exception": self.step_exception,
            "exception_traces": [dict(one) for one in self.exception_traces],
            "text": text,
            **({"is_running": True} if self.is_running else {}),
        }

    def asstr(self, verbosity: int = 0) -> str:
        """How it went, what went wrong, and what it did."""
        how = "FAILED in" if self.step_exception is not None else "RUNNING for" if self.is_running else "COMPLETED in"
        lines = [f"Step {self.step} {how} {elapsed(self.started_at, self.finished_at)}."]

        if self.step_exception is not None:
            lines.append(self.step_exception)

        # The info of run is that of load.
        if self.step != "run":
            info = self.step_info
            lines.append(info.asstr(verbosity) if isinstance(info, StepInfo) else self.text)

        return "\n".join(line for line in lines if line)

    def __str__(self) -> str:
        return self.asstr()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineTrace:
    """Steps of the last run, or of the last calls of single steps."""

    transaction_id: str
    pipeline_name: str
    execution_context: Mapping[str, object]
    started_at: datetime
    steps: tuple[StepTrace, ...]
    finished_at: datetime
    resolved_config_values: tuple[Mapping[str, object], ...] = ()
    """What was found in configuration since the pipeline is active, one mapping each: ``key``, ``value`` (None for what
    is or looks secret), ``is_secret_hint``, ``sections``, ``provider_name``."""
    engine_version: int = ENGINE_VERSION

    @property
    def last_extract_info(self) -> StepInfo | Mapping[str, object] | None:
        """What the last extract step returned."""
        return self._last_info("extract")

    @property
    def last_normalize_info(self) -> StepInfo | Mapping[str, object] | None:
        """What the last normalize step returned."""
        return self._last_info("normalize")

    @property
    def last_load_info(self) -> StepInfo | Mapping[str, object] | None:
        """What the last load step returned."""
        return self._last_info("load")

    def last_pipeline_step_trace(self, step: str) -> StepTrace | None:
        """The last step of this name."""
        return next((one for one in reversed(self.steps) if one.step == step), None)

    def _last_info(self, step: str) -> StepInfo | Mapping[str, object] | None:
        found = self.last_pipeline_step_trace(step)

        return None if found is None else found.step_info

    def asdict(self) -> dict[str, object]:
        """Plain values, fit for loading through a pipeline."""
        return {
            "transaction_id": self.transaction_id,
            "pipeline_name": self.pipeline_name,
            "execution_context": dict(self.execution_context),
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "steps": [one.asdict() for one in self.steps],
            "resolved_config_values": [dict(one) for one in self.resolved_config_values],
            "engine_version": self.engine_version,
        }

    def to_json(self) -> bytes:
        """The text that a working folder keeps."""
        return orjson.dumps(self.asdict(), default=plain, option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def from_json(cls, content: bytes) -> PipelineTrace:
        """The trace that a working folder keeps.

        Raises:
            ValueError: The text is not one.
        """
        known = orjson.loads(content)

        try:
            steps = tuple(_step_from(one) for one in known["steps"])

            return cls(
                transaction_id=known["transaction_id"],
                pipeline_name=known["pipeline_name"],
                execution_context=known["execution_context"],
                started_at=datetime.fromisoformat(known["started_at"]),
                finished_at=datetime.fromisoformat(known["finished_at"]),
                steps=steps,
                resolved_config_values=tuple(known["resolved_config_values"]),
                engine_version=known["engine_version"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"The text is not a trace: {error}") from error

    def asstr(self, verbosity: int = 0) -> str:
        """How it went as a whole, then each step."""
        how = "FAILED in" if any(one.step_exception is not None for one in self.steps) else "COMPLETED in"
        how = "RUNNING for" if any(one.is_running for one in self.steps) else how
        head = (
            f"Run started at {self.started_at} and {how} {elapsed(self.started_at, self.finished_at)} "
            f"with {len(self.steps)} steps."
        )

        return "\n".join([head, *(one.asstr(verbosity) for one in self.steps)])

    def __str__(self) -> str:
        return self.asstr(verbosity=0)


def joined(
    earlier: PipelineTrace | None, steps: Sequence[StepTrace], context: Mapping[str, object], name: str
) -> PipelineTrace:
    """The trace after further steps: several make a new one, a single one is added to the one before."""
    before = earlier.steps if earlier is not None and len(steps) == 1 else ()
    kept = (*before, *steps)[-MAX_STEPS:]

    values = {_place_of(one): one for one in earlier.resolved_config_values} if earlier is not None and before else {}
    values |= {_place_of(one): one for one in resolved_values(name)}

    return PipelineTrace(
        transaction_id=earlier.transaction_id if earlier is not None and before else uuid4().hex,
        pipeline_name=name,
        execution_context=context,
        started_at=min(one.started_at for one in kept),
        finished_at=max(one.finished_at for one in kept),
        steps=kept,
        resolved_config_values=tuple(values.values()),
    )


def _place_of(resolved: Mapping[str, object]) -> tuple[object, ...]:
    sections = resolved.get("sections")

    return (*(sections if isinstance(sections, list) else ()), resolved.get("key"))


def exception_traces(error: BaseException, *, pipeline_name: str) -> tuple[Mapping[str, object], ...]:
    """An error and its causes as plain values, outermost first."""
    found: list[Mapping[str, object]] = []
    one: BaseException | None = error

    while one is not None and len(found) < MAX_STEPS:
        attributes = {key: plain(value) for key, value in vars(one).items() if not key.startswith("_")}
        attributes = {key: value for key, value in attributes.items() if key not in _NOT_KEPT}
        found.append(
            {
                "message": str(one),
                "exception_type": f"{type(one).__module__}.{type(one).__qualname__}",
                "docstring": (type(one).__doc__ or "").strip().partition("\n")[0],
                "stack_trace": [line.rstrip() for line in traceback.format_tb(one.__traceback__)[-20:]],
                "is_terminal": not getattr(one, "retryable", False),
                "load_id": getattr(one, "load_id", None),
                "pipeline_name": pipeline_name,
                "resource_name": getattr(one, "resource", None),
                "exception_attrs": attributes,
            }
        )
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)

    return tuple(found)


def step_trace(
    step: str,
    started_at: datetime,
    *,
    info: StepInfo | None = None,
    error: BaseException | None = None,
    pipeline_name: str = "",
    finished_at: datetime | None = None,
) -> StepTrace:
    """One step, as it ended."""
    return StepTrace(
        span_id=uuid4().hex,
        step=step,
        started_at=started_at,
        finished_at=finished_at or datetime.now(UTC),
        step_info=info,
        step_exception=None if error is None else str(error),
        exception_traces=() if error is None else exception_traces(error, pipeline_name=pipeline_name),
    )


def _step_from(known: Mapping[str, object]) -> StepTrace:
    fields = cast("dict[str, object]", dict(known))

    return StepTrace(
        span_id=cast(str, fields["span_id"]),
        step=cast(str, fields["step"]),
        started_at=datetime.fromisoformat(cast(str, fields["started_at"])),
        finished_at=datetime.fromisoformat(cast(str, fields["finished_at"])),
        step_info=cast("Mapping[str, object] | None", fields["step_info"]),
        step_exception=cast("str | None", fields["step_exception"]),
        exception_traces=tuple(cast("list[Mapping[str, object]]", fields["exception_traces"])),
        text=cast(str, fields["text"]),
        is_running=fields.get("is_running") is True,
    )
