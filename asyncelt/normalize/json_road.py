"""JSON text to Arrow without a Python object per row.

Rows are read as the one field of one object and never split; lines of JSON become an array first. What
Arrow would get wrong is put right here (text that looks like a time) or refused, so that another road takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

import pyarrow as pa
import pyarrow.json as pa_json

from asyncelt.normalize.tables import Array

__all__ = ["Read", "TextLeaves", "array_of", "array_of_lines", "read_rows"]

TextLeaves: TypeAlias = "dict[str, TextLeaves | None]"
"""Paths of leaves that hold text although all of it may look like a time: field to what is below it, None for a leaf.
The elements of a list are below the field ``ELEMENT``."""

ELEMENT: Final = ""
ROWS: Final = "rows"
EXTRA: Final = 64
MOST_LEAVES: Final = 4096
"""Leaves to remember; objects keyed by id bring new ones on every page."""


class Read(NamedTuple):
    """What Arrow has read."""

    fields: Sequence[tuple[str, Array]]
    """Top-level columns by raw key."""
    rows: int
    kind: pa.DataType


def array_of(pieces: Sequence[bytes]) -> bytes:
    """JSON arrays joined to what `read_rows` takes."""
    return _wrapped(b",".join(piece[1:-1] for piece in pieces) if len(pieces) != 1 else pieces[0][1:-1])


def array_of_lines(lines: bytes) -> bytes:
    """Lines of JSON as what `read_rows` takes.

    A line break cannot stand inside a JSON string, so each one ends a row; in a document of several lines the commas
    are out of place and the text is refused when it is read.
    """
    return _wrapped(lines.replace(b"\n", b",\n"))


def _wrapped(inner: bytes) -> bytes:
    # Arrow takes rows that are no objects badly at the top level (a null there crashes it), and well inside a list.
    return b'{"' + ROWS.encode() + b'":[' + inner + b"]}"


def read_rows(data: bytes, leaves: TextLeaves) -> tuple[Read | None, TextLeaves]:
    """Read rows of JSON objects.

    Args:
        data: Made by `array_of` or `array_of_lines`.
        leaves: Known to hold text that looks like a time.

    Returns:
        The columns, None where Arrow cannot say what the text says; and all leaves known now.
    """
    table = _read(data, leaves)

    if table is None and leaves:
        # What is known of other pages does not fit this one.
        leaves = {}
        table = _read(data, leaves)

    read = _unwrapped(table) if table is not None else None
    # Looking for the word first is quicker than walking through a wide type.
    found = _times(read.kind) if read is not None and "timestamp[" in str(read.kind) else None

    if found:
        leaves = _merged(leaves, found) if _count(leaves) < MOST_LEAVES else found
        table = _read(data, leaves)
        read = _unwrapped(table) if table is not None else None

    return read, leaves


def _read(data: bytes, leaves: TextLeaves) -> pa.Table | None:
    expected: TextLeaves = {ROWS: {ELEMENT: leaves}} if leaves else {}

    try:
        # One block: blocks are inferred one by one, and then their types may not join.
        table = pa_json.read_json(
            cast("Any", pa.BufferReader(data)),
            read_options=pa_json.ReadOptions(block_size=len(data) + EXTRA, use_threads=False),
            parse_options=pa_json.ParseOptions(explicit_schema=_schema(expected)) if expected else None,
        )
        # Arrow's reader loses nulls at the beginning of the first list of a field; the offsets give it away.
        table.validate()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return None

    return table


def _unwrapped(table: pa.Table) -> Read | None:
    """The rows inside the one object; None unless all of them are objects."""
    if table.num_rows != 1 or table.column_names != [ROWS] or not pa.types.is_list(table.schema.types[0]):
        return None

    rows = cast("Any", _one(table.column(0))).flatten()

    if not pa.types.is_struct(rows.type) or rows.null_count:
        return None

    return Read([(name, rows.field(i)) for i, name in enumerate(rows.type.names)], len(rows), rows.type)


def _one(column: Any) -> Array:
    return cast("Array", column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())


def _schema(leaves: TextLeaves) -> pa.Schema:
    return pa.schema([pa.field(name, _type(below)) for name, below in leaves.items()])


def _type(below: TextLeaves | None) -> pa.DataType:
    if below is None:
        return pa.string()

    if ELEMENT in below and len(below) == 1:
        return pa.list_(_type(below[ELEMENT]))

    return pa.struct([pa.field(name, _type(inner)) for name, inner in below.items()])


def _times(kind: pa.DataType) -> TextLeaves | None:
    """Leaves that came out as timestamps, of which JSON has none; None for such a leaf itself."""
    if pa.types.is_struct(kind):
        found = {field.name: _times(field.type) for field in kind}

        return {name: below for name, below in found.items() if below is None or below} or {}

    if pa.types.is_list(kind):
        below = _times(kind.value_type)

        return {ELEMENT: below} if below is None or below else {}

    return None if pa.types.is_timestamp(kind) else {}


def _count(leaves: TextLeaves) -> int:
    return sum(1 if below is None else _count(below) for below in leaves.values())


def _merged(known: TextLeaves, found: TextLeaves) -> TextLeaves:
    merged = dict(known)

    for name, below in found.items():
        inside = known.get(name)
        merged[name] = _merged(inside, below) if below is not None and inside is not None else below

    return merged
