"""To timestamp, date and time: from text, from unix seconds, from one another.

Clean ISO text is cast by Arrow as a whole column. Where that refuses, two tight patterns (with and without a zone)
pick what Arrow can cast, and the rest goes to :func:`asyncelt.normalize.iso.parse_iso`, each distinct value once.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.normalize.coerce_lanes import (
    MICROSECOND,
    MICROSECOND_UTC,
    Values,
    as_naive,
    floor_units,
    int64_or_null,
    looks,
    per_distinct,
    split,
    unit_of,
    where,
)
from asyncelt.normalize.iso import parse_iso, utc_microseconds

__all__ = [
    "date_from_number",
    "date_from_text",
    "date_from_timestamp",
    "fit_time",
    "fit_timestamp",
    "parse_timestamps",
    "time_from_text",
    "timestamp_from_date",
    "timestamp_from_number",
    "timestamp_from_text",
]

_INT64 = pa.int64()
_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_MIN_S = -62_135_596_800
_MAX_S = 253_402_300_799
_MIN_US = _MIN_S * _SECOND_US
_MAX_US = _MAX_S * _SECOND_US + 999_999

_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    f"(?:{_YEAR}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    f"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)|{_LEAP_YEAR}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3])(?::[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?)?"
_OFFSET = r"(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"

# What these two match Arrow casts without fail.
_NAIVE = f"^{_DAY}(?:[T ]{_CLOCK})?$"
_ZONED = f"^{_DAY}[T ]{_CLOCK}{_OFFSET}$"

_ROUGH = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ROUGH_CLOCK = r"[T ][0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,%d})?)?)?"
_ROUGH_OFFSET = "(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"
_SHAPES: Final[dict[str, tuple[Literal["us", "ns"], bool]]] = {
    f"{_ROUGH}{_ROUGH_CLOCK % 6}{_ROUGH_OFFSET}$": ("us", True),
    f"{_ROUGH}(?:{_ROUGH_CLOCK % 6})?$": ("us", False),
    f"{_ROUGH}{_ROUGH_CLOCK % 9}{_ROUGH_OFFSET}$": ("ns", True),
    f"{_ROUGH}(?:{_ROUGH_CLOCK % 9})?$": ("ns", False),
}
"""How whole columns look that are worth one cast: pattern to unit and zone."""

_CLOCK_TEXT = r"^(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?$"

# Two more forms that become clean by rewriting. Only in the full forms: elsewhere a long fraction may belong to a
# number of seconds, and a basic date with a space allows other times.
_BASIC = "^([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})"
_LONG_FRACTION = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6})[0-9]+"
_REWRITABLE = f"{_BASIC}|{_LONG_FRACTION}"

# Letters that no timestamp (numbers of seconds included) and no time can have.
_NO_TIMESTAMP = "[A-DF-SUVXYa-df-z]"
_NO_TIME = "[A-SU-Ya-z]"

_CHUNK = 4_096


def parse_timestamps(values: Values) -> tuple[Values, pa.BooleanArray]:
    """Text to timestamps in UTC with microseconds, and a mask of the values that are none.

    Accepts what the reference accepts for a timestamp column: ISO forms with and without a zone (taken as UTC
    without), pure dates, and numbers of unix seconds as text. Digits below the microsecond are cut off. Out of
    range (years outside 1 to 9999, in UTC) counts as failed.
    """
    parsed = timestamp_from_text(values, MICROSECOND_UTC)

    return parsed, cast("pa.BooleanArray", pc.and_(pc.is_valid(values), pc.is_null(parsed)))


def timestamp_from_text(values: Values, _target: pa.DataType) -> Values:
    """Text to timestamp[us, UTC]; see :func:`parse_timestamps`."""
    whole = _cast_whole(values)

    if whole is not None:
        return whole

    if len(values) <= _CHUNK:
        return _cast_pieces(values)

    # A few values that Arrow refuses should not send all others down the slower road.
    chunks = [timestamp_from_text(values.slice(start, _CHUNK), _target) for start in range(0, len(values), _CHUNK)]

    return pa.concat_arrays(chunks)


def _cast_whole(values: Values) -> Values | None:
    """The lane cast by Arrow in one go, or None where it refuses a value or a year is out of range."""
    # Arrow wants a zone in every value or in none, and to be told the unit.
    found = looks(values, *_SHAPES)

    if found is None:
        return None

    unit, zoned = _SHAPES[found]
    utc = pa.timestamp(unit, tz="UTC")

    try:
        parsed: Values = values.cast(utc if zoned else pa.timestamp(unit)).view(utc)
    except pa.ArrowInvalid:
        return None

    if unit == "ns":
        parsed = floor_units(parsed, 1_000).view(MICROSECOND_UTC)

    # Arrow also reads the year 0, and an offset can lead out of the range of years.
    return parsed if _in_range(parsed, _MIN_US, _MAX_US) else None


def _in_range(values: Values, low: int, high: int) -> bool:
    ends = pc.min_max(values.view(_INT64)).as_py()

    return ends["min"] is None or (ends["min"] >= low and ends["max"] <= high)


def _cast_pieces(values: Values) -> Values:
    def naive(lane: Values) -> Values:
        return lane.cast(MICROSECOND).view(MICROSECOND_UTC)

    def zoned(lane: Values) -> Values:
        return _within_years(lane.cast(MICROSECOND_UTC))

    def rest(lane: Values) -> Values:
        return split(lane, pc.match_substring_regex(lane, _ZONED), zoned, unclean)

    def unclean(lane: Values) -> Values:
        return split(lane, pc.match_substring_regex(lane, _REWRITABLE), _rewritten, _timestamps_slowly)

    return split(values, pc.match_substring_regex(values, _NAIVE), naive, rest)


def _rewritten(values: Values) -> Values:
    """Basic form to extended, long fractions to six digits; what then is still unclean goes the slow way."""
    extended = pc.replace_substring_regex(values, _BASIC, r"\1-\2-\3T\4:\5:\6")
    short = cast("Values", pc.replace_substring_regex(extended, _LONG_FRACTION, r"\1"))
    whole = _cast_whole(short)

    return _timestamps_slowly(short) if whole is None else whole


def _timestamps_slowly(values: Values) -> Values:
    micros = per_distinct(values, lambda text: _moment(cast("str", text)), _INT64, never=_NO_TIMESTAMP)

    return micros.view(MICROSECOND_UTC)


def _moment(text: str) -> int | None:
    """Microseconds since 1970 of one text, or None."""
    parsed = parse_iso(text)

    if isinstance(parsed, datetime):
        return utc_microseconds(parsed)

    if isinstance(parsed, date):
        return utc_microseconds(datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC))

    if isinstance(parsed, time):
        return None

    try:
        return utc_microseconds(datetime.fromtimestamp(float(text), UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _within_years(values: Values) -> Values:
    """Null what is outside the years 1 to 9999."""
    if _in_range(values, _MIN_US, _MAX_US):
        return values

    raw = values.view(_INT64)

    return where(pc.and_(pc.greater_equal(raw, _MIN_US), pc.less_equal(raw, _MAX_US)), values)


def timestamp_from_number(values: Values, _target: pa.DataType) -> Values:
    """Unix seconds to timestamp[us, UTC]; floats are rounded to the microsecond, ties to even, as Python does."""
    if pa.types.is_float64(values.type):
        return _from_float_seconds(values)

    seconds = int64_or_null(values)

    if not _in_range(seconds, _MIN_S, _MAX_S):
        seconds = where(pc.and_(pc.greater_equal(seconds, _MIN_S), pc.less_equal(seconds, _MAX_S)), seconds)

    return cast("Values", pc.multiply(seconds, _SECOND_US)).view(MICROSECOND_UTC)


def _from_float_seconds(values: Values) -> Values:
    """Whole seconds and fraction are rounded apart: together they lose digits."""
    # False for NaN; the guard keeps the casts below inside 64 bits.
    possible = pc.and_(pc.greater_equal(values, _MIN_S - 1.0), pc.less_equal(values, _MAX_S + 1.0))
    kept = where(possible, values)
    whole = pc.trunc(kept)
    fraction = pc.round(pc.multiply(pc.subtract(kept, whole), float(_SECOND_US)), round_mode="half_to_even")
    micros = pc.add(pc.multiply(pc.cast(whole, _INT64), _SECOND_US), pc.cast(fraction, _INT64))

    return _within_years(cast("Values", micros).view(MICROSECOND_UTC))


def timestamp_from_date(values: Values, _target: pa.DataType) -> Values:
    """Midnight UTC of each day."""
    return values.cast(MICROSECOND).view(MICROSECOND_UTC)


def date_from_text(values: Values, _target: pa.DataType) -> Values:
    """The day, in UTC, of whatever a timestamp column would accept."""
    days = _cast_days(values) if looks(values, f"{_ROUGH}$") else None

    if days is not None:
        return days

    return date_from_timestamp(timestamp_from_text(values, MICROSECOND_UTC), pa.date32())


def _cast_days(values: Values) -> Values | None:
    try:
        days = values.cast(pa.date32())
    except pa.ArrowInvalid:
        return None

    first = pc.min(days.view(pa.int32())).as_py()

    return days if first is None or first >= _MIN_S // 86_400 else None


def date_from_timestamp(values: Values, _target: pa.DataType) -> Values:
    """The day in UTC; before 1970 too."""
    return cast("Values", as_naive(values).cast(pa.date32()))


def date_from_number(values: Values, _target: pa.DataType) -> Values:
    """The day in UTC of unix seconds."""
    return date_from_timestamp(timestamp_from_number(values, MICROSECOND_UTC), pa.date32())


def time_from_text(values: Values, _target: pa.DataType) -> Values:
    """ISO times to time64[us]; a time with an offset is moved to UTC, around midnight where needed."""

    def clean(lane: Values) -> Values:
        # Arrow has no cast from text to time, but one from text to timestamp.
        stamps = pc.binary_join_element_wise(pa.scalar("1970-01-01T"), lane, "")

        return cast("Values", stamps).cast(MICROSECOND).view(_INT64).view(pa.time64("us"))

    def slowly(lane: Values) -> Values:
        micros = per_distinct(lane, lambda text: _time_of_day(cast("str", text)), _INT64, never=_NO_TIME)

        return micros.view(pa.time64("us"))

    return split(values, pc.match_substring_regex(values, _CLOCK_TEXT), clean, slowly)


def _time_of_day(text: str) -> int | None:
    parsed = parse_iso(text)

    if not isinstance(parsed, time):
        return None

    moment = datetime.combine(date(1970, 1, 1), parsed.replace(tzinfo=None)) - datetime(1970, 1, 1)  # noqa: DTZ001
    offset = parsed.utcoffset() or timedelta()

    return ((moment - offset) // timedelta(microseconds=1)) % _DAY_US


def fit_timestamp(values: Values, target: pa.DataType) -> Values:
    """To the unit and zone of ``target`` without moving the instant; coarser units round towards the past."""
    unit = unit_of(target)

    if unit in ("s", "ms"):
        return floor_units(values, _SECOND_US if unit == "s" else 1_000).view(target)

    if unit == "ns":
        raw = values.view(_INT64)
        limit = np.iinfo(np.int64).max // 1_000
        fits = pc.and_(pc.greater_equal(raw, -limit), pc.less_equal(raw, limit))

        return cast("Values", pc.multiply(where(fits, raw), 1_000)).view(target)

    return values.view(target)


def fit_time(values: Values, target: pa.DataType) -> Values:
    """To another unit; coarser ones cut digits off."""
    return values.cast(target, safe=False)
