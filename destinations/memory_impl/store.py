"""A dataset as one value, and what a commit makes of it. Pure: nothing here is shared or changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.destinations.job_files import aligned, read_job, table_schema
from asyncelt.destinations.memory_impl.merge import merge_chain
from asyncelt.errors import LeaseLost
from asyncelt.flow import Package
from asyncelt.load.positions import moved
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, StoredPosition
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import merge_strategy_of
from asyncelt.schema.model import Schema, Table
from asyncelt.schema.stored import ENGINE_VERSION, to_json
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE, VERSION_TABLE, loads_table, version_table
from asyncelt.types import LoadId, TableName

__all__ = ["Contents", "Staged", "after_commit", "committed", "read_packages", "restored"]

Staged = Mapping[LoadId, Mapping[TableName, pa.Table]]
"""Rows of every job of the packages, joined per table in job order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that a dataset holds. A commit makes a new one."""

    tables: Mapping[TableName, pa.Table] = field(default_factory=dict)
    """The system tables ``_dlt_*`` included."""
    leases: Mapping[tuple[str, str], Lease] = field(default_factory=dict)
    """By pipeline and member."""
    positions: Mapping[tuple[str, str, str], StoredPosition] = field(default_factory=dict)
    """By pipeline, source and partition."""
    runs: Mapping[tuple[str, str], tuple[LoadId, ...]] = field(default_factory=dict)
    """By pipeline and run id."""


def restored(contents: Contents, pipeline_name: str, member: str) -> Restored:
    """What the dataset knows about a pipeline."""
    loads, versions = contents.tables.get(LOADS_TABLE), contents.tables.get(VERSION_TABLE)

    if loads is None or versions is None:
        return Restored()

    states: list[dict[str, object]] = []

    if STATE_TABLE in contents.tables:
        complete = {row["load_id"] for row in loads.to_pylist() if row["status"] == 0}
        states = [
            row
            for row in contents.tables[STATE_TABLE].to_pylist()
            if row["pipeline_name"] == pipeline_name and row["_dlt_load_id"] in complete
        ]

    newest = max(states, key=lambda row: str(row["_dlt_load_id"]), default=None)
    lease = contents.leases.get((pipeline_name, member))

    return Restored(
        exists=True,
        state=None if newest is None else str(newest["state"]),
        state_load_id=None if newest is None else LoadId(str(newest["_dlt_load_id"])),
        schemas={row["schema_name"]: row["schema"] for row in versions.to_pylist()},
        last_load_id=max((LoadId(row["load_id"]) for row in loads.to_pylist()), default=None),
        head_load_id=None if lease is None else lease.head_load_id,
    )


def committed(contents: Contents, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
    """Which of the load ids have a row in ``_dlt_loads``."""
    loads = contents.tables.get(LOADS_TABLE)
    known = set() if loads is None else set(loads.column("load_id").to_pylist())

    return frozenset(load_id for load_id in load_ids if load_id in known)


def read_packages(packages: Sequence[Package], capabilities: Capabilities) -> Staged:
    """Read all job files."""
    staged: dict[LoadId, dict[TableName, pa.Table]] = {}

    for package in packages:
        pieces: dict[TableName, list[pa.Table]] = {}

        for job in package.jobs:
            pieces.setdefault(job.table, []).append(read_job(package, job, capabilities))

        staged[package.load_id] = {
            name: pa.concat_tables(parts, promote_options="default") for name, parts in pieces.items()
        }

    return staged


def after_commit(
    contents: Contents, commit: Commit, staged: Staged, capabilities: Capabilities
) -> tuple[Contents, CommitResult]:
    """The dataset with the packages in it; the same dataset when it had them before.

    Raises:
        LeaseLost: Another owner has gone on.
    """
    load_ids = tuple(package.load_id for package in commit.packages)
    done = committed(contents, load_ids)

    if len(done) == len(load_ids):
        return contents, CommitResult(load_ids=load_ids, already_committed=True)

    before = [load_id for load_id in load_ids if load_id in done]
    _check_lease(contents, commit, before[-1] if before else commit.parent_load_id)
    tables = dict(contents.tables)
    positions = dict(contents.positions)
    updates: dict[str, Mapping[str, tuple[str, ...]]] = {}

    for package in commit.packages:
        if package.load_id not in done:
            for move in package.positions:
                where = (commit.target.pipeline_name, move.source, move.partition)
                positions[where] = moved(positions.get(where), move)

            _drop(tables, package)
            updates[package.load_id] = _migrate(tables, package, capabilities)
            _write_version(tables, package.schema, capabilities)

        if package.load_id not in done and commit.is_load:
            _write(tables, package, staged[package.load_id], capabilities)

    if not commit.is_load:
        return replace(contents, tables=tables), CommitResult(load_ids=load_ids, schema_updates=updates)

    key = (commit.target.pipeline_name, commit.target.member)
    lease = Lease(epoch=commit.lease.epoch, head_load_id=load_ids[-1])
    runs = dict(contents.runs)

    if commit.run_id is not None:
        runs[commit.target.pipeline_name, commit.run_id] = load_ids

    changed = replace(contents, tables=tables, leases={**contents.leases, key: lease}, positions=positions, runs=runs)

    return changed, CommitResult(load_ids=load_ids, schema_updates=updates)


def _check_lease(contents: Contents, commit: Commit, expected_head: LoadId | None) -> None:
    target = commit.target
    lease = contents.leases.get((target.pipeline_name, target.member), Lease(epoch=commit.lease.epoch))

    if lease.epoch != commit.lease.epoch:
        raise LeaseLost(
            f"Pipeline {target.pipeline_name!r} was taken over by another owner (epoch {lease.epoch}, ours is "
            f"{commit.lease.epoch}). Nothing was written."
        )

    if lease.head_load_id != expected_head:
        raise LeaseLost(
            f"The last package of pipeline {target.pipeline_name!r} is {lease.head_load_id}, but this one was made on "
            f"{expected_head}. Nothing was written."
        )


def _drop(tables: dict[TableName, pa.Table], package: Package) -> None:
    """Take away the tables that the package drops, and the stored versions of its schema with them."""
    for name in package.dropped_tables:
        tables.pop(name, None)

    if package.dropped_tables and VERSION_TABLE in tables:
        tables[VERSION_TABLE] = tables[VERSION_TABLE].filter(pc.field("schema_name") != package.schema.name)


def _migrate(
    tables: dict[TableName, pa.Table], package: Package, capabilities: Capabilities
) -> Mapping[str, tuple[str, ...]]:
    """Give every table that the package touches the columns of its schema."""
    wanted = {LOADS_TABLE: loads_table(), VERSION_TABLE: version_table()}
    wanted.update({job.table: package.schema.tables[job.table] for job in package.jobs})

    emptied = [one.name for root in package.replaced_tables for one in _chain(package, root)]

    for name in (*emptied, *package.truncated_tables):
        if name in tables and name in package.schema.tables:
            wanted[name] = package.schema.tables[name]

    updates: dict[str, tuple[str, ...]] = {}

    for name, table in wanted.items():
        schema = table_schema(table, capabilities)
        known = tables[name].column_names if name in tables else []
        new = tuple(column for column in schema.names if column not in known)

        if name not in tables:
            tables[name] = schema.empty_table()

        for column in new:
            if column not in tables[name].column_names:
                nulls = pa.nulls(tables[name].num_rows, schema.field(column).type)
                tables[name] = tables[name].append_column(schema.field(column), nulls)

        if new:
            updates[name] = new

    return updates


def _write(
    tables: dict[TableName, pa.Table],
    package: Package,
    staged: Mapping[TableName, pa.Table],
    capabilities: Capabilities,
) -> None:
    replaced = [one.name for root in package.replaced_tables for one in _chain(package, root)]

    for name in (*package.truncated_tables, *replaced):
        if name in tables:
            tables[name] = tables[name].schema.empty_table()

    merged: set[TableName] = set()

    for name, rows in staged.items():
        root = package.schema.root_of(name)

        if package.schema.disposition_of(name) != "merge":
            tables[name] = _appended(tables[name], rows)
        elif root.name not in merged:
            merged.add(root.name)
            chain = tuple(package.schema.chain_of(root.name))
            empty = {one.name: table_schema(one, capabilities).empty_table() for one in chain}
            strategy = merge_strategy_of(package.schema, root.name) or "delete-insert"
            result = merge_chain(
                chain,
                {one.name: tables.get(one.name, empty[one.name]) for one in chain},
                {one.name: staged[one.name] for one in chain if one.name in staged},
                strategy,
                package.created_at,
            )
            tables.update({one: data for one, data in result.items() if one in tables})

    load = (package.load_id, package.schema.name, 0, datetime.now(UTC), package.schema.version_hash)
    tables[LOADS_TABLE] = _appended(tables[LOADS_TABLE], _one_row(loads_table(), load, capabilities))


def _write_version(tables: dict[TableName, pa.Table], schema: Schema, capabilities: Capabilities) -> None:
    if schema.version_hash in tables[VERSION_TABLE].column("version_hash").to_pylist():
        return

    row = (schema.version, ENGINE_VERSION, datetime.now(UTC), schema.name, schema.version_hash, to_json(schema))
    tables[VERSION_TABLE] = _appended(tables[VERSION_TABLE], _one_row(version_table(), row, capabilities))


def _appended(table: pa.Table, rows: pa.Table) -> pa.Table:
    """Rows at the end of a table, which may have more columns than they."""
    columns = [
        rows.column(field.name).cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in table.schema
    ]

    return pa.concat_tables([table, pa.Table.from_arrays(columns, schema=table.schema)])


def _one_row(table: Table, values: Sequence[object], capabilities: Capabilities) -> pa.Table:
    schema = table_schema(table, capabilities)
    row = pa.table({name: [value] for name, value in zip(schema.names, values, strict=True)})

    return aligned(row, table, capabilities)


def _chain(package: Package, root: TableName) -> Sequence[Table]:
    return tuple(package.schema.chain_of(root)) if root in package.schema.tables else ()
