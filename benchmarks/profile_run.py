"""Where does the processor time of a run go? Milliseconds per stage, beside Arrow's own readers over the same pages.

Each stage is a few functions of asyncelt, which are wrapped for the run and counted by the processor time of their
thread, without what other stages below them take. Of several runs the one that took least is shown. Processor time is
about the same on a busy machine, which is why this asks for it and not for time on the clock.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import io
import json
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pyarrow as pa
import pyarrow.json as pj
from rich.console import Console
from rich.table import Table

from benchmarks import ours
from benchmarks.data import SHAPES, pool
from benchmarks.job import Job

__all__ = ["STAGES", "Profile", "measure"]

STAGES: dict[str, tuple[str, ...]] = {
    "rows apart, in the extension": (
        "asyncelt.normalize.roads:part_of_plain_rows",
        "asyncelt.normalize.roads:part_of_plain_json",
    ),
    "columns to Arrow, names": ("asyncelt.normalize.plain_road:_part",),
    "other roads": ("asyncelt.normalize.page:Normalizer.shred",),
    "ids": ("asyncelt.normalize.conform:identify", "asyncelt.normalize.identify:Identified.columns_of"),
    "columns to their types": ("asyncelt.normalize.place:Placer.place",),
    "new columns": ("asyncelt.normalize.conform:introduced", "asyncelt.engine.shaping:apply_delta"),
    "the rest of conforming": ("asyncelt.normalize.page:Normalizer.conform",),
    "pages joined to row groups": ("asyncelt.storage.writer:_align",),
    "Parquet": ("asyncelt.storage.formats:_ParquetFile.write",),
    "files opened and closed": (
        "asyncelt.storage.writer:TableFiles.append",
        "asyncelt.storage.writer:TableFiles.finish",
    ),
    "package sealed": ("asyncelt.engine.normalization:seal_run",),
}
"""Stage to its functions."""
COMMIT, LOOP, REST = "load and commit", "the event loop until then", "other threads until then"
LAST = "package sealed"


@dataclass(slots=True)
class Profile:
    """Processor time of one run, in seconds."""

    stages: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    wall: float = 0.0


@dataclass(slots=True)
class _Clock:
    """Counts stages while they run, in any thread."""

    loop: int
    """The clock of the thread that the event loop runs in."""
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    in_loop: float = 0.0
    """The part of it that was in the loop's thread."""
    at_seal: tuple[float, float] = (0.0, 0.0)
    """Of the process and of the loop, when the package was sealed."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    local: threading.local = field(default_factory=threading.local)

    def counted(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            below: list[float] = self.local.__dict__.setdefault("below", [])
            below.append(0.0)
            began = time.thread_time()

            try:
                return function(*arguments, **named)
            finally:
                took = time.thread_time() - began
                own = took - below.pop()

                if below:
                    below[-1] += took

                self._add(stage, own)

        return call

    def _add(self, stage: str, seconds: float) -> None:
        with self.lock:
            self.spent[stage] += seconds

            if threading.current_thread() is threading.main_thread():
                self.in_loop += seconds

            if stage == LAST:
                self.at_seal = time.process_time(), time.clock_gettime(self.loop)


@contextmanager
def _wrapped(clock: _Clock) -> Iterator[None]:
    undo: list[tuple[Any, str, Any]] = []

    try:
        for stage, places in STAGES.items():
            for place in places:
                module, _, path = place.partition(":")
                *owners, name = path.split(".")
                owner = functools.reduce(getattr, owners, importlib.import_module(module))
                undo.append((owner, name, getattr(owner, name)))
                setattr(owner, name, clock.counted(stage, getattr(owner, name)))

        yield
    finally:
        for owner, name, function in undo:
            setattr(owner, name, function)


def measure(shape: str, form: str, target: str, rows: int, repeats: int) -> Profile:
    """The run that took least, after one that warms up."""
    warnings.simplefilter("ignore")
    profiles = [_once(shape, form, target, rows) for _ in range(repeats + 1)][1:]

    return min(profiles, key=lambda one: one.total)


def _once(shape: str, form: str, target: str, rows: int) -> Profile:
    made = pool(SHAPES[shape])
    loop = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
    clock = _Clock(loop)

    with tempfile.TemporaryDirectory(prefix="asyncelt-bench-") as folder, _wrapped(clock):
        job = Job(side="ours", shape=shape, form=form, target=target, rows=rows, folder=folder)
        pages = job.pages(made)
        gc.collect()
        before = time.perf_counter(), time.process_time(), time.clock_gettime(loop)
        anyio.run(ours.run, job, pages)
        wall, total = time.perf_counter() - before[0], time.process_time() - before[1]

    sealed, in_loop = clock.at_seal[0] - before[1], clock.at_seal[1] - before[2] - clock.in_loop
    known = sum(clock.spent.values())
    stages = {**clock.spent, LOOP: in_loop, REST: sealed - known - in_loop, COMMIT: total - sealed}

    return Profile(stages, total, wall)


def bare(shape: str, form: str, rows: int) -> dict[str, float]:
    """Seconds of Arrow's own readers over the same pages, in one thread: no tables, no names, no ids, no files."""
    made = pool(SHAPES[shape])
    pages = list(made.pages(form, rows))
    readers: dict[str, Callable[[Any], object]] = {"pa.array": pa.array} if form == "dict" else {"pyarrow.json": _read}
    found = {}

    for name, read in readers.items():
        began = time.thread_time()

        try:
            for page in pages:
                read(page)
        except pa.ArrowException:
            continue

        found[name] = time.thread_time() - began

    return found


def _read(page: bytes) -> object:
    lines = b"\n".join(map(bytes, msgspec.json.decode(page, type=list[msgspec.Raw])))
    options = pj.ReadOptions(use_threads=False, block_size=len(lines) + 1)

    return pj.read_json(io.BytesIO(lines), read_options=options)


def table_of(title: str, rows: int, profile: Profile, arrow: dict[str, float]) -> Table:
    """The stages as a table."""
    table = Table(title=title)

    for heading in ("stage", "ms", "µs a row", "of all"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")

    for stage, seconds in profile.stages.items():
        table.add_row(stage, *_figures(seconds, rows), f"{seconds / profile.total:.0%}")

    table.add_section()
    table.add_row("all", *_figures(profile.total, rows), f"{profile.wall * 1e3:.0f} ms on the clock")

    for name, seconds in arrow.items():
        table.add_row(f"{name} alone", *_figures(seconds, rows), "")

    return table


def _figures(seconds: float, rows: int) -> tuple[str, str]:
    return f"{seconds * 1e3:.0f}", f"{seconds / rows * 1e6:.2f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_run", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=("flat", "orders", "events"))
    parser.add_argument("--forms", nargs="+", choices=("dict", "bytes"), default=("dict", "bytes"))
    parser.add_argument("--target", choices=("parquet", "duckdb"), default="parquet")
    parser.add_argument("--scale", type=float, default=1.0, help="of the rows at 1x")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 100)
    document: list[dict[str, Any]] = []

    for shape, form in ((shape, form) for shape in options.shapes for form in options.forms):
        page_rows = SHAPES[shape].page_rows
        rows = max(round(SHAPES[shape].rows * options.scale / page_rows), 1) * page_rows
        profile = measure(shape, form, options.target, rows, options.repeats)
        title = f"{shape}, {form} pages, to {options.target}, {rows:,} rows: processor time"
        console.print(table_of(title, rows, profile, bare(shape, form, rows)))
        document.append({"shape": shape, "form": form, "target": options.target, "rows": rows, **asdict(profile)})

    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
