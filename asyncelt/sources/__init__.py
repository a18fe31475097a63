"""Ready-made parts for resources."""

from __future__ import annotations

from asyncelt.extract.incremental import Incremental as incremental  # noqa: N813 - the reference's name for it

__all__ = ["incremental"]
