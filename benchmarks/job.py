"""One measurement: what is to be done, and what came out. Crosses the process boundary as JSON."""

from __future__ import annotations

import contextlib
import gc
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data import Pool

__all__ = ["DATASET", "LAKES", "WARM", "Job", "Measured", "Meter", "cpu_seconds", "largest_child"]

LAKES = ("delta", "iceberg")
DATASET = "data"
WARM = "warm"
"""Folder of the warm-up run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process measures."""

    side: str
    """``ours``, ``reference`` or ``bare``."""
    shape: str
    form: str
    """``dict``, ``bytes`` or ``arrow``: what the source yields."""
    target: str
    """``parquet``, ``delta`` and ``iceberg`` (in a folder), ``s3`` (Parquet in a bucket), ``duckdb``, ``postgres``."""
    rows: int
    folder: str
    settings: str = "default"
    """Name of the side's settings; what it stands for is in the output."""
    dsn: str = ""
    """Of a database that nobody else uses, for ``postgres``; the server's address, for ``s3``."""
    fresh: bool = False
    """Whether the source makes every page anew, with ids that go on; else it yields the same ones again."""
    first: int = 0
    """The first of those ids."""
    write: str = "append"
    """``append``, ``merge`` (by the destination's default strategy) or ``upsert``, by id."""

    @property
    def dataset(self) -> str:
        """Where tables go; the warm-up run has one of its own."""
        return f"{DATASET}_warm" if Path(self.folder).name == WARM else DATASET

    @property
    def bucket_url(self) -> str:
        """A prefix that nobody else uses, for ``s3``."""
        folder = Path(self.folder)

        return f"s3://lake/{folder.parent.name if folder.name == WARM else folder.name}"

    def pages(self, pool: Pool) -> Iterator[Any]:
        """What the source yields; unless they are to be fresh, all pages exist when this has returned."""
        if self.fresh:
            return pool.new_pages(self.form, self.rows, self.first)

        return pool.pages(self.form, self.rows)

    @property
    def write_disposition(self) -> Any:
        """As both sides take it."""
        return {"disposition": "merge", "strategy": "upsert"} if self.write == "upsert" else self.write

    @property
    def table_format(self) -> Any:
        """As both sides take it."""
        return self.target if self.target in LAKES else None

    @property
    def is_files(self) -> bool:
        """Whether the result is files."""
        return self.target in {"parquet", "s3", *LAKES}

    @property
    def output(self) -> Path:
        """Where the result is: a folder for files, to which a bucket is copied; a database file for DuckDB."""
        return Path(self.folder) / ("lake" if self.is_files else "out.duckdb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one process measured. Times in seconds, sizes in bytes."""

    wall: float
    cpu: float
    rss_before: int
    rss_peak: int
    """Highest resident size of the process while it ran."""
    rss_children: int = 0
    """Highest resident size of its largest child process, where it had any."""
    found: int | None = None
    """Rows of the root table after the run, each id once; of ours, and only where ids are numbered."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the settings' name stands for."""


class Meter:
    """Memory of this process around a piece of work.

    What was made before it has been looked through by the garbage collector: a full collection for the sake of the
    pages, which exist before the clock starts, would otherwise come at some moment of the work.
    """

    def __init__(self) -> None:
        gc.collect()
        self.before = _status("VmRSS")
        _forget_peak()

    def peak(self) -> int:
        """Highest resident size since the meter was made, where the system can tell; else since the start."""
        return _status("VmHWM")


def _status(key: str) -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)

    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def largest_child() -> int:
    """Highest resident size of the largest child that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
