"""Named places where a test can kill, fail or delay a run. Off in production.

A failpoint stands at each fsync, rename, COPY, COMMIT and acknowledgement. It does nothing unless a handler
was installed for the current context with :func:`installed`, or the process was started with
``ASYNCELT_FAILPOINT=name[:hit]`` (kill -9 at the given hit of that name, the first when no number is given),
or with ``ASYNCELT_FAILPOINT_LOG=path`` (append each name that is passed, so that a test can list them).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

__all__ = ["Handler", "failpoint", "installed"]

Handler: TypeAlias = Callable[[str], None]

_handler: ContextVar[Handler | None] = ContextVar("asyncelt_failpoints", default=None)


def _from_environment() -> Handler | None:
    target = os.environ.get("ASYNCELT_FAILPOINT")
    log = os.environ.get("ASYNCELT_FAILPOINT_LOG")

    if target is None and log is None:
        return None

    name, _, count = (target or "").partition(":")
    remaining = {"hits": int(count) if count else 1}

    def handle(point: str) -> None:
        if log is not None:
            with Path(log).open("a") as file:
                file.write(point + "\n")

        if point == name:
            remaining["hits"] -= 1

            if remaining["hits"] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return handle


_process_handler = _from_environment()


def failpoint(name: str) -> None:
    """Pass the place called ``name``."""
    handler = _handler.get() or _process_handler

    if handler is not None:
        handler(name)


@contextmanager
def installed(handler: Handler) -> Iterator[None]:
    """Call ``handler`` at every failpoint of the current context, threads that inherit it included."""
    token = _handler.set(handler)

    try:
        yield
    finally:
        _handler.reset(token)
