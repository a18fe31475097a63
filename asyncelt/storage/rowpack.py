"""Python rows as bytes and back, without pickle: length-prefixed msgpack, with tags for what msgpack cannot say.

What comes back means the same to the normalizer as what went in: models, enums and named tuples have become what they
are made of (`asyncelt.normalize.plain`); Decimal, datetime, date, time, UUID, bytes, integers beyond 64 bits and text
with unpaired surrogates are what they were. Blocking and pure; called from threads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import msgspec

from asyncelt.errors import StorageError
from asyncelt.flow import Unloadable
from asyncelt.normalize.plain import unwrap

__all__ = ["pack_row", "unpack_rows"]

_LENGTH: Final = struct.Struct("<I")
_MAX_ROW: Final = 2**32 - 1
_NATIVE: Final = frozenset({str, int, float, bool, type(None), bytes})
"""Types that msgpack carries by itself, as long as integers fit and text is text."""
_KEYS: Final = frozenset({str})
_Ext = msgspec.msgpack.Ext
_DECIMAL, _DATETIME, _DATE, _TIME, _UUID, _INTEGER, _TEXT, _PAIRS, _UNLOADABLE = range(1, 10)


def _surrogates(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_TAGGED: Final[dict[type, tuple[int, Callable[[object], bytes]]]] = {
    Decimal: (_DECIMAL, lambda value: str(value).encode()),
    datetime: (_DATETIME, lambda value: _stamp(cast("datetime", value))),
    date: (_DATE, lambda value: cast("date", value).isoformat().encode()),
    time: (_TIME, lambda value: cast("time", value).isoformat().encode()),
    UUID: (_UUID, lambda value: cast("UUID", value).bytes),
    Unloadable: (_UNLOADABLE, lambda value: _described(cast("Unloadable", value))),
}


def _described(value: Unloadable) -> bytes:
    texts = [_surrogates(value.message), _surrogates(value.description)]

    row = None if value.row is None else pack_row(value.row)

    return _encoder.encode([*texts, value.payload, value.kind, value.origin, value.position, row])


def _undescribed(data: bytes) -> Unloadable:
    message, description, *rest = _decoder.decode(data)
    payload, kind, origin, position, *packed = rest
    row = next(unpack_rows(packed[0])) if packed and packed[0] else None
    why, looks = (part.decode("utf-8", "surrogatepass") for part in (message, description))

    return Unloadable(why, looks, payload, kind, origin, position, row)


def _stamp(value: datetime) -> bytes:
    # The second reading of a time that occurs twice, when clocks go back, is part of what it says.
    return f"{value.isoformat()}{'+' if value.fold else ''}".encode()


def _unstamp(data: bytes) -> datetime:
    text = data.decode()

    if text.endswith("+"):
        return datetime.fromisoformat(text[:-1]).replace(fold=1)

    return datetime.fromisoformat(text)


_READERS: Final[dict[int, Callable[[bytes], object]]] = {
    _DECIMAL: lambda data: Decimal(data.decode()),
    _DATETIME: _unstamp,
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: lambda data: time.fromisoformat(data.decode()),
    _UUID: lambda data: UUID(bytes=data),
    _INTEGER: lambda data: int(data.decode(), 16),
    _TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    _UNLOADABLE: _undescribed,
    _PAIRS: lambda data: {_key(key): item for key, item in _decoder.decode(data)},
}


def _key(value: object) -> object:
    """A tuple that was a key came back as a list."""
    return tuple(map(_key, value)) if type(value) is list else value


def _read_tag(code: int, data: memoryview) -> object:
    reader = _READERS.get(code)

    if reader is None:
        raise StorageError(f"A stored row has a value of the unknown kind {code}; it was written by a newer release.")

    return reader(bytes(data))


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(ext_hook=_read_tag)


def pack_row(row: object) -> bytes:
    """One row with its length in front.

    Raises:
        TypeError: It holds a value that no column can hold, or is larger than 4 GiB.
    """
    packable = _packable(row)

    try:
        data = _encoder.encode(packable)
    except (OverflowError, UnicodeEncodeError):
        data = _encoder.encode(_exact(packable))

    if len(data) > _MAX_ROW:
        raise TypeError(f"one row of {len(data)} bytes is too large to be stored")

    return _LENGTH.pack(len(data)) + data


def unpack_rows(data: bytes | memoryview) -> Iterator[object]:
    """The rows of `pack_row`, one after the other.

    Raises:
        StorageError: The data is cut off, or of a newer release.
    """
    view = memoryview(data)
    start = 0

    while start < len(view):
        if start + _LENGTH.size > len(view):
            raise StorageError("Stored rows are cut off.")

        (length,) = _LENGTH.unpack_from(view, start)
        start += _LENGTH.size

        if start + length > len(view):
            raise StorageError("Stored rows are cut off.")

        try:
            yield _decoder.decode(view[start : start + length])
        except msgspec.DecodeError as error:
            raise StorageError(f"A stored row cannot be read: {error}") from error

        start += length


def _packable(value: object) -> object:
    """``value`` with a tag wherever msgpack has no type; the value itself where nothing in it needs one."""
    kind = type(value)

    if kind in _NATIVE:
        return value

    if kind is dict:
        return _packable_dict(cast("dict[object, object]", value))

    if kind is list:
        items = cast("list[object]", value)

        return items if _NATIVE.issuperset(map(type, items)) else [_packable(item) for item in items]

    tagged = _TAGGED.get(kind)

    if tagged is not None:
        return _Ext(tagged[0], tagged[1](value))

    plainer = unwrap(value)

    # A subclass of a scalar that is kept as it is: what counts is what it is a kind of.
    if plainer is value:
        return _subclass(value)

    return _packable(plainer)


def _packable_dict(value: dict[object, object]) -> object:
    if not _KEYS.issuperset(map(type, value)):
        pairs = [(_packable(key), _packable(item)) for key, item in value.items()]

        return _Ext(_PAIRS, _encoded(pairs))

    if _NATIVE.issuperset(map(type, value.values())):
        return value

    return {key: _packable(item) for key, item in value.items()}


def _subclass(value: object) -> object:
    # datetime is a date, so it is asked for first.
    for base in (Decimal, datetime, date, time, UUID):
        if isinstance(value, base):
            code, write = _TAGGED[base]

            return _Ext(code, write(value))

    raise TypeError(f"values of type {type(value).__name__} have no column type; convert them in a step (add_map)")


def _encoded(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return _encoder.encode(_exact(value))


def _exact(value: object) -> object:
    """Tags for the values that msgpack has a type for, but no room: large integers, text that is not UTF-8."""
    if type(value) is int:
        return value if -(2**63) <= value < 2**64 else _Ext(_INTEGER, f"{value:x}".encode())

    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return _Ext(_TEXT, _surrogates(value))

        return value

    if type(value) is dict:
        if any(type(_exact(key)) is not str for key in value):
            return _Ext(_PAIRS, _encoder.encode([(_exact(key), _exact(item)) for key, item in value.items()]))

        return {key: _exact(item) for key, item in value.items()}

    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]

    return value
