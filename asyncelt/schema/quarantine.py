"""The table of rows that could not be loaded.

It lies beside the tables of the dataset, is an ordinary append-only table to everybody who reads the dataset (the
reference too), and is a log: a row that is replayed gets a second line instead of being changed, so that every
destination can do it, in the same commit as the row itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.naming import Naming
from asyncelt.schema.system import DLT_ID, DLT_LOAD_ID, load_id_column, row_id_column
from asyncelt.types import ColumnName, DataType, TableName

__all__ = ["QUARANTINE_COLUMNS", "QUARANTINE_TABLE", "PayloadForm", "Status", "quarantine_table", "with_quarantine"]

QUARANTINE_TABLE: Final = TableName("_asyncelt_quarantine")

Status: TypeAlias = Literal["quarantined", "replayed"]
PayloadForm: TypeAlias = Literal["json", "typed_json", "packed", "text", "base64", "arrow", "repr"]
"""How ``payload`` holds what could not be loaded.

``json``: a row. ``typed_json``: a row with values that JSON has no word for, as JSON with marked strings; ``packed``:
such a row as bytes in base64. ``text`` and ``base64``: a body that is no JSON. ``arrow``: a row of Arrow, as an IPC
stream in base64.
``repr``: words that only describe the row, which cannot be replayed.
"""

_COLUMNS: Final[Mapping[str, tuple[DataType, bool, str]]] = {
    "record_id": ("text", False, "Stays the same when the row is replayed and fails again"),
    "status": ("text", False, "quarantined, or replayed; the line with the most tries counts"),
    "tries": ("bigint", False, "How often the row has been tried"),
    "pipeline_name": ("text", False, "Pipeline that read the row"),
    "schema_name": ("text", False, "Its schema"),
    "resource": ("text", False, "Resource that gave the row"),
    "table_name": ("text", False, "Table that the row belongs to"),
    "path": ("text", True, "Column that is to blame, where there is one; of a body, the path of its items"),
    "error_kind": ("text", False, "Class of the error"),
    "message": ("text", False, "What is wrong"),
    "payload": ("text", True, "The row"),
    "payload_form": ("text", False, "How the payload holds the row"),
    "origin": ("text", True, "Where a message came from: topic and partition"),
    "position": ("text", True, "Its position there"),
    "created_at": ("timestamp", False, "When this line was written"),
}


QUARANTINE_COLUMNS: Final = (*_COLUMNS, DLT_LOAD_ID, DLT_ID)
"""Their names before any naming convention, in order."""


def quarantine_table(naming: Naming) -> Table:
    """The table under a schema's naming convention."""
    columns = [
        Column(
            name=ColumnName(naming.path(name)),
            data_type=data_type,
            nullable=nullable,
            extra={"description": description},
        )
        for name, (data_type, nullable, description) in _COLUMNS.items()
    ]
    columns += [load_id_column(naming), row_id_column(naming)]

    return Table(
        name=TableName(naming.path(QUARANTINE_TABLE)),
        columns={column.name: column for column in columns},
        resource=QUARANTINE_TABLE,
        write_disposition="append",
    )


def with_quarantine(schema: Schema, naming: Naming) -> Schema:
    """The schema with the table."""
    table = quarantine_table(naming)

    return schema if table.name in schema.tables else replace(schema, tables={**schema.tables, table.name: table})
