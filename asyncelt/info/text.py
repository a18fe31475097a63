"""Words for times, and plain values for documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["elapsed", "iso", "plain", "utc"]


def utc(timestamp: float) -> datetime:
    """Unix seconds as a datetime in UTC."""
    return datetime.fromtimestamp(timestamp, UTC)


def iso(moment: datetime | None) -> str | None:
    """A moment in ISO form."""
    return None if moment is None else moment.isoformat()


def elapsed(start: datetime, end: datetime) -> str:
    """The time between two moments, in words."""
    seconds = (end - start).total_seconds()

    if seconds < 60:
        return f"{seconds:.2f} seconds"

    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} hours"] if hours else []
    parts += [f"{minutes} minutes"] if minutes else []
    parts += [f"{rest} seconds"] if rest else []

    return " and ".join(parts)


def plain(value: object) -> object:
    """Only what JSON can say: times in ISO form, paths and everything unknown as text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value

    if isinstance(value, datetime):
        return value.isoformat()

    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}

    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]

    return str(value) if isinstance(value, Path) else repr(value)
