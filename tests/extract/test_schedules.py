"""Cursors that take their range from a scheduler, and the interval that code can ask for."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import asyncelt
from asyncelt import current
from asyncelt.configuration.interval import TimeInterval
from asyncelt.errors import ConfigError, UsageError
from asyncelt.sources import incremental
from tests.extract.test_incremental import rows_of

START, END = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 4, tzinfo=UTC)
DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 7)]
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def _nothing_is_scheduled(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("START", "END", "TIMEZONE"):
        monkeypatch.delenv(f"DLT_INTERVAL_{name}", raising=False)

    monkeypatch.delenv("DLT_ALLOW_EXTERNAL_SCHEDULERS", raising=False)
    current.interval.set(None)
    yield
    current.interval.set(None)


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second of January up to the fourth."""
    monkeypatch.setenv("DLT_INTERVAL_START", "2026-01-02T00:00:00Z")
    monkeypatch.setenv("DLT_INTERVAL_END", "2026-01-04T00:00:00")


async def days_of(cursor: incremental[Any], values: list[Any] = DAYS) -> list[Any]:
    """Days of the month that pass."""
    resource = asyncelt.resource([{"at": value, "day": day} for day, value in enumerate(values, 1)], name="r")

    return [row["day"] for row in await rows_of(resource.apply_hints(incremental=cursor))]  # type: ignore[index, call-overload]


# ---------------------------------------------------------------------- the interval


@pytest.mark.covers("current.interval")
def test_the_interval_is_that_of_the_environment(scheduled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert current.interval() == TimeInterval(START, END)
    assert (current.interval.timezone, current.interval.is_empty) == (UTC, False)
    monkeypatch.setenv("DLT_INTERVAL_TIMEZONE", "Europe/Berlin")
    assert current.interval() == TimeInterval(START, END)
    assert current.interval.timezone == BERLIN


def test_without_any_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current.interval() is None
    assert (current.interval.timezone, current.interval.is_empty) == (None, True)

    with pytest.raises(UsageError, match="no interval to update"):
        current.interval.update(start=START)

    monkeypatch.setenv("DLT_INTERVAL_START", "2026-01-02")
    assert current.interval() is None


def test_what_the_program_sets_counts_first(scheduled: None) -> None:
    current.interval.set((date(2026, 2, 1), "2026-02-03T01:00:00+01:00"))
    assert current.interval() == TimeInterval(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 3, tzinfo=UTC))
    current.interval.set(None)
    current.interval.update(start="2026-01-03T12:00:00")
    assert current.interval() == TimeInterval(datetime(2026, 1, 3, 12, tzinfo=UTC), END)
    current.interval.update(start=END)
    assert current.interval.is_empty


@pytest.mark.parametrize(("name", "value"), [("START", "yesterday"), ("TIMEZONE", "Mars/Olympus")])
def test_variables_that_say_nothing_are_refused(
    scheduled: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"DLT_INTERVAL_{name}", value)

    with pytest.raises(ConfigError, match=value):
        current.interval()


def test_a_task_of_airflow_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk: Any = ModuleType("airflow.sdk")
    sdk.get_current_context = lambda: {"data_interval_start": START, "data_interval_end": END}
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
    assert current.interval() == TimeInterval(START, END)
    sdk.get_current_context = dict
    assert current.interval() is None


# ---------------------------------------------------------------------- cursors


@pytest.mark.covers("incremental.allow_external_schedulers")
async def test_a_cursor_takes_the_interval_over(scheduled: None) -> None:
    cursor = incremental[datetime]("at", allow_external_schedulers=True)

    assert await days_of(cursor) == [2, 3]
    assert (cursor.initial_value, cursor.end_value) == (None, None)
    current.interval.set((DAYS[4], DAYS[5]))

    try:
        assert await days_of(cursor) == [5]
    finally:
        # Asynchronous tests share a context, which the fixture does not reach.
        current.interval.set(None)


@pytest.mark.parametrize(("flag", "expected"), [(None, [2, 3]), (False, [1, 2, 3, 4, 5, 6])])
async def test_the_environment_says_so_for_cursors_that_do_not(
    scheduled: None, monkeypatch: pytest.MonkeyPatch, flag: bool | None, expected: list[int]
) -> None:
    monkeypatch.setenv("DLT_ALLOW_EXTERNAL_SCHEDULERS", "true")

    assert await days_of(incremental[datetime]("at", allow_external_schedulers=flag)) == expected


@pytest.mark.parametrize(
    ("values", "initial"),
    [
        ([day.date() for day in DAYS], date(2026, 1, 1)),
        ([day.replace(tzinfo=None) for day in DAYS], datetime(2026, 1, 1)),
        ([int(day.timestamp()) for day in DAYS], 0),
        ([day.timestamp() for day in DAYS], 0.0),
        ([day.astimezone(BERLIN) for day in DAYS], DAYS[0]),
    ],
    ids=["dates", "no-zone", "ints", "floats", "another-zone"],
)
async def test_its_ends_are_of_the_type_of_the_cursor(scheduled: None, values: list[Any], initial: Any) -> None:
    assert await days_of(incremental("at", initial_value=initial, allow_external_schedulers=True), values) == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"initial_value": DAYS[2]}, [3]),
        ({"initial_value": DAYS[0], "end_value": DAYS[2]}, [2]),
        ({"initial_value": DAYS[0], "end_value": DAYS[5]}, [2, 3]),
        ({"initial_value": DAYS[5]}, []),
    ],
)
async def test_a_configured_range_narrows_it(scheduled: None, arguments: dict[str, Any], expected: list[int]) -> None:
    assert await days_of(incremental("at", allow_external_schedulers=True, **arguments)) == expected


async def test_the_cursor_of_regular_runs_does_not_move(scheduled: None, tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline("p", destination="memory", dataset_name="d", pipelines_dir=tmp_path)
    rows = asyncelt.resource([{"at": day} for day in DAYS], name="r")
    await pipeline.run(rows.apply_hints(incremental=incremental("at", DAYS[0] - timedelta(days=9))))
    before = pipeline.state
    backfill = incremental("at", DAYS[0], allow_external_schedulers=True)
    info = await pipeline.run(rows.apply_hints(incremental=backfill))

    assert info.row_counts["r"] == 2
    assert pipeline.state["sources"] == before["sources"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({}, "its type"), ({"initial_value": "2026"}, "not str. Make times"), ({"initial_value": b"1"}, "not bytes")],
)
async def test_cursors_that_are_no_times_are_refused(scheduled: None, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await days_of(incremental("at", allow_external_schedulers=True, **arguments))


async def test_without_a_scheduler_it_is_said_how_to_name_one() -> None:
    with pytest.raises(ConfigError, match="DLT_INTERVAL_START"):
        await days_of(incremental("at", DAYS[0], allow_external_schedulers=True))
