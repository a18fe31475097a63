"""Is memory flat in the size of the data? Peak resident size of our process alone, servers apart, at several sizes.

A generator makes every page anew, with ids that go on. A merge or an upsert is the second run of two, each in a process
of its own: half of its keys are those of the first one's last rows. Before a figure is shown the rows are counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.data import SHAPES
from benchmarks.harness import address_of, machine, run_job
from benchmarks.job import LAKES, Job

__all__ = ["AIM", "Wanted", "measure"]

MIB = 1024 * 1024
AIM = 400 * MIB
SCALES = (1.0, 3.0, 10.0)
TARGETS = ("parquet", "s3", *LAKES, "duckdb", "postgres")
WRITES = ("append", "merge", "upsert")
WORDS = {"append": "to", "merge": "merged into", "upsert": "upserted into"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One figure."""

    shape: str
    form: str
    target: str
    write: str
    rows: int
    side: str = "ours"

    @property
    def label(self) -> str:
        """Short name in tables."""
        return f"{self.shape}, {self.form} pages, {WORDS[self.write]} {self.target}"


def measure(wanted: Wanted) -> dict[str, Any]:
    """One run in a process of its own; where it merges, another one before it makes what it merges into."""
    page_rows = SHAPES[wanted.shape].page_rows
    pages = max(round(wanted.rows / page_rows), 1)
    known = 0 if wanted.write == "append" else pages // 2 * page_rows
    folder = tempfile.mkdtemp(prefix="asyncelt-bench-")
    fill = Job(
        **{name: getattr(wanted, name) for name in ("side", "shape", "form", "target", "write")},
        rows=pages * page_rows,
        folder=folder,
        fresh=True,
        dsn=address_of(wanted.target),
    )
    told: dict[str, Any] = {**dataclasses.asdict(wanted), "rows": fill.rows}

    try:
        if wanted.write == "append":
            measured, expected = run_job(fill), fill.rows
        else:
            run_job(fill)
            measured = run_job(dataclasses.replace(fill, first=fill.rows - known))
            expected = 2 * fill.rows - known
    except RuntimeError as error:
        return {**told, "error": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    if wanted.side == "ours" and measured.found != expected:
        return {**told, "error": f"{measured.found} rows instead of {expected}"}

    return {**told, **dataclasses.asdict(measured)}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_memory", description=__doc__)
    parser.add_argument("--scales", nargs="+", type=float, default=SCALES)
    parser.add_argument("--rows", nargs="+", type=int, help="instead of scales, as in: 1000000 5000000")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=("flat", "orders", "events"))
    parser.add_argument("--forms", nargs="+", choices=("dict", "bytes"), default=("dict", "bytes"))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=("parquet", "duckdb"))
    parser.add_argument(
        "--writes", nargs="+", choices=WRITES, default=("append",), help="merge: by the destination's default strategy"
    )
    parser.add_argument("--side", choices=("ours", "reference"), default="ours")
    parser.add_argument("--json", type=Path)

    return parser.parse_args()


def cases(options: argparse.Namespace) -> Iterator[list[Wanted]]:
    """Each case at all sizes. Files without a table format only append."""
    for shape, form, target, write in (
        (shape, form, target, write)
        for shape in options.shapes
        for form in options.forms
        for target in options.targets
        for write in options.writes
        if write == "append" or target not in {"parquet", "s3"}
    ):
        sizes = options.rows or [round(SHAPES[shape].rows * scale) for scale in options.scales]
        yield [
            Wanted(shape=shape, form=form, target=target, write=write, rows=rows, side=options.side) for rows in sizes
        ]


def main() -> None:
    """Measure, print as figures come, write."""
    options = arguments()
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title="peak resident size, MB (aim: under 400, flat); in brackets what was there before the run")
    results: list[dict[str, Any]] = []
    table.add_column("case")

    for title in [f"{rows:,} rows" for rows in options.rows or ()] or [f"{scale:g}x" for scale in options.scales]:
        table.add_column(title, justify="right")

    for sizes in cases(options):
        found = [_told(console, wanted, measure(wanted)) for wanted in sizes]
        results += found
        table.add_row(sizes[0].label, *map(_cell, found))

    console.print(table)

    if options.json is not None:
        document = {"machine": machine(), "results": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def _told(console: Console, wanted: Wanted, result: dict[str, Any]) -> dict[str, Any]:
    console.print(f"{wanted.label}, {result['rows']:,} rows: {_cell(result)}")

    return result


def _cell(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"[red]{str(result['error'])[-80:]}[/red]"

    figures = f"{result['rss_peak'] / MIB:.0f} ({result['rss_before'] / MIB:.0f})"

    return figures if result["rss_peak"] <= AIM else f"[red]{figures}, above the aim[/red]"


if __name__ == "__main__":
    main()
