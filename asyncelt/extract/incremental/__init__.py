"""Incremental cursors: read only what is new since the last run, and remember how far it went."""

from __future__ import annotations

from asyncelt.extract.incremental.definition import Incremental as Incremental
from asyncelt.extract.incremental.step import IncrementalStep as IncrementalStep

__all__ = ["Incremental", "IncrementalStep"]
