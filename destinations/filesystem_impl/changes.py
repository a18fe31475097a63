"""What a commit changes in a dataset, found by comparing its packages with the stored schemas. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncelt.destinations.filesystem_impl.lake import check_formats
from asyncelt.flow import Package
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import from_json
from asyncelt.types import TableName

__all__ = ["emptied_tables", "schema_updates"]


def emptied_tables(package: Package) -> list[TableName]:
    """Tables whose old rows go with this package."""
    roots = [root for root in package.replaced_tables if root in package.schema.tables]
    replaced = [one.name for root in roots for one in package.schema.chain_of(root)]

    return list(dict.fromkeys((*package.dropped_tables, *package.truncated_tables, *replaced)))


def schema_updates(schemas: Mapping[str, str], packages: Sequence[Package]) -> dict[str, Mapping[str, tuple[str, ...]]]:
    """New columns by load and table.

    Args:
        schemas: Newest stored schema JSON per schema name.
        packages: Of one commit, in order: each is compared with what the one before it leaves.

    Raises:
        DestinationRejected: A package has rows for a table that is kept in another format.
    """
    known: dict[str, Schema] = {}
    updates: dict[str, Mapping[str, tuple[str, ...]]] = {}

    for package in packages:
        name = package.schema.name
        stored = known.get(name) or (from_json(schemas[name]) if name in schemas else None)
        before = {} if stored is None else stored.tables

        if stored is not None:
            check_formats(stored, package, emptied_tables(package))

        changed = {}

        for table in {job.table: None for job in package.jobs}:
            old = before[table].columns if table in before else {}
            new = [one for one in package.schema.tables[table].columns.values() if one.data_type is not None]
            columns = tuple(one.name for one in new if one.name not in old or old[one.name].data_type is None)

            if columns:
                changed[str(table)] = tuple(str(column) for column in columns)

        updates[package.load_id] = changed
        known[name] = package.schema

    return updates
