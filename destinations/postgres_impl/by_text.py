"""Columns that binary COPY cannot fill, since their values come as text in a form that only the server can read.

They are text while a staging table is filled, and get their type then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.sql.names import identifier

__all__ = ["read_by_server", "to_text", "to_types"]

_TYPES: Final = re.compile(r"(?:.+\.)?geometry\b", re.IGNORECASE)


def read_by_server(types: Mapping[str, str]) -> dict[str, str]:
    """Those of the columns that only the server can read, with their types."""
    return {name: kind for name, kind in types.items() if _TYPES.match(kind)}


async def to_text(connection: Connection, path: str, columns: Mapping[str, str]) -> None:
    """Let the columns of a staging table hold text."""
    await _alter(connection, path, dict.fromkeys(columns, "text"))


async def to_types(connection: Connection, path: str, columns: Mapping[str, str]) -> None:
    """Let the server read the text in the columns of a staging table."""
    await _alter(connection, path, columns)


async def _alter(connection: Connection, path: str, columns: Mapping[str, str]) -> None:
    quoted = {identifier(name).sql(dialect="postgres"): kind for name, kind in columns.items()}
    actions = [f"ALTER COLUMN {name} TYPE {kind} USING {name}::{kind}" for name, kind in quoted.items()]
    await connection.execute(f"ALTER TABLE {path} {', '.join(actions)}")
