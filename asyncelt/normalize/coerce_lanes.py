"""Lanes and the tools every coercion kernel shares.

A *lane* is one Arrow array of values of one kind with nulls where a row has no such value. A kernel takes a lane
and a target Arrow type and returns an array of the same length; a value that was there and is null in the result
did not fit. Nothing here loops over rows: Python sees each *distinct* value at most once, and only those that no
Arrow kernel can decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.types import DataType

__all__ = [
    "MICROSECOND",
    "MICROSECOND_UTC",
    "Chunked",
    "Kernel",
    "Values",
    "as_naive",
    "canonical",
    "everything",
    "first_valid",
    "floor_units",
    "hexadecimal",
    "int64_or_null",
    "looks",
    "merge",
    "nulls",
    "per_distinct",
    "plain",
    "same_unit",
    "split",
    "unit_of",
    "where",
    "zone_of",
]

Values: TypeAlias = "pa.Array[pa.Scalar[pa.DataType]]"
"""An Arrow array of values of one kind."""

Chunked: TypeAlias = "pa.ChunkedArray[pa.Scalar[pa.DataType]]"

Kernel: TypeAlias = Callable[["Values", pa.DataType], "Values"]
"""(lane, target type) to an array of the target type, null where a value does not fit."""

MICROSECOND = pa.timestamp("us")
MICROSECOND_UTC = pa.timestamp("us", tz="UTC")

_INT64 = pa.int64()
_WIDEST = pa.decimal256(76, 0)
_BATCH = 2_048
_NULLS: Final[dict[DataType, pa.DataType]] = {
    "bool": pa.bool_(),
    "bigint": _INT64,
    "double": pa.float64(),
    "binary": pa.binary(),
    "timestamp": MICROSECOND_UTC,
    "date": pa.date32(),
    "time": pa.time64("us"),
    "decimal": pa.decimal128(38, 9),
    "wei": _WIDEST,
}
"""The type of a lane that has nothing but nulls, and no type."""
_SAMPLES = 24
_PRIME = 7_919


def plain(values: Values | Chunked) -> Values:
    """One array, without chunks, dictionaries and runs; the same object where it already is that."""
    if not isinstance(values, pa.ChunkedArray):
        array = values
    elif values.num_chunks == 1:
        array = cast("Values", values.chunk(0))
    else:
        array = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)

    if pa.types.is_dictionary(array.type):
        return cast("Values", array.cast(array.type.value_type))

    if pa.types.is_run_end_encoded(array.type):
        return cast("Values", pc.run_end_decode(array))

    return array


def canonical(array: Values, source: DataType) -> Values:
    """A plain array in the type the kernels know; the same object where it already has it.

    Narrow integers and floats are widened, other text and binary layouts made the usual ones, timestamps and times
    brought to microseconds (nanoseconds cut off, towards the past). What does not fit these becomes null.
    """
    if pa.types.is_null(array.type):
        return nulls(array, _NULLS.get(source, pa.string()))

    wanted = _plain_type(array.type)

    if wanted is None or array.type == wanted:
        return array

    if pa.types.is_timestamp(wanted) and unit_of(array.type) == "ns":
        # Integer division by Arrow goes towards zero; a floor keeps times before 1970 in their microsecond.
        return floor_units(array, 1_000).view(wanted)

    if pa.types.is_time64(wanted):
        return array.cast(wanted, safe=False)

    return _cast_or_null(array, wanted)


def _plain_type(given: pa.DataType) -> pa.DataType | None:
    """The type that the kernels expect for a lane of type ``given``; None: as it is."""
    if pa.types.is_integer(given):
        return pa.decimal128(20, 0) if pa.types.is_uint64(given) else _INT64

    if pa.types.is_floating(given):
        return pa.float64()

    if pa.types.is_large_string(given) or pa.types.is_string_view(given):
        return pa.string()

    if pa.types.is_large_binary(given) or pa.types.is_binary_view(given) or pa.types.is_fixed_size_binary(given):
        return pa.binary()

    if pa.types.is_timestamp(given):
        return pa.timestamp("us", tz=given.tz)

    if pa.types.is_date(given):
        return pa.date32()

    if pa.types.is_time(given):
        return pa.time64("us")

    if pa.types.is_decimal32(given) or pa.types.is_decimal64(given):
        return pa.decimal128(38, given.scale)

    return None


def _cast_or_null(array: Values, wanted: pa.DataType) -> Values:
    """Cast; a value outside the range of ``wanted`` becomes null instead of failing the whole lane."""
    try:
        return array.cast(wanted)
    except pa.ArrowInvalid:
        scalars = [_cast_one(scalar, wanted) for scalar in array]

    return cast("Values", pa.array(scalars, wanted))


def _cast_one(scalar: pa.Scalar[pa.DataType], wanted: pa.DataType) -> object:
    try:
        return scalar.cast(wanted).as_py()
    except (pa.ArrowInvalid, OverflowError):
        return None


def floor_units(array: Values, factor: int) -> Values:
    """The 64-bit integers behind ``array`` divided by ``factor``, rounded towards the past."""
    raw = array.view(_INT64)
    quotient = pc.divide(raw, factor)
    behind = pc.and_(pc.less(raw, 0), pc.not_equal(pc.multiply(quotient, factor), raw))

    return cast("Values", pc.subtract(quotient, pc.cast(behind, _INT64)))


def everything(mask: object) -> bool:
    """Whether a boolean array is true wherever it is not null (also when it is empty)."""
    return cast("bool", pc.all(cast("pa.BooleanArray", mask), min_count=0).as_py())


def merge(mask: object, there: Values, elsewhere: Values) -> Values:
    """Values of ``there`` where ``mask`` is true, of ``elsewhere`` where it is false; null where it is null."""
    return cast("Values", pc.if_else(cast("pa.BooleanArray", mask), there, elsewhere))


def where(mask: object, values: Values) -> Values:
    """``values`` where ``mask`` is true, null elsewhere."""
    return cast("Values", pc.if_else(cast("pa.BooleanArray", mask), values, pa.scalar(None, values.type)))


def per_distinct(
    values: Values, convert: Callable[[object], object], target: pa.DataType, *, never: str | None = None
) -> Values:
    """``convert`` applied to each distinct value once, in Python; None means that the value does not fit.

    For text, numbers and bytes. Floats are told apart by their bits, so that 0.0 and -0.0 stay two values. Python
    gets the values in batches, between which other threads can run.

    Args:
        values: The lane.
        convert: Must not raise.
        target: Type of the result.
        never: For text: a pattern of values that cannot fit; they are not looked at.
    """
    if never is not None:
        values = where(pc.invert(pc.match_substring_regex(values, never)), values)

    is_float = pa.types.is_float64(values.type)
    encoded = (values.view(_INT64) if is_float else values).dictionary_encode()
    distinct = encoded.dictionary.view(pa.float64()) if is_float else encoded.dictionary
    batches = [
        pa.array([convert(value) for value in distinct.slice(start, _BATCH).to_pylist()], target)
        for start in range(0, len(distinct), _BATCH)
    ]

    converted: Values = pa.concat_arrays(batches) if batches else pa.array([], target)

    return converted.take(encoded.indices)


def split(values: Values, clean: object, fast: Callable[[Values], Values], slow: Callable[[Values], Values]) -> Values:
    """``fast`` for the values where ``clean`` is true, ``slow`` for the others, joined again.

    The side that has no value is not called.
    """
    if everything(clean):
        return fast(values)

    rest = slow(where(pc.invert(cast("pa.BooleanArray", clean)), values))

    if not pc.any(cast("pa.BooleanArray", clean), min_count=0).as_py():
        return rest

    return merge(clean, fast(where(clean, values)), rest)


def as_naive(values: Values) -> Values:
    """A timestamp lane without its zone, in UTC, without a copy."""
    return values if zone_of(values.type) is None else values.view(pa.timestamp(unit_of(values.type)))


def unit_of(kind: pa.DataType) -> Literal["s", "ms", "us", "ns"]:
    """The unit of a timestamp type."""
    return cast("pa.TimestampType[Literal['us'], str]", kind).unit


def same_unit(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether both are timestamps of the same unit; their zones may differ."""
    return pa.types.is_timestamp(one) and pa.types.is_timestamp(other) and unit_of(one) == unit_of(other)


def zone_of(kind: pa.DataType) -> str | None:
    """The zone of a timestamp type."""
    return cast("pa.TimestampType[Literal['us'], str]", kind).tz


def looks(values: Values, *patterns: str) -> str | None:
    """The first pattern that a few values, spread over a text lane, all match; None where there is none.

    Tells whether trying a cast of the whole lane is worth it: a cast does not stop at the first text it refuses, and
    refusing all of them takes a hundred times as long as reading them.
    """
    rows = len(values)
    # Strides of a large prime: rows that alternate in any regular way are all met.
    picked = {number * _PRIME % rows for number in range(_SAMPLES)} if rows else set()
    sample = cast("pa.StringArray", values.take(pa.array(sorted(picked), _INT64)).drop_null()).to_pylist()

    return next((pattern for pattern in patterns if all(map(_whole(pattern), cast("list[str]", sample)))), None)


@lru_cache(maxsize=64)
def _whole(pattern: str) -> Callable[[str], object]:
    # For a few short texts Python's own expressions are far quicker than a kernel, which compiles its own each time.
    return re.compile(pattern).fullmatch


def first_valid(values: Values) -> int | None:
    """Index of the first value that is not null."""
    if values.null_count == 0:
        return 0 if len(values) else None

    if values.null_count == len(values):
        return None

    # New columns of wide pages are asked one by one: their bits are one large number, so no kernel is called for each.
    start, inside = divmod(values.offset, 8)
    bits = int.from_bytes(memoryview(cast("Any", values.buffers()[0]))[start:], "little") >> inside

    return (bits & -bits).bit_length() - 1


def int64_or_null(values: Values) -> Values:
    """A lane of integers as int64; wider ones that do not fit become null."""
    if values.type == _INT64:
        return values

    low, high = Decimal(-(2**63)), Decimal(2**63 - 1)
    fits = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))

    return where(fits, values).cast(_INT64)


def hexadecimal(text: str) -> int:
    """The integer after ``0x``.

    Not with base 0: that refuses ``0x-10`` and ``0x 10``, which the reference reads.
    """
    return int(text[2:], 16)  # noqa: FURB166


def nulls(values: Values, target: pa.DataType) -> Values:
    """As many nulls of type ``target`` as there are values."""
    # The stubs list each type by itself; any of them will do.
    return cast("Values", pa.nulls(len(values), cast("pa.lib.NullType", target)))
