"""Tables are brought to what is wanted of them."""

from __future__ import annotations

from asyncelt.destinations.duckdb_impl.statements import DIALECT
from asyncelt.destinations.duckdb_impl.types import duckdb_type, stored_type
from asyncelt.destinations.duckdb_impl.writing import Work
from asyncelt.destinations.sql import ddl
from asyncelt.schema.model import Table

__all__ = ["migrate_table", "require_dataset"]


def require_dataset(work: Work) -> None:
    """CREATE SCHEMA before its first table; the schema itself may be there."""
    if work.catalog.is_empty:
        work.database.execute(ddl.create_dataset(work.dataset, DIALECT))


def migrate_table(work: Work, wanted: Table) -> tuple[str, ...]:
    """CREATE or ADD COLUMN, if anything is missing; the columns that were."""
    existing = work.catalog.columns_of(wanted.name)
    columns = ddl.new_columns(wanted, existing)

    if not columns:
        return ()

    if existing is None:
        work.database.execute(ddl.create_table(work.dataset, wanted.name, columns, stored_type, DIALECT))
    else:
        for one in columns:
            work.database.execute(ddl.add_column(work.dataset, wanted.name, one, duckdb_type, DIALECT))

    work.catalog.add(wanted.name, [one.name for one in columns])

    return tuple(one.name for one in columns)
