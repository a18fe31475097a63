"""Python values of one column to lanes: one Arrow array per kind, nothing merged, nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final, cast

import pyarrow as pa

from asyncelt.normalize.plain import json_text, unwrap
from asyncelt.normalize.tables import Array, Lane
from asyncelt.types import DataType

__all__ = ["Refused", "lanes_of"]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
WIDEST_DIGITS: Final = 76
MISSING: Final = object()
TIMESTAMP: Final = pa.timestamp("us", tz="UTC")


class Refused(ValueError):
    """No column can hold one of the values; ``row`` is its index where it is known."""

    def __init__(self, reason: str, row: int | None, value: str | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.row = row
        self.value = value


def lanes_of(values: Sequence[object], *, wei_digits: int) -> list[Lane]:
    """Split the values of one column by kind.

    Args:
        values: `SCALARS`, dicts and lists; None where the row has no value. Dicts and lists become ``json``.
        wei_digits: Digits of the largest integer that becomes ``wei``; larger ones become text.

    Raises:
        Refused: Text that is no Unicode, a number that no column can hold.
    """
    kinds = set(map(type, values))
    kinds.discard(type(None))

    if len(kinds) == 1:
        return _of_one_type(kinds.pop(), values, wei_digits)

    lanes: list[Lane] = []

    # By name, so that the order of lanes does not depend on the order of a set.
    for kind in sorted(kinds, key=lambda item: item.__name__):
        only = [value if type(value) is kind else None for value in values]
        lanes.extend(_of_one_type(kind, only, wei_digits))

    return lanes


def _of_one_type(kind: type, values: Sequence[object], wei_digits: int) -> list[Lane]:
    found = _DIRECT.get(kind)

    try:
        if found is not None:
            return [Lane(found[0], cast("Array", pa.array(values, found[1])))]

        if kind is int:
            return _integers(values, wei_digits)

        if issubclass(kind, Decimal):
            return _decimals(values)

        if kind is datetime:
            return _timestamps(values)

        if kind is dict or kind is list:
            return [Lane("json", _per_value(values, json_text))]

        return lanes_of([unwrap(value) for value in values], wei_digits=wei_digits)
    except Refused:
        raise
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError, pa.ArrowInvalid) as error:
        row = _first_refused(values, kind)
        raise Refused(
            f"the value cannot be stored: {error}.", row, None if row is None else repr(values[row])[:120]
        ) from error


_DIRECT: Final[dict[type, tuple[DataType, pa.DataType]]] = {
    str: ("text", pa.string()),
    float: ("double", pa.float64()),
    bool: ("bool", pa.bool_()),
    bytes: ("binary", pa.binary()),
    date: ("date", pa.date32()),
    time: ("time", pa.time64("us")),
}


def _integers(values: Sequence[object], wei_digits: int) -> list[Lane]:
    try:
        return [Lane("bigint", cast("Array", pa.array(values, pa.int64())))]
    except OverflowError:
        pass

    limit = 10 ** min(wei_digits, WIDEST_DIGITS)
    numbers = cast("Sequence[int | None]", values)
    small = [v if v is not None and INT64_MIN <= v <= INT64_MAX else None for v in numbers]
    wide = [v if v is not None and not INT64_MIN <= v <= INT64_MAX and abs(v) < limit else None for v in numbers]
    huge = [str(v) if v is not None and not INT64_MIN <= v <= INT64_MAX and abs(v) >= limit else None for v in numbers]
    lanes = (
        Lane("bigint", cast("Array", pa.array(small, pa.int64()))),
        Lane("wei", cast("Array", pa.array([None if v is None else Decimal(v) for v in wide], pa.decimal256(76, 0)))),
        Lane("text", cast("Array", pa.array(huge, pa.string()))),
    )

    return [lane for lane in lanes if lane.values.null_count < len(values)]


def _timestamps(values: Sequence[object]) -> list[Lane]:
    """One lane per offset from UTC, and one for times without: text made of a time shows what it came with."""
    offsets = [value.utcoffset() if isinstance(value, datetime) else MISSING for value in values]
    kinds = set(offsets)
    kinds.discard(MISSING)

    if len(kinds) == 1:
        return [Lane("timestamp", cast("Array", pa.array(values, _zoned(cast("timedelta | None", kinds.pop())))))]

    return [
        Lane("timestamp", cast("Array", pa.array(only, _zoned(cast("timedelta | None", offset)))))
        for offset in sorted(kinds, key=str)
        for only in [[value if own == offset else None for value, own in zip(values, offsets, strict=True)]]
    ]


def _zoned(offset: timedelta | None) -> pa.DataType:
    if offset is None:
        return pa.timestamp("us")

    minutes, seconds = divmod(int(offset.total_seconds()), 60)

    if minutes == 0 or seconds or offset.microseconds:
        return TIMESTAMP

    hours, rest = divmod(abs(minutes), 60)

    return pa.timestamp("us", tz=f"{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}")


def _decimals(values: Sequence[object]) -> list[Lane]:
    """One lane per scale: an Arrow type has one, and text made of a decimal shows the places it came with."""
    scales = {value.as_tuple().exponent for value in values if isinstance(value, Decimal)}

    if len(scales) == 1 and all(isinstance(scale, int) and scale <= 0 for scale in scales):
        return [_of_one_scale(values)]

    lanes: list[Lane] = []

    for scale in sorted(scales, key=str):
        only = [v if isinstance(v, Decimal) and v.as_tuple().exponent == scale else None for v in values]
        lanes.append(_of_one_scale(only) if isinstance(scale, int) and scale <= 0 else _as_digits(only))

    return lanes


def _of_one_scale(values: Sequence[object]) -> Lane:
    try:
        return Lane("decimal", cast("Array", pa.array(values)))
    except pa.ArrowInvalid:
        # More digits than Arrow has: kept as text, which every decimal has.
        return _as_digits(values)


def _as_digits(values: Sequence[object]) -> Lane:
    return Lane("decimal", _per_value(values, str))


def _per_value(values: Sequence[object], convert: Callable[[object], str]) -> Array:
    return cast("Array", pa.array([None if value is None else convert(value) for value in values], pa.string()))


def _first_refused(values: Sequence[object], kind: type) -> int | None:
    for row, value in enumerate(values):
        try:
            if value is None:
                continue

            if kind is str:
                cast("str", value).encode()
            elif kind is dict or kind is list:
                json_text(value).encode()
            elif kind is not int:
                pa.array([cast("str", value)])
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            return row

    return None
