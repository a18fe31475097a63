"""The commit: lease, tables, rows, state and load rows of all packages of a run in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from asyncelt._async import in_thread
from asyncelt.destinations.postgres_impl.indexing import build_indexes, tables_to_index
from asyncelt.destinations.postgres_impl.locks import take_commit_turn, take_table_turns
from asyncelt.destinations.postgres_impl.migrating import Updates, migrate, names_of
from asyncelt.destinations.postgres_impl.part_tables import arrived_parts, drop_parts
from asyncelt.destinations.postgres_impl.parts import Parts
from asyncelt.destinations.postgres_impl.positions import move_positions
from asyncelt.destinations.postgres_impl.reading import DIALECT, committed, lease, read_catalog
from asyncelt.destinations.postgres_impl.writing import Work, write_package
from asyncelt.destinations.sql import ddl, system
from asyncelt.destinations.sql.records import (
    closing_records,
    may_be_committed,
    new_schemas,
    remaining_packages,
    version_record,
)
from asyncelt.failpoints import failpoint
from asyncelt.flow import Package
from asyncelt.load.protocol import Commit, CommitResult
from asyncelt.schema.system import VERSION_TABLE
from asyncelt.types import LoadId

__all__ = ["write_commit"]


async def write_commit(work: Work, commit: Commit, updates: Updates, parts: Parts) -> CommitResult:
    """Write everything, inside a transaction that is not committed here; what is committed already is left out.

    Args:
        work: The transaction; its catalog may be empty.
        commit: The packages of one run.
        updates: What was migrated before.
        parts: What was to be staged before. What has not arrived is copied now.

    Raises:
        LeaseLost: Another owner has taken over or committed since the lease was taken.
    """
    load_ids = tuple(package.load_id for package in commit.packages)
    await take_commit_turn(work.connection, commit.target)
    work.catalog.update(await read_catalog(work.connection, work.dataset, names_of(commit.packages)))
    owner = (commit.target.pipeline_name, commit.target.member)
    current = await lease(work.connection, work.dataset, work.catalog, owner, for_update=True)
    done: frozenset[LoadId] = frozenset()

    if may_be_committed(commit, current):
        done = await committed(work.connection, work.dataset, work.catalog, load_ids)

    remaining = remaining_packages(work.dataset.name, commit, current, done)

    if not remaining:
        return CommitResult(load_ids=load_ids, already_committed=True)

    failpoint("postgres.after_lease")

    # Two who fill a new table at once would each wait for the other before they make its indexes.
    fresh = await tables_to_index(work, remaining)
    await take_table_turns(work.connection, work.dataset.name, _shared_tables(remaining) | set(fresh))
    late = await _prepare_tables(work, remaining)
    await _write_versions(work, remaining)

    if not commit.is_load:
        return CommitResult(load_ids=load_ids, schema_updates=_joined(updates, late))

    await move_positions(work, commit.target.pipeline_name, remaining)

    if fresh or late:
        fresh = await tables_to_index(work, remaining)

    work.parts.update(await arrived_parts(work, remaining, parts))

    for package in remaining:
        # A table that was dropped is there again if an earlier package has rows for it; they go too.
        await write_package(work, package, emptied=(*package.dropped_tables, *package.truncated_tables))

        for name in await build_indexes(work, package, fresh):
            del fresh[name]

        failpoint("postgres.after_package")

    await drop_parts(work.connection, work.dataset, parts)
    now, has_lease = datetime.now(UTC), current is not None

    for sql, parameters in closing_records(work.dataset, commit, remaining, now, DIALECT, has_lease=has_lease):
        await work.connection.execute(sql, *parameters)

    return CommitResult(load_ids=load_ids, schema_updates=_joined(updates, late))


def _shared_tables(packages: Sequence[Package]) -> set[str]:
    """Root tables whose rows are changed, not only added to: two transactions that do that would disturb each other."""
    names: set[str] = set()

    for package in packages:
        names.update(package.replaced_tables, package.truncated_tables, package.dropped_tables)
        names.update(
            package.schema.root_of(job.table).name
            for job in package.jobs
            if package.schema.disposition_of(job.table) == "merge"
        )

    return names


async def _prepare_tables(work: Work, packages: Sequence[Package]) -> Updates:
    """DROP, and CREATE of what was dropped: readers see the old tables until the commit, and then the new ones."""
    for package in packages:
        await _drop_tables(work, package)

    late = await migrate(work.connection, work.dataset, packages, create_indexes=work.create_indexes)

    if late or any(package.dropped_tables for package in packages):
        work.catalog.clear()
        work.catalog.update(await read_catalog(work.connection, work.dataset, names_of(packages)))

    return late


async def _drop_tables(work: Work, package: Package) -> None:
    for name in package.dropped_tables:
        if work.has(name):
            await work.execute_for(package, name, ddl.drop_table(work.dataset, name, DIALECT))
            del work.catalog[name]

    if package.dropped_tables and work.has(VERSION_TABLE):
        sql = system.delete_schema_versions(work.dataset, DIALECT)
        await work.execute_for(package, VERSION_TABLE, sql, [package.schema.name])


async def _write_versions(work: Work, packages: Sequence[Package]) -> None:
    hashes = list(dict.fromkeys(package.schema.version_hash for package in packages))
    query = system.select_schema_hashes(work.dataset, len(hashes), DIALECT)
    stored = {row[0] for row in await work.connection.fetch(query, *hashes)}

    for schema in new_schemas(packages, stored):
        record = partial(version_record, work.dataset, schema, datetime.now(UTC), DIALECT)
        sql, parameters = await in_thread(record, work.threads)
        await work.connection.execute(sql, *parameters)


def _joined(early: Updates, late: Updates) -> Updates:
    joined = {load_id: dict(tables) for load_id, tables in early.items()}

    for load_id, tables in late.items():
        for name, columns in tables.items():
            known = joined.setdefault(load_id, {})
            known[name] = tuple(dict.fromkeys((*known.get(name, ()), *columns)))

    return joined
