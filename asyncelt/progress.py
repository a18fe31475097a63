"""Displays of a running pipeline: rows, bytes, rates and the memory budget, stage by stage.

``progress="rich" | "tqdm" | "log"`` picks one; anything with ``on_event`` is used as it is. A display is an
observer and nothing more: it has no thread, no timer and no task. It draws when an event arrives, at most
`REDRAWS_PER_S` times a second, and it is finished when every stage that began has ended, well or not.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, TypeAlias

from asyncelt.errors import ConfigError
from asyncelt.observe import (
    Advanced,
    BudgetSample,
    DestinationAway,
    DestinationBack,
    Event,
    Observer,
    PackageCommitted,
    SourceAway,
    SourceBack,
    Stage,
    StageDone,
    StageStarted,
    Warned,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from tqdm import tqdm

__all__ = ["LogProgress", "NoProgress", "RichProgress", "TqdmProgress", "amount", "observer_for"]

REDRAWS_PER_S = 5.0
LOG_PERIOD_S = 5.0

_STAGE_WIDTH = 12
_COLUMNS = (("rows", 10), ("bytes", 10), ("rows/s", 9), ("seconds", 7), ("memory", 16))  # 80 characters in all

_Key: TypeAlias = tuple[str, Stage]


def observer_for(progress: str | Observer | None) -> Observer:
    """The observer that ``progress=`` stands for; one that does nothing for None.

    Raises:
        ConfigError: The name is unknown, what it needs is not installed, or the object has no ``on_event``.
    """
    if progress is None:
        return NoProgress()

    if not isinstance(progress, str):
        if not callable(getattr(progress, "on_event", None)):
            raise ConfigError(f"progress={progress!r} cannot be used; {_KNOWN}.")

        return progress

    make = _DISPLAYS.get(progress)

    if make is None:
        raise ConfigError(f"progress={progress!r} is unknown; {_KNOWN}.")

    try:
        return make()
    except ModuleNotFoundError as error:
        raise ConfigError(f"progress={progress!r} needs the package {error.name}: pip install {error.name}") from error


def amount(nbytes: float) -> str:
    """Bytes for people: ``0 B``, ``512 B``, ``1.4 KiB``, ``12.0 MiB``."""
    size = float(nbytes)

    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"

        size /= 1024

    return f"{size:.1f} TiB"


class NoProgress:
    """Shows nothing."""

    def on_event(self, event: Event, /) -> None:
        """Ignore the event."""


# ------------------------------------------------------------------------------------------- what was seen


@dataclass(slots=True)
class _Totals:
    """One stage of one pipeline, added up."""

    started: float
    rows: int = 0
    nbytes: int = 0
    name: str = ""
    ended: float | None = None
    error: str | None = None

    def seconds(self, now: float) -> float:
        return max((self.ended if self.ended is not None else now) - self.started, 1e-9)

    def rows_per_s(self, now: float) -> float:
        return self.rows / self.seconds(now)


_Aside: TypeAlias = BudgetSample | PackageCommitted | DestinationAway | DestinationBack | SourceAway | SourceBack
"""Events that belong to no stage."""


@dataclass(slots=True)
class _Board:
    """Totals of all stages since the last time that nothing was running."""

    stages: dict[_Key, _Totals] = field(default_factory=dict)
    budgets: dict[str, BudgetSample] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return any(totals.ended is None for totals in self.stages.values())

    def note(self, event: StageStarted | Advanced | StageDone | _Aside, now: float) -> _Totals | None:
        """Add the event up; the totals of its stage, None when it belongs to none."""
        if isinstance(event, BudgetSample):
            self.budgets[event.pipeline_name] = event
            return None

        if isinstance(event, _Aside):
            return None

        if isinstance(event, StageStarted) and not self.running:
            self.stages.clear()

        key = (event.pipeline_name, event.stage)

        if isinstance(event, StageStarted) or key not in self.stages:
            self.stages[key] = _Totals(started=now)

        totals = self.stages[key]

        if isinstance(event, Advanced):
            totals.rows += event.rows
            totals.nbytes += event.bytes
            totals.name = event.name
        elif isinstance(event, StageDone):
            totals.ended = now
            totals.error = event.error

        return totals

    def budget_of(self, pipeline_name: str) -> str:
        sample = self.budgets.get(pipeline_name)

        return f"{sample.used / sample.limit:.0%} of {amount(sample.limit)}" if sample is not None else ""


# ------------------------------------------------------------------------------------------------ displays


class RichProgress:
    """A table that redraws itself in place; on anything but a terminal only its last state is printed.

    Several pipelines of one process may use one each: they share the terminal.

    Args:
        console: Where to draw; rich's own console when None.
        clock: Seconds, for tests.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        import rich
        from rich.live import Live
        from rich.table import Table

        self._console = console or rich.get_console()
        self._live_type = Live
        self._table_type = Table
        self._clock = clock
        self._board = _Board()
        self._live: Live | None = None
        self._headed = True
        self._drawn = 0.0

    def on_event(self, event: Event, /) -> None:
        """Take note, and redraw if the last time is long enough ago."""
        if isinstance(event, Warned):
            self._console.print(f"warning: {_warning(event)}", markup=False, highlight=False)
            return

        now = self._clock()
        self._board.note(event, now)

        if isinstance(event, StageStarted) and self._live is None:
            self._begin(event.stage, now)
        elif self._live is not None and not self._board.running:
            self._end(now)
        elif self._live is not None and now - self._drawn >= 1 / REDRAWS_PER_S:
            self._drawn = now
            self._live.update(self._render(now), refresh=self._console.is_terminal)

    def _begin(self, stage: Stage, now: float) -> None:
        # A load that follows on extract and normalize goes on with their table.
        self._headed = stage == "extract" or self._drawn == 0.0
        self._drawn = now
        self._live = self._live_type(self._render(now), console=self._console, auto_refresh=False)

        if self._console.is_terminal:
            self._live.start()

    def _end(self, now: float) -> None:
        live, self._live = self._live, None

        if live is not None and self._console.is_terminal:
            live.update(self._render(now))
            live.stop()
        else:
            self._console.print(self._render(now))

    def _render(self, now: float) -> Table:
        names = sorted({name for name, _ in self._board.stages})
        several = len(names) > 1
        table = self._table_type(box=None, pad_edge=False, header_style="dim", show_header=self._headed)
        table.add_column("pipeline and stage" if several else names[0], no_wrap=True, min_width=_STAGE_WIDTH)

        for heading, width in _COLUMNS:
            table.add_column(heading, justify="right", no_wrap=True, min_width=width)

        table.add_column("", no_wrap=True, overflow="ellipsis", max_width=30)

        for (pipeline_name, stage), totals in self._board.stages.items():
            done = totals.ended is not None
            table.add_row(
                f"{pipeline_name} {stage}" if several else stage,
                f"{totals.rows:,}",
                amount(totals.nbytes),
                f"{totals.rows_per_s(now):,.0f}",
                f"{totals.seconds(now):.1f}",
                _status(totals) if done else self._board.budget_of(pipeline_name),
                "" if done else totals.name,
                style="red" if totals.error is not None else ("green" if done else ""),
            )

        return table


class TqdmProgress:
    """One tqdm bar per stage, counting rows. tqdm's monitor thread is not started."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs only
            """A class of its own, because these are class attributes and other users of tqdm keep theirs."""

            monitor_interval = 0
            _lock = RLock()

        self._bar_type = Bar
        self._clock = clock
        self._board = _Board()
        self._bars: dict[_Key, tqdm[object]] = {}

    def on_event(self, event: Event, /) -> None:
        """Move the bar of the event's stage; tqdm itself redraws at most ten times a second."""
        if isinstance(event, Warned):
            self._bar_type.write(f"warning: {_warning(event)}", file=sys.stderr)
            return

        totals = self._board.note(event, self._clock())

        if isinstance(event, _Aside) or totals is None:
            return

        key = (event.pipeline_name, event.stage)

        if key not in self._bars:
            self._bars[key] = self._bar_type(
                desc=f"{event.pipeline_name} {event.stage}", unit=" rows", unit_scale=True, position=len(self._bars)
            )

        bar = self._bars[key]

        if isinstance(event, Advanced):
            budget = self._board.budget_of(event.pipeline_name)
            bar.set_postfix_str(f"{amount(totals.nbytes)}" + (f", memory {budget}" if budget else ""), refresh=False)
            bar.update(event.rows)
        elif isinstance(event, StageDone):
            bar.set_postfix_str(f"{amount(totals.nbytes)}, {_outcome(event)}", refresh=True)
            bar.close()
            del self._bars[key]


class LogProgress:
    """Log lines at the start and the end of each stage, and every few seconds between them.

    They go to ``logger`` at level INFO. Where nobody has configured logging they go to standard error instead,
    because otherwise nothing would be seen at all.

    Args:
        logger: ``logging.getLogger("asyncelt.progress")`` when None.
        period_s: Seconds between two lines of one stage.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        period_s: float = LOG_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger or logging.getLogger("asyncelt.progress")
        self._period_s = period_s
        self._clock = clock
        self._board = _Board()
        self._written: dict[_Key, float] = {}

    def on_event(self, event: Event, /) -> None:
        """Take note, and write a line if it is time for one."""
        if isinstance(event, Warned):
            self._write(f"{event.pipeline_name}: {_warning(event)}", logging.WARNING)
            return

        now = self._clock()
        totals = self._board.note(event, now)

        if isinstance(event, DestinationBack):
            back = f"the destination is back after {event.seconds:.0f} s and {event.retries} more attempts"
            self._write(f"{event.pipeline_name}: {back}", logging.INFO)

        if isinstance(event, SourceBack):
            back = f"source {event.source} is back after {event.seconds:.0f} s and {event.retries} attempts in vain"
            self._write(f"{event.pipeline_name}: {back}", logging.INFO)

        if isinstance(event, _Aside) or totals is None:
            return

        key = (event.pipeline_name, event.stage)
        where = f"{event.pipeline_name} {event.stage}"

        if isinstance(event, StageStarted):
            self._written[key] = now
            self._write(f"{where}: started")
        elif isinstance(event, StageDone):
            self._written.pop(key, None)
            level = logging.INFO if event.error is None else logging.ERROR
            self._write(f"{where}: {_outcome(event)}; {self._figures(totals, now)}", level)
        elif now - self._written.get(key, totals.started) >= self._period_s:
            self._written[key] = now
            budget = self._board.budget_of(event.pipeline_name)
            self._write(f"{where}: {self._figures(totals, now)}" + (f"; memory {budget}" if budget else ""))

    @staticmethod
    def _figures(totals: _Totals, now: float) -> str:
        return (
            f"{totals.rows:,} rows, {amount(totals.nbytes)} in {totals.seconds(now):.1f} s "
            f"({totals.rows_per_s(now):,.0f} rows/s)"
        )

    def _write(self, line: str, level: int = logging.INFO) -> None:
        if self._logger.hasHandlers():
            self._logger.log(level, "%s", line)
        else:
            print(line, file=sys.stderr)  # noqa: T201 - see the class


def _status(totals: _Totals) -> str:
    """How a stage ended; why it failed is raised to the caller, so it is not said here."""
    return "done" if totals.error is None else "failed"


def _outcome(event: StageDone) -> str:
    if event.error is None:
        return "done"

    return f"failed: {(event.error.splitlines() or ['unknown error'])[0]}"


def _warning(event: Warned) -> str:
    where = ".".join(part for part in (event.table, event.column) if part)

    return f"{where}: {event.message}" if where and where not in event.message else event.message


_DISPLAYS: Mapping[str, Callable[[], Observer]] = {"rich": RichProgress, "tqdm": TqdmProgress, "log": LogProgress}
_KNOWN = f"use one of {', '.join(map(repr, _DISPLAYS))}, or an object with on_event(event)"
