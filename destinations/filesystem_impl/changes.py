"""What a commit changes in a dataset, found by comparing its packages with the stored schemas. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncelt.destinations.filesystem_impl.lake import check_formats
from asyncelt.flow import Package
from asyncelt.schema.stored import from_json, to_json
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
    known = dict(schemas)
    updates: dict[str, Mapping[str, tuple[str, ...]]] = {}

    for package in packages:
        stored = from_json(known[package.schema.name]) if package.schema.name in known else None
        before = {} if stored is None else stored.tables

        if stored is not None:
            check_formats(stored, package, emptied_tables(package))

        changed = {}

        for name in {job.table: None for job in package.jobs}:
            old = before[name].columns if name in before else {}
            new = [one for one in package.schema.tables[name].columns.values() if one.data_type is not None]
            columns = tuple(one.name for one in new if one.name not in old or old[one.name].data_type is None)

            if columns:
                changed[str(name)] = tuple(str(column) for column in columns)

        updates[package.load_id] = changed
        known[package.schema.name] = to_json(package.schema)

    return updates
