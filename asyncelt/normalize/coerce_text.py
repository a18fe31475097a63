"""To text: every kind of value in the form that the reference writes.

Numbers look as Python prints them, times are ISO, booleans ``True`` and ``False``, bytes base64. JSON is text
already and passes unchanged.
"""

from __future__ import annotations

import base64
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.normalize.coerce_lanes import Values, as_naive, everything, per_distinct, split, zone_of

__all__ = [
    "text_from_binary",
    "text_from_bool",
    "text_from_date",
    "text_from_double",
    "text_from_number",
    "text_from_time",
    "text_from_timestamp",
]

_TEXT = pa.string()
_INT64 = pa.int64()
_SECOND_US = 1_000_000


def text_from_bool(values: Values, _target: pa.DataType) -> Values:
    """``True`` and ``False``."""
    return cast("Values", pc.if_else(cast("pa.BooleanArray", values), "True", "False"))


def text_from_number(values: Values, _target: pa.DataType) -> Values:
    """Integers and decimals; a decimal shows all places of its lane's scale, as Python's ``str`` does."""
    return values.cast(_TEXT)


def text_from_double(values: Values, _target: pa.DataType) -> Values:
    """Floats as Python's ``str``: ``1.0``, ``1e+16``, ``1e-05``, ``nan``, ``-inf``."""
    size = pc.abs(values)
    # Between these bounds Arrow writes the same digits without an exponent, as Python does.
    plain = pc.or_(pc.equal(values, 0.0), pc.and_(pc.greater_equal(size, 1e-4), pc.less(size, 1e10)))

    return split(values, plain, _plain_floats, _other_floats)


def _plain_floats(values: Values) -> Values:
    text = values.cast(_TEXT)
    fractional = pc.match_substring(text, ".")

    if everything(fractional):
        return text

    return cast("Values", pc.if_else(fractional, text, pc.binary_join_element_wise(text, ".0", "")))


def _other_floats(values: Values) -> Values:
    size = pc.abs(values)
    whole = pc.and_(pc.and_(pc.greater_equal(size, 1e10), pc.less(size, 1e16)), pc.equal(pc.trunc(values), values))
    # Exponents of two digits, and nan and inf, look the same in both.
    same = pc.or_(pc.or_(pc.greater_equal(size, 1e16), pc.less(size, 1e-9)), pc.is_nan(values))

    def integers(part: Values) -> Values:
        return cast("Values", pc.binary_join_element_wise(part.cast(_INT64).cast(_TEXT), ".0", ""))

    def slowly(part: Values) -> Values:
        return per_distinct(part, str, _TEXT)

    return split(values, same, lambda part: part.cast(_TEXT), lambda part: split(part, whole, integers, slowly))


def text_from_binary(values: Values, _target: pa.DataType) -> Values:
    """Base64, standard alphabet, padded."""
    return per_distinct(values, lambda data: base64.b64encode(cast("bytes", data)).decode("ascii"), _TEXT)


def text_from_date(values: Values, _target: pa.DataType) -> Values:
    """``2024-01-31``."""
    return values.cast(_TEXT)


def text_from_time(values: Values, _target: pa.DataType) -> Values:
    """``10:30:00``, with six digits of fraction where there is one."""
    raw = values.view(_INT64)

    return split(
        values, _whole_seconds(raw), lambda part: _clipped(part, len("10:30:00")), lambda part: part.cast(_TEXT)
    )


def text_from_timestamp(values: Values, _target: pa.DataType) -> Values:
    """``2024-01-31T10:30:00+00:00``, with six digits of fraction where there is one; no offset where there is no zone.

    A lane whose zone is not UTC shows the local time with the offset of that moment.
    """
    zone = zone_of(values.type)
    local = as_naive(values) if zone in (None, "UTC") else cast("Values", pc.local_timestamp(values))
    raw = local.view(_INT64)
    text = split(local, _whole_seconds(raw), lambda part: _clipped(part, len("2024-01-31T10:30:00")), _cast_text)
    iso = pc.utf8_replace_slice(text, start=10, stop=11, replacement="T")

    if zone is None:
        return cast("Values", iso)

    offsets = pa.scalar("+00:00") if zone == "UTC" else _offsets(raw, values.view(_INT64))

    return cast("Values", pc.binary_join_element_wise(iso, offsets, ""))


def _whole_seconds(raw: Values) -> Values:
    return cast("Values", pc.equal(pc.multiply(pc.divide(raw, _SECOND_US), _SECOND_US), raw))


def _cast_text(values: Values) -> Values:
    return values.cast(_TEXT)


def _clipped(values: Values, length: int) -> Values:
    """Arrow always writes six digits; the reference none where they are zero."""
    return cast("Values", pc.utf8_slice_codeunits(values.cast(_TEXT), 0, length))


def _offsets(local: Values, utc: Values) -> Values:
    seconds = cast("Values", pc.divide(pc.subtract(local, utc), _SECOND_US))

    return per_distinct(seconds, lambda value: _offset(cast("int", value)), _TEXT)


def _offset(seconds: int) -> str:
    minutes, rest = divmod(abs(seconds), 60)
    sign = "-" if seconds < 0 else "+"

    return f"{sign}{minutes // 60:02}:{minutes % 60:02}" + (f":{rest:02}" if rest else "")
