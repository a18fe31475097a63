"""Is memory flat in the size of the data? Peak resident size at 1x, 3x and 10x, every page made anew by a generator."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.data import SHAPES
from benchmarks.harness import address_of, run_job
from benchmarks.job import Job

MIB = 1024 * 1024
SCALES = (1.0, 3.0, 10.0)
TARGETS = ("parquet", "s3", "delta", "iceberg", "duckdb", "postgres")


def measure(shape: str, form: str, target: str, wanted: float, side: str) -> dict[str, Any]:
    """One process, with about the wanted number of rows."""
    page_rows = SHAPES[shape].page_rows
    rows = max(round(wanted / page_rows), 1) * page_rows
    folder = tempfile.mkdtemp(prefix="asyncelt-bench-")
    job = Job(
        side=side,
        shape=shape,
        form=form,
        target=target,
        rows=rows,
        folder=folder,
        fresh=True,
        dsn=address_of(target),
    )
    told: dict[str, Any] = {"shape": shape, "form": form, "target": target, "rows": rows, "side": side}

    try:
        return {**told, **run_job(job).as_dict()}
    except RuntimeError as error:
        return {**told, "error": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Each shape and form to each target, at each scale."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_memory", description=__doc__)
    parser.add_argument("--scales", nargs="+", type=float, default=SCALES)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=("flat", "orders", "events"))
    parser.add_argument("--forms", nargs="+", choices=("dict", "bytes"), default=("dict", "bytes"))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=("parquet", "duckdb"))
    parser.add_argument("--rows", nargs="+", type=int, help="instead of scales, as in: 1000000 5000000")
    parser.add_argument("--side", choices=("ours", "reference"), default="ours")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title="peak resident size, MB (aim: under 400, flat); in brackets what was there before the run")
    results: list[dict[str, Any]] = []
    table.add_column("case")

    for title in [f"{rows:,} rows" for rows in options.rows or ()] or [f"{scale:g}x" for scale in options.scales]:
        table.add_column(title, justify="right")

    for shape, form, target in ((s, f, t) for s in options.shapes for f in options.forms for t in options.targets):
        sizes = options.rows or [SHAPES[shape].rows * scale for scale in options.scales]
        found = [measure(shape, form, target, wanted, options.side) for wanted in sizes]
        results += found
        table.add_row(f"{shape}, {form} pages, to {target}", *map(_cell, found))

    console.print(table)

    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def _cell(result: dict[str, Any]) -> str:
    if "error" in result:
        return str(result["error"])[-80:]

    return f"{result['rss_peak'] / MIB:.0f} ({result['rss_before'] / MIB:.0f})"


if __name__ == "__main__":
    main()
