"""The rows of one package: emptied tables, appended rows, merges. Inside the commit's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import anyio

from asyncelt.destinations.postgres_impl.by_text import arrivals, read_by_server, to_arrivals, to_types
from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.postgres_impl.copy import CopyValueError
from asyncelt.destinations.postgres_impl.copying import copy_files
from asyncelt.destinations.postgres_impl.errors import DRIVER_ERRORS, translate
from asyncelt.destinations.postgres_impl.parts import Part
from asyncelt.destinations.postgres_impl.reading import DIALECT, Catalog
from asyncelt.destinations.postgres_impl.statistics import analyze_keys, bounds_of_keys
from asyncelt.destinations.sql.merge_plan import Bounds
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.destinations.sql.temporary import copy_staging, create_staging, drop_staging
from asyncelt.destinations.sql.writing import Append, Place, Stage, Statement, package_work
from asyncelt.errors import DestinationRejected, LoadError, Unsupported
from asyncelt.failpoints import failpoint
from asyncelt.flow import ROOT_ROW, JobFile, Package
from asyncelt.types import LoadId, ReplaceStrategy, TableName

__all__ = ["WORTH_STATISTICS", "Work", "write_package"]

WORTH_STATISTICS: Final = 5_000
"""Rows of a staging table from which on the planner should know more of it than its size."""

_TEXTS: Final = "_asyncelt_staging_texts"
"""Temporary table for values that the server has to read."""


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

    def staged_in(self, package: Package, job: JobFile) -> str | None:
        """The staging table in which the rows of a job stand."""
        part = self.parts.get((package.load_id, job.job_id))

        return None if part is None else part.name

    async def append(self, package: Package, name: TableName, jobs: Sequence[JobFile]) -> None:
        """Append the rows of a table's job files to it, in their order."""
        for staged, of_part in groupby(jobs, key=lambda job: self.staged_in(package, job)):
            if staged is not None:
                await self._move(package, name, staged)
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
        unread = read_by_server(types) if staged is not None else {}
        arrived = arrivals(package.schema.tables[name], unread)
        path = table(staged or name).sql(dialect=DIALECT)

        try:
            if unread:
                await to_arrivals(self.connection, path, arrived)

            await copy_files(
                self.connection,
                [package.path_of(job) for job in jobs],
                {**types, **arrived},
                target=staged or name,
                schema=self.dataset.name if staged is None else None,
                threads=self.threads,
                freeze=freeze,
            )

            if unread:
                await to_types(self.connection, path, unread, arrived)
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
    bounds = await _bounds_of_parts(work, package)
    place = Place(
        dataset=work.dataset,
        dialect=DIALECT,
        arrival="ctid",
        columns_of=work.catalog.get,
        replace_strategy=work.replace_strategy,
        staged_in=lambda job: work.staged_in(package, job),
        bounds_of=lambda staged: bounds.get(staged, {}),
        analyzes=True,
    )

    for action in package_work(place, package, emptied=emptied):
        match action:
            case Statement(name, sql, parameters):
                await work.execute_for(package, name, sql, parameters)
            case Append(name, jobs):
                await work.append(package, name, jobs)
            case Stage(name, staged, jobs):
                bounds[staged] = await _stage(work, package, name, staged, jobs)


async def _stage(work: Work, package: Package, name: TableName, staged: str, jobs: Sequence[JobFile]) -> Bounds:
    """Fill a staging table; what is worth telling the planner of many rows."""
    bounds: Bounds = {}
    await work.copy(package, name, jobs, staged=staged)

    if sum(job.rows for job in jobs) >= WORTH_STATISTICS:
        one = package.schema.tables[name]
        await work.execute_for(package, name, analyze_keys(one, table(staged)))
        bounds = await bounds_of_keys(work.connection, one, work.catalog[name], staged)

    failpoint("postgres.staged")

    return bounds


async def _bounds_of_parts(work: Work, package: Package) -> dict[str, Bounds]:
    """Of the keys in large staging tables that have been filled before."""
    parts = {part.name: part for part in work.parts.values() if part.load_id == package.load_id}

    return {
        name: await bounds_of_keys(work.connection, package.schema.tables[part.table], work.catalog[part.table], name)
        for name, part in parts.items()
        if part.is_merged and part.rows >= WORTH_STATISTICS
    }
