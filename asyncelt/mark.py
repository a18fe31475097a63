"""What data may be wrapped in, to say more about it than it says itself."""

from __future__ import annotations

from asyncelt.extract.marks import (
    make_hints,
    make_nested_hints,
    materialize_table_schema,
    with_file_import,
    with_hints,
    with_table_name,
)

__all__ = [
    "make_hints",
    "make_nested_hints",
    "materialize_table_schema",
    "with_file_import",
    "with_hints",
    "with_table_name",
]
