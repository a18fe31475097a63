"""To binary and json, from text and integers.

Arrow has no kernels for these: Python does them, each distinct value once.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.normalize.coerce_lanes import Values, per_distinct

__all__ = ["binary_from_bigint", "binary_from_text", "is_json_null", "json_from_text"]

_LONG_INTEGER = re.compile(r"[0-9]{19}")


def binary_from_text(values: Values, _target: pa.DataType) -> Values:
    """``0x`` followed by hex digits, else strict base64; nothing is trimmed."""
    return per_distinct(values, lambda text: _decoded(cast("str", text)), pa.binary())


def _decoded(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text[2:]) if text.startswith("0x") else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None


def binary_from_bigint(values: Values, _target: pa.DataType) -> Values:
    """Little-endian without leading zeros, empty for 0; negative integers do not fit."""
    return per_distinct(values, lambda number: _little_endian(int(cast("int", number))), pa.binary())


def _little_endian(number: int) -> bytes | None:
    return None if number < 0 else number.to_bytes((number.bit_length() + 7) // 8, "little")


def json_from_text(values: Values, _target: pa.DataType) -> Values:
    """Text that is JSON, written anew without spaces and escapes that are not needed; ``null`` becomes a null."""
    return per_distinct(values, lambda text: _compact(cast("str", text)), pa.string())


def _compact(text: str) -> str | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None

    if value is None:
        return None

    if _LONG_INTEGER.search(text):
        # orjson reads integers over 64 bits as floats; Python's reader keeps them.
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))

    return orjson.dumps(value).decode()


def is_json_null(values: Values) -> Values:
    """True where a text is JSON's ``null``, which says that there is no value."""
    return cast("Values", pc.match_substring_regex(values, "^[ \\t\\n\\r]*null[ \\t\\n\\r]*$"))
