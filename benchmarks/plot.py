"""One picture of what ``python -m benchmarks --json`` has written, of as many runs as are named.

``python -m benchmarks.plot a.json b.json --out speed.png``. Cases measured at several sizes get a panel each: seconds
by rows, and how many times less than dlt at its best. If there are none, it is bars: rows per second by case. Where two
files have the same case at the same size, the later one counts. Cases whose outputs differed are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import SHAPES

__all__ = ["Panel", "Point", "panels_of", "write_plot"]

OURS, BEST, DEFAULTS, BARE = "asyncelt", "dlt at its best", "dlt at its defaults", "pyarrow alone"
COLOURS = {OURS: "#1b7f5c", BEST: "#6f6f6f", DEFAULTS: "#bdbdbd", BARE: "#c98a2b"}
ORDER = tuple(SHAPES)
COLUMNS = 4
PALETTE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One case at one size."""

    rows: int
    seconds: Mapping[str, float]
    """By the names of `COLOURS`; those that did not run are missing."""

    @property
    def times_faster(self) -> float | None:
        """The reference's fastest time over ours."""
        best = self.seconds.get(BEST)

        return None if best is None else best / self.seconds[OURS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One case at all sizes, the smallest first."""

    label: str
    points: tuple[Point, ...]


def panels_of(results: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """The cases of which something can be shown, by target, shape and form."""
    found: dict[tuple[str, int, str], dict[int, Point]] = {}

    for result in results:
        case = result["case"]
        seconds = _seconds(result["sides"])

        if result["compared"] == "equal" and OURS in seconds:
            key = (case["target"], ORDER.index(case["shape"]), case["form"])
            found.setdefault(key, {})[case["rows"]] = Point(rows=case["rows"], seconds=seconds)

    return [
        Panel(
            label=f"{ORDER[shape]}, {form} pages, to {target}",
            points=tuple(point for _, point in sorted(points.items())),
        )
        for (target, shape, form), points in sorted(found.items())
    ]


def _seconds(sides: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    ran = [side for side in sides if side["wall_median"] is not None]
    reference = {side["settings"]: side["wall_median"] for side in ran if side["side"] == "reference"}
    seconds = {
        name: side["wall_median"] for name, of in ((OURS, "ours"), (BARE, "bare")) for side in ran if side["side"] == of
    }

    if reference:
        seconds[BEST] = min(reference.values())

    if "default" in reference:
        seconds[DEFAULTS] = reference["default"]

    return seconds


def write_plot(path: Path, results: Iterable[Mapping[str, Any]]) -> None:
    """Write a PNG; nothing where nothing can be shown."""
    held = panels_of(results)

    if not held:
        return

    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    grown = [panel for panel in held if len(panel.points) > 1]
    figure = _growth(plt, grown) if grown else _bars(plt, held)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    _shrink(path)


def _growth(plt: Any, panels: Sequence[Panel]) -> Any:
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    size = (3.3 * columns, 2.7 * lines + 0.6)
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")

    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel)

    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()

    figure.supylabel("seconds", fontsize="medium")
    figure.supxlabel("rows", fontsize="medium")
    _legend(figure, grid.flat)

    return figure


def _legend(figure: Any, every: Iterable[Any]) -> None:
    found = [axes.get_legend_handles_labels() for axes in every]
    handles = {label: handle for both in found for handle, label in zip(*both, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)


def _draw(axes: Any, panel: Panel) -> None:
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name, colour in COLOURS.items():
        points = [(point.rows, point.seconds[name]) for point in panel.points if name in point.seconds]

        if points:
            style = ":" if name == BARE else "-"
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=4, color=colour, label=name)

    for point in panel.points:
        if point.times_faster is not None:
            text, at = f"{point.times_faster:.1f}x", (point.rows, point.seconds[OURS])
            edge = withStroke(linewidth=3, foreground="w")
            told = axes.annotate(text, at, (0, -13), textcoords="offset points", ha="center", color=COLOURS[OURS])
            told.set_path_effects([edge])

    axes.set_title(panel.label, fontsize=10)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.12, y=0.16)
    axes.set_xticks([point.rows for point in panel.points], [_short(point.rows) for point in panel.points])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, axis="y", color="#eeeeee")


def _short(rows: int) -> str:
    return f"{rows / 1e6:g} M" if rows >= 1_000_000 else f"{rows / 1e3:g} k"


def _bars(plt: Any, panels: Sequence[Panel]) -> Any:
    figure, axes = plt.subplots(figsize=(10, 1.5 + 0.55 * len(panels)), layout="constrained")
    offsets = {OURS: 0.27, BEST: 0.0, DEFAULTS: -0.27}

    for position, panel in enumerate(reversed(panels)):
        point = panel.points[0]

        for name, offset in offsets.items():
            if name in point.seconds:
                axes.barh(position + offset, point.rows / point.seconds[name], 0.25, color=COLOURS[name], label=name)

        if point.times_faster is not None:
            axes.text(point.rows / point.seconds[OURS], position + 0.2, f" {point.times_faster:.1f}x")

    axes.set_yticks(range(len(panels)), [panel.label for panel in reversed(panels)])
    axes.set_xscale("log")
    axes.set_xlabel("rows per second")
    axes.margins(x=0.1, y=0.02)
    _legend(figure, [axes])

    return figure


def _shrink(path: Path) -> None:
    """A palette is enough for lines and text, and makes the file a third as large."""
    from PIL import Image

    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(PALETTE)

    reduced.save(path, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="what --json has written")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_plot(options.out, [result for file in options.files for result in json.loads(file.read_text())["results"]])


if __name__ == "__main__":
    main()
