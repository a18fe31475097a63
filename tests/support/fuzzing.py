"""How many examples hypothesis draws."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]

_USUAL = 100


def examples(in_ci: int, percent: int = 100) -> int:
    """A few in the suite; under ``make fuzz`` that percentage of what its profile asks for.

    Args:
        in_ci: The few. They are the same in every run.
        percent: Less for what is slow.
    """
    asked = settings.default.max_examples  # type: ignore[union-attr]  # a profile is always loaded

    return asked * percent // 100 if asked > _USUAL else in_ci
