"""A resource from an event source: fetched in batches, decoded, sorted into tables, each with its receipt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, cast, get_args

import anyio.lowlevel
import msgspec
import orjson

from asyncelt.arguments import COUNT, FUNCTION, SEQUENCE, TEXT, Kind, expect, expect_if_given
from asyncelt.errors import ConfigError
from asyncelt.extract.messages import (
    Accepted,
    DeliversBodies,
    EventSource,
    Message,
    Messages,
    Renewable,
    StreamSide,
    required_stream_side,
)
from asyncelt.extract.receipts import Receipts
from asyncelt.extract.resource import Resource
from asyncelt.extract.tickets import Tickets
from asyncelt.flow import DESCRIPTION_CHARS, JsonBody, Unloadable
from asyncelt.schema.hints import TableHints
from asyncelt.sources.keys import Keyed, keyed_hints, with_key
from asyncelt.types import Metadata, OnError

__all__ = ["Decode", "events"]

Decode: TypeAlias = Callable[[Message], object]
"""The row, or the rows, of a message. What it raises sends the message to quarantine."""

_BATCH: Final = 1000
_PIECE: Final = 100
"""Messages until others have their turn."""
_BODIES: Final = 500
"""The same, of payloads alone."""
_raw = msgspec.json.Decoder(msgspec.Raw)
_LINE_ENDS = bytes.maketrans(b"\n\r", b"  ")

_SOURCE = Kind("an event source, such as asyncelt.sources.channel(...)", lambda value: isinstance(value, EventSource))


def events(
    source: EventSource,
    *,
    name: str | None = None,
    table_name: str | Callable[[Message], str] | None = None,
    decode: Decode | None = None,
    metadata: Sequence[Metadata] = (),
    batch: int = _BATCH,
    on_error: OnError = "quarantine",
) -> Resource:
    """A resource of the messages of ``source``, for streams. Messages of a partition keep their order.

    Bytes and text are JSON; without ``decode`` and ``metadata`` no Python object is made of them. Messages that cannot
    be read, or whose rows break a schema contract, go to the table ``_asyncelt_quarantine`` and are acknowledged with
    their package; `asyncelt.replay` loads them again.

    Where the source tells messages apart by keys of their senders (`Keyed`), the key becomes the primary key of the
    table, into which a message is put only once: ``insert-only``.

    Args:
        source: Where messages come from.
        name: Of the resource; None: that of the source.
        table_name: Table of all messages, or a function of a message that says it; None: what the source says of each
            message, or the resource's name.
        decode: Makes rows of a message; None: it makes no row, like a message without a value.
        metadata: What else of each message becomes a column: ``topic`` as ``_topic``, and so on.
        batch: Messages to ask for at a time, at most.
        on_error: What a message that cannot be loaded costs: ``quarantine``, ``skip``, or ``fail``, which ends the
            stream.

    Raises:
        ConfigError: An argument is wrong.
    """
    expect("events", _SOURCE, source=source)
    where = f"events({source.name!r})"
    expect(where, COUNT, batch=batch)
    expect(where, SEQUENCE, metadata=metadata)
    expect_if_given(where, TEXT, name=name)
    expect_if_given(where, FUNCTION, decode=decode)
    unknown = set(metadata) - set(get_args(Metadata))

    if unknown:
        raise ConfigError(f"{where}: metadata is any of {', '.join(get_args(Metadata))}, not {list(metadata)}.")

    if isinstance(source, Renewable):
        source.renew()

    resource_name = name or source.name
    key_column = source.key_column if isinstance(source, Keyed) else None
    table_of = table_name if callable(table_name) else _own_table if table_name is None else None
    arranger = _Arranger(table_of, decode, tuple(metadata), key_column)
    are_bodies_enough = decode is None and not metadata and key_column is None and not callable(table_name)

    if are_bodies_enough and isinstance(source, DeliversBodies) and source.has_bodies:
        deliveries = partial(_body_deliveries, source, arranger, batch)
    else:
        deliveries = partial(_deliveries, source, arranger, batch)

    return Resource(
        deliveries,
        resource_name,
        hints=TableHints(name=resource_name) if key_column is None else keyed_hints(resource_name, key_column),
        table_name=table_name if isinstance(table_name, str) else None,
        on_error=on_error,
    )


async def _deliveries(source: EventSource, arranger: _Arranger, batch: int) -> AsyncIterator[Messages]:
    """All that comes, in batches of messages that were not committed before; repetitions come as mere receipts."""
    side = required_stream_side()
    await side.open(source)

    while fetched := await source.fetch(batch):
        async for item in _arranged(side, source, arranger, fetched):
            yield item


async def _body_deliveries(source: DeliversBodies, arranger: _Arranger, batch: int) -> AsyncIterator[Messages]:
    """The same of payloads alone, which nobody looks at one by one unless something is wrong with them."""
    side = required_stream_side()
    await side.open(source)

    while fetched := await source.fetch_bodies(batch):
        for bodies in fetched:
            if not isinstance(bodies.receipts, Receipts) or not bodies.receipts.are_fresh:
                async for item in _arranged(side, source, arranger, bodies.messages()):
                    yield item

                continue

            for start in range(0, len(bodies.values), _BODIES):
                piece = bodies.part(start, start + _BODIES)
                accepted = side.accept(source, piece.receipts)
                lines = None if accepted.repeated else _lines(piece.values)

                if lines is not None:
                    table = None if arranger.table_of is None else bodies.table_name
                    yield Messages(JsonBody(lines), Tickets.of(accepted.tickets), table)
                else:
                    for item in _sorted_out(arranger, accepted, piece.messages()):
                        yield item

                await anyio.lowlevel.checkpoint()


async def _arranged(
    side: StreamSide, source: EventSource, arranger: _Arranger, fetched: Sequence[Message]
) -> AsyncIterator[Messages]:
    # After its crash a broker may deliver thousands again: known ones are not asked about.
    if any(one.receipt.again and not side.knows(source, one.receipt) for one in fetched):
        await side.refresh()

    # All of this runs on the loop, which others share with threads that want the interpreter lock: a few at a time.
    for start in range(0, len(fetched), _PIECE):
        piece = fetched[start : start + _PIECE]
        accepted = side.accept(source, [message.receipt for message in piece])

        for item in _sorted_out(arranger, accepted, piece):
            yield item

        await anyio.lowlevel.checkpoint()


def _sorted_out(arranger: _Arranger, accepted: Accepted, messages: Sequence[Message]) -> Iterator[Messages]:
    """Those whose rows are wanted, and the others."""
    numbered = zip(accepted.tickets, messages, strict=True)

    yield from arranger.items([one for one in numbered if one[0] not in accepted.repeated])

    # After what they may be repetitions of: so they are acknowledged with it, or later.
    if accepted.repeated:
        yield Messages([], Tickets(sorted(accepted.repeated)))


@dataclass(frozen=True, slots=True)
class _Arranger:
    """Makes items of messages: as few as possible, in order."""

    table_of: Callable[[Message], str | None] | None
    decode: Decode | None
    metadata: tuple[Metadata, ...]
    key_column: str | None = None

    def items(self, messages: Sequence[tuple[int, Message]]) -> list[Messages]:
        """The messages, which have their tickets, as items; those that cannot be read are the last one."""
        found: list[Messages] = []
        spoiled: list[object] = []
        of_spoiled = Tickets()
        values: list[object] = []
        tickets = Tickets()
        place: tuple[bool, str | None] | None = None

        for ticket, message in messages:
            try:
                value = self._value(message)
                here = (
                    isinstance(value, bytes),
                    None if self.table_of is None else self.table_of(message),
                )
            except Exception as error:  # of the user's function, of a parser: whatever it is, the message is the cause
                spoiled.append(_unloadable(message, error))
                of_spoiled.add(ticket)
                continue

            if here != place and place is not None:
                found.append(_item(values, tickets, place[1]))
                values, tickets = [], Tickets()

            place = here
            values += value if isinstance(value, list) else (value,)
            tickets.add(ticket)

        if place is not None:
            found.append(_item(values, tickets, place[1]))

        if spoiled:
            found.append(Messages(spoiled, of_spoiled))

        return found

    def _value(self, message: Message) -> object:
        """Bytes of one JSON object, or something that is not JSON any more."""
        value = message.value if self.decode is None else self.decode(message)

        if value is None:
            # A message without a body, or of no interest to the decoder.
            return []

        if isinstance(value, str) and self.decode is None:
            value = value.encode()

        if isinstance(value, bytes):
            value = _checked(value, as_object=bool(self.metadata))

        if self.metadata:
            described = self._described(message)
            value = [_with(one, described) for one in value] if isinstance(value, list) else _with(value, described)

        return value if self.key_column is None else with_key(value, self.key_column, message)

    def _described(self, message: Message) -> dict[str, object]:
        known: dict[str, object] = {
            "topic": message.topic,
            "partition": message.receipt.partition if message.partition is None else message.partition,
            "position": message.receipt.position,
            "key": message.key.decode("utf-8", "replace") if isinstance(message.key, bytes) else message.key,
            "timestamp": message.timestamp,
            "headers": dict(message.headers),
        }

        return {f"_{name}": known[name] for name in self.metadata}


def _item(values: list[object], tickets: Tickets, table: str | None) -> Messages:
    item: object = values

    if values and isinstance(values[0], bytes):
        item = JsonBody(b"\n".join(values))  # type: ignore[arg-type]  # values of an item are of one type

    return Messages(item, tickets, table)


def _with(row: object, described: Mapping[str, object]) -> object:
    return {**row, **described} if isinstance(row, Mapping) else row


def _own_table(message: Message) -> str | None:
    return message.table_name


def _unloadable(message: Message, error: Exception) -> Unloadable:
    value, receipt = message.value, message.receipt
    payload = None

    if isinstance(value, bytes | bytearray | memoryview):
        payload = bytes(value)
    elif isinstance(value, str):
        payload = value.encode("utf-8", "surrogatepass")

    where = [part for part in (message.topic, receipt.partition) if part]

    return Unloadable(
        f"{type(error).__name__}: {error}",
        repr(value)[:DESCRIPTION_CHARS],
        payload=payload,
        kind=type(error).__name__,
        origin="/".join(where) or None,
        position=None if receipt.position is None else str(receipt.position),
    )


def _check_text(body: bytes) -> None:
    """Parsers that look for structure alone pass over bytes that are no text.

    Raises:
        UnicodeDecodeError: It has some.
    """
    if not body.isascii():
        body.decode()


def _lines(values: Sequence[bytes | None]) -> bytes | None:
    """JSON objects, each on a line of its own; None: one of them is something else, or has line ends inside."""
    if None in values:
        return None

    lines, ends = b"\n".join(cast("Sequence[bytes]", values)), len(values) - 1

    if lines[:1] != b"{" or b"\r" in lines or not lines.count(b"\n{") == lines.count(b"\n") == ends:
        return None

    try:
        _check_text(lines)

        # Each by itself: of all lines together a parser takes one that goes on in the next, too.
        for value in values:
            _raw.decode(cast("bytes", value))
    except (ValueError, RecursionError):
        return None

    return lines


def _checked(body: bytes, *, as_object: bool) -> object:
    """A JSON object on one line; anything else that is JSON as Python values.

    Raises:
        ValueError: It is not JSON.
    """
    if as_object or (body[:1] != b"{" and body.lstrip()[:1] != b"{"):
        return orjson.loads(body)

    _raw.decode(body)
    _check_text(body)

    # Line ends cannot be inside of strings.
    return body.translate(_LINE_ENDS) if b"\n" in body or b"\r" in body else body
