"""The interval of time that a scheduler runs this process for: set by the program, the environment, or Airflow."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, date, datetime, time, tzinfo
from typing import Any, NamedTuple, TypeAlias, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asyncelt.errors import ConfigError, UsageError

__all__ = ["IntervalAccessor", "TimeInterval", "interval", "joins_schedulers"]

Moment: TypeAlias = datetime | date | str
"""Text is ISO 8601."""
_START, _END, _ZONE = "DLT_INTERVAL_START", "DLT_INTERVAL_END", "DLT_INTERVAL_TIMEZONE"
_ALLOWED = "DLT_ALLOW_EXTERNAL_SCHEDULERS"
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_AIRFLOW = ("airflow.sdk", "airflow.operators.python")


class TimeInterval(NamedTuple):
    """From ``start`` up to, not including, ``end``; both have a zone."""

    start: datetime
    end: datetime


_SET: ContextVar[TimeInterval | None] = ContextVar("asyncelt_interval", default=None)
"""What the program has set: seen by the task that sets it and by those that it starts."""


class IntervalAccessor:
    """``asyncelt.current.interval``: call it for the interval; None where there is none.

    What `set` and `update` have set counts before the variables ``DLT_INTERVAL_START``, ``DLT_INTERVAL_END`` (ISO
    8601, in UTC unless they say otherwise) and ``DLT_INTERVAL_TIMEZONE``, and those before the data interval of the
    Airflow task that is running.
    """

    def __call__(self) -> TimeInterval | None:
        """The interval.

        Raises:
            ConfigError: A variable is no time, or no time zone.
        """
        return _SET.get() or _of_environment() or _of_airflow()

    def set(self, interval: tuple[Moment, Moment] | None) -> None:
        """Use this interval in this task and those that it starts; None: no longer. Times without a zone are in UTC."""
        _SET.set(None if interval is None else TimeInterval(*(_in_zone(one, UTC, "interval") for one in interval)))

    def update(self, *, start: Moment | None = None, end: Moment | None = None) -> None:
        """Move one end of the interval, or both. Times without a zone are in the interval's.

        Raises:
            UsageError: There is no interval.
        """
        known = self()

        if known is None:
            raise UsageError(f"There is no interval to update: set one, or {_START} and {_END} in the environment.")

        zone = cast("tzinfo", known.start.tzinfo)
        _SET.set(
            TimeInterval(
                known.start if start is None else _in_zone(start, zone, "start"),
                known.end if end is None else _in_zone(end, zone, "end"),
            )
        )

    @property
    def timezone(self) -> tzinfo | None:
        """Zone of the interval's start; None where there is no interval."""
        known = self()

        return None if known is None else known.start.tzinfo

    @property
    def is_empty(self) -> bool:
        """Whether there is no interval, or one without length: of a run that somebody has started by hand."""
        known = self()

        return known is None or known.start >= known.end


interval = IntervalAccessor()


def joins_schedulers() -> bool:
    """Whether cursors that do not say whether they take the interval over do: ``DLT_ALLOW_EXTERNAL_SCHEDULERS``."""
    return os.environ.get(_ALLOWED, "").strip().lower() in _TRUE


def _of_environment() -> TimeInterval | None:
    start, end, zone = (os.environ.get(name) for name in (_START, _END, _ZONE))

    if not start or not end:
        return None

    found = TimeInterval(_in_zone(start, UTC, _START), _in_zone(end, UTC, _END))

    if not zone:
        return found

    try:
        local = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(f"{_ZONE}={zone!r} is no time zone: it is a name like Europe/Berlin.") from error

    return TimeInterval(found.start.astimezone(local), found.end.astimezone(local))


def _of_airflow() -> TimeInterval | None:
    if "airflow" not in sys.modules:
        return None

    for name in _AIRFLOW:
        # Whatever Airflow raises where no task of its own is running.
        with suppress(Exception):
            module: Any = importlib.import_module(name)
            context = module.get_current_context()
            start, end = context.get("data_interval_start"), context.get("data_interval_end")

            if start is not None and end is not None:
                return TimeInterval(start, end)

    return None


def _in_zone(given: Moment, zone: tzinfo, what: str) -> datetime:
    """A time in this zone; one without a zone is read as one of it."""
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError as error:
        raise ConfigError(f"{what}={given!r} is no time: it is written like 2026-01-31T00:00:00Z.") from error

    moment = found if isinstance(found, datetime) else datetime.combine(found, time())

    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)
