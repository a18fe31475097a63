"""Work that holds the interpreter lock, cut into pieces."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter

__all__ = ["Gate"]


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets one piece of work that holds the interpreter lock run at a time, for about ``slice_s`` seconds."""

    lock: AbstractContextManager[object]
    slice_s: float

    def run(self, steps: Iterable[object]) -> None:
        """Consume ``steps``, giving others a turn whenever the time is up. One step is never cut."""
        remaining = iter(steps)

        while True:
            with self.lock:
                end = perf_counter() + self.slice_s

                for _ in remaining:
                    if perf_counter() >= end:
                        break
                else:
                    return
