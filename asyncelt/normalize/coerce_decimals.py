"""To decimal and wei, and the arithmetic of scales that Arrow's own casts get wrong.

Three things of Arrow's decimals are avoided on purpose, each was seen to give wrong digits or worse: rounding and
rescaling by more than nine places at once (long division), raising the scale of a value that then has too many
digits (the overflow is not seen), and casting unchecked text (long exponents and fractions read outside of tables).
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.normalize.coerce_lanes import Values, everything, hexadecimal, int64_or_null, per_distinct, split, where

__all__ = [
    "bigint_from_decimal",
    "decimal_from_bigint",
    "decimal_from_double",
    "decimal_from_text",
    "fit_decimal",
    "held",
]

_DIGITS = 76
_SCALE = 37
_NO_DECIMAL = "[G-Zg-wyz]"
"""Letters that no finite decimal and no hex integer has."""
_STEP = 9
"""Places that a scale is lowered by at once: the divisor is one machine word."""

# Digits that decimal256(76, 37) can hold, plain or with a small exponent.
_HELD = r"^[+-]?(?:[0-9]{1,38}(?:\.[0-9]{0,37})?|[0-9](?:\.[0-9]{0,17})?[eE][+-]?[01]?[0-9])$"


def decimal_from_text(values: Values, target: pa.DataType) -> Values:
    """Whatever Python's ``Decimal`` reads, and ``0x`` integers; NaN and the infinities do not fit.

    More digits after the point than ``target`` has are rounded, see :func:`fit_decimal`.
    """

    def plain(part: Values) -> Values:
        return fit_decimal(part.cast(pa.decimal256(_DIGITS, _SCALE)), target)

    def slowly(part: Values) -> Values:
        return per_distinct(part, lambda text: _rounded(cast("str", text), target), target, never=_NO_DECIMAL)

    def inexact(part: Values) -> Values:
        return split(part, pc.match_substring_regex(part, _HELD), plain, slowly)

    return split(values, pc.match_substring_regex(values, _exact(target)), lambda part: part.cast(target), inexact)


def _exact(target: pa.DataType) -> str:
    """The pattern of texts that need no rounding and cannot have too many digits."""
    precision, scale = _digits(target)
    whole = precision - scale

    return rf"^[+-]?[0-9]{{1,{whole}}}(?:\.[0-9]{{0,{scale}}})?$" if whole > 0 else "^0$"


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Precision and scale."""
    decimal = cast("pa.Decimal256Type[int, int]", kind)

    return decimal.precision, decimal.scale


def _rounded(text: str, target: pa.DataType) -> Decimal | None:
    trimmed = text.strip()

    try:
        number = Decimal(hexadecimal(trimmed)) if trimmed.startswith("0x") else Decimal(trimmed)

        return _quantized(number, target)
    except (ValueError, InvalidOperation):
        return None


def held(digits: str, target: pa.DataType) -> Decimal | None:
    """The number that ``digits`` say, where ``target`` holds it exactly."""
    number = Decimal(digits)
    quantized = _quantized(number, target)

    return quantized if quantized == number else None


def _quantized(number: Decimal, target: pa.DataType) -> Decimal | None:
    """Rounded to the scale of ``target``, None where it then has too many digits or is not finite."""
    if not number.is_finite():
        return None

    precision, scale = _digits(target)

    try:
        return number.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, Context(prec=precision))
    except InvalidOperation:
        return None


def decimal_from_bigint(values: Values, target: pa.DataType) -> Values:
    """Integers to decimals; those with too many digits do not fit."""
    return fit_decimal(values.cast(pa.decimal128(19, 0)) if values.type == pa.int64() else values, target)


def decimal_from_double(values: Values, target: pa.DataType) -> Values:
    """Floats by their shortest text (0.1 stays 0.1), as in the reference; NaN and the infinities do not fit."""
    finite = pc.is_finite(values)

    return decimal_from_text((values if everything(finite) else where(finite, values)).cast(pa.string()), target)


def fit_decimal(values: Values, target: pa.DataType) -> Values:
    """Decimals with the precision and scale of ``target``.

    Digits beyond the scale are rounded, ties away from zero: what DuckDB's cast does when the reference loads such
    a value. A value that then has more digits than the precision does not fit.
    """
    if values.type == target:
        return values

    given_precision, given_scale = _digits(values.type)
    precision, scale = _digits(target)

    if given_scale <= scale and given_precision - given_scale <= precision - scale:
        return values.cast(target)

    if given_scale > scale and precision >= _DIGITS - 1:
        # Rounding up could need a 77th digit, which Arrow does not notice.
        return per_distinct(values, lambda number: _quantized(cast("Decimal", number), target), target)

    return _narrowed(values, target)


def _narrowed(values: Values, target: pa.DataType) -> Values:
    _, given_scale = _digits(values.type)
    precision, scale = _digits(target)
    whole = precision - scale
    number = _widest(values)

    if given_scale > scale:
        # Towards zero up to one place more than wanted: that place alone decides the rounding.
        number = _limited(_cut(number, scale + 1), whole)
        number = cast("Values", pc.round(number, scale, round_mode="half_towards_infinity"))

    return _limited(_cut(number, scale), whole).cast(target)


def _widest(values: Values) -> Values:
    _, scale = _digits(values.type)

    return cast("Values", values.cast(pa.decimal256(_DIGITS, scale)))


def _limited(number: Values, whole: int) -> Values:
    """Null what has more than ``whole`` digits before the point."""
    _, scale = _digits(number.type)

    # A limit that the type itself cannot hold excludes nothing.
    if whole + scale >= _DIGITS:
        return number

    return where(pc.less(pc.abs(number), pa.scalar(Decimal(1).scaleb(whole), number.type)), number)


def _cut(values: Values, scale: int) -> Values:
    """decimal256 values without the places beyond ``scale``."""
    _, given = _digits(values.type)

    for lower in (*range(given - _STEP, scale, -_STEP), scale):
        if lower < given:
            values = cast("Values", values.cast(pa.decimal256(_DIGITS, lower), safe=False))

    return values


def bigint_from_decimal(values: Values, _target: pa.DataType) -> Values:
    """Decimals without a fraction and within 64 bits."""
    number = _widest(values)
    whole = _cut(number, 0)

    return int64_or_null(where(pc.equal(whole.cast(number.type), number), whole))
