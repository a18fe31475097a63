"""The commit: lease, tables, rows, state and load rows of all packages of a run in one transaction."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
from sqlglot import exp

from asyncelt.destinations.duckdb_impl.errors import translate
from asyncelt.destinations.duckdb_impl.files import insert_jobs
from asyncelt.destinations.duckdb_impl.reading import Catalog, committed, lease, read_catalog, read_columns
from asyncelt.destinations.duckdb_impl.statements import DIALECT, Statements
from asyncelt.destinations.duckdb_impl.types import duckdb_type
from asyncelt.destinations.sql import ddl, system
from asyncelt.destinations.sql.merge import MergePlan, delete_insert, has_keys
from asyncelt.destinations.sql.names import Dataset, column, table
from asyncelt.errors import CommitUnknown, LeaseLost
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, CommitResult, Lease
from asyncelt.schema.model import Table
from asyncelt.schema.stored import ENGINE_VERSION, to_json
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE, VERSION_TABLE, loads_table, version_table
from asyncelt.types import LoadId, TableName

__all__ = ["commit_packages"]

_KEPT_STATES = 100
"""Only the newest is ever restored; the others are history."""

_logger = logging.getLogger("asyncelt.destinations.duckdb")


def commit_packages(database: Statements, dataset: Dataset, commit: Commit, newest_epoch: int) -> CommitResult:
    """Write everything in one transaction; a package that is committed already is not written again.

    Args:
        database: Open, and ours alone to write.
        dataset: Created if it is not there.
        commit: The packages of one run.
        newest_epoch: The newest epoch that was handed out for the pipeline; an older lease has been lost.

    Raises:
        LeaseLost: Another owner has committed since the lease was taken.
        CommitUnknown: COMMIT failed and the database cannot be asked whether it happened.
    """
    failpoint("duckdb.before_begin")
    database.execute("BEGIN TRANSACTION")

    try:
        work = _Work(database, dataset, read_catalog(database, dataset))
        result = _write(work, commit, newest_epoch)
        failpoint("duckdb.before_commit")
    except BaseException:
        database.rollback()
        raise

    if result.already_committed:
        database.rollback()

        return result

    _finish(database, dataset, commit)
    failpoint("duckdb.after_commit")

    return result


@dataclass(frozen=True, slots=True)
class _Work:
    database: Statements
    dataset: Dataset
    catalog: Catalog


def _write(work: _Work, commit: Commit, newest_epoch: int) -> CommitResult:
    load_ids = tuple(package.load_id for package in commit.packages)
    done = _already_committed(work, load_ids)

    if len(done) == len(load_ids):
        return CommitResult(load_ids=load_ids, already_committed=True)

    remaining = [package for package in commit.packages if package.load_id not in done]
    before = [load_id for load_id in load_ids if load_id in done]
    current = (
        lease(work.database, work.dataset, commit.target.pipeline_name, commit.target.member)
        if system.LEASE_TABLE.name in work.catalog
        else None
    )
    head = before[-1] if before else commit.parent_load_id
    _check_lease(work, commit, current or Lease(epoch=0), newest_epoch, head)
    updates: dict[str, Mapping[str, tuple[str, ...]]] = {
        package.load_id: _migrate(work, package) for package in remaining
    }
    failpoint("duckdb.after_migrate")

    for package in remaining:
        _write_package(work, package)

    _write_load_rows(work, remaining)
    _write_lease(work, commit, remaining[-1].load_id, has_lease=current is not None)

    return CommitResult(load_ids=load_ids, schema_updates=updates)


def _already_committed(work: _Work, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
    if LOADS_TABLE not in work.catalog:
        return frozenset()

    found = work.database.rows(system.select_committed(work.dataset, len(load_ids), DIALECT), load_ids)

    return frozenset(LoadId(str(row[0])) for row in found)


def _check_lease(work: _Work, commit: Commit, current: Lease, newest_epoch: int, expected_head: LoadId | None) -> None:
    """Refuse when somebody else has taken over or gone on."""
    target = commit.target
    epoch, head = max(current.epoch, newest_epoch), current.head_load_id
    owner = f"pipeline {target.pipeline_name!r}" + (f", member {target.member!r}" if target.member else "")

    if epoch > commit.lease.epoch:
        raise LeaseLost(
            f"Dataset {work.dataset.name!r}: {owner} was taken over by another owner (epoch {epoch}, ours is "
            f"{commit.lease.epoch}). Nothing was written. Start the pipeline again; it goes on from what the other "
            "owner has committed."
        )

    if head != expected_head:
        raise LeaseLost(
            f"Dataset {work.dataset.name!r}: the last package of {owner} is {head}, but this one was made on "
            f"{expected_head}. Somebody else has committed in between, or the dataset was replaced. Nothing was "
            "written. Drop the pending packages and sync the pipeline with the destination."
        )


def _migrate(work: _Work, package: Package) -> Mapping[str, tuple[str, ...]]:
    """CREATE and ADD COLUMN for the system tables and the tables that the package touches."""
    schema = package.schema

    if not work.catalog:
        # Before its first table; the schema itself may be there.
        work.database.execute(ddl.create_dataset(work.dataset, DIALECT))

    wanted = {
        LOADS_TABLE: schema.tables.get(LOADS_TABLE) or loads_table(),
        VERSION_TABLE: schema.tables.get(VERSION_TABLE) or version_table(),
    }
    wanted.update({one.name: one for one in system.OWN_TABLES})
    wanted.update({job.table: schema.tables[job.table] for job in package.jobs})

    for root in package.replaced_tables:
        # An empty replace creates nothing, but its tables get the columns that the schema has by now.
        for one in _chain(package, root):
            if one.name.lower() in work.catalog:
                wanted.setdefault(one.name, one)

    updates: dict[str, tuple[str, ...]] = {}
    read_columns(work.database, work.dataset, work.catalog, wanted)

    for one in wanted.values():
        columns = _migrate_table(work, one)

        if columns and one.name not in {own.name for own in system.OWN_TABLES}:
            updates[one.name] = columns

    for one in wanted.values():
        if one.parent is not None and any(name in updates.get(one.name, ()) for name in one.keys("root_key")):
            _fill_root_key(work, one, package)

    return updates


def _migrate_table(work: _Work, wanted: Table) -> tuple[str, ...]:
    existing = work.catalog.get(wanted.name.lower())
    columns = ddl.new_columns(wanted, existing)

    if not columns:
        return ()

    if existing is None:
        work.database.execute(ddl.create_table(work.dataset, wanted.name, columns, duckdb_type, DIALECT))
    else:
        for one in columns:
            work.database.execute(ddl.add_column(work.dataset, wanted.name, one, duckdb_type, DIALECT))

    work.catalog.setdefault(wanted.name.lower(), {}).update({one.name.lower(): None for one in columns})

    return tuple(one.name for one in columns)


def _fill_root_key(work: _Work, child: Table, package: Package) -> None:
    if child.parent is None or child.parent.lower() not in work.catalog:
        return

    statement = ddl.fill_root_key(work.dataset, child, package.schema.tables[child.parent], DIALECT)

    if statement is not None:
        work.database.execute(statement)


def _write_package(work: _Work, package: Package) -> None:
    for replaced in package.replaced_tables:
        for one in _chain(package, replaced):
            if one.name.lower() in work.catalog:
                work.database.execute(system.delete_all(work.dataset, one.name, DIALECT))

    jobs: dict[TableName, list[JobFile]] = {}

    for job in package.jobs:
        jobs.setdefault(job.table, []).append(job)

    merged: set[TableName] = set()

    for name, of_table in jobs.items():
        root = package.schema.root_of(name)

        if package.schema.disposition_of(name) != "merge":
            _append(work, package, name, of_table)
        elif root.name not in merged:
            merged.add(root.name)
            _merge(work, package, root, jobs)

    if STATE_TABLE in jobs:
        sql = system.prune_states(work.dataset, _KEPT_STATES, DIALECT)
        _execute_for(work, package, STATE_TABLE, sql, [package.pipeline_name])


def _append(work: _Work, package: Package, name: TableName, jobs: Sequence[JobFile]) -> None:
    for sql, parameters in insert_jobs(package, package.schema.tables[name], jobs, name, work.dataset):
        _execute_for(work, package, name, sql, parameters)


def _merge(work: _Work, package: Package, root: Table, jobs: Mapping[TableName, Sequence[JobFile]]) -> None:
    if not has_keys(root) and not any(one.hard_delete for one in root.columns.values()):
        _logger.warning(
            "Table %r is to be merged but has neither a primary key nor a merge key: its rows are appended.", root.name
        )

        for one in package.schema.chain_of(root.name):
            if one.name in jobs:
                _append(work, package, one.name, jobs[one.name])

        return

    chain = tuple(package.schema.chain_of(root.name))
    staging = {one.name: f"_asyncelt_staging_{at}" for at, one in enumerate(chain) if one.name in jobs}

    for one in chain:
        if one.name in staging:
            _stage(work, package, one, jobs[one.name], staging[one.name])

    plan = MergePlan(
        dataset=work.dataset,
        chain=chain,
        staged={name: table(staged) for name, staged in staging.items()},
        existing=frozenset(one.name for one in chain if one.name.lower() in work.catalog),
        arrival=lambda: exp.column("rowid"),
        dialect=DIALECT,
    )

    for name, sql in delete_insert(plan):
        _execute_for(work, package, name, sql, [])

    for staged in staging.values():
        work.database.execute(exp.Drop(tables=[table(staged)], kind="TABLE").sql(dialect=DIALECT))


def _stage(work: _Work, package: Package, one: Table, jobs: Sequence[JobFile], staged: str) -> None:
    """Rows of one table in a temporary table of the target's types. Its row ids are the order of arrival."""
    empty = exp.select(*(column(name) for name, spec in one.columns.items() if spec.data_type is not None))
    create = exp.Create(
        this=table(staged),
        kind="TABLE",
        properties=exp.Properties(expressions=[exp.TemporaryProperty()]),
        expression=empty.from_(table(one.name, work.dataset)).limit(0),
    )
    work.database.execute(create.sql(dialect=DIALECT))

    for sql, parameters in insert_jobs(package, one, jobs, staged, None):
        _execute_for(work, package, one.name, sql, parameters)


def _write_load_rows(work: _Work, packages: Sequence[Package]) -> None:
    hashes = {package.schema.version_hash: package.schema for package in packages}
    query = system.select_schema_hashes(work.dataset, len(hashes), DIALECT)
    stored = {row[0] for row in work.database.rows(query, list(hashes))}
    columns: tuple[str, ...] = ("version", "engine_version", "inserted_at", "schema_name", "version_hash", "schema")

    for version_hash, schema in hashes.items():
        if version_hash not in stored:
            work.database.execute(
                system.insert_row(work.dataset, VERSION_TABLE, columns, DIALECT),
                [schema.version, ENGINE_VERSION, _now(), schema.name, version_hash, to_json(schema)],
            )

    columns = ("load_id", "schema_name", "status", "inserted_at", "schema_version_hash")

    for package in packages:
        work.database.execute(
            system.insert_row(work.dataset, LOADS_TABLE, columns, DIALECT),
            [package.load_id, package.schema.name, 0, _now(), package.schema.version_hash],
        )


def _write_lease(work: _Work, commit: Commit, head: LoadId, *, has_lease: bool) -> None:
    target = commit.target
    row = [target.pipeline_name, target.member, commit.lease.epoch, head, _now()]

    if has_lease:
        work.database.execute(system.advance_head(work.dataset, DIALECT), row)
    else:
        names = system.LEASE_COLUMNS
        work.database.execute(system.insert_row(work.dataset, system.LEASE_TABLE.name, names, DIALECT), row)

    if commit.run_id is not None:
        load_ids = json.dumps([package.load_id for package in commit.packages])
        work.database.execute(
            system.insert_row(work.dataset, system.RUNS_TABLE.name, system.RUN_COLUMNS, DIALECT),
            [target.pipeline_name, commit.run_id, load_ids, _now()],
        )


def _finish(database: Statements, dataset: Dataset, commit: Commit) -> None:
    """COMMIT. When it fails, the database is asked whether it happened."""
    load_ids = [package.load_id for package in commit.packages]

    try:
        with database.uninterruptible():
            database.execute("COMMIT")
    except duckdb.Error as error:
        database.rollback()

        try:
            happened = committed(database, dataset, load_ids)
        except duckdb.Error:
            raise CommitUnknown(
                f"COMMIT of {', '.join(load_ids)} failed and the database cannot be asked whether it happened: {error}"
            ) from error

        if len(happened) < len(load_ids):
            raise translate(error, f"committing {', '.join(load_ids)}") from error
    except BaseException:
        database.rollback()
        raise


def _chain(package: Package, root: TableName) -> Iterable[Table]:
    return package.schema.chain_of(root) if root in package.schema.tables else ()


def _execute_for(work: _Work, package: Package, name: str, sql: str, parameters: Sequence[object]) -> None:
    try:
        work.database.execute(sql, parameters)
    except duckdb.Error as error:
        found = translate(error, f"writing table {name!r} of load {package.load_id}")
        raise found.at(load_id=package.load_id, table=name) from error


def _now() -> datetime:
    return datetime.now(UTC)
