"""Entries of Redis streams: what the server's answers say, their ids as positions, messages made of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from asyncelt.errors import ExtractError
from asyncelt.extract.messages import Bodies, EventSource, Message, Receipt
from asyncelt.extract.receipts import Receipts, parts_of

__all__ = [
    "Entries",
    "Given",
    "bodies_of",
    "by_stream",
    "claimed_of",
    "entries_of",
    "entry_id",
    "messages_of",
    "position_of",
    "positions_of",
    "text_of",
]

Fields: TypeAlias = "Sequence[bytes]"
"""Names and values in turn."""
Entries: TypeAlias = "Sequence[tuple[bytes, Fields | None]]"
"""Ids and fields; None: the entry has been deleted."""

_SEQUENCE_BITS: Final = 20
"""An id is milliseconds and a number within them; together they are a position of less than 63 bits."""
_SHORT: Final = 6
"""Digits that fit into these in any case."""


@dataclass(frozen=True, slots=True)
class Given:
    """Entries that a consumer was given, all of which have fields."""

    stream: str
    entries: Sequence[tuple[bytes, Fields]]
    again: bool
    """Whether somebody was given them before."""


def by_stream(receipts: Sequence[Receipt]) -> dict[str, list[bytes]]:
    """Ids to acknowledge, by stream."""
    found: dict[str, list[bytes]] = {}

    for stream, _, token in parts_of(receipts):
        if isinstance(token, bytes):
            found.setdefault(stream, []).append(token)

    return found


def entries_of(answer: object) -> dict[str, Entries]:
    """What `XREADGROUP` has answered, by stream."""
    pairs = cast("Iterable[tuple[bytes, Entries]]", answer or ())

    return {text_of(stream): entries for stream, entries in pairs}


def claimed_of(answer: object) -> tuple[bytes, Entries]:
    """What `XAUTOCLAIM` has answered: where it goes on, and entries. Older servers have nothing for deleted ones."""
    following, entries, *_ = cast("tuple[bytes, Sequence[tuple[bytes, Fields | None] | None]]", answer)

    return following, [one for one in entries if one is not None]


def messages_of(given: Given, field: bytes | None, origin: EventSource) -> list[Message]:
    """Messages with all that is known of them. Without ``field`` the fields are the row."""
    return [_message(given, one, fields, field, origin) for one, fields in given.entries]


def bodies_of(given: Given, field: bytes, origin: EventSource) -> Bodies:
    """Their payloads alone."""
    ids = [one for one, _ in given.entries]
    values = [fields[1] for _, fields in given.entries if len(fields) == 2 and fields[0] == field]

    if len(values) < len(ids):
        values = [_payload(_named(fields), field) for _, fields in given.entries]

    if given.again:
        receipts: Sequence[Receipt] = [Receipt(given.stream, position_of(one)[1], one, again=True) for one in ids]
    else:
        receipts = Receipts.fresh(given.stream, positions_of(ids), ids)

    return Bodies(values, [given.stream] * len(ids), receipts, origin)


def position_of(entry: bytes | str) -> tuple[int, int]:
    """Milliseconds and position of an entry id.

    Raises:
        ExtractError: It does not fit.
    """
    first, _, second = (entry if isinstance(entry, bytes) else entry.encode()).partition(b"-")
    milliseconds, sequence = int(first), int(second or 0)

    if sequence >> _SEQUENCE_BITS or milliseconds >> (63 - _SEQUENCE_BITS):
        raise ExtractError(
            f"The entry id {text_of(entry)} is too large for a position: at most {2**43 - 1}-{2**20 - 1}. Ids that the "
            "server makes are not; write with '*' as id."
        )

    return milliseconds, (milliseconds << _SEQUENCE_BITS) | sequence


def positions_of(entries: Sequence[bytes]) -> array[int]:
    """Of many ids: as `position_of`, and in a third of its time.

    Raises:
        ExtractError: One of them does not fit.
    """
    parts = [one.partition(b"-") for one in entries]

    if max((len(one[2]) for one in parts), default=0) <= _SHORT:
        try:
            return array("q", [(int(one[0]) << _SEQUENCE_BITS) | int(one[2]) for one in parts])
        except (OverflowError, ValueError):
            pass

    return array("q", [position_of(one)[1] for one in entries])


def entry_id(position: int) -> str:
    """The id of which `position_of` has made this position."""
    return f"{position >> _SEQUENCE_BITS}-{position & (1 << _SEQUENCE_BITS) - 1}"


def text_of(value: bytes | str) -> str:
    """Names and fields as text; what is no UTF-8 is replaced."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _named(fields: Fields) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _texts_of(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {text_of(name): text_of(one) for name, one in fields.items()}


def _payload(fields: dict[bytes, bytes], field: bytes) -> bytes:
    """Without the field it is no JSON, and so a dead letter."""
    value = fields.get(field)

    return repr(fields).encode() if value is None else value


def _message(given: Given, entry: bytes, fields: Fields, field: bytes | None, origin: EventSource) -> Message:
    milliseconds, position = position_of(entry)
    receipt, named = Receipt(given.stream, position, entry, given.again), _named(fields)
    value: object
    headers: Mapping[str, str]

    if field is None:
        value, headers = _texts_of(named), {}
    else:
        others = {name: one for name, one in named.items() if name != field}
        value, headers = _payload(named, field), _texts_of(others)

    return Message(value, receipt, origin, headers=headers, topic=given.stream, timestamp=milliseconds / 1000)
