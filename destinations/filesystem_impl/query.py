"""SQL over a dataset of files: views over exactly the files that are committed. Blocking.

A table that a stored schema has and that no file belongs to is empty, as it would be in a database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import duckdb

from asyncelt.destinations.busy import Busy
from asyncelt.destinations.filesystem_impl.dataset import FileDataset
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.lake import LakeFormat, lake_tables
from asyncelt.destinations.filesystem_impl.views import view_of
from asyncelt.destinations.local_sql import LocalQuery
from asyncelt.errors import DestinationRejected, DestinationUnavailable
from asyncelt.schema.model import Schema, Table
from asyncelt.schema.system import (
    LOADS_TABLE,
    STATE_TABLE,
    VERSION_TABLE,
    loads_table,
    pipeline_state_table,
    version_table,
)
from asyncelt.types import SqlValue, TableName

__all__ = ["dataset_query"]


def dataset_query(dataset: FileDataset, sql: str, parameters: Sequence[SqlValue]) -> LocalQuery:
    """One statement over the dataset; only the tables whose names stand in it are looked up, when it begins.

    What it sees is one state. Where a commit comes in between, it is refused as `Busy`, to be tried again.
    """
    return LocalQuery(
        lambda connection: _prepare(connection, dataset, sql),
        sql,
        parameters,
        one_state=lambda: _one_state(dataset, sql),
        reading=dataset.store.reading,
        memory_limit=dataset.memory_limit,
    )


def _prepare(connection: duckdb.DuckDBPyConnection, dataset: FileDataset, sql: str) -> None:
    before = dataset.place.journal.position()
    unfinished = dataset.unsettled()
    schemas = dataset.schemas.readable(unfinished)
    definitions = _definitions(schemas)
    system = [one for one in (LOADS_TABLE, VERSION_TABLE, STATE_TABLE) if _named(one, sql)]
    lakes: dict[TableName, LakeFormat] = {
        name: kind for name, kind in lake_tables(schemas).items() if _named(name, sql)
    }

    # Plain files are there with their marker: nobody has to be waited for.
    if any(system or _writes(marker, lakes) for marker in unfinished):
        dataset.finish(lambda marker: bool(system) or _writes(marker, lakes))

    dataset.lakes.check_readable(lakes)
    files = {**dict.fromkeys(definitions if schemas else (), ()), **dataset.table_files()}

    for name in system:
        found = sorted(f"{name}/{one}" for one in dataset.store.names(name) if one.endswith(".jsonl"))

        if found:
            files[name] = found

    for name, kind in lakes.items():
        # One that was never written to is empty.
        if dataset.lake(kind).attach(connection, definitions[name]):
            files.pop(name, None)

    for name, paths in files.items():
        if _named(name, sql) and name in definitions:
            # A row of that table may be there twice for a moment.
            distinct = name == LOADS_TABLE
            connection.execute(view_of(definitions[name], dataset.store.attach(connection, paths), distinct=distinct))

    # Those are looked up one after the other: of a commit in between only half would be seen.
    if (system or lakes) and dataset.place.journal.position() != before:
        raise Busy(f"{dataset.store.address} was changed at this moment.")


@contextmanager
def _one_state(dataset: FileDataset, sql: str) -> Iterator[None]:
    """A file that a commit has removed meanwhile is no reason to fail: there are others in its place."""

    def look() -> object:
        rows = sorted(dataset.store.names(LOADS_TABLE)) if _named(LOADS_TABLE, sql) else ()

        return dataset.place.journal.position(), rows

    before = look()

    try:
        with dataset.store.reading():
            yield
    except Busy:
        raise
    except (DestinationRejected, DestinationUnavailable, FileNotFoundError) as error:
        if look() == before:
            raise

        raise Busy(f"{dataset.store.address} was changed while it was read: {error}") from error


def _writes(marker: Marker, tables: Collection[TableName]) -> bool:
    """Whether some of these tables get their rows only with what follows from the commit."""
    return any(write.table in tables for package in marker.packages for write in package.lakes)


def _named(name: str, sql: str) -> bool:
    # In SQL a quote inside a name is doubled; everything else stands as it is.
    return name.lower().replace('"', '""') in sql.lower()


def _definitions(schemas: Sequence[Schema]) -> Mapping[TableName, Table]:
    """All tables with the columns of all schemas, since several may load into one table."""
    tables: dict[TableName, Table] = {}

    for schema in schemas:
        for name, one in schema.tables.items():
            known = tables.get(name)
            tables[name] = one if known is None else Table(name=name, columns={**known.columns, **one.columns})

    system = (loads_table(), version_table(), pipeline_state_table())

    return {**tables, **{one.name: one for one in system}}
