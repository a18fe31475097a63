"""Messages that their senders give a key, so that one which is sent twice is in the table once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import orjson

from asyncelt.errors import InvalidResourceData
from asyncelt.extract.messages import Message
from asyncelt.schema.hints import TableHints

__all__ = ["Keyed", "keyed_hints", "with_key"]


@runtime_checkable
class Keyed(Protocol):
    """An event source whose messages may have a ``key`` that is the same when the sender repeats them."""

    @property
    def key_column(self) -> str | None:
        """Column for the key; None: repetitions are not told apart."""
        ...


def keyed_hints(table: str, column: str) -> TableHints:
    """Of a table in which the first row with a key stays."""
    return TableHints(
        name=table,
        primary_key=column,
        write_disposition={"disposition": "merge", "strategy": "insert-only"},
    )


def with_key(value: object, column: str, message: Message) -> object:
    """The row or rows of a message with its key as ``column``; the second row of a list has ``key#1``, and so on.

    Raises:
        InvalidResourceData: The message has no key, or is nothing that could take one.
    """
    key = message.key.decode() if isinstance(message.key, bytes) else message.key

    if key is None:
        raise InvalidResourceData(f"The message at {message.topic or 'its source'} has no key for column {column!r}.")

    if isinstance(value, bytes):
        return _spliced(value, column, key)

    if isinstance(value, list):
        return [_row(one, column, key if number == 0 else f"{key}#{number}") for number, one in enumerate(value)]

    return _row(value, column, key)


def _row(value: object, column: str, key: str) -> dict[object, object]:
    if not isinstance(value, Mapping):
        raise InvalidResourceData(
            f"A {type(value).__name__} cannot take the key {key!r} as column {column!r}: only objects can."
        )

    return {**value, column: key}


def _spliced(body: bytes, column: str, key: str) -> object:
    """The same JSON object with one more member, without parsing it."""
    if column.encode() in body:
        # The sender has such a member too; ours wins.
        return _row(orjson.loads(body), column, key)

    open_ended = body.rstrip()[:-1].rstrip()
    comma = b"" if open_ended.endswith(b"{") and open_ended.strip() == b"{" else b","

    return open_ended + comma + orjson.dumps({column: key})[1:]
