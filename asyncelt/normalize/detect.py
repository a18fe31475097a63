"""Type detection: the data type that the first value of a new column suggests beyond its own.

The schema names its detections (``settings.detections``, by default ``iso_timestamp`` only); the first that
recognises the value decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Final

from asyncelt.errors import SchemaError
from asyncelt.normalize.iso import parse_iso
from asyncelt.types import DataType

__all__ = ["DETECTIONS", "detect"]

_FIVE_YEARS_S: Final = 5 * 365 * 86_400.0
_MAX_INT64: Final = 2**63 - 1
_MAX_WEI: Final = 578_960_446_186_580_977_117_854_925_043_439_539_266

Detection = Callable[[object, DataType, float], DataType | None]


def detect(value: object, data_type: DataType, detections: Sequence[str], now: float) -> DataType | None:
    """The type that the detections see in ``value``, or None when none of them recognises it.

    Args:
        value: The first value of the column as it came, before any conversion.
        data_type: The type it has by itself.
        detections: Names from :data:`DETECTIONS`, in order.
        now: Unix seconds; ``timestamp`` takes numbers within five years of it. The reference uses the start of the
            process, so pass the same number for all pages of a run.

    Raises:
        SchemaError: A detection of this name does not exist.
    """
    for name in detections:
        found = _find(name)(value, data_type, now)

        if found is not None:
            return found

    return None


def _find(name: str) -> Detection:
    try:
        return DETECTIONS[name]
    except KeyError as error:
        raise SchemaError(
            f"The schema asks for the type detection {name!r}, which does not exist; "
            f"it can be one of {sorted(DETECTIONS)}."
        ) from error


def _timestamp(value: object, _data_type: DataType, now: float) -> DataType | None:
    """Unix seconds near the present."""
    # By the exact type: a bool is an int too.
    number = value if isinstance(value, int | float) and type(value) in (int, float) else math.nan

    return "timestamp" if now - _FIVE_YEARS_S <= number <= now + _FIVE_YEARS_S else None


def _iso_timestamp(value: object, _data_type: DataType, _now: float) -> DataType | None:
    """Text with a date and a time."""
    return "timestamp" if isinstance(value, str) and isinstance(parse_iso(value), datetime) else None


def _iso_date(value: object, _data_type: DataType, _now: float) -> DataType | None:
    """Text with a date only."""
    parsed = parse_iso(value) if isinstance(value, str) else None

    return "date" if isinstance(parsed, date) and not isinstance(parsed, datetime) else None


def _large_integer(value: object, _data_type: DataType, _now: float) -> DataType | None:
    """Integers over 64 bits; the positive ones only, as in the reference."""
    if not isinstance(value, int) or value <= _MAX_INT64:
        return None

    return "text" if value > _MAX_WEI else "wei"


def _hexbytes_to_text(value: object, _data_type: DataType, _now: float) -> DataType | None:
    """Bytes of a class named HexBytes, whichever library it is from."""
    return "text" if any(base.__name__ == "HexBytes" for base in type(value).__mro__) else None


def _wei_to_double(_value: object, data_type: DataType, _now: float) -> DataType | None:
    return "double" if data_type == "wei" else None


DETECTIONS: Final[dict[str, Detection]] = {
    "timestamp": _timestamp,
    "iso_timestamp": _iso_timestamp,
    "iso_date": _iso_date,
    "large_integer": _large_integer,
    "hexbytes_to_text": _hexbytes_to_text,
    "wei_to_double": _wei_to_double,
}
"""By the names that a schema uses."""
