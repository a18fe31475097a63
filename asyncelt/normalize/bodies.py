"""JSON bodies: which form they have, and their rows one by one where somebody needs them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from json import loads as lenient_loads
from typing import Any, Final, TypeAlias, cast

import msgspec
import pyarrow as pa

from asyncelt.errors import BadRecord
from asyncelt.flow import JsonBody
from asyncelt.normalize.walk import excerpt

__all__ = ["Raw", "among", "decode", "is_sound", "later", "rows_of", "texts_of", "within"]

Raw: TypeAlias = "msgspec.Raw | bytes"

_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_strict: Final = msgspec.json.Decoder()

BLANK: Final = b" \t\r\n"


def _first_sign(data: Raw) -> bytes:
    """The first byte that is no blank."""
    view = memoryview(data)

    return next((bytes(view[i : i + 1]) for i in range(len(view)) if view[i] not in BLANK), b"")


def within(body: JsonBody, table: str) -> Raw:
    """The part of a body that holds the rows.

    Raises:
        BadRecord: The body is no object, or has nothing at the path it names.
        msgspec.DecodeError: It is no JSON, strictly taken.
    """
    data: Raw = body.data

    for key in body.items.split(".") if body.items is not None else ():
        try:
            fields = cast("dict[str, Raw]", _fields.decode(data))
        except msgspec.ValidationError:
            fields = {}

        if key not in fields:
            raise BadRecord(
                f"the JSON body has no {key!r} on the path {body.items!r}.", table=table, value=excerpt(bytes(data))
            )

        data = fields[key]

    return data


def texts_of(data: Raw) -> Sequence[Raw]:
    """The documents of an array, of lines, or the one document; not parsed.

    A null among them is a row without values, as in the reference; alone it is nothing.

    Raises:
        msgspec.DecodeError: It is no JSON, strictly taken.
    """
    texts = _split(data)

    return [] if len(texts) == 1 and bytes(data).strip() == b"null" else texts


def _split(data: Raw) -> Sequence[Raw]:
    first = _first_sign(data)

    if first == b"":
        return []

    if first == b"[":
        try:
            return cast("Sequence[Raw]", _raws.decode(data))
        except msgspec.DecodeError:
            return cast("Sequence[Raw]", _raw.decode_lines(bytes(data)))

    try:
        return cast("Sequence[Raw]", _raw.decode_lines(bytes(data)))
    except msgspec.DecodeError:
        return [cast("Raw", _raw.decode(data))]


def is_sound(data: bytes) -> bool:
    """Whether this is one JSON document in UTF-8, not nested beyond Python's recursion limit.

    Arrow's reader does not look at the encoding, and does not survive text that is nested some thousands deep.
    """
    try:
        _raw.decode(data)

        if not data.isascii():
            pa.array([data], pa.binary()).cast(pa.string())
    except (msgspec.DecodeError, pa.ArrowInvalid, UnicodeDecodeError, RecursionError):
        return False

    return True


def decode(document: Raw) -> object:
    """A document as a Python value: integers of any size, and what strict parsers refuse (NaN, lone surrogates)."""
    try:
        return _strict.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return lenient_loads(bytes(document))


def rows_of(body: JsonBody, table: str) -> list[object]:
    """The rows of a body as Python values, leniently.

    Raises:
        BadRecord: It is no JSON, or has nothing at the path it names.
    """
    try:
        found = _lenient(body.data.decode("utf-8-sig", "surrogatepass"))
    except ValueError as error:
        raise BadRecord(f"the body is no JSON: {error}.", table=table, value=excerpt(body.data)) from error
    except RecursionError:
        raise BadRecord("the body is nested too deeply.", table=table, value=excerpt(body.data)) from None

    for key in body.items.split(".") if body.items is not None else ():
        if not isinstance(found, dict) or key not in found:
            raise BadRecord(f"the JSON body has no {key!r} on the path {body.items!r}.", table=table)

        found = found[key]

    return found if isinstance(found, list) else [] if found is None else [found]


def later(data: Raw) -> Callable[[int], object]:
    """A function that decodes one row of a body; the body is split when it is first called."""
    texts: list[Raw] = []

    def item(number: int) -> object:
        if not texts:
            texts.extend(texts_of(data))

        return decode(texts[number])

    return item


def among(items: Sequence[Callable[[int], object]], counts: Sequence[int]) -> Callable[[int], object]:
    """A function that finds a row among those of several bodies.

    Args:
        items: Finds a row of one body, per body.
        counts: Number of rows, per body.
    """
    starts = list(accumulate(counts, initial=0))

    def item(number: int) -> object:
        body = bisect_right(starts, number) - 1

        return items[body](number - starts[body])

    return item


def _lenient(text: str) -> Any:
    try:
        return lenient_loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]

        if len(lines) < 2:
            raise

        return [lenient_loads(line) for line in lines]
