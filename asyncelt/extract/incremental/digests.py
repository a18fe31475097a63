"""Digests of rows, as the reference keeps them in the state."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import orjson

__all__ = ["digest", "is_legacy", "legacy_digest", "number_of"]

_DIGEST_BYTES = 9
_LEGACY_BYTES = 15
_LEGACY_LENGTH = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS


def digest(value: object) -> str:
    """Digest of a row or of its key. One instant is one digest, whatever zone it is written in."""
    return _shortened(_dumped(value, _encode_instants, _OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME), _DIGEST_BYTES)


def legacy_digest(value: object) -> str:
    """As releases of the reference before 1.29 have written it."""
    return _shortened(_dumped(value, _encode, _OPTIONS | orjson.OPT_UTC_Z), _LEGACY_BYTES)


def is_legacy(hashes: Iterable[str]) -> bool:
    """Whether stored digests are of the older kind."""
    return any(len(item) == _LEGACY_LENGTH for item in hashes)


def number_of(text: str) -> int:
    """A digest as a number, to be added up."""
    return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4)))


def _shortened(content: bytes, length: int) -> str:
    return base64.b64encode(hashlib.shake_128(content).digest(length)).decode("ascii").rstrip("=")


def _dumped(value: object, encode: Callable[[Any], object], options: int) -> bytes:
    try:
        return orjson.dumps(value, default=encode, option=options)
    except (TypeError, orjson.JSONEncodeError):
        # Integers beyond 64 bits and lone surrogates. The reference has no digest for them that ours could differ from.
        return json.dumps(value, default=encode, sort_keys=True, separators=(",", ":")).encode()


def _encode_instants(value: Any) -> object:
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)

        return (aware - _EPOCH) // _MICROSECOND

    return _encode(value)


def _encode(value: Any) -> object:
    if isinstance(value, Decimal | UUID):
        return str(value)

    if isinstance(value, datetime | date | time):
        return value.isoformat()

    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")

    for method in ("asdict", "_asdict", "model_dump"):
        if hasattr(value, method):
            return getattr(value, method)()

    if isinstance(value, Enum):
        return value.value

    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)

    return msgspec.to_builtins(value, enc_hook=str)
