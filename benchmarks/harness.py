"""Runs measurements: each in a process of its own, sides interleaved, medians over repeats, outputs compared."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import bare, compare, reference
from benchmarks.job import Job, Measured
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed

__all__ = ["Case", "CaseResult", "Log", "SideResult", "address_of", "machine", "one_run", "run_case", "run_job"]

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table: a shape in a form to a target, at a size."""

    shape: str
    form: str
    target: str
    rows: int
    scale: float = 1.0

    @property
    def label(self) -> str:
        """Short name in tables."""
        return f"{self.shape}, {self.form} pages, to {self.target}"


@dataclass(slots=True, kw_only=True)
class SideResult:
    """The runs of one side with one set of settings."""

    side: str
    settings: str
    runs: list[Measured] = field(default_factory=list)
    error: str | None = None

    @property
    def wall(self) -> float:
        """Median of the runs, in seconds."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def peak(self) -> int:
        """Highest resident size over the runs, workers' processes of the reference not counted."""
        return max(run.rss_peak for run in self.runs)


@dataclass(slots=True, kw_only=True)
class CaseResult:
    """Everything measured for one case."""

    case: Case
    sides: list[SideResult]
    compared: str
    """``equal``, or what differs: times are only reported when it is ``equal``."""

    def best(self, side: str) -> SideResult | None:
        """The fastest settings of a side; None where it did not run."""
        done = [result for result in self.sides if result.side == side and result.runs]

        return min(done, key=lambda result: result.wall, default=None)

    def of(self, side: str, settings: str = "default") -> SideResult | None:
        """One side with one set of settings."""
        return next((item for item in self.sides if (item.side, item.settings) == (side, settings) and item.runs), None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "case": dataclasses.asdict(self.case),
            "compared": self.compared,
            "sides": [
                {
                    "side": item.side,
                    "settings": item.settings,
                    "error": item.error,
                    "wall_median": item.wall if item.runs else None,
                    "runs": [dataclasses.asdict(run) for run in item.runs],
                }
                for item in self.sides
            ],
        }


def run_case(case: Case, settings: Sequence[str], repeats: int, log: Log) -> CaseResult:
    """Measure all sides of a case, one after the other in each round, so that a slow minute hits all of them."""
    plans = [("ours", "default"), *(("reference", name) for name in settings)]

    if case.target == "parquet" and bare.possible(case.shape):
        plans.append(("bare", "default"))

    results = {plan: SideResult(side=plan[0], settings=plan[1]) for plan in plans}
    found: dict[tuple[str, str], dict[str, compare.Signature]] = {}

    for number in range(repeats):
        for plan in plans:
            log(f"{case.label}, {case.rows:,} rows: {plan[0]} ({plan[1]}), round {number + 1} of {repeats}")
            _one_round(case, results[plan], found)

    return CaseResult(case=case, sides=list(results.values()), compared=_verdict(found))


def _one_round(case: Case, result: SideResult, found: dict[tuple[str, str], dict[str, compare.Signature]]) -> None:
    if result.error is not None:
        return

    folder = tempfile.mkdtemp(prefix="asyncelt-bench-")
    job = _job(case, result.side, result.settings, folder)

    try:
        result.runs.append(run_job(job))

        if result.side != "bare" and (result.side, result.settings) not in found:
            found[result.side, result.settings] = compare.signatures(job)
    except RuntimeError as error:
        result.error = str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def address_of(target: str) -> str:
    """Of a server, which is started when it is first needed; empty where there is none."""
    if target == "postgres":
        return _server().new_database()

    return _bucket_server().url if target == "s3" else ""


@functools.cache
def _bucket_server() -> Seaweed:
    """A server for as long as the program runs."""
    folder = tempfile.mkdtemp(prefix="s3-")
    server = Seaweed(Path(folder))
    server.__enter__()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)

    return server


def _job(case: Case, side: str, settings: str, folder: str) -> Job:
    return Job(
        side=side,
        shape=case.shape,
        form=case.form,
        target=case.target,
        rows=case.rows,
        folder=folder,
        settings=settings,
        dsn=address_of(case.target),
    )


@functools.cache
def _server() -> PostgresServer:
    """A server for as long as the program runs; without fsync, for both sides."""
    folder = tempfile.mkdtemp(prefix="pg-")
    server = PostgresServer(Path(folder) / "server")
    server.__enter__()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.stop)

    return server


def one_run(case: Case, folder: Path) -> Measured:
    """One run of a case with the package that lies in ``folder``, beside these programs.

    Raises:
        RuntimeError: The process failed; the message ends with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="asyncelt-bench-") as output:
        return run_job(_job(case, "ours", "default", output), folder)


def run_job(job: Job, folder: Path | None = None) -> Measured:
    """One measurement in a process of its own.

    Args:
        job: What to measure.
        folder: Where the package and these programs lie; None: here.

    Raises:
        RuntimeError: The process failed; the message ends with its last words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure", json.dumps(dataclasses.asdict(job))],
        capture_output=True,
        text=True,
        cwd=folder or Path(__file__).resolve().parents[1],
        check=False,
    )

    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-800:] or f"exit code {done.returncode}")

    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def _verdict(found: dict[tuple[str, str], dict[str, compare.Signature]]) -> str:
    base = next((value for (side, _), value in found.items() if side == "reference"), None)

    if base is None or not any(side == "ours" for side, _ in found):
        return "one side did not run"

    texts = []

    for (side, settings), value in found.items():
        if differing := compare.differences(base, value):
            texts.append(f"{side} ({settings}): {'; '.join(differing[:4])}")

    return " | ".join(texts) or "equal"


def reference_settings(case: Case, *, every: bool) -> list[str]:
    """The settings the reference runs with: its defaults and those that were fastest, or all that make sense."""
    names = reference.candidates(case.target) if every else ["default", *BEST[case.target]]

    # Written as JSON lines, Arrow's numbers and times come back as others than they were.
    return [name for name in names if case.form != "arrow" or not name.startswith("jsonl")]


BEST: dict[str, tuple[str, ...]] = {
    "parquet": ("no gzip, large buffers", "no gzip, 2 workers, file rotation"),
    "s3": ("no gzip, large buffers", "no gzip, 2 workers, file rotation"),
    "duckdb": (
        "parquet, no gzip",
        "parquet, no gzip, 2 workers, file rotation",
        "jsonl, no gzip, 2 workers, file rotation",
    ),
    "postgres": (
        "csv, no gzip",
        "csv, no gzip, 2 workers, file rotation",
        "parquet, no gzip, 2 workers, file rotation",
    ),
}
"""The fastest settings by target; found by ``--all-settings``."""


def machine() -> dict[str, Any]:
    """What the figures depend on: machine, versions, commit."""
    packages = ("dlt", "duckdb", "pyarrow", "orjson", "msgspec", "numpy", "anyio")

    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg()[0],
        "versions": {name: metadata.version(name) for name in packages},
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()

    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=root, check=False
    )

    return done.stdout.strip() or "unknown"
