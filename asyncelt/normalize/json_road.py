"""JSON text to Arrow without a Python object per row.

Bodies are split into their documents without parsing them, joined to lines and read by Arrow. What Arrow would get
wrong is either put right here (text that looks like a time) or refused, so that the row road takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from json import loads as lenient_loads
from typing import Any, Final, TypeAlias, cast

import msgspec
import pyarrow as pa
import pyarrow.json as pa_json

from asyncelt.errors import BadRecord
from asyncelt.flow import JsonBody
from asyncelt.normalize.walk import VALUE, excerpt

__all__ = ["Documents", "TextLeaves", "decode", "documents_of", "joined", "read_lines"]

Raw: TypeAlias = "msgspec.Raw | bytes"
TextLeaves: TypeAlias = "dict[str, TextLeaves | None]"
"""Paths of leaves that hold text although all of it may look like a time: field to what is below it, None for a leaf.
The elements of a list are below the field ``ELEMENT``."""

ELEMENT: Final = ""
EXTRA: Final = 64
_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_strict: Final = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Documents:
    """The rows of one or more JSON bodies: as text where they could be split, else as Python values."""

    lines: Sequence[Raw] | None
    values: Sequence[object]
    """Rows as Python values; empty where there are lines."""


def documents_of(body: JsonBody, table: str) -> Documents:
    """Split a body into its rows: an array, one document, or lines of JSON. Nulls are left out.

    Raises:
        BadRecord: It is no JSON, or has no list at the given path.
    """
    data: Raw = body.data

    try:
        if body.items is not None:
            data = _at(data, body.items, table)

        lines = [raw for raw in _split(data) if memoryview(raw)[:4] != b"null"]

        return Documents(lines, ())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Documents(None, _leniently(body, table))


def decode(document: Raw) -> object:
    """A document as a Python value: integers of any size, and what strict parsers refuse (NaN, lone surrogates)."""
    try:
        return _strict.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return lenient_loads(bytes(document))


def joined(lines: Sequence[Raw]) -> bytes:
    """Documents as lines of objects; those that are no objects go under ``value``."""
    data = b"\n".join(lines)

    # Only a document that is no object can stand at the beginning of a line; nested ones are looked for one by one.
    if all(memoryview(line)[:1] == b"{" for line in lines):
        return data

    prefix = b'{"' + VALUE.encode() + b'":'

    return b"\n".join(line if memoryview(line)[:1] == b"{" else prefix + bytes(line) + b"}" for line in lines)


def read_lines(data: bytes, rows: int, leaves: TextLeaves) -> tuple[pa.Table | None, TextLeaves]:
    """Read lines of JSON objects.

    Args:
        data: One object per line.
        rows: Number of objects.
        leaves: Known to hold text that looks like a time.

    Returns:
        The table, None where Arrow cannot say what the lines say; and all leaves known now.
    """
    table = _read(data, leaves)

    if table is None and leaves:
        # What is known of other pages does not fit this one.
        leaves = {}
        table = _read(data, leaves)

    found = _times(pa.struct(list(table.schema))) if table is not None else None

    if found:
        leaves = _merged(leaves, found)
        table = _read(data, leaves)

    return table if table is not None and table.num_rows == rows else None, leaves


def _read(data: bytes, leaves: TextLeaves) -> pa.Table | None:
    try:
        # One block: blocks are inferred one by one, and then their types may not join.
        table = pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(block_size=len(data) + EXTRA, use_threads=False),
            parse_options=pa_json.ParseOptions(explicit_schema=_schema(leaves)) if leaves else None,
        )
        # Arrow's reader loses nulls at the beginning of the first list of a field; the offsets give it away.
        table.validate()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return None

    return table


def _schema(leaves: TextLeaves) -> pa.Schema:
    return pa.schema([pa.field(name, _type(below)) for name, below in leaves.items()])


def _type(below: TextLeaves | None) -> pa.DataType:
    if below is None:
        return pa.string()

    if ELEMENT in below and len(below) == 1:
        return pa.list_(_type(below[ELEMENT]))

    return pa.struct([pa.field(name, _type(inner)) for name, inner in below.items()])


def _times(kind: pa.DataType) -> TextLeaves | None:
    """Leaves that came out as timestamps. JSON has none, so they are text."""
    if pa.types.is_struct(kind):
        found = {field.name: _times(field.type) for field in kind}

        return {name: below for name, below in found.items() if below is None or below} or {}

    if pa.types.is_list(kind):
        below = _times(kind.value_type)

        return {ELEMENT: below} if below is None or below else {}

    return None if pa.types.is_timestamp(kind) else {}


def _merged(known: TextLeaves, found: TextLeaves) -> TextLeaves:
    merged = dict(known)

    for name, below in found.items():
        inside = known.get(name)
        merged[name] = _merged(inside, below) if below is not None and inside is not None else below

    return merged


def _split(data: Raw) -> Sequence[Raw]:
    view = memoryview(data)
    first = next((bytes(view[i : i + 1]) for i in range(len(view)) if view[i] not in b" \t\r\n"), b"")

    if first == b"":
        return []

    if first == b"[":
        try:
            return cast("Sequence[Raw]", _raws.decode(data))
        except msgspec.DecodeError:
            return cast("Sequence[Raw]", _raw.decode_lines(bytes(view)))

    try:
        return cast("Sequence[Raw]", _raw.decode_lines(bytes(view)))
    except msgspec.DecodeError:
        return [cast("Raw", _raw.decode(data))]


def _at(data: Raw, path: str, table: str) -> Raw:
    for key in path.split("."):
        try:
            fields = cast("dict[str, Raw]", _fields.decode(data))
        except msgspec.ValidationError:
            fields = {}

        if key not in fields:
            raise BadRecord(f"the JSON body has no {key!r} on the path {path!r}.", table=table, value=excerpt(bytes(data)))

        data = fields[key]

    return data


def _leniently(body: JsonBody, table: str) -> Sequence[object]:
    text = body.data.decode("utf-8", "surrogatepass") if _is_utf8(body.data) else body.data.decode("utf-8-sig", "replace")

    try:
        found = _lenient(text)
    except ValueError as error:
        raise BadRecord(f"the body is no JSON: {error}.", table=table, value=excerpt(body.data)) from error

    for key in (body.items or "").split(".") if body.items else ():
        if not isinstance(found, dict) or key not in found:
            raise BadRecord(f"the JSON body has no {key!r} on the path {body.items!r}.", table=table)

        found = found[key]

    return [item for item in (found if isinstance(found, list) else [found]) if item is not None]


def _lenient(text: str) -> Any:
    try:
        return lenient_loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]

        if len(lines) < 2:
            raise

        return [lenient_loads(line) for line in lines]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False

    return not data.startswith(b"\xef\xbb\xbf")
