"""What does a small run cost, and does it stay so? Runs of ten rows in one process on one DuckDB file.

Expected: the median of each hundred runs, and the resident size after it, are flat from the first to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import asyncelt

GROUP = 100


async def measure(runs: int, folder: Path) -> list[dict[str, Any]]:
    """Milliseconds and memory by groups of runs."""
    pipeline = asyncelt.pipeline(
        "small",
        destination=asyncelt.destinations.duckdb(str(folder / "small.duckdb")),
        dataset_name="data",
        pipelines_dir=str(folder / "work"),
    )
    process = psutil.Process()
    await pipeline.run([{"id": -1, "name": "warm-up"}], table_name="items")
    groups = []

    for first in range(0, runs, GROUP):
        times = [await _one(pipeline, first + number) for number in range(min(GROUP, runs - first))]
        gc.collect()
        groups.append(
            {
                "runs": first + len(times),
                "median_ms": statistics.median(times),
                "p99_ms": sorted(times)[int(len(times) * 0.99)],
                "rss_mb": process.memory_info().rss / 1024**2,
                "files": process.num_fds(),
                "threads": threading.active_count(),
            }
        )

    return groups


async def _one(pipeline: Any, number: int) -> float:
    rows = [{"id": number * 10 + index, "name": f"row {index}", "value": index / 2} for index in range(10)]
    start = time.perf_counter()
    await pipeline.run(rows, table_name="items")

    return (time.perf_counter() - start) * 1_000


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_small_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="asyncelt-bench-") as folder:
        groups = asyncio.run(measure(options.runs, Path(folder)))

    table = Table(title=f"{options.runs} runs of ten rows to DuckDB (aim: median under 60 ms, flat)")

    for heading in ("runs", "median ms", "p99 ms", "RSS MB", "open files", "threads"):
        table.add_column(heading, justify="right")

    for group in groups:
        figures = [f"{group[key]:.1f}" for key in ("median_ms", "p99_ms", "rss_mb")]
        table.add_row(str(group["runs"]), *figures, str(group["files"]), str(group["threads"]))

    Console().print(table)

    if options.json is not None:
        options.json.write_text(json.dumps(groups, indent=1) + "\n")


if __name__ == "__main__":
    main()
