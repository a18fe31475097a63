"""To bigint, double and bool: from text and from one another.

Text is cast by Arrow as a whole column. Where that refuses, a pattern picks the plain numbers and the rest goes to
Python's ``int`` and ``float``, each distinct value once: surrounding white space, ``1_000``, ``0x10``
and digits of other scripts are numbers, as in the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.normalize.coerce_lanes import (
    Values,
    everything,
    hexadecimal,
    int64_or_null,
    looks,
    per_distinct,
    split,
    where,
)

__all__ = [
    "bigint_from_double",
    "bigint_from_text",
    "bool_from_number",
    "bool_from_text",
    "double_from_number",
    "double_from_text",
    "fit_integer",
]

_INT64 = pa.int64()
_MAX_INT64 = 2**63 - 1

_PLAIN_INTEGER = r"^-?[0-9]{1,18}$"
_PLAIN_FLOAT = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?$"
# Letters that no number has: hex digits need an x before them, floats may be nan and infinity.
_NO_INTEGER = "[G-Zg-wyz]|^[^x]*[A-Fa-f][^x]*$"
_NO_FLOAT = "[GHJ-MO-SU-XZghj-mo-su-wz]"

_TRUTH = {"yes": True, "true": True, "t": True, "y": True, "1": True}
_TRUTH |= {"no": False, "false": False, "f": False, "n": False, "0": False}


def bigint_from_text(values: Values, _target: pa.DataType) -> Values:
    """Decimal or ``0x`` integers within 64 bits; no fractions, no exponents."""
    # Arrow reads 0X10 and even 0xffffffffffffffff as -1, Python does not.
    if looks(values, _PLAIN_INTEGER) and not _contains(values, "x") and not _contains(values, "X"):
        try:
            return values.cast(_INT64)
        except pa.ArrowInvalid:
            pass

    plain = pc.match_substring_regex(values, _PLAIN_INTEGER)

    return split(values, plain, _cast_int64, _slowly(_integer, _INT64, _NO_INTEGER))


def _cast_int64(values: Values) -> Values:
    return values.cast(_INT64)


def _integer(text: str) -> int | None:
    trimmed = text.strip()
    number = hexadecimal(trimmed) if trimmed.startswith("0x") else int(trimmed)

    return number if -_MAX_INT64 - 1 <= number <= _MAX_INT64 else None


def bigint_from_double(values: Values, _target: pa.DataType) -> Values:
    """Floats without a fraction and within 64 bits; NaN and the infinities do not fit."""
    # 2**63 itself is a float, and one too many: Arrow's own check lets it through.
    bounded = pc.and_(pc.greater_equal(values, -(2.0**63)), pc.less(values, 2.0**63))
    fits = pc.and_(bounded, pc.equal(pc.trunc(values), values))

    return (values if everything(fits) else where(fits, values)).cast(_INT64)


def double_from_text(values: Values, _target: pa.DataType) -> Values:
    """Whatever Python's ``float`` reads, ``nan`` and ``inf`` too, and ``0x`` integers."""
    # Arrow reads nan(1), Python does not.
    if looks(values, _PLAIN_FLOAT) and not _contains(values, "("):
        try:
            return values.cast(pa.float64())
        except pa.ArrowInvalid:
            pass

    plain = pc.match_substring_regex(values, _PLAIN_FLOAT)

    return split(values, plain, _cast_double, _slowly(_float, pa.float64(), _NO_FLOAT))


def _cast_double(values: Values) -> Values:
    return values.cast(pa.float64())


def _float(text: str) -> float:
    trimmed = text.strip()

    return float(hexadecimal(trimmed)) if trimmed.startswith("0x") else float(trimmed)


def double_from_number(values: Values, _target: pa.DataType) -> Values:
    """Integers and decimals to the nearest double."""
    if values.type == _INT64:
        # Not safe: beyond 2**53 neighbours share a double, as in the reference.
        return values.cast(pa.float64(), safe=False)

    # Arrow's decimal to double adds parts and may be one unit off; text is read to the nearest.
    return values.cast(pa.string()).cast(pa.float64())


def bool_from_text(values: Values, _target: pa.DataType) -> Values:
    """yes, true, t, y, 1 and no, false, f, n, 0 in any case; nothing is trimmed."""
    words = pa.array(list(_TRUTH), pa.string())
    found = pc.index_in(pc.ascii_lower(values), value_set=words)

    return cast("Values", pa.array(list(_TRUTH.values())).take(found))


def bool_from_number(values: Values, _target: pa.DataType) -> Values:
    """True for everything but zero: 0.5 and NaN too, as in the reference."""
    zero = Decimal(0) if pa.types.is_decimal(values.type) else 0

    return cast("Values", pc.not_equal(values, pa.scalar(zero, values.type)))


def fit_integer(values: Values, target: pa.DataType) -> Values:
    """Integers of any width within the range of ``target``."""
    narrow = int64_or_null(values)

    try:
        return narrow.cast(target)
    except pa.ArrowInvalid:
        back = narrow.cast(target, safe=False).cast(_INT64, safe=False)

    return where(pc.equal(back, narrow), narrow).cast(target)


def _contains(values: Values, part: str) -> bool:
    return cast("bool", pc.any(pc.match_substring(values, part), min_count=0).as_py())


def _slowly(read: Callable[[str], object], target: pa.DataType, never: str) -> Callable[[Values], Values]:
    def attempt(text: object) -> object:
        try:
            return read(cast("str", text))
        except (ValueError, OverflowError):
            return None

    return lambda values: per_distinct(values, attempt, target, never=never)
