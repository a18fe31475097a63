"""What a commit of a dataset does to its tables in a table format, besides writing them. Blocking."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.lake import LakeFormat
from asyncelt.destinations.filesystem_impl.lakes import Lake
from asyncelt.errors import AsynceltError
from asyncelt.load.protocol import Commit

__all__ = ["check_rows", "compact"]

LakeOf: TypeAlias = Callable[[LakeFormat], Lake]

_logger = logging.getLogger("asyncelt.destinations.filesystem")


def check_rows(lake_of: LakeOf, commit: Commit, marker: Marker) -> None:
    """Refuse rows that a table cannot take, while nothing is committed: afterwards everybody would wait for it."""
    tables = {package.load_id: package.schema.tables for package in commit.packages}

    for package in marker.packages:
        for write in package.lakes:
            if write.files:
                lake_of(write.format).check_rows(write, tables[package.load_id][write.table], package.load_id)


def compact(lake_of: LakeOf, marker: Marker, at_least: int) -> None:
    """Put small files together. The load is there without it: what goes wrong waits for the next one."""
    for package in marker.packages:
        for write in package.lakes:
            try:
                lake_of(write.format).compact(write.table, package.load_id, at_least)
            except (AsynceltError, OSError) as error:
                _logger.warning("Table %s: small files stay for now: %s", write.table, error)
