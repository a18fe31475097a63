"""The attribution window: how far back of the last value the next run begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, cast

from asyncelt.errors import ConfigError

__all__ = ["lagged"]

_FORMATS: Final[tuple[tuple[str, str], ...]] = (
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", "%Y-%m-%dT%H:%M:%SZ"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d+Z", "%Y-%m-%dT%H:%M:%S.%fZ"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}[+-]\d{2}:\d{2}", "%Y-%m-%dT%H:%M:%S%:z"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}[+-]\d{4}", "%Y-%m-%dT%H:%M:%S%z"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d+[+-]\d{2}:\d{2}", "%Y-%m-%dT%H:%M:%S.%f%:z"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d+[+-]\d{4}", "%Y-%m-%dT%H:%M:%S.%f%z"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", "%Y-%m-%dT%H:%M:%S"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}", "%Y-%m-%dT%H:%M"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}", "%Y-%m-%dT%H"),
    (r"\d{4}-\d{2}-\d{2}", "%Y-%m-%d"),
    (r"\d{4}-\d{2}", "%Y-%m"),
    (r"\d{4}", "%Y"),
    (r"\d{8}", "%Y%m%d"),
)
"""What a text cursor may look like; the result is written in the same form."""
_DATES: Final = frozenset({"%Y-%m-%d", "%Y%m%d"})


def lagged(
    value: Any,
    lag: float,
    *,
    initial: object,
    func: Callable[[Sequence[Any]], Any],
    declared: type[object] | None = None,
) -> Any:
    """``value`` moved back by ``lag``, but not beyond ``initial``.

    Seconds for times, days for dates, the plain number for numbers; text is read as one of these and written as it
    was.

    Args:
        value: The last value of a cursor.
        lag: How far.
        initial: The configured initial value; None: no bound.
        func: ``max`` moves down, ``min`` up.
        declared: Type of the cursor, where it was declared: decides between days and seconds.

    Raises:
        ConfigError: A cursor of this type has no lag.
    """
    sign = -1 if func is max else 1
    moved = _moved(value, sign * lag, _unit(declared, initial))

    return initial if initial is not None and func((initial, moved)) == initial else moved


def _unit(declared: type[object] | None, initial: object) -> type[date] | None:
    """Whether the cursor was declared to be of dates or of times."""
    if isinstance(declared, type) and issubclass(declared, date):
        return datetime if issubclass(declared, datetime) else date

    if isinstance(initial, str) and (form := _format_of(initial)) is not None:
        return date if form in _DATES else datetime

    return None


def _moved(value: Any, by: float, unit: type[date] | None) -> Any:
    if isinstance(value, int | float):
        return int(value + by) if isinstance(value, int) else value + by

    form = _format_of(value) if isinstance(value, str) else None

    if not isinstance(value, date) and form is None:
        raise ConfigError(
            f"lag= needs a cursor of numbers, dates or times; the last value is {value!r} ({type(value).__name__}). "
            "Text has to be an ISO date or time."
        )

    is_time = form not in _DATES if form is not None else isinstance(value, datetime)
    unit = unit or (datetime if is_time else date)
    moment: Any = _parsed(str(value), form) if form is not None else value

    if unit is datetime:
        result: date = _by_seconds(_at_midnight(moment), by)
    elif is_time:
        result = _by_days(cast("datetime", moment), by)
    else:
        result = (moment.date() if isinstance(moment, datetime) else moment) + timedelta(days=by)

    return _written(result, form) if form is not None else result


def _by_seconds(value: datetime, by: float) -> datetime:
    """The instant is moved, not the clock on the wall, so that summer time does not matter."""
    if value.tzinfo is None:
        return value + timedelta(seconds=by)

    return (value.astimezone(UTC) + timedelta(seconds=by)).astimezone(value.tzinfo)


def _by_days(value: datetime, by: float) -> datetime:
    """A time of a cursor of dates: whole days in UTC, from their start or to their end."""
    zone = value.tzinfo
    day = (value.astimezone(UTC) if zone is not None else value).date() + timedelta(days=by)
    moved = datetime.combine(day, time.min if by < 0 else time.max, tzinfo=None if zone is None else UTC)

    return moved if zone is None else moved.astimezone(zone)


def _at_midnight(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime.combine(value, time.min)


def _format_of(text: str) -> str | None:
    return next((form for pattern, form in _FORMATS if re.fullmatch(pattern, text)), None)


def _parsed(text: str, form: str) -> datetime:
    if form in ("%Y-%m", "%Y"):
        return datetime.strptime(text, form)  # noqa: DTZ007 - as naive as the text

    return datetime.fromisoformat(text)


def _written(value: date, form: str) -> str:
    if not form.endswith("%:z"):
        return value.strftime(form)

    text = value.strftime(form.replace("%:z", "%z"))

    return f"{text[:-2]}:{text[-2:]}"
