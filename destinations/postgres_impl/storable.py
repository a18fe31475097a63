"""Values that PostgreSQL cannot store although their types fit, found before COPY meets them.

One message of a stream with a NUL character goes to quarantine then, instead of stopping all the others.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from asyncelt.destinations.postgres_impl.copy.lowering import lower
from asyncelt.destinations.postgres_impl.copy.types import Kind, Refused, wire_type
from asyncelt.destinations.postgres_impl.types import postgres_type
from asyncelt.errors import BadRecord
from asyncelt.schema.model import Table
from asyncelt.types import ColumnName

__all__ = ["check_storable"]

_OF_TEXT: Final[tuple[Kind, ...]] = ("text", "json", "jsonb")
"""What normalizing knows to fit is not looked at again: numbers, times, bytes."""


def check_storable(table: Table, rows: pa.Table) -> None:
    """See `asyncelt.schema.capabilities.RowCheck`."""
    for name in rows.column_names:
        column = table.columns.get(ColumnName(name))

        if column is None or column.data_type is None:
            continue

        wire = wire_type(postgres_type(column))

        if wire.kind not in _OF_TEXT:
            continue

        first = 0

        for chunk in rows.column(name).chunks:
            try:
                lower(chunk, wire)
            except Refused as refused:
                row = first + refused.index
                raise BadRecord(f"the value {refused.reason}.", table=table.name, column=name, row=row) from None

            first += len(chunk)
