"""The rows of one package: emptied tables, appended rows, merges. Inside the commit's transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import anyio
from sqlglot import exp

from asyncelt.destinations.postgres_impl.by_text import read_by_server, to_text, to_types
from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.postgres_impl.copy import CopyValueError
from asyncelt.destinations.postgres_impl.copying import copy_files
from asyncelt.destinations.postgres_impl.errors import DRIVER_ERRORS, translate
from asyncelt.destinations.postgres_impl.parts import Part
from asyncelt.destinations.postgres_impl.reading import DIALECT, Catalog
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.merge import MergePlan, appends, merge_statements
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.destinations.sql.planning import Jobs, chain_of, foreign_columns, jobs_by_table
from asyncelt.destinations.sql.temporary import copy_staging, create_staging, drop_staging
from asyncelt.errors import DestinationRejected, LoadError, Unsupported
from asyncelt.failpoints import failpoint
from asyncelt.flow import ROOT_ROW, JobFile, Package
from asyncelt.schema.evolve import merge_strategy_of
from asyncelt.schema.model import Table
from asyncelt.schema.system import STATE_TABLE
from asyncelt.types import LoadId, ReplaceStrategy, TableName

__all__ = ["WORTH_STATISTICS", "Work", "write_package"]

_KEPT_STATES: Final = 100
"""Only the newest is ever restored; the others are history."""
WORTH_STATISTICS: Final = 5_000
"""Rows of a staging table from which on the planner should know more of it than its size."""

_TEXTS: Final = "_asyncelt_staging_texts"
"""Temporary table for values that the server has to read."""

_logger = logging.getLogger("asyncelt.destinations.postgres")


@dataclass(frozen=True, slots=True)
class Work:
    """One transaction on one dataset. The catalog is kept up to date by whoever creates, changes and drops tables."""

    connection: Connection
    dataset: Dataset
    catalog: Catalog
    threads: anyio.CapacityLimiter
    replace_strategy: ReplaceStrategy = "truncate-and-insert"
    create_indexes: bool = True
    parts: dict[tuple[LoadId, str], Part] = field(default_factory=dict)
    """What stands in staging tables already, by load id and job id."""

    def has(self, name: str) -> bool:
        """Whether the dataset has the table."""
        return name in self.catalog

    async def execute_for(self, package: Package, name: str, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement that writes a table of a package; an error says which."""
        try:
            await self.connection.execute(sql, *parameters)
        except DRIVER_ERRORS as error:
            raise located(error, package, name) from error

    def part_of(self, package: Package, jobs: Sequence[JobFile]) -> Part | None:
        """The part that holds all these jobs, and nothing else."""
        part = self.parts.get((package.load_id, jobs[0].job_id))

        return part if part is not None and part.jobs == tuple(jobs) else None

    async def append(self, package: Package, name: TableName, jobs: Sequence[JobFile]) -> None:
        """Append the rows of a table's job files to it, in their order."""
        for part, of_part in groupby(jobs, key=lambda job: self.parts.get((package.load_id, job.job_id))):
            if part is not None:
                await self._move(package, name, part.name)
            elif read_by_server(self.catalog[name]):
                create = create_staging(self.dataset, package.schema.tables[name], _TEXTS, (), DIALECT)
                await self.execute_for(package, name, create)
                await self.copy(package, name, list(of_part), staged=_TEXTS)
                await self._move(package, name, _TEXTS)
                await self.execute_for(package, name, drop_staging(_TEXTS, DIALECT))
            else:
                await self.copy(package, name, list(of_part))

    async def _move(self, package: Package, name: TableName, staged: str) -> None:
        sql = copy_staging(self.dataset, package.schema.tables[name], staged, DIALECT)
        await self.execute_for(package, name, sql)

    async def copy(
        self,
        package: Package,
        name: TableName,
        jobs: Sequence[JobFile],
        *,
        staged: str | None = None,
        freeze: bool = False,
    ) -> None:
        """COPY the rows of a table's job files into it, or into its staging table, which may be new."""
        types = self.catalog[name] if staged is None else {**self.catalog[name], ROOT_ROW: "bigint"}
        texts = read_by_server(types) if staged is not None else {}
        path = table(staged or name).sql(dialect=DIALECT)

        try:
            if texts:
                await to_text(self.connection, path, texts)

            await copy_files(
                self.connection,
                [package.path_of(job) for job in jobs],
                {**types, **dict.fromkeys(texts, "text")},
                target=staged or name,
                schema=self.dataset.name if staged is None else None,
                threads=self.threads,
                freeze=freeze,
            )

            if texts:
                await to_types(self.connection, path, texts)
        except CopyValueError as error:
            raise DestinationRejected(
                f"Table {name!r} of load {package.load_id}, column {error.column!r}, row {error.row + 1}: the value "
                f"{error.reason}. Mend it in a map step (add_map), or give the column another type."
            ).at(load_id=package.load_id, table=name) from error
        except Unsupported as error:
            raise DestinationRejected(
                f"Table {name!r} of load {package.load_id}: {error} If somebody has altered the column, alter it back, "
                "or drop or rename it: then the next load adds it as it should be."
            ).at(load_id=package.load_id, table=name) from error
        except LoadError as error:
            raise error.at(load_id=package.load_id, table=name) from error
        except DRIVER_ERRORS as error:
            raise located(error, package, name) from error


def located(error: BaseException, package: Package, name: str) -> LoadError:
    """The driver's error as ours, knowing which table of which package it is about."""
    found = translate(error, f"writing table {name!r} of load {package.load_id}")

    return found.at(load_id=package.load_id, table=name)


async def write_package(work: Work, package: Package, *, emptied: Iterable[TableName] = ()) -> None:
    """Write the rows of one package; its tables are there with all their columns.

    Args:
        work: The transaction.
        package: What to write.
        emptied: Tables whose rows go first.
    """
    for name in emptied:
        await _empty(work, package, name)

    jobs = jobs_by_table(package)
    written: set[TableName] = set()

    for replaced in package.replaced_tables:
        written |= await _replace(work, package, replaced, jobs)

    for name, of_table in jobs.items():
        if name in written:
            continue

        if package.schema.disposition_of(name) == "merge":
            written |= await _merge(work, package, package.schema.root_of(name), jobs)
        else:
            await work.append(package, name, of_table)

    if STATE_TABLE in jobs:
        sql = system.prune_states(work.dataset, _KEPT_STATES, DIALECT)
        await work.execute_for(package, STATE_TABLE, sql, [package.pipeline_name])


async def _empty(work: Work, package: Package, name: TableName) -> None:
    # Not TRUNCATE: readers with an older snapshot would see an empty table.
    if work.has(name):
        await work.execute_for(package, name, system.delete_all(work.dataset, name, DIALECT))


async def _replace(work: Work, package: Package, root: TableName, jobs: Jobs) -> set[TableName]:
    """Put the new rows of a chain in place of the old ones; returns the tables that are written with that.

    Readers see the old rows until the commit, by either strategy.
    """
    chain = chain_of(package, root)
    given = package.schema.tables[root].hints.get("x-replace-strategy") if chain else None
    strategy = given or work.replace_strategy
    staged: dict[TableName, str] = {}

    if strategy == "insert-from-staging":
        staged = await _stage_all(
            work, package, [one for one in chain if not _is_there(work, package, one, jobs)], jobs
        )

    for one in chain:
        await _empty(work, package, one.name)

    for one in chain:
        if one.name in staged:
            sql = copy_staging(work.dataset, one, staged[one.name], DIALECT)
            await work.execute_for(package, one.name, sql)
        elif one.name in jobs:
            await work.append(package, one.name, jobs[one.name])

    await _drop_all(work, staged)

    return {one.name for one in chain}


async def _merge(work: Work, package: Package, root: Table, jobs: Jobs) -> set[TableName]:
    """Merge a chain; returns its tables."""
    chain = tuple(package.schema.chain_of(root.name))
    strategy = merge_strategy_of(package.schema, root.name) or "delete-insert"

    if appends(root, strategy):
        _logger.warning(
            "Table %r is to be merged but has neither a primary key nor a merge key: its rows are appended.", root.name
        )

        for one in chain:
            if one.name in jobs:
                await work.append(package, one.name, jobs[one.name])

        return {one.name for one in chain}

    foreign = {one.name: foreign_columns(one, work.catalog.get(one.name, {})) for one in chain if one.name in jobs}
    parts = {one.name: work.part_of(package, jobs[one.name]) for one in chain if one.name in jobs}
    early = {name: part.name for name, part in parts.items() if part is not None}
    late = await _stage_all(work, package, [one for one in chain if one.name not in early], jobs, foreign)
    staged = {**early, **late}
    plan = MergePlan(
        dataset=work.dataset,
        chain=chain,
        staged={name: table(one) for name, one in staged.items()},
        existing=frozenset(one.name for one in chain if work.has(one.name)),
        # The place of a row: rows of a new table stand in the order in which they came.
        arrival=lambda: exp.column("ctid"),
        keeps_order=True,
        analyzes=True,
        dialect=DIALECT,
        strategy=strategy,
        created_at=package.created_at,
        foreign=foreign,
    )

    for statement in merge_statements(plan):
        await work.execute_for(package, statement.table, statement.sql, statement.parameters)

    await _drop_all(work, late)

    return {one.name for one in chain}


def _is_there(work: Work, package: Package, one: Table, jobs: Jobs) -> bool:
    """Whether all rows of the table have been staged before the commit."""
    return all((package.load_id, job.job_id) in work.parts for job in jobs.get(one.name, ()))


async def _stage_all(
    work: Work,
    package: Package,
    chain: Sequence[Table],
    jobs: Jobs,
    foreign: Mapping[TableName, tuple[str, ...]] | None = None,
) -> dict[TableName, str]:
    """Temporary tables with the rows of those tables of a chain that the package has rows for, by table."""
    staged = {one.name: f"_asyncelt_staging_{at}" for at, one in enumerate(chain) if one.name in jobs}

    for one in chain:
        if one.name not in staged:
            continue

        name = staged[one.name]
        create = create_staging(work.dataset, one, name, (foreign or {}).get(one.name, ()), DIALECT)
        await work.execute_for(package, one.name, create)
        await work.copy(package, one.name, jobs[one.name], staged=name)

        if sum(job.rows for job in jobs[one.name]) >= WORTH_STATISTICS:
            await work.execute_for(package, one.name, f"ANALYZE {table(name).sql(dialect=DIALECT)}")

    failpoint("postgres.staged")

    return staged


async def _drop_all(work: Work, staged: Mapping[TableName, str]) -> None:
    for name in staged.values():
        await work.connection.execute(drop_staging(name, DIALECT))
