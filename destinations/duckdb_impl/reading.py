"""What the dataset says about itself: state, schemas, loads. Creates nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

import duckdb
from sqlglot import exp

from asyncelt.destinations.duckdb_impl.catalog import Catalog
from asyncelt.destinations.duckdb_impl.statements import DIALECT, Statements
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.names import Dataset, column, identifier, parameter, table
from asyncelt.load.protocol import Lease, Restored, StoredPosition
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE, VERSION_TABLE
from asyncelt.types import LoadId

__all__ = ["committed", "glance", "lease", "restore", "run_of", "use"]


def restore(database: Statements, dataset: Dataset, pipeline_name: str, member: str) -> Restored:
    """Newest state of the pipeline that belongs to a complete load, newest schemas, and the last load ids."""
    catalog = Catalog(database, dataset)
    state = _first(
        database, catalog, (STATE_TABLE, LOADS_TABLE), system.select_state(dataset, DIALECT), [pipeline_name]
    )
    newest = _first(database, catalog, (LOADS_TABLE,), system.select_newest_load(dataset, DIALECT))
    current = lease(database, dataset, pipeline_name, member)
    schemas = database.rows(system.select_schemas(dataset, DIALECT)) if VERSION_TABLE in catalog else []

    return Restored(
        exists=LOADS_TABLE in catalog or VERSION_TABLE in catalog,
        state=None if state is None else str(state[0]),
        state_load_id=None if state is None else LoadId(str(state[1])),
        schemas={str(name): system.inflated(str(text)) for name, text in schemas},
        last_load_id=None if newest is None or newest[0] is None else LoadId(str(newest[0])),
        head_load_id=None if current is None else current.head_load_id,
    )


def glance(database: Statements, dataset: Dataset, pipeline_name: str, current: Lease | None) -> Restored | None:
    """What `restore` reads but for the schemas, given the lease row, by statements that cost little.

    The state is that of the newest row, even if its load is not complete.

    Returns:
        None where there is no lease or a table is missing.
    """
    if current is None:
        return None

    try:
        [(newest,)] = database.rows(system.select_newest_load(dataset, DIALECT))
        [(state,)] = database.rows(_newest_state_query(dataset), [pipeline_name])
    except duckdb.CatalogException:
        return None

    return Restored(
        exists=True,
        state=None if state is None else str(state),
        last_load_id=None if newest is None else LoadId(str(newest)),
        head_load_id=current.head_load_id,
    )


def committed(database: Statements, dataset: Dataset, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
    """Which of the load ids have a row in ``_dlt_loads``."""
    if LOADS_TABLE not in Catalog(database, dataset):
        return frozenset()

    found = database.rows(system.select_committed(dataset, len(load_ids), DIALECT), load_ids)

    return frozenset(LoadId(str(row[0])) for row in found)


def lease(database: Statements, dataset: Dataset, pipeline_name: str, member: str) -> Lease | None:
    """The lease row; None when the pipeline's member has never committed."""
    try:
        found = database.rows(system.select_lease(dataset, DIALECT), [pipeline_name, member])
    except duckdb.CatalogException:
        # There is no lease table. Trying is cheaper than asking first, and does not end a transaction.
        return None

    if not found:
        return None

    epoch, head = found[0]

    return Lease(epoch=int(str(epoch)), head_load_id=None if head is None else LoadId(str(head)))


def run_of(database: Statements, dataset: Dataset, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
    """Load ids that the run has committed."""
    catalog = Catalog(database, dataset)
    found = _first(
        database, catalog, (system.RUNS_TABLE.name,), system.select_run(dataset, DIALECT), [pipeline_name, run_id]
    )

    return () if found is None else tuple(LoadId(load_id) for load_id in json.loads(str(found[0])))


def positions(database: Statements, dataset: Dataset, pipeline_name: str) -> tuple[StoredPosition, ...]:
    """What is committed of each partition of the pipeline's message sources."""
    if system.POSITIONS_TABLE.name not in Catalog(database, dataset):
        return ()

    found = database.rows(system.select_positions(dataset, DIALECT), [pipeline_name])

    return tuple(
        StoredPosition(source=str(source), partition=str(partition), epoch=int(str(epoch)), position=str(position))
        for source, partition, epoch, position in found
    )


@lru_cache(maxsize=256)
def use(dataset: Dataset) -> str:
    """Statement after which unqualified names mean tables of the dataset."""
    return exp.Use(this=exp.Table(this=identifier(dataset.name), db=_catalog_of(dataset))).sql(dialect=DIALECT)


def _catalog_of(dataset: Dataset) -> exp.Identifier | None:
    return None if dataset.catalog is None else identifier(dataset.catalog)


@lru_cache(maxsize=256)
def _newest_state_query(dataset: Dataset) -> str:
    """Newest state of (pipeline_name); null where there is none. Without a join: that makes half of `restore`."""
    newest = exp.ArgMax(this=column("state"), expression=column("_dlt_load_id"))
    query = exp.select(newest).from_(table(STATE_TABLE, dataset))

    return query.where(exp.EQ(this=column("pipeline_name"), expression=parameter(1))).sql(dialect=DIALECT)


def _first(
    database: Statements,
    catalog: Catalog,
    needed: Iterable[str],
    sql: str,
    parameters: Sequence[object] = (),
) -> tuple[object, ...] | None:
    """First row of a query; None when it has none or one of the tables it needs is not there."""
    if any(name not in catalog for name in needed):
        return None

    found = database.rows(sql, parameters)

    return found[0] if found else None
