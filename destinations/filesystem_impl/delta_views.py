"""Delta tables as views of a DuckDB. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.layout import path_part
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.destinations.filesystem_impl.views import FILE_COLUMN, view_of_files, view_of_partitions
from asyncelt.destinations.sql.names import table
from asyncelt.types import TableName

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from duckdb import DuckDBPyConnection

__all__ = ["files_of", "schema_of", "see"]


def see(
    connection: DuckDBPyConnection,
    name: str,
    store: Store,
    table_name: TableName,
    found: DeltaTable,
    files: pa.Table | None = None,
    *,
    placed: bool = False,
) -> list[str]:
    """Make a view over a table, under a name. Its `FILE_COLUMN` says in which file a row is, if it has no partitions.

    Args:
        connection: Where.
        name: Of the view.
        store: Where the table is.
        table_name: How it is called there.
        found: The table.
        files: Some of `files_of`; None: all of them.
        placed: See `view_of_files`; of a table that has no partitions.

    Returns:
        The files as they are called in `FILE_COLUMN`, in order.
    """
    files = files_of(found) if files is None else files
    paths = [f"{path_part(table_name)}/{unquote(str(path))}" for path in files.column("path").to_pylist()]
    partitions = found.metadata().partition_columns
    # The table may have columns that no file has.
    shape = f"{name}_shape"
    _create_empty(connection, shape, schema_of(found))
    # Not through Arrow: an upsert writes texts as views of texts, which Arrow cannot filter.
    attached = store.attach(connection, paths)

    if paths and partitions:
        values = files.select([f"partition.{one}" for one in partitions]).rename_columns(partitions)
        connection.register(f"{name}_values", values.append_column(FILE_COLUMN, pa.array(attached)))
        connection.execute(view_of_partitions(name, attached, f"{name}_values", partitions, shape=shape))
    else:
        connection.execute(view_of_files(name, attached, shape=shape, placed=placed))

    return attached


def schema_of(found: DeltaTable) -> pa.Schema:
    """The columns of a table, in Arrow's types."""
    return pa.schema(found.schema())  # type: ignore[arg-type]  # it exports itself, which the stubs do not know


def files_of(found: DeltaTable) -> pa.Table:
    """The files of a table, by when each was written: so rows come in the order in which they were loaded."""
    return pa.table(found.get_add_actions(flatten=True)).sort_by(
        [("modification_time", "ascending"), ("path", "ascending")]
    )


def _create_empty(connection: DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    incoming = f"{name}_incoming"
    connection.register(incoming, schema.empty_table())
    select = exp.select(exp.Star()).from_(table(incoming))
    connection.execute(
        exp.Create(this=table(name), kind="TABLE", expression=select, replace=True).sql(dialect="duckdb")
    )
    connection.unregister(incoming)
