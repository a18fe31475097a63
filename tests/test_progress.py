"""Displays add up what happened, finish when the stages do, and leave nothing behind."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from dataclasses import dataclass, field

import anyio
import pytest
from rich.console import Console

import asyncelt
from asyncelt.errors import ConfigError
from asyncelt.observe import Advanced, BudgetSample, Event, StageDone, StageStarted, Warned, reported
from asyncelt.progress import LogProgress, NoProgress, RichProgress, TqdmProgress, amount, observer_for

MIB = 1024 * 1024


@dataclass
class Clock:
    """Seconds that move only when a test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Recorder:
    """An observer of a user's own."""

    seen: list[Event] = field(default_factory=list)

    def on_event(self, event: Event, /) -> None:
        self.seen.append(event)


def started(stage="extract", pipeline="p") -> StageStarted:
    return StageStarted(pipeline_name=pipeline, stage=stage)


def advanced(rows, nbytes=0, stage="extract", pipeline="p", name="items") -> Advanced:
    return Advanced(pipeline_name=pipeline, stage=stage, name=name, rows=rows, bytes=nbytes)


def done(stage="extract", pipeline="p", error=None) -> StageDone:
    return StageDone(pipeline_name=pipeline, stage=stage, error=error)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.covers("pipeline.progress")
@pytest.mark.parametrize(
    "name, kind", [("rich", RichProgress), ("tqdm", TqdmProgress), ("log", LogProgress), (None, NoProgress)]
)
def test_each_name_has_its_display(name, kind):
    assert type(observer_for(name)) is kind


@pytest.mark.covers("pipeline.progress")
def test_an_own_observer_is_used_as_it_is():
    recorder = Recorder()
    assert observer_for(recorder) is recorder


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'fancy' is unknown; use one of 'rich', 'tqdm', 'log'"):
        observer_for("fancy")


def test_an_object_without_on_event_is_refused():
    with pytest.raises(
        ConfigError, match=r"cannot be used; use one of 'rich', 'tqdm', 'log', or an object with on_event"
    ):
        observer_for(42)  # type: ignore[arg-type]


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)

    with pytest.raises(ConfigError, match=r"progress='tqdm' needs the package tqdm: pip install tqdm"):
        observer_for("tqdm")


@pytest.mark.parametrize(
    "nbytes, expected",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1.5 * MIB, "1.5 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_amount_is_readable(nbytes, expected):
    assert amount(nbytes) == expected


def test_rich_adds_up_rows_and_bytes_and_shows_the_budget():
    console, clock = terminal(), Clock()
    display = RichProgress(console, clock=clock)
    display.on_event(started())
    display.on_event(BudgetSample(pipeline_name="p", used=2 * MIB, limit=256 * MIB))
    clock.now += 1
    display.on_event(advanced(1000, MIB))
    clock.now += 1
    display.on_event(advanced(3000, MIB))
    running = text_of(console)
    display.on_event(done())

    assert "4,000" in running
    assert "1% of 256.0 MiB" in running
    assert "2,000" in text_of(console)  # rows a second, over two seconds
    assert "done" in text_of(console)


def test_rich_draws_at_most_five_times_a_second():
    console, clock = terminal(), Clock()
    display = RichProgress(console, clock=clock)
    display.on_event(started())
    before = len(text_of(console))

    for _ in range(1000):
        clock.now += 0.00005  # all of them within 50 ms
        display.on_event(advanced(1))

    assert len(text_of(console)) == before
    clock.now += 0.2
    display.on_event(advanced(1))
    assert "1,001" in text_of(console)


def test_rich_gives_the_terminal_back_after_the_last_stage():
    console = terminal()
    display = RichProgress(console, clock=Clock())
    display.on_event(started("extract"))
    display.on_event(started("load"))
    display.on_event(done("extract"))
    assert "\x1b[?25h" not in text_of(console)  # the cursor is still hidden
    display.on_event(done("load", error="connection lost\nlong traceback"))
    assert "failed" in text_of(console)
    assert text_of(console).endswith("\x1b[?25h")


def test_rich_shows_several_pipelines_by_name():
    console = terminal()
    display = RichProgress(console, clock=Clock())

    for name in ("first", "second"):
        display.on_event(started(pipeline=name))

    for name in ("first", "second"):
        display.on_event(done(pipeline=name))

    assert "first extract" in text_of(console)
    assert "second extract" in text_of(console)


def test_two_rich_displays_share_one_terminal():
    console = terminal()
    displays = [RichProgress(console, clock=Clock()) for _ in range(2)]

    for number, display in enumerate(displays):
        display.on_event(started(pipeline=f"p{number}"))

    for number, display in enumerate(displays):
        display.on_event(done(pipeline=f"p{number}"))

    assert text_of(console).count("\x1b[?25h") == 1
    assert text_of(console).index("p0 ") < text_of(console).rindex("p1 ")


def test_rich_on_a_file_writes_only_the_end():
    console = Console(file=io.StringIO(), width=100)
    display = RichProgress(console, clock=Clock())
    display.on_event(started())
    display.on_event(advanced(7))
    assert text_of(console) == ""
    display.on_event(done())
    assert "7" in text_of(console)


@pytest.mark.parametrize("name", ["rich", "tqdm", "log"])
def test_no_display_starts_a_thread_and_warnings_are_shown(name, capfd, caplog):
    before = set(threading.enumerate())
    display = observer_for(name)
    display.on_event(started())
    display.on_event(advanced(10, 100))
    display.on_event(Warned(pipeline_name="p", message="two names became one", table="items", column="id"))
    assert set(threading.enumerate()) <= before
    display.on_event(done())
    output = capfd.readouterr()
    assert "items.id: two names became one" in output.out + output.err + caplog.text


def test_tqdm_shows_totals_and_closes_its_bars(capfd):
    display = TqdmProgress(clock=Clock())
    display.on_event(started())
    display.on_event(BudgetSample(pipeline_name="p", used=MIB, limit=2 * MIB))
    display.on_event(advanced(1500, MIB))
    display.on_event(done())
    written = capfd.readouterr().err
    assert "p extract" in written
    assert "1.50k rows" in written
    assert "done" in written
    assert not display._bars


def test_tqdm_leaves_the_settings_of_other_users_alone():
    from tqdm import tqdm

    before = tqdm.monitor_interval
    TqdmProgress()
    assert tqdm.monitor_interval == before


def test_log_writes_start_end_and_a_line_each_period(caplog):
    clock = Clock()
    display = LogProgress(period_s=5, clock=clock)

    with caplog.at_level(logging.INFO, "asyncelt.progress"):
        display.on_event(started())
        display.on_event(BudgetSample(pipeline_name="p", used=MIB, limit=2 * MIB))
        clock.now += 4
        display.on_event(advanced(100))
        clock.now += 1
        display.on_event(advanced(100))
        display.on_event(done())

    assert caplog.messages == [
        "p extract: started",
        "p extract: 200 rows, 0 B in 5.0 s (40 rows/s); memory 50% of 2.0 MiB",
        "p extract: done; 200 rows, 0 B in 5.0 s (40 rows/s)",
    ]


def test_log_reports_a_failed_stage_as_an_error(caplog):
    display = LogProgress(clock=Clock())

    with caplog.at_level(logging.INFO, "asyncelt.progress"):
        display.on_event(started())
        display.on_event(done(error="disk full"))

    assert caplog.records[-1].levelno == logging.ERROR
    assert "failed: disk full" in caplog.messages[-1]


def test_log_goes_to_standard_error_where_logging_is_not_configured(capsys):
    logger = logging.Logger("nobody configured this one")  # noqa: LOG001 - one without a parent
    display = LogProgress(logger, clock=Clock())
    display.on_event(started())
    assert capsys.readouterr().err == "p extract: started\n"


@pytest.mark.parametrize("name", ["rich", "tqdm", "log"])
def test_a_second_run_starts_from_zero(name, capfd):
    display = observer_for(name)

    for _ in range(2):
        display.on_event(started())
        display.on_event(advanced(5))
        display.on_event(done())

    assert [totals.rows for totals in display._board.stages.values()] == [5]  # type: ignore[attr-defined]


def test_a_load_goes_on_with_the_table_of_what_came_before():
    console = terminal()
    display = RichProgress(console, clock=Clock())

    for stage in ("extract", "load"):
        display.on_event(started(stage))
        display.on_event(done(stage))

    _, _, load_part = text_of(console).rpartition("extract")
    assert "rows/s" not in load_part
    assert "load" in load_part


@pytest.mark.parametrize("error", [None, ValueError("bad row"), KeyboardInterrupt()])
def test_a_stage_is_reported_to_its_end_however_it_ends(error):
    recorder = Recorder()

    with contextlib.suppress(ValueError, KeyboardInterrupt), reported(recorder.on_event, "p", "load"):
        if error is not None:
            raise error

    first, last = recorder.seen
    assert first == started("load")
    assert last == done("load", error=None if error is None else str(error) or "KeyboardInterrupt")


@pytest.mark.parametrize("ending", ["error", "cancel"])
async def test_every_stage_of_a_run_that_fails_is_reported_to_its_end(ending, tmp_path):
    """A display gives the terminal back only when it hears of the end."""
    recorder = Recorder()
    pipeline = asyncelt.pipeline(
        "p", destination=asyncelt.destinations.memory(), pipelines_dir=tmp_path, progress=recorder
    )

    async def rows():
        yield [{"id": 1}]

        if ending == "error":
            raise ValueError("bad page")

        cancelled.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as cancelled, contextlib.suppress(asyncelt.PipelineStepFailed):
        await pipeline.run(rows(), table_name="items")

    begun = {event.stage for event in recorder.seen if isinstance(event, StageStarted)}
    ended = {event.stage: event.error for event in recorder.seen if isinstance(event, StageDone)}
    assert "extract" in begun
    assert begun == set(ended)
    assert ended["extract"]
