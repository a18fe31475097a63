"""One report for a whole run: what each stage has moved, how long it waited, how often it tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from asyncelt.info.text import elapsed, iso
from asyncelt.observe import Stage

__all__ = ["RunReport", "StageReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """What one stage did."""

    stage: Stage
    started_at: datetime
    finished_at: datetime
    rows: int = 0
    """Rows that the stage gave on. Extract does not count the rows of JSON bodies, which it does not parse."""
    bytes: int = 0
    """In memory for extract, on the disk for normalize and load."""
    waited_s: float = 0.0
    """How long resources waited for memory, added up over all of them."""
    retries: int = 0
    """How often the destination was tried again."""

    def asdict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "stage": self.stage,
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "rows": self.rows,
            "bytes": self.bytes,
            "waited_s": self.waited_s,
            "retries": self.retries,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The stages of one call, in their order. In a fused run they overlap."""

    stages: tuple[StageReport, ...] = ()
    peak_memory: int = 0
    """Most bytes of data that were in flight at once, as of now in the budget's life."""

    def __getitem__(self, stage: Stage) -> StageReport:
        return next(one for one in self.stages if one.stage == stage)

    def asdict(self) -> dict[str, object]:
        """Plain values."""
        return {"stages": [one.asdict() for one in self.stages], "peak_memory": self.peak_memory}

    def asstr(self) -> str:
        """One line per stage."""
        return "\n".join(
            f"{one.stage}: {one.rows} row(s), {one.bytes} bytes in {elapsed(one.started_at, one.finished_at)}"
            + (f", waited {one.waited_s:.2f} seconds for memory" if one.waited_s >= 0.005 else "")
            + (f", {one.retries} retries" if one.retries else "")
            for one in self.stages
        )

    def __str__(self) -> str:
        return self.asstr()
