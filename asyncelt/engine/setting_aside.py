"""Rows that cannot be loaded, on their way to the quarantine table, and how many there were."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from json import dumps

import pyarrow as pa

from asyncelt.errors import ConfigError
from asyncelt.flow import DESCRIPTION_CHARS, JsonBody, Notice, Origin, RawBatch, TableBatch, Unloadable
from asyncelt.normalize.page import NormalizeContext
from asyncelt.normalize.sifting import Refused, Sifted
from asyncelt.normalize.units import Content, JsonText
from asyncelt.normalize.walk import as_row, excerpt
from asyncelt.schema.model import Table
from asyncelt.schema.quarantine import QUARANTINE_TABLE, PayloadForm, Status, quarantine_table
from asyncelt.storage.rowpack import pack_row
from asyncelt.storage.state import decode_typed_json, encode_typed_json
from asyncelt.storage.tablepack import pack_table
from asyncelt.storage.writer import file_schema
from asyncelt.types import OnError, TableName

__all__ = ["SetAside", "lines_of"]

_PLAIN = frozenset({str, int, float, bool, type(None)})


@dataclass(slots=True)
class _Tally:
    policy: OnError
    count: int = 0
    first: str = ""


@dataclass(slots=True)
class SetAside:
    """Counts the rows of a run that were not loaded. Belongs to the event loop."""

    tallies: dict[tuple[str, str, TableName], _Tally] = field(default_factory=dict)

    def count(self, raw: RawBatch, refused: Sequence[Refused]) -> None:
        """Take note of rows of one page."""
        if not refused:
            return

        key = (raw.schema_name, raw.resource, raw.table)
        tally = self.tallies.setdefault(key, _Tally(raw.on_error, first=refused[0].refusal.message))
        tally.count += len(refused)

    def notices(self) -> list[Notice]:
        """One for each resource and table."""
        return [
            Notice(
                kind="quarantined" if tally.policy == "quarantine" else "skipped_rows",
                table=table,
                column=None,
                count=tally.count,
                message=_message(resource, table, tally),
            )
            for (_, resource, table), tally in self.tallies.items()
        ]


def lines_of(raw: RawBatch, sifted: Sifted | None, context: NormalizeContext, pipeline_name: str) -> TableBatch | None:
    """What the quarantine table gets for a page: its bad rows, and marks for rows that have left quarantine.

    Blocking.

    Args:
        raw: The page as it came.
        sifted: What became of it; None: all of it is loaded.
        context: Of the schema's normalizer.
        pipeline_name: Goes into every line.
    """
    refused = sifted.refused if sifted is not None and raw.on_error == "quarantine" else ()
    same = sifted is not None and len(raw.origins) == sifted.rows
    failed = {one.number: raw.origins[one.number] for one in refused} if same else {}
    returned = {origin.record_id for origin in failed.values()}
    rows = [
        *(_line_of(raw, one, failed.get(one.number), context, pipeline_name) for one in refused),
        *(_mark_of(raw, origin, context, pipeline_name) for origin in raw.origins if origin.record_id not in returned),
    ]

    return _batch(rows, quarantine_table(context.naming), context) if rows else None


def _batch(rows: Iterable[dict[str, object]], table: Table, context: NormalizeContext) -> TableBatch:
    schema = file_schema(table, context.capabilities)
    found = [dict(zip(schema.names, row.values(), strict=True)) for row in rows]

    return TableBatch(table=table.name, data=pa.Table.from_pylist(found, schema=schema), rows=len(found))


def _line_of(
    raw: RawBatch, one: Refused, origin: Origin | None, context: NormalizeContext, pipeline_name: str
) -> dict[str, object]:
    payload, form = _encoded(one.content)
    # The path of a body is that of its items, without which it cannot be read again; a document has none.
    path = None if form == "base64" and isinstance(one.content, JsonText) else one.refusal.column
    record_id = origin.record_id if origin is not None else _digest(context.load_id, raw.page, one.number)

    return _row(
        raw,
        context,
        pipeline_name,
        record_id=record_id,
        status="quarantined",
        tries=origin.tries + 1 if origin is not None else 1,
        said=(path, one.refusal.kind, one.refusal.message, payload, form),
        came=(one.content.origin, one.content.position) if isinstance(one.content, Unloadable) else (None, None),
    )


def _mark_of(raw: RawBatch, origin: Origin, context: NormalizeContext, pipeline_name: str) -> dict[str, object]:
    return _row(
        raw,
        context,
        pipeline_name,
        record_id=origin.record_id,
        status="replayed",
        tries=origin.tries + 1,
        said=(None, "", "", None, "text"),
    )


def _row(
    raw: RawBatch,
    context: NormalizeContext,
    pipeline_name: str,
    *,
    record_id: str,
    status: Status,
    tries: int,
    said: tuple[str | None, str, str, str | None, PayloadForm],
    came: tuple[str | None, str | None] = (None, None),
) -> dict[str, object]:
    """A line in the order of the table's columns."""
    path, kind, message, payload, form = said

    return {
        "record_id": record_id,
        "status": status,
        "tries": tries,
        "pipeline_name": pipeline_name,
        "schema_name": raw.schema_name,
        "resource": raw.resource,
        "table_name": raw.table,
        "path": path,
        "error_kind": kind,
        "message": _sound(message),
        "payload": payload,
        "payload_form": form,
        "origin": came[0],
        "position": came[1],
        "created_at": datetime.fromtimestamp(float(context.load_id), UTC),
        "_dlt_load_id": context.load_id,
        "_dlt_id": _digest(record_id, tries, status),
    }


def _encoded(content: Content) -> tuple[str, PayloadForm]:
    """A row as text that can be read back exactly, and as legibly as that allows."""
    if isinstance(content, pa.Table):
        return base64.b64encode(pack_table(content)).decode(), "arrow"

    if isinstance(content, JsonBody):
        return _text_of(content.data, "text")

    if isinstance(content, JsonText):
        return _text_of(content.data, "json")

    if isinstance(content, Unloadable) and content.row is not None:
        return _encoded_row(content.row)

    if isinstance(content, Unloadable):
        return (_sound(content.description), "repr") if content.payload is None else _text_of(content.payload, "text")

    return _encoded_row(content)


def _text_of(data: bytes, form: PayloadForm) -> tuple[str, PayloadForm]:
    # Not every destination stores text with NUL characters.
    if b"\0" not in data:
        with suppress(UnicodeDecodeError):
            return data.decode(), form

    return base64.b64encode(data).decode(), "base64"


def _encoded_row(item: object) -> tuple[str, PayloadForm]:
    try:
        row = dict(as_row(item))
    except TypeError:
        return _sound(excerpt(item, DESCRIPTION_CHARS)), "repr"

    if _is_plain(row):
        return _sound(dumps(row, ensure_ascii=False), dumps(row)), "json"

    try:
        typed = encode_typed_json(row)

        if decode_typed_json(typed) == row:
            return typed.decode(), "typed_json"
    except (ConfigError, ValueError, TypeError, RecursionError):
        pass

    try:
        return base64.b64encode(pack_row(row)).decode(), "packed"
    except (TypeError, RecursionError):
        return _sound(excerpt(row, DESCRIPTION_CHARS)), "repr"


def _is_plain(value: object) -> bool:
    """Whether JSON says the value exactly. Deep values go another way."""
    waiting = [value]

    while waiting:
        one = waiting.pop()

        if type(one) is dict:
            if any(type(key) is not str for key in one):
                return False

            waiting.extend(one.values())
        elif type(one) is list:
            waiting.extend(one)
        elif type(one) not in _PLAIN:
            return False

    return True


def _sound(text: str, otherwise: str | None = None) -> str:
    """The text if UTF-8 can hold it, else with its lone surrogates written as escapes; NUL characters always are."""
    text = text.replace("\0", "\\x00")

    try:
        text.encode()
    except UnicodeEncodeError:
        return otherwise or text.encode("utf-8", "backslashreplace").decode()

    return text


def _digest(*parts: object) -> str:
    return blake2b("/".join(map(str, parts)).encode(), digest_size=12).hexdigest()


def _message(resource: str, table: str, tally: _Tally) -> str:
    where = f"are in {QUARANTINE_TABLE}" if tally.policy == "quarantine" else "were left out"

    return (
        f"{tally.count} row(s) of resource {resource!r} could not be loaded into table {table!r} and {where}. "
        f"The first: {tally.first}"
    )
