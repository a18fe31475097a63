"""Columns that binary COPY cannot fill, since their values come in a form that only the server can read.

They are text, or bytes, while a staging table is filled, and get their type then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.sql.names import identifier
from asyncelt.schema.model import Table

__all__ = ["arrivals", "read_by_server", "to_arrivals", "to_types"]

_TYPES: Final = re.compile(r"(?:.+\.)?geometry\b", re.IGNORECASE)
_TEXT: Final = "text"
_BYTES: Final = "bytea"
"""WKB, which the server reads as hexadecimal digits."""


def read_by_server(types: Mapping[str, str]) -> dict[str, str]:
    """Those of the columns that only the server can read, with their types."""
    return {name: kind for name, kind in types.items() if _TYPES.match(kind)}


def arrivals(definition: Table, columns: Iterable[str]) -> dict[str, str]:
    """The types in which the values of these columns come."""
    binary = {name for name, one in definition.columns.items() if one.data_type == "binary"}

    return {name: _BYTES if name in binary else _TEXT for name in columns}


async def to_arrivals(connection: Connection, path: str, columns: Mapping[str, str]) -> None:
    """Let the columns of a staging table, which may have rows, hold values as they come."""
    forms = {_BYTES: "decode({name}::text, 'hex')", _TEXT: "{name}::text"}
    await _alter(connection, path, {name: (kind, forms[kind]) for name, kind in columns.items()})


async def to_types(connection: Connection, path: str, columns: Mapping[str, str], arrived: Mapping[str, str]) -> None:
    """Let the server read what has come in the columns of a staging table.

    Raises:
        asyncpg.PostgresError: It cannot; says in which column.
    """
    forms = {_BYTES: "encode({name}, 'hex')", _TEXT: "{name}"}

    # One after the other, though each writes the table anew: only so is it known whose value it was. Few have several.
    for name, kind in columns.items():
        try:
            await _alter(connection, path, {name: (kind, f"{forms[arrived[name]]}::{kind}")})
        except asyncpg.PostgresError as error:
            # The server does not say it.
            error.column_name = name
            raise


async def _alter(connection: Connection, path: str, columns: Mapping[str, tuple[str, str]]) -> None:
    actions = []

    for name, (kind, value) in columns.items():
        quoted = identifier(name).sql(dialect="postgres")
        actions.append(f"ALTER COLUMN {quoted} TYPE {kind} USING {value.replace('{name}', quoted)}")

    await connection.execute(f"ALTER TABLE {path} {', '.join(actions)}")
