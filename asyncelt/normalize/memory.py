"""Memory that pages have used."""

from __future__ import annotations

from typing import Any, Final, cast

import pyarrow as pa

try:
    from asyncelt.normalize import _columns
except ImportError:  # no compiler where it was installed
    _columns = cast("Any", None)

__all__ = ["let_go_of_memory", "let_go_of_own_memory"]

_MUCH_MEMORY: Final = 1024 * 1024


def let_go_of_memory() -> None:
    """Give it back to the system; blocking. Allocators keep it for pages that may come."""
    pa.default_memory_pool().release_unused()

    if _columns is not None:
        _columns.trim()


def let_go_of_own_memory(nbytes: int) -> None:
    """Give back what Arrow keeps for this very thread, where it has worked on so many bytes.

    Its allocator has memory of its own for each thread, which others do not get, and gives it back after a second: by
    then several threads have many times what is in use. It takes a third of a millisecond.
    """
    if nbytes >= _MUCH_MEMORY:
        pa.default_memory_pool().release_unused()
