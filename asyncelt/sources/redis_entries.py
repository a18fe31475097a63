"""Entries of Redis streams: their ids as positions, and what the server's answers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

from asyncelt.errors import ExtractError
from asyncelt.extract.messages import Receipt
from asyncelt.extract.receipts import parts_of

__all__ = ["Entries", "by_stream", "entries_of", "entry_id", "position_of", "text_of", "texts_of"]

Entries: TypeAlias = "Sequence[tuple[bytes, Mapping[bytes, bytes] | None]]"

_SEQUENCE_BITS: Final = 20
"""An id is milliseconds and a number within them; together they are a position of less than 63 bits."""


def by_stream(receipts: Sequence[Receipt]) -> dict[str, list[bytes]]:
    """Ids to acknowledge, by stream."""
    found: dict[str, list[bytes]] = {}

    for stream, _, token in parts_of(receipts):
        if isinstance(token, bytes):
            found.setdefault(stream, []).append(token)

    return found


def entries_of(answer: object) -> dict[str, Entries]:
    """What `XREADGROUP` has answered, by stream."""
    pairs = cast("Sequence[tuple[bytes, Entries]]", answer or ())

    return {text_of(stream): entries for stream, entries in pairs}


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


def entry_id(position: int) -> str:
    """The id of which `position_of` has made this position."""
    return f"{position >> _SEQUENCE_BITS}-{position & (1 << _SEQUENCE_BITS) - 1}"


def text_of(value: bytes | str) -> str:
    """Names and fields as text; what is no UTF-8 is replaced."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def texts_of(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Fields of an entry."""
    return {text_of(name): text_of(one) for name, one in fields.items()}
