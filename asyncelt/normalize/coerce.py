"""Coercion: values of one data type to a column of another, whole columns at a time.

:func:`coerce` is the matrix of the reference (``coerce_value``), value by value the same except for what
:data:`DEPARTURES` lists. The kernels stand in the modules ``coerce_*`` beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, cast

import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import SchemaError
from asyncelt.normalize import (
    coerce_blobs as blobs,
    coerce_decimals as decimals,
    coerce_numbers as numbers,
    coerce_text as text,
    coerce_times as times,
)
from asyncelt.normalize.coerce_lanes import (
    Chunked,
    Kernel,
    Values,
    canonical,
    nulls,
    per_distinct,
    plain,
    same_unit,
    unit_of,
)
from asyncelt.types import DataType

__all__ = ["DEPARTURES", "Coerced", "coerce", "parse_timestamps"]

parse_timestamps = times.parse_timestamps

DEPARTURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "non-finite floats": "NaN and the infinities stay in double columns; the reference writes null.",
        "non-finite decimals": "NaN and the infinities do not fit decimal and wei columns, from text and double too; "
        "the reference passes them on and the destination refuses the load.",
        "integers over 64 bits": "Do not fit bigint columns (from text, double, decimal); the reference passes them on "
        "and the destination refuses the load.",
        "decimals too large": "Do not fit a column with fewer digits; the reference passes them on and the destination "
        "refuses the load.",
        "wide decimals": "Rounded exactly, ties away from zero; through SQL literals the reference's destination turns "
        "decimals of more than 38 digits into floats first.",
        "text over wide integers in json": "Integers over 64 bits inside JSON text keep their digits; the reference "
        "turns them into floats.",
        "json scalars from text": "A JSON string in text becomes a JSON string; the reference writes it without quotes "
        "and the destination refuses the load.",
        "errors that end the run": "Text like '10:' or '1e18', integers far out of range and offsets that lead out of "
        "the years 1 to 9999 do not fit a timestamp or date column; in the reference they raise and the run fails.",
        "zones of timestamps as text": "A lane has one zone: text shows the time in it, not with the offset each value "
        "came with.",
        "basic dates with a tail": "Text like '2024010113' is a number of seconds for date columns, as for timestamp "
        "columns; some versions of Python, and so the reference, read a date from its beginning.",
        "scales of decimals as text": "A lane has one scale: text shows all its places, not those that each value came "
        "with.",
    }
)
"""Where the result differs from the reference's on purpose, or because a lane cannot know."""


@dataclass(frozen=True, slots=True)
class Coerced:
    """What became of a lane."""

    values: Values
    """Exactly of the target's Arrow type; null where there was no value and where a value did not fit."""
    failed: pa.BooleanArray | None
    """True where a value was there and did not fit, false elsewhere; None when all fit."""


def coerce(
    values: Values | Chunked,
    source: DataType,
    target: DataType,
    target_type: pa.DataType,
    *,
    timezone: bool | None = None,
) -> Coerced:
    """Fit a lane into a column; what fits and what does not is the reference's rule, value by value.

    A lane that is of the target's type already comes back as it is, without a copy. NaN and the infinities are kept
    in double columns. Decimals are rounded to the column's scale, ties away from zero (DuckDB's cast); one that then
    has too many digits does not fit. Times are cut off, towards the past, at the column's unit. Naive timestamps
    count as UTC.

    Args:
        values: Values of one kind. Integers over 64 bits come as decimals of scale 0; decimals, wei and integers that
            no Arrow decimal holds (over 76 digits, NaN) may come as text lanes with what Python's ``str`` prints.
            ``json`` is text.
        source: Data type of the values.
        target: Data type of the column.
        target_type: Arrow type of the column.
        timezone: The column's hint. False: the result has no zone, True: it has UTC, whatever ``target_type`` says.
            None: ``target_type`` decides.

    Returns:
        The values and where they did not fit.

    Raises:
        SchemaError: ``target_type`` cannot hold data of type ``target``.

    Shapes:
        values: (n,); the result's arrays too.
    """
    if not _HOLDS[target](target_type):
        raise SchemaError(
            f"A column of data type {target!r} cannot have the Arrow type {target_type}; "
            "pass the type that the schema gives it."
        )

    if target == "timestamp" and timezone is not None:
        target_type = pa.timestamp(unit_of(target_type), tz="UTC" if timezone else None)

    given = plain(values)

    if source == target and given.type == target_type:
        return Coerced(given, None)

    if source == target == "timestamp" and same_unit(given.type, target_type):
        return Coerced(given.view(target_type), None)

    lane = canonical(given, source)
    kernel = _identity if source == target else _KERNELS.get((target, source))

    if kernel is None:
        return _coerced(given, nulls(given, target_type))

    if source in _NUMBERS and pa.types.is_string(lane.type):
        result = _from_digits(lane, source, target, target_type, kernel)
    else:
        result = kernel(lane, target_type)

    coerced = _coerced(given, _fit(result, target, target_type))

    return _without_json_nulls(coerced, lane) if (target, source) == ("json", "text") else coerced


def _coerced(given: Values, result: Values) -> Coerced:
    """Compared with what was given, not with the canonical lane: making that may have lost values already."""
    if result.null_count == given.null_count:
        return Coerced(result, None)

    return Coerced(result, cast("pa.BooleanArray", pc.and_(pc.is_valid(given), pc.is_null(result))))


def _without_json_nulls(coerced: Coerced, lane: Values) -> Coerced:
    """JSON's ``null`` becomes a null and is no failure."""
    if coerced.failed is None:
        return coerced

    failed = pc.and_not(coerced.failed, pc.coalesce(blobs.is_json_null(lane), pa.scalar(value=False)))

    return Coerced(coerced.values, cast("pa.BooleanArray", failed) if pc.any(failed).as_py() else None)


def _fit(result: Values, target: DataType, target_type: pa.DataType) -> Values:
    """The canonical result in the exact type of the column."""
    if result.type == target_type:
        return result

    fitting = _FITTING.get(target)

    return result.cast(target_type) if fitting is None else fitting(result, target_type)


def _from_digits(lane: Values, source: DataType, target: DataType, target_type: pa.DataType, kernel: Kernel) -> Values:
    """Numbers that came as their text, because no Arrow number holds them."""
    if target == "text":
        return lane

    if target in ("decimal", "wei"):
        return decimals.decimal_from_text(lane, target_type)

    if target == "double":
        return numbers.double_from_text(lane, target_type)

    if target == "bool":
        return per_distinct(lane, lambda digits: bool(Decimal(cast("str", digits))), pa.bool_())

    wide = pa.decimal256(76, 38 if source == "decimal" else 0)

    return kernel(per_distinct(lane, lambda digits: decimals.held(cast("str", digits), wide), wide), target_type)


def _identity(values: Values, _target: pa.DataType) -> Values:
    return values


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


_NUMBERS: Final = frozenset({"bigint", "decimal", "wei"})

_HOLDS: Final[dict[DataType, Callable[[pa.DataType], bool]]] = {
    "text": _is_text,
    "json": _is_text,
    "binary": _is_binary,
    "bool": pa.types.is_boolean,
    "bigint": pa.types.is_integer,
    "double": pa.types.is_floating,
    "decimal": pa.types.is_decimal,
    "wei": pa.types.is_decimal,
    "timestamp": pa.types.is_timestamp,
    "date": pa.types.is_date,
    "time": pa.types.is_time,
}
"""Whether an Arrow type can be that of a column."""

_FITTING: Final[dict[str, Kernel]] = {
    "bigint": numbers.fit_integer,
    "decimal": decimals.fit_decimal,
    "wei": decimals.fit_decimal,
    "timestamp": times.fit_timestamp,
    "time": times.fit_time,
}

_KERNELS: Final[dict[tuple[DataType, DataType], Kernel]] = {
    ("text", "json"): _identity,
    ("text", "bigint"): text.text_from_number,
    ("text", "decimal"): text.text_from_number,
    ("text", "wei"): text.text_from_number,
    ("text", "double"): text.text_from_double,
    ("text", "bool"): text.text_from_bool,
    ("text", "binary"): text.text_from_binary,
    ("text", "timestamp"): text.text_from_timestamp,
    ("text", "date"): text.text_from_date,
    ("text", "time"): text.text_from_time,
    ("bigint", "text"): numbers.bigint_from_text,
    ("bigint", "double"): numbers.bigint_from_double,
    ("bigint", "decimal"): decimals.bigint_from_decimal,
    ("bigint", "wei"): decimals.bigint_from_decimal,
    ("double", "text"): numbers.double_from_text,
    ("double", "bigint"): numbers.double_from_number,
    ("double", "decimal"): numbers.double_from_number,
    ("double", "wei"): numbers.double_from_number,
    ("decimal", "text"): decimals.decimal_from_text,
    ("decimal", "bigint"): decimals.decimal_from_bigint,
    ("decimal", "double"): decimals.decimal_from_double,
    ("decimal", "wei"): _identity,
    ("wei", "text"): decimals.decimal_from_text,
    ("wei", "bigint"): decimals.decimal_from_bigint,
    ("wei", "double"): decimals.decimal_from_double,
    ("wei", "decimal"): _identity,
    ("bool", "text"): numbers.bool_from_text,
    ("bool", "bigint"): numbers.bool_from_number,
    ("bool", "double"): numbers.bool_from_number,
    ("bool", "decimal"): numbers.bool_from_number,
    ("bool", "wei"): numbers.bool_from_number,
    ("timestamp", "text"): times.timestamp_from_text,
    ("timestamp", "bigint"): times.timestamp_from_number,
    ("timestamp", "double"): times.timestamp_from_number,
    ("timestamp", "date"): times.timestamp_from_date,
    ("date", "text"): times.date_from_text,
    ("date", "timestamp"): times.date_from_timestamp,
    ("date", "bigint"): times.date_from_number,
    ("date", "double"): times.date_from_number,
    ("time", "text"): times.time_from_text,
    ("binary", "text"): blobs.binary_from_text,
    ("binary", "bigint"): blobs.binary_from_bigint,
    ("json", "text"): blobs.json_from_text,
}
"""(target, source) to kernel; a pair that is missing fits for no value."""
