"""The commit: lease, tables, rows, state and load rows of all packages of a run in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import duckdb

from asyncelt.destinations.duckdb_impl.catalog import Catalog
from asyncelt.destinations.duckdb_impl.early import Early
from asyncelt.destinations.duckdb_impl.errors import translate
from asyncelt.destinations.duckdb_impl.job_paths import JobPaths, local_job_path
from asyncelt.destinations.duckdb_impl.positions import move_positions
from asyncelt.destinations.duckdb_impl.reading import committed, lease
from asyncelt.destinations.duckdb_impl.statements import DIALECT, Statements
from asyncelt.destinations.duckdb_impl.tables import migrate_table, require_dataset
from asyncelt.destinations.duckdb_impl.writing import Work, write_package
from asyncelt.destinations.sql import ddl, system
from asyncelt.destinations.sql.names import Dataset
from asyncelt.destinations.sql.planning import tables_with_new_root_key, wanted_tables
from asyncelt.destinations.sql.records import (
    closing_records,
    may_be_committed,
    new_schemas,
    remaining_packages,
    version_record,
)
from asyncelt.errors import CommitUnknown
from asyncelt.failpoints import failpoint
from asyncelt.flow import Package
from asyncelt.load.protocol import Commit, CommitResult
from asyncelt.schema.model import Table
from asyncelt.schema.system import VERSION_TABLE
from asyncelt.types import LoadId, ReplaceStrategy

__all__ = ["commit_packages"]


def commit_packages(
    database: Statements,
    dataset: Dataset,
    commit: Commit,
    newest_epoch: int,
    *,
    replace_strategy: ReplaceStrategy = "truncate-and-insert",
    paths: JobPaths = local_job_path,
    early: Early | None = None,
) -> CommitResult:
    """Write everything in one transaction; a package that is committed already is not written again.

    Args:
        database: Open, and ours alone to write.
        dataset: Created if it is not there.
        commit: The packages of one run.
        newest_epoch: The newest epoch that was handed out for the pipeline; an older lease has been lost.
        replace_strategy: Of tables that do not name one.
        paths: Where the job files are.
        early: A transaction that was begun for this commit, with some of its rows.

    Raises:
        LeaseLost: Another owner has committed since the lease was taken.
        CommitUnknown: COMMIT failed and the database cannot be asked whether it happened.
    """
    failpoint("duckdb.before_begin")

    if early is None:
        database.execute("BEGIN TRANSACTION")

    try:
        work = Work(database, dataset, Catalog(database, dataset), replace_strategy, paths)
        result = _write(work, commit, newest_epoch, early)
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


def _write(work: Work, commit: Commit, newest_epoch: int, early: Early | None) -> CommitResult:
    load_ids = tuple(package.load_id for package in commit.packages)
    current = lease(work.database, work.dataset, commit.target.pipeline_name, commit.target.member)
    done: frozenset[LoadId] = frozenset()

    if may_be_committed(commit, current):
        done = committed(work.database, work.dataset, load_ids)

    remaining = remaining_packages(work.dataset.name, commit, current, done, newest_epoch=newest_epoch)

    if not remaining:
        return CommitResult(load_ids=load_ids, already_committed=True)

    updates = _prepare_tables(work, remaining, {} if early is None else early.updates)
    failpoint("duckdb.after_migrate")
    _write_versions(work, remaining)

    if not commit.is_load:
        return CommitResult(load_ids=load_ids, schema_updates=updates)

    for package in remaining:
        rest = package if early is None else replace(package, jobs=early.remaining(package))
        # A table that was dropped is there again if an earlier package has rows for it; they go too.
        write_package(work, rest, emptied=(*package.dropped_tables, *package.truncated_tables))

    move_positions(work, commit.target.pipeline_name, remaining)
    now, has_lease = datetime.now(UTC), current is not None

    for sql, parameters in closing_records(work.dataset, commit, remaining, now, DIALECT, has_lease=has_lease):
        work.database.execute(sql, parameters)

    return CommitResult(load_ids=load_ids, schema_updates=updates)


def _prepare_tables(
    work: Work, packages: Sequence[Package], made: Mapping[LoadId, Mapping[str, tuple[str, ...]]]
) -> dict[str, Mapping[str, tuple[str, ...]]]:
    """All DROP, CREATE and ALTER of the commit: DuckDB refuses them for tables whose rows it has changed."""
    for package in packages:
        _drop_tables(work, package)

    updates: dict[str, Mapping[str, tuple[str, ...]]] = {
        package.load_id: _together(made.get(package.load_id, {}), _migrate(work, package)) for package in packages
    }

    for package in packages:
        for one in tables_with_new_root_key(package, updates[package.load_id]):
            _fill_root_key(work, one, package)

    return updates


def _together(
    first: Mapping[str, tuple[str, ...]], then: Mapping[str, tuple[str, ...]]
) -> Mapping[str, tuple[str, ...]]:
    return {name: (*first.get(name, ()), *then.get(name, ())) for name in (*first, *then)}


def _drop_tables(work: Work, package: Package) -> None:
    for name in package.dropped_tables:
        if work.has(name):
            work.execute_for(package, name, ddl.drop_table(work.dataset, name, DIALECT))
            work.catalog.drop(name)

    if package.dropped_tables and work.has(VERSION_TABLE):
        sql = system.delete_schema_versions(work.dataset, DIALECT)
        work.execute_for(package, VERSION_TABLE, sql, [package.schema.name])


def _migrate(work: Work, package: Package) -> Mapping[str, tuple[str, ...]]:
    """CREATE and ADD COLUMN for the system tables and the tables that the package touches."""
    wanted = wanted_tables(package, work.has)
    work.catalog.read(wanted)
    require_dataset(work)
    updates: dict[str, tuple[str, ...]] = {}

    for one in wanted.values():
        columns = migrate_table(work, one)

        if columns and one.name not in {own.name for own in (*system.OWN_TABLES, system.POSITIONS_TABLE)}:
            updates[one.name] = columns

    return updates


def _fill_root_key(work: Work, child: Table, package: Package) -> None:
    if child.parent is None or not work.has(child.parent):
        return

    statement = ddl.fill_root_key(work.dataset, child, package.schema.tables[child.parent], DIALECT)

    if statement is not None:
        work.database.execute(statement)


def _write_versions(work: Work, packages: Sequence[Package]) -> None:
    hashes = list(dict.fromkeys(package.schema.version_hash for package in packages))
    stored = {
        row[0] for row in work.database.rows(system.select_schema_hashes(work.dataset, len(hashes), DIALECT), hashes)
    }

    for schema in new_schemas(packages, stored):
        work.database.execute(*version_record(work.dataset, schema, datetime.now(UTC), DIALECT))


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
