"""The results as one picture: rows per second side by side, and how cost grows with size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import CaseResult

__all__ = ["write_plot"]

COLOURS = {"ours": "#1b7f5c", "reference": "#b9b9b9", "best": "#7d7d7d"}


def write_plot(path: Path, results: Sequence[CaseResult]) -> None:
    """Write a PNG; cases whose outputs differ are left out."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    held = [result for result in results if result.compared == "equal" and result.best("ours")]

    if not held:
        return

    smallest = min(result.case.scale for result in held)
    bars = [result for result in held if result.case.scale == smallest]
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 1.5 + 0.55 * len(bars)), width_ratios=(3, 2))
    _speeds(left, bars)
    _growth(right, held)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _speeds(axes: object, results: Sequence[CaseResult]) -> None:
    for position, result in enumerate(reversed(results)):
        ours, best, default = result.best("ours"), result.best("reference"), result.of("reference")
        assert ours is not None

        for offset, side, colour in ((0.27, ours, "ours"), (0, best, "best"), (-0.27, default, "reference")):
            if side is not None:
                axes.barh(position + offset, result.case.rows / side.wall, 0.25, color=COLOURS[colour])  # type: ignore[attr-defined]

        if best is not None:
            axes.text(result.case.rows / ours.wall, position + 0.2, f" {best.wall / ours.wall:.1f}x")  # type: ignore[attr-defined]

    axes.set_yticks(range(len(results)), [result.case.label for result in reversed(results)])  # type: ignore[attr-defined]
    axes.set_xscale("log")  # type: ignore[attr-defined]
    axes.set_xlabel("rows per second (log): asyncelt, the reference at its best, at its defaults")  # type: ignore[attr-defined]


def _growth(axes: object, results: Sequence[CaseResult]) -> None:
    for label in dict.fromkeys(result.case.label for result in results):
        points = sorted((item.case.rows, item.best("ours").wall) for item in results if item.case.label == label)  # type: ignore[union-attr]

        if len(points) > 1:
            axes.plot(*zip(*points, strict=True), marker="o", label=label)  # type: ignore[attr-defined]

    axes.set_xscale("log")  # type: ignore[attr-defined]
    axes.set_yscale("log")  # type: ignore[attr-defined]
    axes.set_xlabel("rows")  # type: ignore[attr-defined]
    axes.set_ylabel("seconds, asyncelt")  # type: ignore[attr-defined]

    if axes.get_legend_handles_labels()[0]:  # type: ignore[attr-defined]
        axes.legend(fontsize=7)  # type: ignore[attr-defined]
