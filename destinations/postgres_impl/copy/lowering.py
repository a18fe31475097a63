"""Columns as the wire holds them: each Arrow type becomes integers, floats, booleans or bytes that pgpq copies as is.

Every function takes one slice of one column and raises `Refused` with an index within it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.destinations.postgres_impl.copy.arrays import Array, Bools, Bytes, array_of, nulls
from asyncelt.destinations.postgres_impl.copy.numeric import number_to_wire, wire_from_decimals
from asyncelt.destinations.postgres_impl.copy.types import Kind, Refused, WireType
from asyncelt.errors import Unsupported
from asyncelt.normalize.plain import json_text

__all__ = ["carrier", "lower"]

# int64 and int32 at their ends stand for infinity: on the wire, in DuckDB's Arrow output, and therefore here.
_EPOCH_DAYS: Final = 10_957
_EPOCH_MICROS: Final = _EPOCH_DAYS * 86_400_000_000
_FIRST_DAY: Final = -2_451_545
_LAST_DAY: Final = 2_145_031_948
_FIRST_MICRO: Final = -211_813_488_000_000_000
_LAST_MICRO: Final = 9_223_371_331_200_000_000 - 1

_CARRIERS: Final[dict[Kind, pa.DataType]] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.int32(),
    "time": pa.int64(),
    "timestamp": pa.int64(),
    "timestamptz": pa.int64(),
    "uuid": pa.binary(16),
    "jsonb": pa.large_string(),  # pgpq writes the version before it
}
_PLAIN_ROWS: Final = 2_000
_ZERO_ESCAPE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_PAIRED: Final = re.compile(r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def carrier(wire: WireType) -> pa.DataType:
    """The Arrow type whose values pgpq writes in the form of ``wire``; bytes for everything of variable length."""
    return _CARRIERS.get(wire.kind, pa.large_binary())


def lower(values: Array, wire: WireType) -> Array:
    """One slice of a column in the form that pgpq copies.

    Raises:
        Refused: A value does not fit the type.
        Unsupported: Values of this Arrow type have no place in a column of this type.
    """
    values = _stored(values)

    if values.null_count == len(values):
        return nulls(len(values), carrier(wire))

    return _LOWER[wire.kind](values, wire)


def _stored(values: Array) -> Array:
    """The array behind extension types, dictionaries and runs."""
    kind: Any = values.type

    if isinstance(kind, pa.BaseExtensionType):
        return _stored(cast("Any", values).storage)

    if pa.types.is_dictionary(kind):
        return _stored(cast("Any", values).dictionary_decode())

    if pa.types.is_run_end_encoded(kind):
        return _stored(pc.run_end_decode(values))

    return values


def _integer(values: Array, wire: WireType) -> Array:
    kind = values.type

    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise _no_place(values, wire)

    return _cast(values, carrier(wire), f"is no integer of {carrier(wire).bit_width} bits")


def _float(values: Array, wire: WireType) -> Array:
    kind = values.type

    if pa.types.is_decimal(kind) or pa.types.is_integer(kind):
        return cast("Array", pc.cast(values, carrier(wire), safe=False))

    if not pa.types.is_floating(kind):
        raise _no_place(values, wire)

    lowered: Array = pc.cast(values, carrier(wire))

    if wire.kind == "float4" and pa.types.is_float64(kind):
        _refuse(pc.and_(pc.is_inf(lowered), pc.is_finite(values)), "is too large for real")

    return lowered


def _bool(values: Array, wire: WireType) -> Array:
    if not pa.types.is_boolean(values.type):
        raise _no_place(values, wire)

    return values


def _bytea(values: Array, wire: WireType) -> Array:
    if not _is_binary(values.type):
        raise _no_place(values, wire)

    return cast("Array", pc.cast(values, pa.large_binary()))


def _text(values: Array, wire: WireType) -> Array:
    if not _is_text(values.type):
        raise _no_place(values, wire)

    checked = _checked_text(values)

    if wire.size is not None:
        # As the standard has it, spaces over the length are dropped by the server.
        length = pc.utf8_length(pc.utf8_rtrim(checked, " "))
        _refuse(pc.greater(length, wire.size), f"is longer than {wire.size} characters")

    return cast("Array", checked.view(pa.large_binary()))


def _json(values: Array, wire: WireType) -> Array:
    if not _is_text(values.type):
        texts = [None if value is None else json_text(value) for value in _plain(values)]
        values = _converted(texts)

    checked = _checked_text(values)

    if wire.kind == "json":
        return cast("Array", checked.view(pa.large_binary()))

    _refuse_escapes(checked)

    return checked


def _date(values: Array, wire: WireType) -> Array:
    kind = values.type

    if pa.types.is_date64(kind):
        # Infinity is not a number of milliseconds.
        values = pc.cast(values, pa.date32(), safe=False)
    elif not pa.types.is_date32(kind):
        raise _no_place(values, wire)

    return _since_2000(values.view(pa.int32()), np.int32, (_EPOCH_DAYS, _FIRST_DAY, _LAST_DAY))


def _timestamp(values: Array, wire: WireType) -> Array:
    kind: Any = values.type

    if pa.types.is_date(kind):
        kind = pa.timestamp("s")
        values = _cast(values, kind, "is no timestamp of PostgreSQL")

    if not pa.types.is_timestamp(kind):
        raise _no_place(values, wire)

    count = values.view(pa.int64())

    if kind.unit == "ns":
        count = _floor_micros(count)
    elif kind.unit != "us":
        factor = 1_000 if kind.unit == "ms" else 1_000_000
        limit = _LAST_MICRO // factor + _EPOCH_MICROS // factor
        _refuse(pc.or_(pc.greater(count, limit), pc.less(count, -limit)), "is no timestamp of PostgreSQL")
        count = pc.multiply(count, factor)

    return _since_2000(count, np.int64, (_EPOCH_MICROS, _FIRST_MICRO, _LAST_MICRO))


def _time(values: Array, wire: WireType) -> Array:
    kind: Any = values.type

    if not pa.types.is_time(kind):
        raise _no_place(values, wire)

    count = pc.cast(values.view(pa.int32() if kind.bit_width == 32 else pa.int64()), pa.int64())

    if kind.unit == "ns":
        return _floor_micros(count)

    return cast("Array", pc.multiply(count, {"s": 1_000_000, "ms": 1_000, "us": 1}[kind.unit]))


def _numeric(values: Array, wire: WireType) -> Array:
    kind: Any = values.type

    if pa.types.is_integer(kind):
        values = pc.cast(values, pa.decimal128(20, 0))
    elif pa.types.is_floating(kind):
        return _numbers([None if value is None else repr(value) for value in values.to_pylist()])
    elif _is_text(kind):
        return _numbers(_plain(values))
    elif not pa.types.is_decimal(kind):
        raise _no_place(values, wire)
    elif kind.scale < 0:
        values = pc.cast(values, pa.decimal256(76, 0))
    elif kind.byte_width < 16:
        values = pc.cast(values, pa.decimal128(kind.precision, kind.scale))

    offsets, data = wire_from_decimals(values)

    return array_of(pa.large_binary(), np.asarray(pc.is_valid(values)), [offsets, data])


def _numbers(texts: list[str | None]) -> Array:
    lowered = [None if text is None else number_to_wire(text) for text in texts]

    for index, (text, number) in enumerate(zip(texts, lowered, strict=True)):
        if text is not None and number is None:
            raise Refused(index, f"{text[:40]!r} is no number of PostgreSQL")

    return pa.array(lowered, pa.large_binary())


def _uuid(values: Array, wire: WireType) -> Array:
    if _is_binary(values.type):
        return _cast(values, carrier(wire), "has not 16 bytes")

    if not _is_text(values.type):
        raise _no_place(values, wire)

    found: list[bytes | None] = []

    for index, text in enumerate(_plain(values)):
        try:
            found.append(None if text is None else uuid.UUID(text).bytes)
        except ValueError:
            raise Refused(index, f"{text[:40]!r} is no UUID") from None

    return pa.array(found, carrier(wire))


_LOWER: Final[dict[Kind, Callable[[Array, WireType], Array]]] = {
    "bool": _bool,
    "bytea": _bytea,
    "date": _date,
    "float4": _float,
    "float8": _float,
    "int2": _integer,
    "int4": _integer,
    "int8": _integer,
    "json": _json,
    "jsonb": _json,
    "numeric": _numeric,
    "text": _text,
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamp,
    "uuid": _uuid,
}


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types

    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _no_place(values: Array, wire: WireType) -> Unsupported:
    return Unsupported(f"values of the Arrow type {values.type} cannot be copied into a column of type {wire.kind}")


def _refuse(is_wrong: Array, reason: str) -> None:
    """Refuse the first value for which ``is_wrong``; a null is not wrong."""
    index = pc.index(is_wrong, value=True).as_py()

    if index >= 0:
        raise Refused(index, reason)


def _cast(values: Array, target: pa.DataType, reason: str) -> Array:
    """A checked cast, and where it fails, the first value that does not fit."""
    try:
        return cast("Array", pc.cast(values, target))
    except pa.ArrowInvalid:
        raise Refused(_first(values, lambda part: pc.cast(part, target)), reason) from None


def _first(values: Array, convert: Callable[[Array], object]) -> int:
    """Index of the first value that ``convert`` refuses, by bisection."""
    start, end = 0, len(values)

    while end - start > 1:
        middle = (start + end) // 2

        try:
            convert(values[start:middle])
        except (pa.ArrowInvalid, UnicodeDecodeError):
            end = middle
        else:
            start = middle

    return start


def _checked_text(values: Array) -> Array:
    """As ``large_string``, valid UTF-8 without zero bytes."""
    texts: Array = pc.cast(values, pa.large_string())

    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        index = _first(texts, lambda part: part.validate(full=True))
        raise Refused(index, "is no valid Unicode text (a lone surrogate, or bytes that are not UTF-8)") from None

    # Zero bytes are sought in all texts at once, and only when there are any, one by one.
    if not _content(texts).all():
        _refuse(pc.match_substring(texts, "\0"), "has a NUL character (U+0000), which PostgreSQL cannot store")

    return texts


def _content(texts: Array) -> Bytes:
    """The bytes of all texts of a ``large_string`` array, one behind the other."""
    _, offsets, content = cast("Any", texts.buffers())
    bounds = np.frombuffer(offsets, np.int64)[[texts.offset, texts.offset + len(texts)]]

    return np.frombuffer(content if content is not None else b"", np.uint8)[bounds[0] : bounds[1]]


def _refuse_escapes(texts: Array) -> None:
    """Refuse what is JSON, but not for ``jsonb``: escapes of U+0000 and of lone surrogates."""
    if b"\\u" not in _content(texts).tobytes():
        return

    for index in np.flatnonzero(_mask(pc.match_substring(texts, "\\u0000"))):
        if _ZERO_ESCAPE.search(texts[int(index)].as_py()):
            raise Refused(int(index), "has a NUL character (\\u0000), which jsonb cannot store")

    for index in np.flatnonzero(_mask(pc.match_substring_regex(texts, r"\\u[dD][89a-fA-F]"))):
        if _SURROGATE.search(_PAIRED.sub("", texts[int(index)].as_py())):
            raise Refused(int(index), "has an unpaired surrogate (\\ud800 to \\udfff), which jsonb cannot store")


def _mask(values: Array) -> Bools:
    return cast("Bools", pc.fill_null(values, fill_value=False).to_numpy(zero_copy_only=False))


def _plain(values: Array) -> list[Any]:
    """Python values, taken out in pieces, since Arrow holds the interpreter lock for each whole piece."""
    found: list[Any] = []

    for start in range(0, len(values), _PLAIN_ROWS):
        piece = values[start : start + _PLAIN_ROWS]

        try:
            found += piece.to_pylist()
        except UnicodeDecodeError:
            index = start + _first(piece, lambda part: part.to_pylist())
            raise Refused(index, "is no valid Unicode text (bytes that are not UTF-8)") from None

    return found


def _converted(texts: list[str | None]) -> Array:
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        wrong = next(i for i, text in enumerate(texts) if text is not None and not _is_unicode(text))
        raise Refused(wrong, "has a lone surrogate") from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False

    return True


def _floor_micros(count: Array) -> Array:
    """Nanoseconds as microseconds, earlier ones where they lie between two."""
    numbers = np.asarray(pc.fill_null(count, 0)) // 1_000

    return _with_nulls_of(count, numbers)


def _since_2000(count: Array, kind: type[np.signedinteger[Any]], bounds: tuple[int, int, int]) -> Array:
    """Counts since 1970 as counts since 2000; the ends of the integer type are infinity and stay."""
    epoch, first, last = bounds
    numbers = np.asarray(pc.fill_null(count, epoch)).astype(kind, copy=False)
    ends = np.iinfo(kind)
    is_end = (numbers == ends.max) | (numbers <= -ends.max)
    is_wrong = ((numbers < first + epoch) | (numbers > min(last + epoch, ends.max))) & ~is_end

    for index in np.flatnonzero(is_wrong)[:1]:
        raise Refused(int(index), "is before 4713 BC or after the last date of PostgreSQL")

    moved = np.where(is_end, numbers, numbers - kind(epoch))
    moved[numbers == -ends.max] = ends.min

    return _with_nulls_of(count, moved)


def _with_nulls_of(count: Array, numbers: npt.NDArray[Any]) -> Array:
    kind = pa.int32() if numbers.itemsize == 4 else pa.int64()

    return array_of(kind, np.asarray(pc.is_valid(count)), [numbers])
