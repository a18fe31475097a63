"""JSON bodies as rows, for the few who need rows: steps and table functions. Everybody else passes bodies on.

Integers of any size are kept exactly. The work is cut into slices: parsing holds the interpreter lock, so a large
body must not be parsed in one go, wherever that happens.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence

import msgspec

from asyncelt.errors import ExtractError, InvalidResourceData
from asyncelt.extract.headway import Headway
from asyncelt.extract.requests import Request
from asyncelt.flow import JsonBody

__all__ = ["decoded", "parse_in_slices", "raw_rows", "rows_of", "sliced"]

_SLICE_BYTES = 256 * 1024
_split_array = msgspec.json.Decoder(list[msgspec.Raw])
_split_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MISSING = msgspec.Raw(b"")
_NOT_STRICT = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises for all it does not take; the standard parser has the last word."""
_decode_list = msgspec.json.Decoder(list[object])


def parse_in_slices(body: JsonBody) -> Iterator[list[object]]:
    """The rows of a body, some at a time: no step of this iterator decodes more than about 256 KiB at once.

    Raises:
        InvalidResourceData: This is not JSON, or the path to the items leads nowhere.
    """
    for document in _documents(body.data):
        try:
            raws = _cut(document, body.items)
        except _NOT_STRICT:
            yield _items_of(_decode(document), body.items, document)
        else:
            yield from _decode_many(raws)


def rows_of(item: object, headway: Headway) -> Generator[Request, object, object]:
    """A JSON body as its rows, with pauses; everything else as it is.

    Raises:
        ExtractError: The resource's own, of what `parse_in_slices` raises.
    """
    if not isinstance(item, JsonBody):
        return item

    rows: list[object] = []
    parts = parse_in_slices(item)

    while True:
        try:
            part = next(parts, None)
        except ExtractError as error:
            headway.fail(error, "in a JSON body")

        if part is None:
            return rows

        rows += part
        yield None


def raw_rows(body: JsonBody) -> list[msgspec.Raw | bytes] | None:
    """The rows of a body, not parsed; None where only parsing can tell what they are."""
    rows: list[msgspec.Raw | bytes] = []

    for document in _documents(body.data):
        if body.items is None and document.lstrip()[:1] == b"{":
            rows.append(document)
            continue

        try:
            rows += _cut(document, body.items)
        except _NOT_STRICT:
            return None

    return rows


def sliced(raws: Sequence[msgspec.Raw | bytes]) -> Iterator[Sequence[msgspec.Raw | bytes]]:
    """Rows in slices that can be parsed in one go."""
    start = size = 0

    for index, raw in enumerate(raws):
        size += len(memoryview(raw))

        if size >= _SLICE_BYTES:
            yield raws[start : index + 1]
            start, size = index + 1, 0

    if start < len(raws):
        yield raws[start:]


def decoded(raw: msgspec.Raw | bytes) -> object:
    """One row, as `parse_in_slices` gives it.

    Raises:
        InvalidResourceData: This is not JSON.
    """
    return _decode(raw)


def _documents(data: bytes) -> Iterator[bytes]:
    """The body itself, or its lines when it holds one document per line."""
    text = data.strip()
    first, newline, _ = text.partition(b"\n")

    if not newline or not _is_document(first):
        if text:
            yield text

        return

    for line in text.split(b"\n"):
        if line and not line.isspace():
            yield line


def _is_document(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except _NOT_STRICT:
        return _is_lenient_document(line)

    return True


def _is_lenient_document(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False

    return True


def _cut(document: bytes, path: str | None) -> Sequence[msgspec.Raw]:
    """The undecoded items of one document. Raises an error of msgspec where there is no list of valid items."""
    part: bytes | msgspec.Raw = document

    for key in path.split(".") if path else ():
        part = _split_object.decode(part).get(key, _MISSING)

    return _split_array.decode(part)


def _items_of(value: object, path: str | None, document: bytes) -> list[object]:
    """The items of a decoded document: of a list its elements, of anything else the value alone."""
    for key in path.split(".") if path else ():
        if not isinstance(value, dict) or key not in value:
            raise InvalidResourceData(
                f"The items path {path!r} does not exist in this JSON body: {_excerpt(document)}"
            ) from None

        value = value[key]

    if isinstance(value, list):
        return value

    return [] if value is None and path else [value]


def _decode_many(raws: Sequence[msgspec.Raw]) -> Iterator[list[object]]:
    for part in sliced(raws):
        yield _decode_slice(part)


def _decode_slice(raws: Sequence[msgspec.Raw | bytes]) -> list[object]:
    joined = b"[" + b",".join(raws) + b"]"

    try:
        return _decode_list.decode(joined)
    except _NOT_STRICT:
        return [_decode(raw) for raw in raws]


def _decode(document: bytes | msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(document)
    except _NOT_STRICT:
        pass

    # The standard parser knows what others refuse: NaN, infinities, numbers beyond a double, lone surrogates.
    try:
        return json.loads(bytes(document))
    except ValueError as error:
        raise InvalidResourceData(f"This is not JSON ({error}): {_excerpt(bytes(document))}") from error


def _excerpt(document: bytes) -> str:
    return repr(document[:80])[1:] + (" ..." if len(document) > 80 else "")
