"""The steps of one run: those that keep something have been opened, and the quick ones are known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from asyncelt.extract.requests import Request
from asyncelt.extract.steps import (
    FilterStep,
    ItemStep,
    MapStep,
    PageStep,
    PageStepRun,
    RowStep,
    SelectStep,
    Step,
    ValidatorStep,
)

__all__ = ["AnyStep", "Opened", "open_steps", "quick_steps"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A page step with its state."""

    run: PageStepRun
    needs_rows: bool
    work: Callable[[object], Generator[Request, object, object | None]] | None
    """What `PageStepRun.apply` does, in slices."""


AnyStep: TypeAlias = RowStep | ItemStep | SelectStep | ValidatorStep | Opened
_AS_IT_IS = RowStep | ItemStep | SelectStep | ValidatorStep
"""Steps without a state of their own."""


def open_steps(steps: Iterable[Step]) -> list[AnyStep]:
    """The steps of one run, in order."""
    return [step if isinstance(step, _AS_IT_IS) else _opened(step) for step in steps]


def _opened(step: PageStep) -> Opened:
    run = step.open()

    return Opened(run, step.needs_rows, getattr(run, "work", None))


def quick_steps(
    steps: Sequence[AnyStep],
) -> list[tuple[Callable[[object], object], bool, str]]:
    """The leading steps that are mere functions of a row, each with whether it is a filter, and its name."""
    quick: list[tuple[Callable[[object], object], bool, str]] = []

    for step in steps:
        if isinstance(step, Opened):
            quick.append((step.run.apply, False, "a step"))
        elif isinstance(step, MapStep | FilterStep):
            quick.append((step.function, isinstance(step, FilterStep), step.label))
        else:
            break

    return quick
