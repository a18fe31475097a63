"""Rows, JSON and Arrow to typed tables. The doorway is `page`."""

from __future__ import annotations

from asyncelt.normalize.bound import check_bound as check_bound
from asyncelt.normalize.page import (
    NormalizeContext as NormalizeContext,
    Normalizer as Normalizer,
    Shredded as Shredded,
)
