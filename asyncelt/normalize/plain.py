"""Python objects as plain values: dicts, lists, and the scalars that have a column type.

The rules are those of the reference's serializer: what it writes as an object is a dict here, what it writes as a
string is a str, and what it refuses is refused. Values are unwrapped one level at a time, by whoever meets them.
"""

from __future__ import annotations

import dataclasses
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final, cast
from uuid import UUID

import msgspec
import orjson

from asyncelt.schema.naming import key_text

__all__ = ["SCALARS", "json_text", "plain", "typed_json", "unwrap"]

SCALARS: Final = frozenset({str, int, float, bool, type(None), Decimal, datetime, date, time, bytes})
"""Exact types that need no unwrapping and are no containers."""

_JSON_OPTIONS: Final = orjson.OPT_NON_STR_KEYS
_TYPED_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_SORT_KEYS

# The reference marks values that JSON cannot carry with one private-use character; its hashed ids include the mark.
_MARKS: Final = "\uf026\uf027\uf028\uf029\uf02a\uf02b\uf02c\uf02d"


def unwrap(value: object) -> object:
    """One level of ``value`` as a dict, a list or one of `SCALARS`.

    Raises:
        TypeError: The value is of a type that no column can hold.
    """
    kind = type(value)

    if kind in SCALARS or kind is dict or kind is list:
        return value

    for base, convert in _UNWRAPPERS:
        if isinstance(value, base):
            return convert(value)

    if hasattr(value, "__attrs_attrs__"):
        return {item.name: getattr(value, item.name) for item in value.__attrs_attrs__}

    if callable(getattr(value, "asdict", None)):
        return unwrap(value.asdict())  # type: ignore[attr-defined]

    if callable(getattr(value, "model_dump", None)):
        return unwrap(value.model_dump(by_alias=True))  # type: ignore[attr-defined]

    if dataclasses.is_dataclass(value):
        # As the reference's serializer has it: private fields stay out.
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not f.name.startswith("_")}

    return _foreign_scalar(value)


def plain(value: object) -> object:
    """``value`` and everything in it as dicts with text keys, lists and `SCALARS`."""
    value = unwrap(value)

    if type(value) is dict:
        return {key_text(key): plain(item) for key, item in value.items()}

    if type(value) is list:
        return [plain(item) for item in value]

    return value


def json_text(value: object) -> str:
    """``value`` as the text of a ``json`` column.

    Raises:
        TypeError: Something in it cannot be said in JSON.
    """
    try:
        return orjson.dumps(value, default=_json_default, option=_JSON_OPTIONS).decode()
    except TypeError:
        # Integers over 64 bits, unpaired surrogates: slower, and kept.
        try:
            return _slow_json(plain(value))
        except RecursionError:
            raise TypeError("values that hold themselves, or are nested too deeply, have no column type") from None


def typed_json(value: object) -> bytes:
    """The bytes over which the reference hashes row ids: sorted keys, marks for the types that JSON lacks."""
    return orjson.dumps(value, default=_typed_default, option=_TYPED_OPTIONS)


def _slow_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json_default)


def _json_default(value: object) -> object:
    match value:
        case Decimal():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return _base64(value)
        case _:
            return _other(value)


def _typed_default(value: object) -> object:
    match value:
        case Decimal():
            return _MARKS[0] + str(value)
        case datetime():
            return _MARKS[1] + value.isoformat()
        case date():
            return _MARKS[2] + value.isoformat()
        case time():
            return _MARKS[7] + value.isoformat()
        case bytes():
            return _MARKS[5] + _base64(value)
        case _:
            return _other(value)


def _other(value: object) -> object:
    found = unwrap(value)

    if found is value:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")

    return found


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _tuple(value: tuple[object, ...]) -> object:
    as_dict = getattr(value, "_asdict", None)

    return as_dict() if callable(as_dict) else list(value)


def _datetime(value: datetime) -> datetime | None:
    # A missing time of pandas is a datetime that is not equal to itself.
    if value != value:  # noqa: PLR0124
        return None

    to_python = getattr(value, "to_pydatetime", None)

    return cast("datetime", to_python(warn=False)) if callable(to_python) else value


def _foreign_scalar(value: object) -> object:
    """Scalars and arrays of numpy, the missing value of pandas; known by their module, so that nothing is imported."""
    module = type(value).__module__.partition(".")[0]

    if module == "numpy":
        return unwrap(_of_numpy(value))

    if module == "pandas" and type(value).__name__ in {"NAType", "NaTType"}:
        return None

    raise TypeError(f"values of type {type(value).__name__} have no column type; convert them in a step (add_map)")


def _of_numpy(value: Any) -> object:
    kind = type(value).__name__

    if kind == "datetime64":
        return _numpy_time(value)

    if kind == "longdouble":
        return float(value)

    if kind == "ndarray" and value.dtype.kind == "M":
        return list(value)

    convert = getattr(value, "item", None) if getattr(value, "ndim", 0) == 0 else getattr(value, "tolist", None)
    found = convert() if callable(convert) else value

    if type(found) is type(value):
        raise TypeError(f"values of type {kind} have no column type; convert them in a step (add_map)")

    return found


def _numpy_time(value: Any) -> object:
    """A time to the microsecond: numpy makes numbers of finer ones, and of those that Python's calendar lacks."""
    found = value.item()
    found = value.astype("datetime64[us]").item() if type(found) is int else found

    if type(found) is int:
        raise TypeError(f"the time {value} is outside of the years 1 to 9999")

    return cast(object, found)


def _same(value: object) -> object:
    return value


_UNWRAPPERS: Final[Sequence[tuple[type, Callable[..., object]]]] = (
    (Enum, lambda value: unwrap(value.value)),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (Decimal, _same),
    (datetime, _datetime),
    (date, _same),
    (time, _same),
    (UUID, str),
    (bytes, bytes),
    (bytearray, bytes),
    (memoryview, bytes),
    (dict, dict),
    (list, list),
    (tuple, _tuple),
    (msgspec.Struct, msgspec.structs.asdict),
    (Mapping, dict),
)
