"""JSON bodies: the cursor is read out of the bytes, and of the rows only those that must be looked at are parsed.

A body whose rows are all in the range goes on as the very same bytes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import cast

import msgspec

from asyncelt.extract.incremental.window import Window
from asyncelt.extract.jsonbody import decoded, parse_in_slices, raw_rows, sliced
from asyncelt.extract.requests import Request
from asyncelt.flow import JsonBody

__all__ = ["sift_body"]


def sift_body(window: Window, body: JsonBody) -> Generator[Request, object, object | None]:
    """The part of a body that is in the range: the body itself, a smaller one, its rows, or None for nothing.

    Raises:
        IncrementalError: See `Window.sift`.
        InvalidResourceData: This is not JSON.
    """
    keys = window.rules.path.keys
    raws = raw_rows(body) if keys else None

    if keys is None or raws is None:
        return (yield from _sift_rows(window, body))

    decoder = _cursor_decoder(keys)
    kept: list[msgspec.Raw | bytes] = []

    for part in sliced(raws):
        try:
            values = [_value_in(item, len(keys)) for item in decoder.decode(b"[" + b",".join(part) + b"]")]
        except msgspec.DecodeError:  # something on the way to the cursor is no object
            values = [_value_of(window, decoded(raw)) for raw in part]

        flags = window.sift(values, _at(part))
        kept += part if flags is None else [raw for raw, is_in in zip(part, flags, strict=True) if is_in]
        yield None

    if len(kept) == len(raws):
        return body if kept else None

    return JsonBody(b"[" + b",".join(kept) + b"]") if kept else None


def _sift_rows(window: Window, body: JsonBody) -> Generator[Request, object, object | None]:
    kept: list[object] = []

    for rows in parse_in_slices(body):
        flags = window.sift(window.rules.path.find_all(rows), rows.__getitem__)
        kept += rows if flags is None else [row for row, is_in in zip(rows, flags, strict=True) if is_in]
        yield None

    return kept or None


class _RowAt:
    """Rows of a slice, parsed when they are asked for."""

    def __init__(self, raws: Sequence[msgspec.Raw | bytes]) -> None:
        self._raws = raws

    def __call__(self, place: int) -> object:
        return decoded(self._raws[place])


def _at(raws: Sequence[msgspec.Raw | bytes]) -> _RowAt:
    return _RowAt(raws)


@lru_cache(maxsize=64)
def _cursor_decoder(keys: tuple[str, ...]) -> msgspec.json.Decoder[list[object]]:
    """Decodes a list of objects to structs with one field each: the next key of the path."""
    kind: object = object

    for key in reversed(keys):
        kind = msgspec.defstruct("Cursor", [("v", kind, None)], rename={"v": key})
        kind = kind | None

    return cast("msgspec.json.Decoder[list[object]]", msgspec.json.Decoder(list[kind]))  # type: ignore[valid-type]


def _value_in(item: object, depth: int) -> object:
    for _ in range(depth):
        if item is None:
            return None

        item = item.v  # type: ignore[attr-defined]

    return item


def _value_of(window: Window, row: object) -> object:
    return window.rules.path.find_all([row])[0]
