"""Hand-written cases: one module per part of how the reference behaves, one case per rule.

The id of a case begins with the number of its group, by which ``-k`` finds it: 2.10 refresh; 5 from items to tables (5.2
names, 5.4 one item, 5.5 types, 5.6 coercion, 5.7 nulls, 5.8 hints, 5.9 precision, 5.10 Arrow, 5.11 no data, 5.13 schemas
of sources); 6 contracts; 7 dispositions (7.1 append, 7.2 replace, 7.4 and 7.5 merge, 7.6 from one to another); 8.6 cursors.
"""

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
"""Every hand-written case, grouped by what it is about."""
