"""Rows of a table in a table format, in pieces of the size of a row group. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from asyncelt.errors import DestinationRejected
from asyncelt.normalize.memory import let_go_of_own_memory

__all__ = ["row_groups"]

_GROUP_BYTES: Final = 8 * 1024 * 1024
"""Of Arrow: what is in memory three times, as rows, in the table's types and as pages of the file."""


def row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, where: str) -> Iterator[pa.Table]:
    """Rows as the table has them; nothing where there are no rows.

    Args:
        batches: The rows.
        schema: Of the table: columns that the rows do not have are null.
        where: For messages.

    Raises:
        DestinationRejected: A column of the table has a type that a value does not fit.
    """
    pending: list[pa.RecordBatch] = []
    nbytes = 0

    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
            nbytes += batch.nbytes

        del batch

        if nbytes >= _GROUP_BYTES:
            yield _conformed(pending, schema, where)

            # Of the group before, which has been written by now.
            let_go_of_own_memory(nbytes)
            nbytes = 0

    if pending:
        yield _conformed(pending, schema, where)


def _conformed(batches: list[pa.RecordBatch], schema: pa.Schema, where: str) -> pa.Table:
    """Rows in the table's types. Empties the list: whoever writes them does not have them in memory twice."""
    rows = pa.Table.from_batches(batches)
    batches.clear()
    arrays = []

    for one in schema:
        try:
            known = one.name in rows.schema.names
            arrays.append(rows.column(one.name).cast(one.type) if known else pa.nulls(rows.num_rows, one.type))
        except pa.ArrowException as error:
            raise DestinationRejected(
                f"{where}, column {one.name}: a value does not fit the column's type {one.type}: {error}. Change the "
                "column's type, or load into another table."
            ) from error

    return pa.Table.from_arrays(arrays, schema=schema)
