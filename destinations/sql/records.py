"""What a commit finds out before it writes, and what it writes down of itself beside the rows. Touches no database.

A destination asks and writes what is said here inside its transaction; whether it waits for the answers in a thread or
in the event loop is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.names import Dataset
from asyncelt.errors import LeaseLost
from asyncelt.flow import Package
from asyncelt.load.protocol import Commit, Lease
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import ENGINE_VERSION, to_json
from asyncelt.schema.system import LOADS_TABLE, VERSION_TABLE
from asyncelt.types import LoadId

__all__ = ["Record", "closing_records", "may_be_committed", "new_schemas", "remaining_packages", "version_record"]

Record: TypeAlias = tuple[str, Sequence[object]]
"""A statement that writes one row, and its parameters."""


def may_be_committed(commit: Commit, current: Lease | None) -> bool:
    """Whether some of it can be there already, so that the table of loads, which a stream makes long, has to be asked.

    Each commit moves the head: where it is the parent of this one, nothing of it is there.

    Args:
        commit: Under way.
        current: The lease row of its owner; None: there is none.
    """
    return current is None or current.head_load_id is None or current.head_load_id != commit.parent_load_id


def remaining_packages(
    dataset: str, commit: Commit, current: Lease | None, done: Collection[LoadId], *, newest_epoch: int = 0
) -> list[Package]:
    """Those that are still to be written; none when all of the commit is there.

    Args:
        dataset: Its name.
        commit: Under way.
        current: The lease row of its owner; None: there is none.
        done: Packages of it that are committed already.
        newest_epoch: Handed out since that row was written.

    Raises:
        LeaseLost: Somebody else has taken over or gone on: epoch or head are not what they were when the packages were
            made.
    """
    remaining = [package for package in commit.packages if package.load_id not in done]

    if remaining:
        before = [package.load_id for package in commit.packages if package.load_id in done]
        known = current or Lease(epoch=0)
        expected = before[-1] if before else commit.parent_load_id
        _check_lease(dataset, commit, max(known.epoch, newest_epoch), known.head_load_id, expected)

    return remaining


def new_schemas(packages: Iterable[Package], stored: Collection[object]) -> list[Schema]:
    """Schemas of the packages that are to be stored.

    Args:
        packages: To be written.
        stored: Hashes of those that are, among theirs.
    """
    hashes = {package.schema.version_hash: package.schema for package in packages}

    return [schema for version_hash, schema in hashes.items() if version_hash not in stored]


def version_record(dataset: Dataset, schema: Schema, now: datetime, dialect: str) -> Record:
    """The row of ``_dlt_version`` that stores a schema. A large one takes a while to become text."""
    row: dict[str, object] = {
        "version": schema.version,
        "engine_version": ENGINE_VERSION,
        "inserted_at": now,
        "schema_name": schema.name,
        "version_hash": schema.version_hash,
        "schema": to_json(schema),
    }

    return _insert(dataset, VERSION_TABLE, row, dialect)


def closing_records(
    dataset: Dataset, commit: Commit, written: Sequence[Package], now: datetime, dialect: str, *, has_lease: bool
) -> Iterator[Record]:
    """What says that the packages are complete, moves the head, and finds the run again by its id.

    Args:
        dataset: Where.
        commit: Under way.
        written: Its packages that were not there before.
        now: When.
        dialect: Of the statements.
        has_lease: Whether the owner has a lease row.
    """
    target = commit.target

    for package in written:
        load: dict[str, object] = {
            "load_id": package.load_id,
            "schema_name": package.schema.name,
            "status": 0,
            "inserted_at": now,
            "schema_version_hash": package.schema.version_hash,
        }
        yield _insert(dataset, LOADS_TABLE, load, dialect)

    lease = (target.pipeline_name, target.member, commit.lease.epoch, written[-1].load_id, now)

    if has_lease:
        yield system.advance_head(dataset, dialect), lease
    else:
        yield system.insert_row(dataset, system.LEASE_TABLE.name, system.LEASE_COLUMNS, dialect), lease

    if commit.run_id is not None:
        load_ids = json.dumps([package.load_id for package in commit.packages])
        run = (target.pipeline_name, commit.run_id, load_ids, now)
        yield system.insert_row(dataset, system.RUNS_TABLE.name, system.RUN_COLUMNS, dialect), run


def _insert(dataset: Dataset, name: str, row: Mapping[str, object], dialect: str) -> Record:
    return system.insert_row(dataset, name, tuple(row), dialect), tuple(row.values())


def _check_lease(dataset: str, commit: Commit, epoch: int, head: LoadId | None, expected_head: LoadId | None) -> None:
    target = commit.target
    owner = f"pipeline {target.pipeline_name!r}" + (f", member {target.member!r}" if target.member else "")

    if epoch > commit.lease.epoch:
        raise LeaseLost(
            f"Dataset {dataset!r}: {owner} was taken over by another owner (epoch {epoch}, ours is "
            f"{commit.lease.epoch}). Nothing was written. Start the pipeline again; it goes on from what the other "
            "owner has committed."
        )

    if head != expected_head:
        raise LeaseLost(
            f"Dataset {dataset!r}: the last package of {owner} is {head}, but this one was made on "
            f"{expected_head}. Somebody else has committed in between, or the dataset was replaced. Nothing was "
            "written. Drop the pending packages and sync the pipeline with the destination."
        )
