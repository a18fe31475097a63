"""What a role may do, asked before anything is extracted for it."""

from __future__ import annotations

from typing import Final

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.sql import system
from asyncelt.errors import DestinationRejected

__all__ = ["check_rights"]

_QUERY: Final = """
SELECT current_database(), current_setting('transaction_read_only') = 'on', n.oid IS NOT NULL,
    has_database_privilege(current_database(), 'CREATE'), has_schema_privilege(n.oid, 'USAGE'),
    has_schema_privilege(n.oid, 'CREATE'),
    EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = $2)
FROM (VALUES ($1)) AS wanted (name) LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.name
"""
_GRANT: Final = "grant the role CREATE on the database, and USAGE and CREATE on the schema."


async def check_rights(connection: Connection, dataset: str) -> None:
    """Refuse what cannot be loaded whatever the rows are. A role that only fills tables that are there needs no CREATE.

    Raises:
        DestinationRejected: The server is read-only, or the dataset can neither be used nor made.
    """
    row = await connection.fetchrow(_QUERY, dataset, system.LEASE_TABLE.name)

    if row is None:
        return

    database, is_read_only, exists, may_create, may_use, may_add, is_ours = row

    if is_read_only:
        raise DestinationRejected(
            f"Database {database!r} is read-only for this role.",
            code="25006",
            hint="connect to the primary server, and look for default_transaction_read_only of role and database.",
        )

    if not exists and not may_create:
        raise DestinationRejected(
            f"Dataset {dataset!r} is not there and cannot be made: permission denied for database {database}.",
            code="42501",
            hint=_GRANT,
        )

    if exists and (not may_use or not (may_add or is_ours)):
        raise DestinationRejected(
            f"Tables of dataset {dataset!r} cannot be made: permission denied for schema {dataset}.",
            code="42501",
            hint=_GRANT,
        )
