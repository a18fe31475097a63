"""What a run tells the outside: small frozen events to any number of observers.

Everything observable goes through here: progress displays, logs, tests. Observers are called on the event
loop, must return at once, and an observer that raises is reported once and dropped; it never fails a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from asyncelt.types import LoadId

__all__ = [
    "Advanced",
    "BudgetSample",
    "DestinationAway",
    "DestinationBack",
    "Event",
    "Observer",
    "PackageCommitted",
    "SourceAway",
    "SourceBack",
    "Stage",
    "StageDone",
    "StageStarted",
    "Warned",
    "reported",
]

Stage: TypeAlias = Literal["extract", "normalize", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage of a run begins."""

    pipeline_name: str
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """A stage has moved ``rows`` rows and ``bytes`` bytes further (differences, not totals)."""

    pipeline_name: str
    stage: Stage
    name: str
    """Resource name in extract, table name in normalize and load."""
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDone:
    """A stage of a run has ended; ``error`` is None when it ended well."""

    pipeline_name: str
    stage: Stage
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSample:
    """How much of the memory budget is in use, in bytes."""

    pipeline_name: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that a user should know but that does not fail the run."""

    pipeline_name: str
    message: str
    table: str | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageCommitted:
    """A stream has committed a package; its messages are acknowledged next."""

    pipeline_name: str
    load_id: LoadId
    rows: int
    """In root tables."""
    bytes: int
    messages: int
    lag_s: float
    """Seconds since its first row came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationAway:
    """An attempt to load a package has failed, and will be repeated. The first one of an outage is also `Warned` of."""

    pipeline_name: str
    load_id: LoadId
    error: str
    retries: int
    """Of this package, the one that is announced here included."""
    seconds: float
    """Since the first attempt that failed."""
    next_try_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationBack:
    """A package for which the destination was away has been committed."""

    pipeline_name: str
    load_id: LoadId
    retries: int
    seconds: float
    """Since the first attempt that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAway:
    """The broker of a stream's source does not answer, and will be asked again. The first time is also `Warned` of."""

    pipeline_name: str
    source: str
    error: str
    retries: int
    """In vain, the one that is announced here included."""
    seconds: float
    """Since the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBack:
    """It answers again."""

    pipeline_name: str
    source: str
    retries: int
    seconds: float
    """Since the first one that was in vain."""


Event: TypeAlias = (
    StageStarted
    | Advanced
    | StageDone
    | BudgetSample
    | Warned
    | PackageCommitted
    | DestinationAway
    | DestinationBack
    | SourceAway
    | SourceBack
)


class Observer(Protocol):
    """Receives every event of a run, in order, on the event loop."""

    def on_event(self, event: Event, /) -> None:
        """Take note of one event and return at once."""
        ...


@contextmanager
def reported(emit: Callable[[Event], None], pipeline_name: str, stage: Stage) -> Iterator[None]:
    """Report the block as a stage: its start, and its end however it ends, so that displays can finish."""
    emit(StageStarted(pipeline_name=pipeline_name, stage=stage))

    try:
        yield
    except BaseException as error:
        emit(StageDone(pipeline_name=pipeline_name, stage=stage, error=str(error) or type(error).__name__))
        raise

    emit(StageDone(pipeline_name=pipeline_name, stage=stage))
