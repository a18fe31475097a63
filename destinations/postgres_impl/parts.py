"""Which job files go through staging tables before the commit, and what these are called. Touches no database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from asyncelt.destinations.sql.planning import jobs_by_table
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, Target
from asyncelt.types import LoadId, TableName

__all__ = ["STAGING_PREFIX", "Part", "Parts", "owner_prefix", "parts_of"]

STAGING_PREFIX: Final = "_asyncelt_staging_"
_WORTH_A_TABLE: Final = 1024 * 1024
"""Bytes of files below which a table is copied by the commit even if the package is large."""


@dataclass(frozen=True, slots=True)
class Part:
    """Job files of one table of one package that go into one staging table, in their order."""

    load_id: LoadId
    table: TableName
    jobs: tuple[JobFile, ...]
    prefix: str
    digest: str
    """Of what it holds; the same for every owner that stages it."""
    is_merged: bool

    @property
    def name(self) -> str:
        """Of the staging table: whose it is, of which epoch, and what it holds."""
        return self.prefix + self.digest

    @property
    def rows(self) -> int:
        """In all its files."""
        return sum(job.rows for job in self.jobs)


Parts: TypeAlias = Mapping[tuple[LoadId, str], Part]
"""By load id and job id."""


def owner_prefix(target: Target) -> str:
    """What the staging tables of a pipeline and member begin with, whatever the epoch."""
    return f"{STAGING_PREFIX}{_digest(target.pipeline_name, target.member)[:8]}_"


def parts_of(commit: Commit, threshold: int | None) -> dict[tuple[LoadId, str], Part]:
    """The staged parts of a commit; none when its files are smaller than the threshold, or there is none.

    Tables that are dropped in the commit are not staged: they have not got their new columns yet.
    """
    jobs = [job for package in commit.packages for job in package.jobs]

    if threshold is None or not commit.is_load or sum(job.nbytes for job in jobs) < threshold:
        return {}

    dropped = {name for package in commit.packages for name in package.dropped_tables}
    prefix = f"{owner_prefix(commit.target)}{commit.lease.epoch}_"
    least = min(threshold, _WORTH_A_TABLE)
    found: dict[tuple[LoadId, str], Part] = {}

    for package in commit.packages:
        for name, of_table in jobs_by_table(package).items():
            if name in dropped or sum(job.nbytes for job in of_table) < least:
                continue

            for part in _of_table(package, name, of_table, prefix):
                found.update({(package.load_id, job.job_id): part for job in part.jobs})

    return found


def _of_table(package: Package, name: TableName, jobs: Sequence[JobFile], prefix: str) -> Iterator[Part]:
    # A merge looks at all rows of a table; others only have to arrive in order, so their files may be copied at once.
    is_merged = package.schema.disposition_of(name) == "merge"
    groups = [tuple(jobs)] if is_merged else [(job,) for job in jobs]

    for group in groups:
        digest = _digest(package.load_id, *(f"{job.job_id} {job.rows} {job.nbytes}" for job in group))
        yield Part(package.load_id, name, group, prefix, digest, is_merged)


def _digest(*texts: str) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()
