"""What the dataset says about itself: tables and columns, state, schemas, loads. Creates nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.names import Dataset
from asyncelt.load.protocol import Lease, Restored, StoredPosition
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE, VERSION_TABLE
from asyncelt.types import LoadId

__all__ = [
    "DIALECT",
    "SYSTEM_TABLES",
    "Catalog",
    "committed",
    "lease",
    "positions",
    "read_catalog",
    "restore",
    "run_of",
]

DIALECT: Final = "postgres"
Catalog: TypeAlias = "dict[str, dict[str, str]]"
"""The type of each column, as Postgres writes it, per table."""
SYSTEM_TABLES: Final = (
    LOADS_TABLE,
    STATE_TABLE,
    VERSION_TABLE,
    *(one.name for one in (*system.OWN_TABLES, system.POSITIONS_TABLE)),
)

_CATALOG_QUERY: Final = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p', 'f', 'v')
ORDER BY c.relname, a.attnum
"""


async def read_catalog(connection: Connection, dataset: Dataset, names: Iterable[str]) -> Catalog:
    """Those of the named tables that are there, with their columns."""
    catalog: Catalog = {}

    for table, column, kind in await connection.fetch(_CATALOG_QUERY, dataset.name, sorted(set(names))):
        columns = catalog.setdefault(str(table), {})

        if column is not None:
            columns[str(column)] = str(kind)

    return catalog


async def restore(connection: Connection, dataset: Dataset, pipeline_name: str, member: str) -> Restored:
    """Newest state of the pipeline that belongs to a complete load, newest schemas, and the last load ids."""
    catalog = await read_catalog(connection, dataset, SYSTEM_TABLES)
    state = await _first(
        connection, catalog, (STATE_TABLE, LOADS_TABLE), system.select_state(dataset, DIALECT), [pipeline_name]
    )
    newest = await _first(connection, catalog, (LOADS_TABLE,), system.select_newest_load(dataset, DIALECT))
    current = await lease(connection, dataset, catalog, (pipeline_name, member))
    schemas = await connection.fetch(system.select_schemas(dataset, DIALECT)) if VERSION_TABLE in catalog else []

    return Restored(
        exists=LOADS_TABLE in catalog or VERSION_TABLE in catalog,
        state=None if state is None else str(state[0]),
        state_load_id=None if state is None else LoadId(str(state[1])),
        schemas={str(name): system.inflated(str(text)) for name, text in schemas},
        last_load_id=None if newest is None or newest[0] is None else LoadId(str(newest[0])),
        head_load_id=None if current is None else current.head_load_id,
    )


async def committed(
    connection: Connection, dataset: Dataset, catalog: Mapping[str, object], load_ids: Sequence[LoadId]
) -> frozenset[LoadId]:
    """Which of the load ids have a row in ``_dlt_loads``."""
    if LOADS_TABLE not in catalog or not load_ids:
        return frozenset()

    found = await connection.fetch(system.select_committed(dataset, len(load_ids), DIALECT), *load_ids)

    return frozenset(LoadId(str(row[0])) for row in found)


async def lease(
    connection: Connection,
    dataset: Dataset,
    catalog: Mapping[str, object],
    owner: tuple[str, str],
    *,
    for_update: bool = False,
) -> Lease | None:
    """The lease row of (pipeline name, member); None when they have never committed."""
    if system.LEASE_TABLE.name not in catalog:
        return None

    row = await connection.fetchrow(system.select_lease(dataset, DIALECT, for_update=for_update), *owner)

    if row is None:
        return None

    return Lease(epoch=int(row[0]), head_load_id=None if row[1] is None else LoadId(str(row[1])))


async def run_of(connection: Connection, dataset: Dataset, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
    """Load ids that the run has committed."""
    name = system.RUNS_TABLE.name
    catalog = await read_catalog(connection, dataset, [name])
    found = await _first(connection, catalog, (name,), system.select_run(dataset, DIALECT), [pipeline_name, run_id])

    return () if found is None else tuple(LoadId(load_id) for load_id in json.loads(str(found[0])))


async def positions(connection: Connection, dataset: Dataset, pipeline_name: str) -> tuple[StoredPosition, ...]:
    """What is committed of each partition of the pipeline's message sources."""
    name = system.POSITIONS_TABLE.name

    if name not in await read_catalog(connection, dataset, [name]):
        return ()

    found = await connection.fetch(system.select_positions(dataset, DIALECT), pipeline_name)

    return tuple(
        StoredPosition(source=source, partition=partition, epoch=epoch, position=position)
        for source, partition, epoch, position in found
    )


async def _first(
    connection: Connection,
    catalog: Mapping[str, object],
    needed: Iterable[str],
    sql: str,
    parameters: Sequence[object] = (),
) -> Sequence[object] | None:
    """First row of a query; None when it has none or one of the tables it needs is not there."""
    if any(name not in catalog for name in needed):
        return None

    row = await connection.fetchrow(sql, *parameters)

    return None if row is None else tuple(row)
