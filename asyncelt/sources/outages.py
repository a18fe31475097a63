"""Brokers that are away for a while: waited for, less and less often, and told about."""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from asyncelt._async import backoff_delays
from asyncelt.config import Retry
from asyncelt.extract.messages import Tell

__all__ = ["Outage"]

_ALWAYS = 1_000_000_000


class Outage:
    """One source's. Nothing is wrong at first.

    Args:
        first_s: Seconds to wait after the first failure; then twice as long each time.
        longest_s: And no longer than this.
    """

    def __init__(self, first_s: float = 0.05, longest_s: float = 5.0) -> None:
        self._retry = Retry(attempts=_ALWAYS, first_s=first_s, max_s=longest_s)
        self._delays: Iterator[float] | None = None
        self._tell: Tell | None = None
        self._is_told = False

    def report_to(self, tell: Tell) -> None:
        """Say there what becomes of it from now on."""
        self._tell, self._is_told = tell, False

    def noticed(self, error: object) -> None:
        """Something has failed, and will be tried again."""
        self._is_told = True

        if self._tell is not None:
            self._tell(str(error) or type(error).__name__)

    async def wait(self, error: object) -> None:
        """Something has failed: wait until it may be tried again."""
        self.noticed(error)
        self._delays = self._delays or backoff_delays(self._retry)
        await anyio.sleep(next(self._delays))

    def answered(self) -> None:
        """The broker is there; that what was asked of it works, is not said."""
        if self._is_told:
            self._is_told = False

            if self._tell is not None:
                self._tell(None)

    def over(self) -> None:
        """All is well: the next failure is the first of another outage."""
        self._delays = None
        self.answered()
