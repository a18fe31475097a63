"""Hand-written cases: one module per part of the specification, one case per rule."""

from __future__ import annotations

from tests.differential.cases import Case
from tests.differential.rules import (
    contracts,
    dispositions,
    hints,
    incremental,
    merging,
    naming,
    refresh,
    schemas,
    shape,
    types,
)

__all__ = ["ALL"]

ALL: tuple[Case, ...] = (
    *naming.CASES,
    *shape.CASES,
    *types.CASES,
    *hints.CASES,
    *contracts.CASES,
    *dispositions.CASES,
    *merging.CASES,
    *incremental.CASES,
    *refresh.CASES,
    *schemas.CASES,
)
"""Every hand-written case, in the order of the specification."""
