"""The results as tables on the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import CaseResult

__all__ = ["print_growth", "print_machine", "print_speed", "write_json"]

MIB = 1024 * 1024


def print_machine(console: Console, facts: dict[str, Any]) -> None:
    """What the figures were measured on."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    memory = facts["memory"] / 1024**3
    console.print(
        f"{facts['processor']}, {facts['cores']} cores, {memory:.0f} GiB; Python {facts['python']}; {versions}"
    )
    console.print(f"commit {facts['commit']}; load average at the start {facts['load_average']:.1f}")


def print_speed(console: Console, results: Sequence[CaseResult]) -> None:
    """One line per case: rows per second of each side, and how many times faster; nothing where outputs differ."""
    table = Table(title="whole run(), extract to commit; medians, rows per second")
    table.add_column("case")
    table.add_column("rows", justify="right")

    for heading in (
        "asyncelt",
        "reference, defaults",
        "reference, best",
        "faster than best",
        "time over bare",
        "peak MB",
    ):
        table.add_column(heading, justify="right")

    table.add_column("best settings of the reference")

    for result in results:
        table.add_row(*_line(result))

    console.print(table)


def _line(result: CaseResult) -> list[str]:
    case, ours, best = result.case, result.of("ours"), result.best("reference")
    default, bare = result.of("reference"), result.of("bare")
    head = [case.label, f"{case.rows:,}"]

    if result.compared != "equal" or ours is None or best is None:
        failed = "; ".join(f"{side.side}: {side.error[-200:]}" for side in result.sides if side.error)
        return [*head, *[""] * 6, f"[red]not comparable: {result.compared} {failed}[/red]"]

    return [
        *head,
        f"{case.rows / ours.wall:,.0f}",
        f"{case.rows / default.wall:,.0f}" if default else "",
        f"{case.rows / best.wall:,.0f}",
        f"[bold]{best.wall / ours.wall:.1f}x[/bold]",
        f"{ours.wall / bare.wall:.2f}" if bare else "",
        f"{ours.peak / MIB:.0f} / {best.peak / MIB:.0f}",
        best.settings,
    ]


def print_growth(console: Console, results: Sequence[CaseResult]) -> None:
    """How cost and memory grow with size: microseconds a row and peak memory, both sides."""
    table = Table(title="growth: µs per row, and peak MB, by size")
    table.add_column("case")
    scales = sorted({result.case.scale for result in results})

    for scale in scales:
        table.add_column(f"{scale:g}x asyncelt", justify="right")
        table.add_column(f"{scale:g}x reference", justify="right")

    for label in dict.fromkeys(result.case.label for result in results):
        cells = []

        for scale in scales:
            found = next((item for item in results if (item.case.label, item.case.scale) == (label, scale)), None)
            cells += [_growth(found, "ours"), _growth(found, "reference")]

        table.add_row(label, *cells)

    console.print(table)


def _growth(result: CaseResult | None, side: str) -> str:
    best = result.best(side) if result is not None else None

    if result is None or best is None or result.compared != "equal":
        return ""

    return f"{best.wall / result.case.rows * 1e6:.1f} µs, {best.peak / MIB:.0f} MB"


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Everything measured, for later comparison."""
    path.write_text(json.dumps(document, indent=1) + "\n")
