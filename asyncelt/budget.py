"""One bound for all data in flight, in bytes.

Whoever hands data on reserves its size first; its last holder gives the size back. The queues between stages
are tiny, so this budget is what holds a fast source back when the destination is slow. One budget may be
shared by several pipelines of one event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from asyncelt.arguments import COUNT, expect
from asyncelt.errors import UsageError

__all__ = ["BudgetAccount", "ByteBudget"]


class ByteBudget:
    """Bytes in flight never exceed ``limit``, except that one item larger than the limit passes alone.

    What is *pinned* stays until a commit, whatever else is given back. It counts, and an item passes alone beside it:
    it slows down, and never stands in the way of what it waits for. Waiters are served in the order in which they came.
    All methods belong to the event loop's thread.

    Args:
        limit: Bytes, at least 1.
    """

    def __init__(self, limit: int) -> None:
        expect("asyncelt.ByteBudget", COUNT, limit=limit)
        self.limit = limit
        self._used = 0
        self._pinned = 0
        self._peak = 0
        self._waiters: deque[tuple[int, anyio.Event]] = deque()
        self._listeners: list[Callable[[], None]] = []

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        return self._used

    @property
    def peak(self) -> int:
        """Most bytes that were ever reserved at once."""
        return self._peak

    @property
    def waiting(self) -> int:
        """How many reservations wait."""
        return len(self._waiters)

    def on_pressure(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have ``listener`` called whenever a reservation has to wait; returns a function that ends this.

        Stages that hold data back on purpose (write buffers) let go of it when they are told; otherwise a
        reservation could wait for bytes that nobody is going to return.
        """
        self._listeners.append(listener)

        return lambda: self._listeners.remove(listener)

    async def reserve(self, nbytes: int) -> None:
        """Wait until ``nbytes`` more fit, and take them.

        Cancellation:
            Safe. Nothing is taken when the wait is cancelled.
        """
        if not self._waiters and self._fits(nbytes):
            self._take(nbytes)
            return

        granted = anyio.Event()
        entry = (nbytes, granted)
        self._waiters.append(entry)

        for listener in list(self._listeners):
            listener()

        try:
            await granted.wait()
        except BaseException:
            if granted.is_set():
                self.release(nbytes)
            else:
                self._waiters.remove(entry)
                self._grant()

            raise

    def adjust(self, difference: int) -> None:
        """Correct a reservation whose real size has become known. Never waits, so it may pass the limit."""
        if difference >= 0:
            self._take(difference)
        else:
            self.release(-difference)

    def pin(self, nbytes: int) -> None:
        """So many of the bytes that are reserved stay until they are unpinned."""
        self._pinned += nbytes
        self._grant()

    def unpin(self, nbytes: int) -> None:
        """These may go, and have to be released."""
        self._pinned -= nbytes

    def release(self, nbytes: int) -> None:
        """Give bytes back."""
        if nbytes > self._used:
            raise UsageError(f"{nbytes} bytes were returned to the memory budget, but only {self._used} are reserved.")

        self._used -= nbytes
        self._grant()

    def account(self) -> BudgetAccount:
        """A share of this budget for one run, which can be given back as a whole."""
        return BudgetAccount(self)

    def _fits(self, nbytes: int) -> bool:
        return self._used <= self._pinned or self._used + nbytes <= self.limit

    def _take(self, nbytes: int) -> None:
        self._used += nbytes
        self._peak = max(self._peak, self._used)

    def _grant(self) -> None:
        while self._waiters and self._fits(self._waiters[0][0]):
            nbytes, granted = self._waiters.popleft()
            self._take(nbytes)
            granted.set()


class BudgetAccount:
    """What one run holds of a budget. Closing it returns everything, however the run ended."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self._held = 0
        self._pinned = 0
        self._closed = False

    @property
    def held(self) -> int:
        """Bytes this run has reserved now."""
        return self._held

    @property
    def pinned(self) -> int:
        """Those of them that stay until a commit."""
        return self._pinned

    async def reserve(self, nbytes: int) -> None:
        """Wait until ``nbytes`` more fit, and take them."""
        await self.budget.reserve(nbytes)
        self._held += nbytes

    def adjust(self, difference: int) -> None:
        """Correct a reservation whose real size has become known. Never waits."""
        if self._closed:
            return

        self.budget.adjust(difference)
        self._held += difference

    def release(self, nbytes: int) -> None:
        """Give bytes back; nothing happens once the account is closed, since it has given back all."""
        self.adjust(-nbytes)

    def pin(self, nbytes: int) -> None:
        """So many of the bytes that this run has reserved stay until they are unpinned."""
        if not self._closed:
            self.budget.pin(nbytes)
            self._pinned += nbytes

    def unpin(self, nbytes: int) -> None:
        """Give pinned bytes back; nothing happens once the account is closed."""
        if not self._closed:
            self.budget.unpin(nbytes)
            self._pinned -= nbytes
            self.release(nbytes)

    def close(self) -> None:
        """Return what is still held."""
        if not self._closed:
            self.budget.unpin(self._pinned)
            self._pinned = 0
            self.budget.release(self._held)
            self._held = 0
            self._closed = True
