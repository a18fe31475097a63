"""What a commit has to do, decided from its packages and from what the dataset has. Touches no database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from asyncelt.destinations.sql import system
from asyncelt.flow import JobFile, Package
from asyncelt.schema.model import Table
from asyncelt.schema.system import LOADS_TABLE, VERSION_TABLE, loads_table, version_table
from asyncelt.types import TableName

__all__ = [
    "Jobs",
    "chain_of",
    "foreign_columns",
    "jobs_by_table",
    "tables_with_new_root_key",
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
