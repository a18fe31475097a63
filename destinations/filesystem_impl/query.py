"""SQL over a dataset of files: views over exactly the files that are committed. Blocking.

A table that a stored schema has and that no file belongs to is empty, as it would be in a database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from asyncelt.destinations.filesystem_impl.dataset import FileDataset
from asyncelt.destinations.filesystem_impl.lake import lake_tables
from asyncelt.destinations.filesystem_impl.views import view_of
from asyncelt.destinations.local_sql import LocalQuery
from asyncelt.schema.model import Schema, Table
from asyncelt.schema.stored import from_json
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
    """One statement over the dataset; only the tables whose names stand in it are looked up, when it begins."""

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        loads = dataset.finish()
        schemas = [from_json(text) for text in dataset.schemas().values()]
        definitions = _definitions(schemas)
        files = {**dict.fromkeys(definitions if schemas else (), ()), **dataset.table_files(loads)}

        for name in (one for one in (LOADS_TABLE, VERSION_TABLE, STATE_TABLE) if _named(one, sql)):
            found = sorted(f"{name}/{one}" for one in dataset.store.names(name) if one.endswith(".jsonl"))

            if found:
                files[name] = found

        for name, kind in lake_tables(schemas).items():
            # One that was never written to is empty.
            if _named(name, sql) and dataset.lake(kind).attach(connection, definitions[name]):
                files.pop(name, None)

        for name, paths in files.items():
            if _named(name, sql) and name in definitions:
                connection.execute(view_of(definitions[name], dataset.store.attach(connection, paths)))

    return LocalQuery(prepare, sql, parameters)


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
