"""The pipeline state document: defaults, version and hash, and the text that a dataset keeps.

Stored is base64(zlib(typed JSON)) without the ``_local`` part. Typed JSON is JSON in which values of other types are
strings that begin with a private-use character, one per type, so that they come back as what they were.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import math
import os
import zlib
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import orjson

from asyncelt.errors import ConfigError, StorageError

__all__ = [
    "LOCAL_KEY",
    "STATE_ENGINE_VERSION",
    "HexBytes",
    "StateDoc",
    "Wei",
    "bump_state",
    "decode_state",
    "decode_typed_json",
    "default_state",
    "encode_state",
    "encode_typed_json",
    "migrate_state",
    "state_hash",
    "state_row_values",
]

StateDoc: TypeAlias = dict[str, Any]
"""A state document. Values are the user's: anything that typed JSON can say."""

STATE_ENGINE_VERSION: Final = 4
LOCAL_KEY: Final = "_local"
UNHASHED: Final = frozenset({"_state_version", "_state_engine_version", "_version_hash", LOCAL_KEY})
ROW_ID_BYTES: Final = 10
FIRST_MARK: Final = 0xF026


class HexBytes(bytes):
    """Bytes that are written in hexadecimal form, so that stored values keep their form and the state its hash."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> HexBytes:
        """From digits with or without ``0x``."""
        return cls(bytes.fromhex(text.removeprefix("0x").removeprefix("0X")))


class Wei(Decimal):
    """An integer beyond 64 bits, told apart from a decimal in stored values."""

    __slots__ = ()


def _datetime(text: str) -> datetime:
    return datetime.fromisoformat(text)


DECODERS: Final[tuple[Callable[[str], object], ...]] = (
    Decimal,
    _datetime,
    date.fromisoformat,
    UUID,
    HexBytes.parse,
    base64.b64decode,
    Wei,
    time.fromisoformat,
)
"""By mark, counted from `FIRST_MARK`. The order is the stored format."""
_DECIMAL, _DATETIME, _DATE, _UUID, _HEX, _BASE64, _WEI, _TIME = (chr(FIRST_MARK + i) for i in range(len(DECODERS)))


def default_state(pipeline_name: str, initial_cwd: str = "") -> StateDoc:
    """The state of a pipeline that has never run."""
    return {
        "_state_version": 0,
        "_state_engine_version": STATE_ENGINE_VERSION,
        "pipeline_name": pipeline_name,
        LOCAL_KEY: {"first_run": True, "_dev_mode": False, "initial_cwd": initial_cwd},
    }


def encode_state(doc: Mapping[str, Any]) -> str:
    """The stored text of a state document.

    Raises:
        ConfigError: A value cannot be stored; the message names its path and type.
    """
    shared = {key: value for key, value in doc.items() if key != LOCAL_KEY}

    return base64.b64encode(zlib.compress(encode_typed_json(shared), level=9)).decode("ascii")


def decode_state(text: str) -> StateDoc:
    """The document of a stored text, which may also be plain typed JSON. Has no ``_local`` part.

    Raises:
        StorageError: The text is damaged.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = text.encode()
    else:
        try:
            content = zlib.decompress(packed)
        except zlib.error as error:
            raise StorageError(f"A stored pipeline state cannot be unpacked: {error}") from error

    try:
        document = decode_typed_json(content)
    except orjson.JSONDecodeError as error:
        raise StorageError(f"A stored pipeline state is not JSON: {error}") from error

    if not isinstance(document, dict):
        raise StorageError(f"A stored pipeline state is a JSON object, not {type(document).__name__}.")

    return document


def state_hash(doc: Mapping[str, Any]) -> str:
    """Hash of what a state says, without its versions and its local part.

    Raises:
        ConfigError: A value cannot be stored.
    """
    content = {key: value for key, value in doc.items() if key not in UNHASHED}

    return base64.b64encode(hashlib.sha3_256(encode_typed_json(content, sort_keys=True)).digest()).decode("ascii")


def bump_state(doc: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> StateDoc:
    """A copy with hash and version brought up to date.

    The version is one more than the previous one's when the content has changed. The first hash that a pipeline gets
    does not count as a change.

    Args:
        doc: The document as it is now.
        previous: As it was when its version was last right; None: ``doc`` itself carries the version and hash of then.

    Raises:
        ConfigError: A value cannot be stored.
    """
    base = doc if previous is None else previous
    version = int(base.get("_state_version", 0))
    now, before = state_hash(doc), base.get("_version_hash")

    return {**doc, "_state_version": version + 1 if before and before != now else version, "_version_hash": now}


def migrate_state(doc: StateDoc) -> StateDoc:
    """A document of an older engine in today's form.

    Raises:
        StorageError: It is of a newer engine.
    """
    engine = int(doc.get("_state_engine_version", 1))
    moved = dict(doc)

    if engine > STATE_ENGINE_VERSION:
        raise StorageError(
            f"The state of pipeline {doc.get('pipeline_name')!r} is of engine version {engine}; this release reads "
            f"up to {STATE_ENGINE_VERSION}. Update the library."
        )

    if engine < 2:
        moved.setdefault(LOCAL_KEY, {})

    if engine < 3:
        moved["_version_hash"] = state_hash(moved)

    for kind in ("destination", "staging"):
        if engine < STATE_ENGINE_VERSION and moved.get(kind):
            moved[f"{kind}_type"] = moved.pop(kind)
            moved[f"{kind}_name"] = None

        used = moved.get(f"{kind}_type")

        # A name is kept only where it says more than the type.
        if used and str(used).rpartition(".")[2] == moved.get(f"{kind}_name"):
            moved[f"{kind}_name"] = None

    return {**moved, "_state_engine_version": STATE_ENGINE_VERSION}


def state_row_values(
    doc: Mapping[str, Any], load_id: str, created_at: datetime, row_id: str | None = None
) -> dict[str, object]:
    """The row that stores a state, by column name in physical order.

    Args:
        doc: A document that went through `bump_state`.
        load_id: Package the row belongs to.
        created_at: Time of the row, with a zone.
        row_id: Its ``_dlt_id``; None: a random one, as rows that are appended have.

    Raises:
        ConfigError: A value cannot be stored.
    """
    return {
        "version": doc["_state_version"],
        "engine_version": doc["_state_engine_version"],
        "pipeline_name": doc["pipeline_name"],
        "state": encode_state(doc),
        "created_at": created_at,
        "version_hash": doc["_version_hash"],
        "_dlt_load_id": load_id,
        "_dlt_id": row_id or base64.b64encode(os.urandom(ROW_ID_BYTES)).decode("ascii").rstrip("="),
    }


def encode_typed_json(value: object, *, sort_keys: bool = False) -> bytes:
    """JSON with marked strings for decimals, dates, times and bytes.

    Raises:
        ConfigError: A value has no JSON form, is an integer beyond 64 bits, or a float that is not a number.
    """
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | (orjson.OPT_SORT_KEYS if sort_keys else 0)

    try:
        content = orjson.dumps(value, default=_encode, option=options)
    except (TypeError, orjson.JSONEncodeError) as error:
        path, culprit = _culprit(value, "state")
        raise ConfigError(f"{path} cannot be stored: {_excerpt(culprit)} ({error}).") from error

    # JSON has no word for infinities and NaN; the encoder would write null and the value be lost.
    if b"null" in content and (lost := _not_a_number(value, "state")):
        raise ConfigError(f"{lost} cannot be stored: it is a float without a value (NaN or infinite).")

    return content


def decode_typed_json(content: bytes) -> object:
    """The value of typed JSON. A marked string that does not parse stays a string."""
    return _decode(orjson.loads(content))


def _encode(value: Any) -> object:
    encoded = _encode_simple(value)

    if encoded is not None:
        return encoded

    for method in ("asdict", "_asdict"):
        if hasattr(value, method):
            return getattr(value, method)()

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)

    dump = getattr(value, "model_dump", None)

    if dump is not None:
        return cast("object", dump(by_alias=True))

    raise TypeError(f"{type(value).__name__} has no JSON form")


def _encode_simple(value: object) -> str | None:
    if isinstance(value, Decimal):
        return (_WEI if isinstance(value, Wei) else _DECIMAL) + str(value)

    if isinstance(value, datetime):
        return _DATETIME + value.isoformat()

    if isinstance(value, date):
        return _DATE + value.isoformat()

    if isinstance(value, time):
        return _TIME + value.isoformat()

    if isinstance(value, UUID):
        return _UUID + str(value)

    if isinstance(value, HexBytes):
        return f"{_HEX}0x{value.hex()}"

    if isinstance(value, bytes):
        return _BASE64 + base64.b64encode(value).decode("ascii")

    return None


def _decode(value: object) -> object:
    if isinstance(value, str):
        # A mark alone is text, but for bytes it is what no bytes at all look like.
        mark = ord(value[0]) - FIRST_MARK if len(value) > 1 or value == _BASE64 else -1

        if not 0 <= mark < len(DECODERS):
            return value

        try:
            return DECODERS[mark](value[1:])
        except (ValueError, ArithmeticError):
            return value

    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}

    if isinstance(value, list):
        return [_decode(item) for item in value]

    return value


def _culprit(value: object, path: str) -> tuple[str, object]:
    """The innermost value that cannot be encoded, and where it is."""
    items: list[tuple[object, object]] = []

    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))

    for key, item in items:
        try:
            orjson.dumps(
                {key: item} if isinstance(value, Mapping) else item,
                default=_encode,
                option=orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME,
            )
        except TypeError:
            return _culprit(item, f"{path}[{key!r}]")

    return path, value


def _not_a_number(value: object, path: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else path

    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )

    return next((found for key, item in items if (found := _not_a_number(item, f"{path}[{key!r}]"))), None)


def _excerpt(value: object) -> str:
    text = repr(value)

    return f"{type(value).__name__} {text[:80]}{'…' if len(text) > 80 else ''}"
