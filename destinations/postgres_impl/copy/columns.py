"""A column of a COPY."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CopyColumn"]


@dataclass(frozen=True, slots=True)
class CopyColumn:
    """A column and its type as Postgres names it: ``bigint``, ``numeric(38,9)``, ``timestamp with time zone``."""

    name: str
    type: str
