"""``python -m benchmarks``: speed side by side with the reference; a table, JSON, a plot.

The other questions have programs of their own: bench_loop, bench_small_runs, bench_memory, bench_import.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks import plot, report
from benchmarks.against import compare_case, older_tree, print_compared, this_tree
from benchmarks.data import SHAPES
from benchmarks.harness import Case, CaseResult, machine, reference_settings, run_case

SIZES = {"S": 0.2, "M": 1.0, "L": 3.0}
FORMS = ("dict", "bytes")
TARGETS = ("parquet", "s3", "duckdb", "postgres")
QUICK = (
    ("flat", "dict", "parquet"),
    ("flat", "bytes", "parquet"),
    ("orders", "dict", "parquet"),
    ("events", "bytes", "duckdb"),
)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--size", choices=SIZES, default="M", help="S: a fifth; M: 1x, a few seconds of the reference; L: 3x"
    )
    parser.add_argument(
        "--growth", nargs="+", type=float, default=[1.0], metavar="N", help="sizes to measure, as in: 1 3 10"
    )
    parser.add_argument(
        "--case", nargs="+", default=[], metavar="WORD", help="only cases with all these words, as in: flat bytes"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--against",
        metavar="REV",
        help="this tree against an older commit instead of the reference, interleaved; fails if a case is slower",
    )
    parser.add_argument(
        "--quick", action="store_true", help="four small cases, one round: about two minutes on two cores"
    )
    parser.add_argument(
        "--all-settings", action="store_true", help="the reference with every set of settings, to find its best"
    )
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    parser.add_argument("--plot", type=Path, help="where to write the picture (PNG)")

    return parser.parse_args()


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """The chosen cases, all sizes of one after the other."""
    every = [(shape, form, target) for shape in SHAPES for form in FORMS for target in TARGETS]
    every += [("flat", "arrow", target) for target in TARGETS]

    for shape, form, target in QUICK if options.quick else every:
        if not all(word in (shape, form, target) for word in options.case):
            continue

        for scale in options.growth:
            size = scale * (SIZES["S"] if options.quick else SIZES[options.size])
            pages = max(round(SHAPES[shape].rows * size / SHAPES[shape].page_rows), 1)
            yield Case(shape=shape, form=form, target=target, rows=pages * SHAPES[shape].page_rows, scale=scale)


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    console, facts = Console(width=None if Console().is_terminal else 200), machine()
    report.print_machine(console, facts)

    if options.against is not None:
        raise SystemExit(_against(options, console))

    results: list[CaseResult] = []

    for case in cases(options):
        names = reference_settings(case, every=options.all_settings)
        names = names[:2] if options.quick else names
        # At ten times the size its defaults take minutes into a database, and are never its best.
        names = names[1:] if case.scale > 1 and not options.all_settings else names
        repeats = 1 if options.quick or case.scale > 1 else options.repeats

        with console.status("") as status:
            results.append(run_case(case, names, repeats, status.update))

        if not console.is_terminal:
            console.print(f"done: {case.label}, {case.rows:,} rows: {results[-1].compared}")

    report.print_speed(console, [result for result in results if result.case.scale == min(options.growth)])

    if len(options.growth) > 1:
        report.print_growth(console, results)

    if options.json is not None:
        report.write_json(options.json, {"machine": facts, "results": [result.as_dict() for result in results]})

    if options.plot is not None:
        plot.write_plot(options.plot, [result.as_dict() for result in results])


def _against(options: argparse.Namespace, console: Console) -> int:
    """Old and new commit; the exit code."""
    with older_tree(options.against) as old, this_tree() as new:
        results = []

        for case in cases(options):
            with console.status("") as status:
                results.append(compare_case(case, old, new, options.repeats, status.update))

            if not console.is_terminal:
                console.print(f"done: {case.label}, {case.rows:,} rows")

        print_compared(console, results, old, new)

    return 1 if any(one.is_slower or one.error for one in results) else 0


if __name__ == "__main__":
    main()
