"""A cursor's range from the interval that a scheduler runs the process for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from asyncelt.configuration.interval import interval
from asyncelt.errors import ConfigError

__all__ = ["scheduled_range"]


def scheduled_range(
    where: str, kind: type[object] | None, *, initial: Any, end: Any, func: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """Where a run begins and stops: at the ends of the interval, or of the configured range where that is narrower.

    Args:
        where: The cursor, for messages.
        kind: Type of the cursor's values: times, dates, or seconds since 1970.
        initial: The configured beginning, if there is one.
        end: The configured end, if there is one.
        func: Gives the last one of a tuple of values.

    Raises:
        ConfigError: There is no interval, or it cannot become values of this type.
    """
    found = interval()

    if found is None:
        raise ConfigError(
            f"{where}: allow_external_schedulers takes the range from a scheduler, and there is none: set "
            "DLT_INTERVAL_START and DLT_INTERVAL_END, call asyncelt.current.interval.set((start, end)), or run within "
            "a task of Airflow."
        )

    configured = end if initial is None else initial
    first, last = (_like(configured, _value(one, kind, where)) for one in found)

    try:
        if initial is not None and func((initial, first)) == initial:
            first = initial

        if end is not None and func((end, last)) == last:
            last = end
    except TypeError as error:
        raise ConfigError(f"{where}: the scheduler's interval cannot be compared with the range: {error}") from error

    return first, last


def _value(moment: datetime, kind: type[object] | None, where: str) -> object:
    if kind is None:
        raise ConfigError(
            f"{where}: allow_external_schedulers needs to know what the cursor's values are: give it an initial_value, "
            "or its type, as in incremental[datetime](...)."
        )

    if issubclass(kind, datetime):
        return moment

    if issubclass(kind, date):
        return moment.date()

    if kind is int:
        return int(moment.timestamp())

    if kind is float:
        return moment.timestamp()

    hint = " Make times of the text with add_map." if issubclass(kind, str) else ""

    raise ConfigError(
        f"{where}: a scheduler's interval can become datetime, date, int or float, not {kind.__name__}.{hint}"
    )


def _like(configured: object, moment: Any) -> Any:
    """A time with a zone, or without one, as the configured one is."""
    if not isinstance(configured, datetime) or configured.tzinfo is not None:
        return moment

    return moment.astimezone(UTC).replace(tzinfo=None)
