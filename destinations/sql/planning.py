"""What a commit has to do, decided from its packages and from what the dataset has. Touches no database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from asyncelt.destinations.sql import system
from asyncelt.errors import LeaseLost
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, Lease
from asyncelt.schema.model import Schema, Table
from asyncelt.schema.stored import ENGINE_VERSION, to_json
from asyncelt.schema.system import LOADS_TABLE, VERSION_TABLE, loads_table, version_table
from asyncelt.types import LoadId, TableName

__all__ = [
    "Jobs",
    "chain_of",
    "check_lease",
    "foreign_columns",
    "jobs_by_table",
    "lease_row",
    "load_row",
    "run_row",
    "tables_with_new_root_key",
    "version_row",
    "wanted_tables",
]

Jobs = Mapping[TableName, Sequence[JobFile]]


def jobs_by_table(package: Package) -> dict[TableName, list[JobFile]]:
    """The job files of each table, in their order."""
    jobs: dict[TableName, list[JobFile]] = {}

    for job in package.jobs:
        jobs.setdefault(job.table, []).append(job)

    return jobs


def chain_of(package: Package, root: TableName) -> tuple[Table, ...]:
    """A root table with its nested tables; nothing if the schema does not have it."""
    return tuple(package.schema.chain_of(root)) if root in package.schema.tables else ()


def wanted_tables(package: Package, has: Callable[[str], bool]) -> dict[str, Table]:
    """The tables that must have all their columns before the package's rows are written, by name.

    Args:
        package: To be written.
        has: Whether the dataset has a table of this name.
    """
    schema = package.schema
    wanted: dict[str, Table] = {
        LOADS_TABLE: schema.tables.get(LOADS_TABLE) or loads_table(),
        VERSION_TABLE: schema.tables.get(VERSION_TABLE) or version_table(),
    }
    wanted.update({one.name: one for one in system.OWN_TABLES})

    if package.positions:
        wanted[system.POSITIONS_TABLE.name] = system.POSITIONS_TABLE

    wanted.update({job.table: schema.tables[job.table] for job in package.jobs})

    for root in package.replaced_tables:
        # An empty replace creates nothing, but its tables get the columns that the schema has by now.
        for one in chain_of(package, root):
            if has(one.name):
                wanted.setdefault(one.name, one)

    for name in package.truncated_tables:
        if has(name) and name in schema.tables:
            wanted.setdefault(name, schema.tables[name])

    return wanted


def tables_with_new_root_key(package: Package, updates: Mapping[str, tuple[str, ...]]) -> Iterator[Table]:
    """Nested tables that the package gives a root key; their rows may be older. Parents before children.

    Args:
        package: To be written.
        updates: New columns per table.
    """
    for root in dict.fromkeys(
        package.schema.root_of(TableName(name)).name for name in updates if name in package.schema.tables
    ):
        for one in chain_of(package, root):
            if one.parent is not None and any(name in updates.get(one.name, ()) for name in one.keys("root_key")):
                yield one


def foreign_columns(one: Table, existing: Iterable[str]) -> tuple[str, ...]:
    """Columns that the table has at the destination and the schema does not know, whatever their case."""
    known = {name.lower() for name, spec in one.columns.items() if spec.data_type is not None}

    return tuple(name for name in existing if name.lower() not in known)


def check_lease(dataset: str, commit: Commit, current: Lease, expected_head: LoadId | None) -> None:
    """Refuse when somebody else has taken over or gone on.

    Args:
        dataset: Its name.
        commit: What is to be committed.
        current: The newest epoch that was handed out, and the head.
        expected_head: What the first package that is still to be written was made on.

    Raises:
        LeaseLost: Epoch or head are not what they were when the packages were made.
    """
    target = commit.target
    owner = f"pipeline {target.pipeline_name!r}" + (f", member {target.member!r}" if target.member else "")

    if current.epoch > commit.lease.epoch:
        raise LeaseLost(
            f"Dataset {dataset!r}: {owner} was taken over by another owner (epoch {current.epoch}, ours is "
            f"{commit.lease.epoch}). Nothing was written. Start the pipeline again; it goes on from what the other "
            "owner has committed."
        )

    if current.head_load_id != expected_head:
        raise LeaseLost(
            f"Dataset {dataset!r}: the last package of {owner} is {current.head_load_id}, but this one was made on "
            f"{expected_head}. Somebody else has committed in between, or the dataset was replaced. Nothing was "
            "written. Drop the pending packages and sync the pipeline with the destination."
        )


def version_row(schema: Schema, now: datetime) -> dict[str, object]:
    """The row of ``_dlt_version`` that stores a schema."""
    return {
        "version": schema.version,
        "engine_version": ENGINE_VERSION,
        "inserted_at": now,
        "schema_name": schema.name,
        "version_hash": schema.version_hash,
        "schema": to_json(schema),
    }


def load_row(package: Package, now: datetime) -> dict[str, object]:
    """The row of ``_dlt_loads`` that says that a package is complete."""
    return {
        "load_id": package.load_id,
        "schema_name": package.schema.name,
        "status": 0,
        "inserted_at": now,
        "schema_version_hash": package.schema.version_hash,
    }


def lease_row(commit: Commit, head: LoadId, now: datetime) -> dict[str, object]:
    """The lease row after the commit; the order of its values is that of `system.advance_head`."""
    target = commit.target
    values = (target.pipeline_name, target.member, commit.lease.epoch, head, now)

    return dict(zip(system.LEASE_COLUMNS, values, strict=True))


def run_row(commit: Commit, now: datetime) -> dict[str, object]:
    """The row that finds the packages of a run again by its id."""
    load_ids = json.dumps([package.load_id for package in commit.packages])

    return dict(zip(system.RUN_COLUMNS, (commit.target.pipeline_name, commit.run_id, load_ids, now), strict=True))
