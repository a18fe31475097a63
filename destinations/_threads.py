"""Threads that the sessions of a destination borrow, one after the other."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

__all__ = ["BorrowedThread", "Threads"]

Work: TypeAlias = Callable[[], None]

_IDLE_S: Final = 10.0
"""How long a thread waits for the next session; as long as those of anyio wait for work."""


class Threads:
    """The threads of one destination.

    With a thread goes what a driver has kept for it, above all memory that is ready to be used: a small run of which
    each begins a new one takes a seventh longer (measured with ten rows into DuckDB: 63 ms of processor time, 55 with
    a thread that was there).

    Args:
        name: Of those that are in use, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle = _Idle()
        # Not when the interpreter ends: a thread that is then on its way would be one too many.
        weakref.finalize(self, self._idle.close).atexit = False

    def borrow(self) -> BorrowedThread:
        """A thread for one session, until it is given back. May be called from any thread.

        Raises:
            RuntimeError: The system allows no more threads.
        """
        return self._idle.taken() or BorrowedThread(self._name, self._idle)


class BorrowedThread:
    """A thread, while it is borrowed.

    Args:
        name: Of the thread.
        idle: Where it waits when it has been given back.
    """

    def __init__(self, name: str, idle: _Idle) -> None:
        self._name = name
        self._idle = idle
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()
        self._patience: float | None = None
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Work) -> None:
        """Do this, after all that has been handed over before. It must not raise."""
        self._inbox.put(work)

    def give_back(self, then: Work | None = None) -> None:
        """Let another session have it, as soon as it has done everything. Nothing may be handed over afterwards.

        Args:
            then: Called in the thread when it holds nothing of that any more. It must not raise.
        """
        self._inbox.put(partial(self._rest, then))

    def end(self) -> None:
        """End, instead of waiting for a session."""
        self._inbox.put(None)

    def _live(self) -> None:
        while True:
            try:
                work = self._inbox.get(timeout=self._patience)
            except Empty:
                if self._idle.left_by(self):
                    return

                # Borrowed at this very moment.
                work = self._inbox.get()

            if work is None:
                return

            if self._patience is not None:
                self._patience, self._thread.name = None, self._name

            work()
            # What it refers to should not live until the next one comes.
            del work

    def _rest(self, then: Work | None) -> None:
        self._patience, self._thread.name = _IDLE_S, "asyncelt idle"

        if not self._idle.joined_by(self):
            self.end()

        if then is not None:
            then()


@dataclass(slots=True)
class _Idle:
    """Those that wait for a session. Shared with the threads, which must not keep their destination alive."""

    threads: list[BorrowedThread] = field(default_factory=list)
    is_closed: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Reentrant, as `close` comes whenever a destination is found to be garbage."""

    def taken(self) -> BorrowedThread | None:
        """The one that has been busy last."""
        with self.lock:
            return self.threads.pop() if self.threads else None

    def joined_by(self, thread: BorrowedThread) -> bool:
        """Whether it may wait here."""
        with self.lock:
            if not self.is_closed:
                self.threads.append(thread)

            return not self.is_closed

    def left_by(self, thread: BorrowedThread) -> bool:
        """Whether it has waited long enough, and nobody has just borrowed it."""
        with self.lock:
            is_idle = thread in self.threads

            if is_idle:
                self.threads.remove(thread)

            return is_idle

    def close(self) -> None:
        """Let them end."""
        with self.lock:
            self.is_closed = True
            threads, self.threads = self.threads, []

        for thread in threads:
            thread.end()
