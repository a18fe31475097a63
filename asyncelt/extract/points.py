"""The pump's side of a stream: where a resource's data may be cut, and the cut itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from asyncelt.extract.messages import SafePoint
from asyncelt.extract.tickets import Tickets
from asyncelt.extract.unfolding import state_of_source

__all__ = ["Cut", "Cuts", "Cutter"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A place between two pages where a package ends. It follows the pages before it to where they go."""

    state: Mapping[str, object]
    """State of the resource's source as of here."""
    tickets: Tickets
    """Of the messages before it, since the last cut."""
    is_end: bool = False
    """Whether nothing more will come."""


class Cuts(Protocol):
    """Who asks for cuts; given by the engine, one per resource. Belongs to the event loop."""

    @property
    def is_automatic(self) -> bool:
        """Whether each place between two items is safe. Otherwise only what the resource says is."""
        ...

    @property
    def asking(self) -> anyio.Event:
        """Set when a cut is wanted; another event once all resources have been cut."""
        ...

    @property
    def settled(self) -> anyio.Event:
        """Set when the cut that is asked for has been made everywhere."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether as many messages have come since the last cut as a package may have."""
        ...

    def began(self) -> None:
        """Something is held that no cut has taken along."""
        ...

    def passed(self, messages: int) -> None:
        """A safe point, after so many messages."""
        ...

    def left(self) -> None:
        """Everything held until now stands before a cut."""
        ...

    async def reached(self, cut: Cut) -> None:
        """All pages before the cut have been sent."""
        ...


@dataclass(slots=True)
class Cutter:
    """Knows whether a resource stands at a safe point."""

    cuts: Cuts
    is_safe: bool = True
    """Whether no row has come since the last safe point."""
    _state: Mapping[str, object] | None = None
    _tickets: Tickets = field(default_factory=Tickets)
    _answered: anyio.Event | None = None

    def note(self, point: SafePoint) -> None:
        """The chain has passed a safe point."""
        self.is_safe = True
        self._state = point.state
        self._tickets.extend(point.tickets)
        self.cuts.passed(len(point.tickets))

    def is_due(self, *, between_items: bool) -> bool:
        """Whether a cut is wanted, has not been made, and can be made here.

        Args:
            between_items: Whether all that the source gave has gone through the chain.
        """
        asking = self.cuts.asking
        is_wanted = asking.is_set() and asking is not self._answered

        return is_wanted and (between_items if self.cuts.is_automatic else self.is_safe)

    async def wait_for_the_others(self) -> None:
        """Wait while the cut that this resource has answered is being made, if it has the next package ready."""
        while self.cuts.asking is self._answered and self.cuts.is_full:
            await self.cuts.settled.wait()

    def cut(self, *, is_end: bool = False) -> Cut:
        """Cut here. What the resource holds back has to be let go of first."""
        state = self._state

        if state is None or is_end or self.cuts.is_automatic:
            state = copy.deepcopy(state_of_source())

        tickets, self._tickets = self._tickets, Tickets()
        self._answered = self.cuts.asking
        self.cuts.left()

        return Cut(state, tickets, is_end)
