"""What does ``import asyncelt`` cost? Wall time in fresh processes, interleaved with the reference and a bare start."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

STATEMENTS = {
    "nothing": "pass",
    "asyncelt": "import asyncelt",
    "asyncelt.destinations.duckdb": "import asyncelt; asyncelt.destinations.duckdb",
    "pyarrow": "import pyarrow",
    "dlt": "import dlt",
}
COUNT = "; import sys; print(len(sys.modules))"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_import", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    modules: dict[str, int] = {}

    for _ in range(options.repeats):
        for name, statement in STATEMENTS.items():
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", statement + COUNT], capture_output=True, text=True, check=True)
            times[name].append((time.perf_counter() - start) * 1_000)
            modules[name] = int(done.stdout.split()[-1])

    table = Table(title="start of a process that imports ...")

    for heading in ("what", "median ms", "modules"):
        table.add_column(heading, justify="left" if heading == "what" else "right")

    for name, found in times.items():
        table.add_row(name, f"{statistics.median(found):.0f}", str(modules[name]))

    Console().print(table)

    if options.json is not None:
        medians = {name: statistics.median(found) for name, found in times.items()}
        options.json.write_text(json.dumps({"median_ms": medians, "modules": modules}, indent=1) + "\n")


if __name__ == "__main__":
    main()
