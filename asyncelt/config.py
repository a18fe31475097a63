"""Settings: frozen values, built once at the edge (`configuration.settings`) and handed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from asyncelt.arguments import COUNT, FLAG, SECONDS, SIZE, Kind, choice, expect, expect_if_given
from asyncelt.errors import ConfigError
from asyncelt.types import Compression, FileFormat

__all__ = ["Limits", "Retry", "Roll", "Settings", "working_root"]

MIB = 1024 * 1024
NextItemMode = Literal["round_robin", "fifo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one run. Sizes in bytes, times in seconds."""

    max_memory: int = 256 * MIB
    """Bytes of data in flight between source and package files, over all stages of a run."""
    max_disk: int | None = None
    """Bytes of package files that may lie in the working folder, pending packages included; None: no bound. A call
    that comes to more ends with `asyncelt.errors.DiskLimitReached` and leaves nothing; a stream waits for its commits
    first. Passed by at most what each table writes at once (``buffer_max_bytes``)."""
    max_parallel_items: int = 20
    """Coroutines, deferred functions and calls of asynchronous or parallelized transformers that one resource may have
    under way. Results keep their order."""
    extract_workers: int = 5
    """Threads for deferred functions and parallelized transformers of one resource."""
    next_item_mode: NextItemMode = "round_robin"
    """Whether resources are read side by side, or one after the other (``fifo``)."""
    normalize_workers: int = 2
    """Threads that turn pages into columns. Never changes the result."""
    load_workers: int = 8
    """Jobs that move to the destination at the same time."""
    gather_bytes: int = 12 * MIB
    """Small pages of one table are joined up to about this size, as JSON or Arrow, before they become columns; Python
    rows, which take more room, up to twice as much if they are few. Wide documents gain most: each column of a page has
    its price."""
    gather_rows: int = 50_000
    """... and up to this many rows."""
    slice_s: float = 0.005
    """How long one piece of work may hold the interpreter lock."""
    buffer_max_items: int = 131_072
    """Rows a table buffers before they are written out (one Parquet row group)."""
    buffer_max_bytes: int = 16 * MIB
    """Bytes a table buffers before they are written out."""
    file_max_items: int | None = None
    """Rows in one job file; None: bounded by bytes only."""
    file_max_bytes: int = 256 * MIB
    """Bytes in one job file."""
    parquet_compression: Compression | None = None
    """Of Parquet job files; None: what suits the destination."""
    load_early_bytes: int | None = 4 * MIB
    """When a table of a run has gathered so much, its rows begin to be written into the transaction of the commit while
    the run still extracts, where the destination can do so. They become visible with the commit all the same. None:
    never."""
    keep_completed: int = 100
    """Manifests of loaded packages that stay on the disk."""
    cancel_grace_s: float = 10.0
    """How long a cancelled run waits for a user's synchronous code before it abandons the thread."""

    def __post_init__(self) -> None:
        _check(self, _LIMITS)
        expect("Limits", choice(NextItemMode), next_item_mode=self.next_item_mode)
        expect_if_given("Limits", choice(Compression), parquet_compression=self.parquet_compression)


_LIMITS: Mapping[str, Kind] = {
    "max_memory": COUNT,
    "max_disk": SIZE,
    "max_parallel_items": COUNT,
    "extract_workers": COUNT,
    "normalize_workers": COUNT,
    "load_workers": COUNT,
    "gather_bytes": SIZE,
    "gather_rows": SIZE,
    "slice_s": SECONDS,
    "buffer_max_items": COUNT,
    "buffer_max_bytes": COUNT,
    "file_max_items": COUNT,
    "file_max_bytes": COUNT,
    "load_early_bytes": Kind(f"{SIZE.words}, or None", lambda value: value is None or SIZE.accepts(value)),
    "keep_completed": SIZE,
    "cancel_grace_s": SECONDS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential back-off with jitter, for errors that say they are ``retryable``."""

    attempts: int = 5
    first_s: float = 0.1
    max_s: float = 30.0

    def __post_init__(self) -> None:
        _check(self, {"attempts": COUNT, "first_s": SECONDS, "max_s": SECONDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """When a stream ends a package and begins the next: at the first safe point after one of these is reached."""

    rows: int = 100_000
    bytes: int = 64 * MIB
    """As they were received."""
    seconds: float = 5.0
    """Since the first row of the package came."""

    def __post_init__(self) -> None:
        _check(self, {"rows": SIZE, "bytes": SIZE, "seconds": SECONDS})

        if self.rows < 1 or self.bytes < 1 or self.seconds <= 0:
            raise ConfigError(f"Each limit of a Roll must be greater than 0: {self}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a pipeline can be tuned by."""

    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)
    loader_file_format: FileFormat | None = None
    """File format of job files; None: what the destination prefers."""
    arrow_add_dlt_id: bool = False
    """Whether tables and batches of Arrow get ``_dlt_id``; they are taken as they are otherwise."""
    arrow_add_dlt_load_id: bool = False
    """The same for ``_dlt_load_id``."""
    raise_on_failed_jobs: bool = True
    """Whether a job that the destination refuses fails the call; else the info reports it and the package waits."""
    auto_abort_on_terminal_error: bool = False
    """Whether a package that the destination refuses for good is given up at once, with those after it, instead of
    waiting: the next run extracts their rows again."""

    def __post_init__(self) -> None:
        expect("Settings", Kind("asyncelt.Limits(...)", lambda value: isinstance(value, Limits)), limits=self.limits)
        expect("Settings", Kind("asyncelt.Retry(...)", lambda value: isinstance(value, Retry)), retry=self.retry)
        expect_if_given("Settings", choice(FileFormat), loader_file_format=self.loader_file_format)
        flags = ("arrow_add_dlt_id", "arrow_add_dlt_load_id", "raise_on_failed_jobs", "auto_abort_on_terminal_error")
        _check(self, dict.fromkeys(flags, FLAG))


def _check(values: Limits | Retry | Roll | Settings, kinds: Mapping[str, Kind]) -> None:
    """Check fields. None is a value only of those that are None by default."""
    where = type(values).__name__

    for one in fields(values):
        value = getattr(values, one.name)

        if one.name in kinds and (value is not None or one.default is not None):
            expect(where, kinds[one.name], **{one.name: value})


def working_root(env: Mapping[str, str] | None = None) -> Path:
    """The folder that holds one working folder per pipeline, unless ``pipelines_dir`` says otherwise.

    ``ASYNCELT_DATA_DIR`` wins; else ``~/.asyncelt/pipelines``. Never the reference's folder.
    """
    environment = os.environ if env is None else env
    configured = environment.get("ASYNCELT_DATA_DIR")

    if configured:
        return Path(configured) / "pipelines"

    return Path.home() / ".asyncelt" / "pipelines"
