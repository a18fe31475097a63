"""What there is to do to write the rows of a package, in the order in which it has to be done. Touches no database.

A destination does what `package_work` yields, one thing after the other, inside the commit's transaction. Whether it
waits for its database in a thread or in the event loop is its own affair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlglot import exp

from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.merge import MergePlan, Statement, appends, merge_statements
from asyncelt.destinations.sql.merge_plan import Bounds
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.destinations.sql.planning import Jobs, chain_of, foreign_columns, jobs_by_table
from asyncelt.destinations.sql.temporary import copy_staging, create_staging, drop_staging
from asyncelt.flow import JobFile, Package
from asyncelt.schema.evolve import merge_strategy_of
from asyncelt.schema.model import Table
from asyncelt.schema.system import STATE_TABLE
from asyncelt.types import ReplaceStrategy, TableName

__all__ = ["Action", "Append", "Place", "Stage", "Statement", "package_work"]

_KEPT_STATES: Final = 100
"""Only the newest is ever restored; the others are history."""


@dataclass(frozen=True, slots=True)
class Append:
    """Append the rows of job files to their table, in their order."""

    table: TableName
    jobs: Sequence[JobFile]


@dataclass(frozen=True, slots=True)
class Stage:
    """Fill a temporary table, which is there and empty, with the rows of a table's job files, in their order.

    It has the columns of the table at the destination, and `ROOT_ROW`.
    """

    table: TableName
    name: str
    jobs: Sequence[JobFile]


Action: TypeAlias = Statement | Append | Stage
"""One step. A `Statement` is run as it is."""


def _nowhere(_job: JobFile) -> None:
    """For destinations that take job files in the commit only."""


def _unknown(_staged: str) -> Bounds:
    """For destinations that see by themselves which of their rows a merge can have to do with."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the rows go, and what has to be known of the destination."""

    dataset: Dataset
    dialect: str
    arrival: str
    """A column that the destination gives each table, by which rows of a new one stand in the order they came in."""
    columns_of: Callable[[str], Iterable[str] | None]
    """Columns that a table of the dataset has; None: there is no such table."""
    replace_strategy: ReplaceStrategy = "truncate-and-insert"
    """Of tables that do not name one."""
    staged_in: Callable[[JobFile], str | None] = _nowhere
    """The table in which the rows of a job stand already, alone or with those of all jobs that are merged with it."""
    bounds_of: Callable[[str], Bounds] = _unknown
    """Of keys, by the staging table that holds them; asked when it is filled."""
    keeps_order: bool = True
    """Whether rows are inserted in the order in which a query without ORDER BY finds them."""
    analyzes: bool = False
    """Whether the planner has to be told what a temporary table holds."""


def package_work(place: Place, package: Package, *, emptied: Iterable[TableName] = ()) -> Iterator[Action]:
    """Yield what writes the rows of one package; its tables are there with all their columns.

    Args:
        place: The destination.
        package: What to write.
        emptied: Tables whose rows go first.
    """
    for name in emptied:
        yield from _empty(place, name)

    jobs = jobs_by_table(package)
    written: set[TableName] = set()

    for root in package.replaced_tables:
        chain = chain_of(package, root)
        written.update(one.name for one in chain)

        yield from _replace(place, chain, jobs)

    for name, of_table in jobs.items():
        if name in written:
            continue

        if package.schema.disposition_of(name) != "merge":
            yield Append(name, of_table)

            continue

        chain = chain_of(package, package.schema.root_of(name).name)
        written.update(one.name for one in chain)

        yield from _merge(place, package, chain, jobs)

    if STATE_TABLE in jobs:
        pruned = system.prune_states(place.dataset, _KEPT_STATES, place.dialect)

        yield Statement(STATE_TABLE, pruned, (package.pipeline_name,))


def _empty(place: Place, name: TableName) -> Iterator[Action]:
    # Not TRUNCATE: readers with an older snapshot would see an empty table.
    if place.columns_of(name) is not None:
        yield Statement(name, system.delete_all(place.dataset, name, place.dialect))


def _replace(place: Place, chain: Sequence[Table], jobs: Jobs) -> Iterator[Action]:
    """Put the new rows of a chain in place of the old ones. Readers see those until the commit, by either strategy."""
    given = chain[0].hints.get("x-replace-strategy") if chain else None
    staged: dict[TableName, str] = {}

    if (given or place.replace_strategy) == "insert-from-staging":
        staged = _temporary_tables(
            one for one in chain if any(place.staged_in(job) is None for job in jobs.get(one.name, ()))
        )

        yield from _stage_all(place, chain, staged, jobs, {})

    for one in chain:
        yield from _empty(place, one.name)

    for one in chain:
        if one.name in staged:
            yield Statement(one.name, copy_staging(place.dataset, one, staged[one.name], place.dialect))
        elif one.name in jobs:
            yield Append(one.name, jobs[one.name])

    yield from _drop_all(place, staged)


def _merge(place: Place, package: Package, chain: Sequence[Table], jobs: Jobs) -> Iterator[Action]:
    root = chain[0]
    strategy = merge_strategy_of(package.schema, root.name) or "delete-insert"
    arriving = [one for one in chain if one.name in jobs]

    if appends(root, strategy):
        logging.getLogger(f"asyncelt.destinations.{place.dialect}").warning(
            "Table %r is to be merged but has neither a primary key nor a merge key: its rows are appended.", root.name
        )

        for one in arriving:
            yield Append(one.name, jobs[one.name])

        return

    foreign = {one.name: foreign_columns(one, place.columns_of(one.name) or ()) for one in arriving}
    early = {one.name: name for one in arriving if (name := _one_table_of(place, jobs[one.name])) is not None}
    late = _temporary_tables(one for one in arriving if one.name not in early)
    staged = early | late

    yield from _stage_all(place, chain, late, jobs, foreign)

    yield from merge_statements(
        MergePlan(
            dataset=place.dataset,
            chain=tuple(chain),
            staged={name: table(other) for name, other in staged.items()},
            existing=frozenset(one.name for one in chain if place.columns_of(one.name) is not None),
            arrival=lambda: exp.column(place.arrival),
            keeps_order=place.keeps_order,
            analyzes=place.analyzes,
            dialect=place.dialect,
            strategy=strategy,
            created_at=package.created_at,
            foreign=foreign,
            bounds=lambda: place.bounds_of(staged[root.name]) if root.name in staged else {},
        )
    )

    yield from _drop_all(place, late)


def _one_table_of(place: Place, jobs: Sequence[JobFile]) -> str | None:
    """The table in which the rows of all these jobs stand already."""
    names = {place.staged_in(job) for job in jobs}

    return names.pop() if len(names) == 1 else None


def _temporary_tables(tables: Iterable[Table]) -> dict[TableName, str]:
    return {one.name: f"_asyncelt_staging_{at}" for at, one in enumerate(tables)}


def _stage_all(
    place: Place,
    chain: Sequence[Table],
    staged: Mapping[TableName, str],
    jobs: Jobs,
    foreign: Mapping[TableName, tuple[str, ...]],
) -> Iterator[Action]:
    """Fill a temporary table for each table of a chain that is to have one."""
    for one in chain:
        if one.name not in staged:
            continue

        name = staged[one.name]

        yield Statement(one.name, create_staging(place.dataset, one, name, foreign.get(one.name, ()), place.dialect))
        yield Stage(one.name, name, jobs[one.name])


def _drop_all(place: Place, staged: Mapping[TableName, str]) -> Iterator[Action]:
    for one, name in staged.items():
        yield Statement(one, drop_staging(name, place.dialect))
