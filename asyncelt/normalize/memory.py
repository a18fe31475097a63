"""Memory that pages have used."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa

try:
    from asyncelt.normalize import _columns
except ImportError:  # no compiler where it was installed
    _columns = cast("Any", None)

__all__ = ["let_go_of_memory"]


def let_go_of_memory() -> None:
    """Give it back to the system; blocking. Allocators keep it for pages that may come."""
    pa.default_memory_pool().release_unused()

    if _columns is not None:
        _columns.trim()
