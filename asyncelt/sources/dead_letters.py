"""Messages that nobody can read: kept in a table of their own, with all that is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from asyncelt.extract.items import Marked
from asyncelt.extract.marks import make_hints, with_hints
from asyncelt.extract.messages import Message

__all__ = ["DEAD_LETTERS", "dead_letters"]

DEAD_LETTERS: Final = "_asyncelt_dead_letters"


def dead_letters(source: str, spoiled: Sequence[tuple[Message, Exception]]) -> Marked:
    """What a resource yields for messages that could not be read: rows of the dead-letter table, never merged.

    Args:
        source: Name of the source.
        spoiled: Each message with what went wrong.
    """
    now = datetime.now(UTC)
    rows = [
        {
            "source": source,
            "topic": message.topic,
            "partition": message.receipt.partition,
            "position": message.receipt.position,
            "error": f"{type(error).__name__}: {error}",
            "payload": _raw(message.value),
            "received_at": now,
        }
        for message, error in spoiled
    ]
    hints = make_hints(
        DEAD_LETTERS,
        write_disposition="append",
        primary_key=(),
        merge_key=(),
        columns=[
            {"name": "topic", "data_type": "text"},
            {"name": "position", "data_type": "bigint"},
        ],
    )

    return with_hints(rows, hints, create_table_variant=True)


def _raw(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)

    return (value if isinstance(value, str) else repr(value)).encode()
