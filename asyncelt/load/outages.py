"""A destination that is away for a while: said once, however often it is tried, and reported each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from asyncelt.errors import AsynceltError
from asyncelt.observe import DestinationAway, DestinationBack, Event, Warned
from asyncelt.types import LoadId

__all__ = ["Outage"]


@dataclass(slots=True)
class Outage:
    """Follows the attempts of one commit.

    Args:
        pipeline_name: Whose.
        load_id: Of the package that waits.
        emit: Receives a warning when it begins, and events.
    """

    pipeline_name: str
    load_id: LoadId
    emit: Callable[[Event], None]
    retries: int = 0
    _began: float | None = None

    def failed(self, error: AsynceltError, delay_s: float) -> None:
        """An attempt has failed, and another one will be made after so many seconds."""
        self.retries += 1

        if self._began is None:
            self._began = time.monotonic()
            text = (
                f"Load package {self.load_id}: {error} Trying again in {delay_s:.1f} s, and then less and less often."
            )
            self.emit(Warned(pipeline_name=self.pipeline_name, message=text))

        self.emit(
            DestinationAway(
                pipeline_name=self.pipeline_name,
                load_id=self.load_id,
                error=str(error),
                retries=self.retries,
                seconds=time.monotonic() - self._began,
                next_try_s=delay_s,
            )
        )

    def over(self) -> None:
        """The package has been committed."""
        if self._began is not None:
            self.emit(
                DestinationBack(
                    pipeline_name=self.pipeline_name,
                    load_id=self.load_id,
                    retries=self.retries,
                    seconds=time.monotonic() - self._began,
                )
            )
            self._began = None
