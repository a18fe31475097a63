"""ISO-8601-like text to Python dates and times, one value at a time.

Accepts exactly the strings the reference accepts: full and basic ISO forms, ordinal and week dates, hours without
minutes, comma fractions, any number of fraction digits (cut to six), and the "common" forms around them
(``2024/01/15``, ``2024``, ``20240115 10:30:00``). The vectorised kernels of :mod:`asyncelt.normalize.coerce_times`
decide the clean forms; what they leave over comes here, each distinct value once.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone

__all__ = ["parse_iso", "utc_microseconds"]

_EXTENDED_DATE = (
    r"(?P<y>[0-9]{4})-(?:W(?P<w>[0-9]{2})(?:-(?P<wd>[0-9]))?|(?P<m>[0-9]{2})(?:-(?P<d>[0-9]{2})|(?P<o>[0-9]))?)"
)
_BASIC_DATE = r"(?P<y>[0-9]{4})(?:W(?P<w>[0-9]{2})(?P<wd>[0-9])?|(?P<m>[0-9]{2})(?:(?P<d>[0-9]{2})|(?P<o>[0-9])))"
_HOUR = r"(?P<H>[0-9]{2})"
_FRACTION = r"(?:[.,](?P<f>[0-9]+))?"
_COLONS = rf":(?P<M>[0-9]{{2}})(?::(?P<S>[0-9]{{2}}){_FRACTION})?"
_NO_COLONS = rf"(?:(?P<M>[0-9]{{2}})(?:(?P<S>[0-9]{{2}}){_FRACTION})?|:(?P<M2>[0-9]{{2}}))"
_ZONE = r"(?:(?P<Z>Z)|(?P<sign>[+-])(?P<zh>[0-9]{2}):?(?P<zm>[0-9]{2})?)?"

_FORMS = (
    re.compile(rf"{_EXTENDED_DATE}(?:[T ]{_HOUR}(?:{_COLONS})?{_ZONE})?"),
    # With a basic date, hours and minutes may have a colon, seconds may not.
    re.compile(rf"{_BASIC_DATE}(?:[T ]{_HOUR}{_NO_COLONS}?{_ZONE})?"),
    re.compile(rf"{_HOUR}{_COLONS}{_ZONE}"),
    re.compile(rf"T{_HOUR}{_NO_COLONS}?{_ZONE}"),
)

# Digits of any script here, as in the reference.
_COMMON = re.compile(
    r"(?:(?P<y>\d{4})(?:[/:]?(?P<m>\d\d)[/:]?(?P<d>\d\d))?)?"
    r"(?P<time> ?(?P<H>\d{1,2}):(?P<M>\d{1,2})?(?::(?P<S>\d{1,2}))?(?:[.|,](?P<f>\d{1,9}))?)?"
)

_OTHER_BEGINNINGS = "T "
"""What a form begins with that does not begin with a digit. Most texts are nothing of the kind, at a glance."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Parts = dict[str, str | None]


def parse_iso(text: str) -> datetime | date | time | None:
    """What ``text`` says, or None where the reference does not understand it.

    A date and time with an offset comes back aware, without one naive. Durations, intervals, ``24:00`` and
    leap seconds are not understood.
    """
    if text and not text[0].isdecimal() and text[0] not in _OTHER_BEGINNINGS:
        return None

    try:
        for form in _FORMS:
            match = form.fullmatch(text)

            if match is not None:
                return _built(match.groupdict())

    except (ValueError, OverflowError):
        pass  # the digits are no date; the common forms may still read them another way

    try:
        return _common(text)
    except (ValueError, OverflowError):
        return None


def utc_microseconds(moment: datetime) -> int | None:
    """Microseconds since 1970 in UTC, a naive moment taken as UTC; None when UTC leaves the years 1 to 9999."""
    try:
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None

    return (aware - _EPOCH) // _MICROSECOND


def _built(parts: Parts) -> datetime | date | time:
    day = _day(parts) if "y" in parts else None
    hour = parts.get("H")

    if hour is None:
        return day if day is not None else time()

    clock = time(
        int(hour),
        int(parts.get("M") or parts.get("M2") or 0),
        int(parts.get("S") or 0),
        _microsecond(parts.get("f")),
        tzinfo=_zone(parts),
    )

    return clock if day is None else datetime.combine(day, clock)


def _day(parts: Parts) -> date:
    year = int(parts["y"] or 0)

    if parts["w"] is not None:
        return _week_day(year, int(parts["w"]), int(parts["wd"] or 1))

    if parts["o"] is not None:
        ordinal = int(f"{parts['m']}{parts['o']}")
        day = date(year, 1, 1) + timedelta(days=ordinal - 1)

        if day.year != year:
            raise ValueError(ordinal)

        return day

    return date(year, int(parts["m"] or 1), int(parts["d"] or 1))


def _week_day(year: int, week: int, weekday: int) -> date:
    """Week 0 and weekday 0 are accepted and count back from week 1, as in the reference."""
    weeks = date(year, 12, 28).isocalendar().week

    if week > weeks or weekday > 7:
        raise ValueError(week)

    monday = date(year, 1, 4) - timedelta(days=date(year, 1, 4).weekday())

    return monday + timedelta(weeks=week - 1, days=weekday - 1)


def _microsecond(digits: str | None) -> int:
    return int(digits[:6].ljust(6, "0")) if digits else 0


def _zone(parts: Parts) -> timezone | None:
    if parts["Z"] is not None:
        return UTC

    if parts["sign"] is None:
        return None

    offset = timedelta(hours=int(parts["zh"] or 0), minutes=int(parts["zm"] or 0))

    return timezone(-offset if parts["sign"] == "-" else offset)


def _common(text: str) -> datetime | date | time | None:
    match = _COMMON.fullmatch(text)

    if match is None or not text:
        return None

    parts = match.groupdict()
    day = date(int(parts["y"]), int(parts["m"] or 1), int(parts["d"] or 1)) if parts["y"] is not None else None

    if parts["time"] is None:
        return day

    if parts["M"] is None:
        return None

    clock = time(int(parts["H"]), int(parts["M"]), int(parts["S"] or 0), _microsecond(parts["f"]))

    return clock if day is None else datetime.combine(day, clock)
