"""The rows of one package: emptied tables, appended rows, merges. Inside the commit's transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import duckdb
from sqlglot import exp

from asyncelt.destinations.duckdb_impl.errors import translate
from asyncelt.destinations.duckdb_impl.files import insert_jobs
from asyncelt.destinations.duckdb_impl.reading import Catalog
from asyncelt.destinations.duckdb_impl.staged import JobPaths, local_job_path
from asyncelt.destinations.duckdb_impl.statements import DIALECT, Statements
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.merge import MergePlan, appends, merge_statements
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.destinations.sql.planning import Jobs, chain_of, foreign_columns, jobs_by_table
from asyncelt.destinations.sql.temporary import copy_staging, create_staging, drop_staging
from asyncelt.flow import ROOT_ROW, JobFile, Package
from asyncelt.schema.evolve import merge_strategy_of
from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import STATE_TABLE
from asyncelt.types import ReplaceStrategy, TableName

__all__ = ["Work", "write_package"]

_KEPT_STATES: Final = 100
"""Only the newest is ever restored; the others are history."""
_ROOT_ROW_COLUMN: Final = Column(name=ROOT_ROW, data_type="bigint")

_logger = logging.getLogger("asyncelt.destinations.duckdb")


@dataclass(frozen=True, slots=True)
class Work:
    """One transaction on one dataset. The catalog is kept up to date by whoever creates, changes and drops tables."""

    database: Statements
    dataset: Dataset
    catalog: Catalog
    replace_strategy: ReplaceStrategy = "truncate-and-insert"
    paths: JobPaths = local_job_path
    """Where the job files are."""

    def has(self, name: str) -> bool:
        """Whether the dataset has the table."""
        return name.lower() in self.catalog

    def execute_for(self, package: Package, name: str, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement that writes a table of a package; an error says which."""
        try:
            self.database.execute(sql, parameters)
        except duckdb.Error as error:
            found = translate(error, f"writing table {name!r} of load {package.load_id}")
            raise found.at(load_id=package.load_id, table=name) from error


def write_package(work: Work, package: Package, *, emptied: Iterable[TableName] = ()) -> None:
    """Write the rows of one package; its tables are there with all their columns.

    Args:
        work: The transaction.
        package: What to write.
        emptied: Tables whose rows go first.
    """
    for name in emptied:
        _empty(work, package, name)

    jobs = jobs_by_table(package)
    written: set[TableName] = set()

    for replaced in package.replaced_tables:
        written |= _replace(work, package, replaced, jobs)

    for name, of_table in jobs.items():
        if name in written:
            continue

        if package.schema.disposition_of(name) == "merge":
            written |= _merge(work, package, package.schema.root_of(name), jobs)
        else:
            _append(work, package, name, of_table)

    if STATE_TABLE in jobs:
        sql = system.prune_states(work.dataset, _KEPT_STATES, DIALECT)
        work.execute_for(package, STATE_TABLE, sql, [package.pipeline_name])


def _empty(work: Work, package: Package, name: TableName) -> None:
    if work.has(name):
        work.execute_for(package, name, system.delete_all(work.dataset, name, DIALECT))


def _append(work: Work, package: Package, name: TableName, jobs: Sequence[JobFile]) -> None:
    for sql, parameters in insert_jobs(
        package, package.schema.tables[name], jobs, name, work.dataset, paths=work.paths
    ):
        work.execute_for(package, name, sql, parameters)


def _replace(work: Work, package: Package, root: TableName, jobs: Jobs) -> set[TableName]:
    """Put the new rows of a chain in place of the old ones; returns the tables that are written with that.

    Readers see the old rows until the commit, by either strategy.
    """
    chain = chain_of(package, root)
    given = package.schema.tables[root].hints.get("x-replace-strategy") if chain else None
    strategy = given or work.replace_strategy
    staged = _stage_all(work, package, chain, jobs) if strategy == "insert-from-staging" else {}

    for one in chain:
        _empty(work, package, one.name)

    for one in chain:
        if one.name in staged:
            work.execute_for(package, one.name, copy_staging(work.dataset, one, staged[one.name], DIALECT))
        elif one.name in jobs:
            _append(work, package, one.name, jobs[one.name])

    _drop_all(work, staged)

    return {one.name for one in chain}


def _merge(work: Work, package: Package, root: Table, jobs: Jobs) -> set[TableName]:
    """Merge a chain; returns its tables."""
    chain = tuple(package.schema.chain_of(root.name))
    strategy = merge_strategy_of(package.schema, root.name) or "delete-insert"

    if appends(root, strategy):
        _logger.warning(
            "Table %r is to be merged but has neither a primary key nor a merge key: its rows are appended.", root.name
        )

        for one in chain:
            if one.name in jobs:
                _append(work, package, one.name, jobs[one.name])

        return {one.name for one in chain}

    foreign = {
        one.name: foreign_columns(one, work.catalog.get(one.name.lower(), {})) for one in chain if one.name in jobs
    }
    staged = _stage_all(work, package, chain, jobs, foreign)
    plan = MergePlan(
        dataset=work.dataset,
        chain=chain,
        staged={name: table(one) for name, one in staged.items()},
        existing=frozenset(one.name for one in chain if work.has(one.name)),
        arrival=lambda: exp.column("rowid"),
        keeps_order=True,
        dialect=DIALECT,
        strategy=strategy,
        created_at=package.created_at,
        foreign=foreign,
    )

    for statement in merge_statements(plan):
        work.execute_for(package, statement.table, statement.sql, statement.parameters)

    _drop_all(work, staged)

    return {one.name for one in chain}


def _stage_all(
    work: Work,
    package: Package,
    chain: Sequence[Table],
    jobs: Jobs,
    foreign: Mapping[TableName, tuple[str, ...]] | None = None,
) -> dict[TableName, str]:
    """Temporary tables with the rows of those tables of a chain that the package has rows for, by table."""
    staged = {one.name: f"_asyncelt_staging_{at}" for at, one in enumerate(chain) if one.name in jobs}

    for one in chain:
        if one.name in staged:
            _stage(work, package, one, jobs[one.name], staged[one.name], (foreign or {}).get(one.name, ()))

    return staged


def _stage(
    work: Work, package: Package, one: Table, jobs: Sequence[JobFile], staged: str, foreign: Sequence[str]
) -> None:
    """Rows of one table in a temporary table of the target's types. Its row ids are the order of arrival."""
    work.database.execute(create_staging(work.dataset, one, staged, foreign, DIALECT))
    with_number = replace(one, columns={**one.columns, ROOT_ROW: _ROOT_ROW_COLUMN})

    for sql, parameters in insert_jobs(package, with_number, jobs, staged, None, paths=work.paths):
        work.execute_for(package, one.name, sql, parameters)


def _drop_all(work: Work, staged: Mapping[TableName, str]) -> None:
    for name in staged.values():
        work.database.execute(drop_staging(name, DIALECT))
