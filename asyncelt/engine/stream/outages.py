"""Brokers of a stream's sources that are away: said once each, and reported each time they are asked in vain."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from asyncelt.observe import Event, SourceAway, SourceBack, Warned

__all__ = ["SourceOutages"]


@dataclass(slots=True)
class _Outage:
    began: float = field(default_factory=time.monotonic)
    retries: int = 0


@dataclass(slots=True)
class SourceOutages:
    """Of all sources of a stream.

    Args:
        pipeline_name: Whose.
        emit: Receives a warning when one begins, and events.
    """

    pipeline_name: str
    emit: Callable[[Event], None]
    _away: dict[str, _Outage] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """Those that are away."""
        return tuple(self._away)

    def tell(self, source: str, error: str | None) -> None:
        """What a source says of its broker: what is wrong, or that nothing is any more."""
        if error is None:
            self._back(source)
            return

        if source not in self._away:
            text = f"Source {source!r}: its broker is away: {error}. It is asked again and again."
            self.emit(Warned(pipeline_name=self.pipeline_name, message=text))

        outage = self._away.setdefault(source, _Outage())
        outage.retries += 1
        self.emit(
            SourceAway(
                pipeline_name=self.pipeline_name,
                source=source,
                error=error,
                retries=outage.retries,
                seconds=time.monotonic() - outage.began,
            )
        )

    def _back(self, source: str) -> None:
        outage = self._away.pop(source, None)

        if outage is not None:
            seconds = time.monotonic() - outage.began
            self.emit(
                SourceBack(pipeline_name=self.pipeline_name, source=source, retries=outage.retries, seconds=seconds)
            )
