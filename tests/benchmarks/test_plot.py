"""The picture of several runs: what is in it, and that it is one and small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import Case, CaseResult, SideResult
from benchmarks.job import Measured
from benchmarks.plot import Panel, panels_of, write_plot

PNG = b"\x89PNG\r\n\x1a\n"


def result(rows: int, *, shape: str = "flat", compared: str = "equal", **walls: float) -> dict[str, Any]:
    """As ``--json`` has it; sides by name: ours, best, default, bare."""
    sides = {"ours": ("ours", "default"), "best": ("reference", "no gzip"), "default": ("reference", "default")}
    held = []

    for name, wall in walls.items():
        side, settings = sides.get(name, (name, "default"))
        run = Measured(wall=wall, cpu=wall, rss_before=1, rss_peak=1)
        held.append(SideResult(side=side, settings=settings, runs=[run]))

    case = Case(shape=shape, form="bytes", target="parquet", rows=rows)

    return CaseResult(case=case, sides=held, compared=compared).as_dict()


def shown(panels: list[Panel]) -> list[tuple[str, list[int]]]:
    return [(panel.label, [point.rows for point in panel.points]) for panel in panels]


def test_a_case_is_one_panel_with_its_sizes_in_order() -> None:
    panels = panels_of(
        [result(300, shape="orders", ours=2, best=9), result(1000, ours=3), result(100, ours=1, best=8, default=20)]
    )

    assert shown(panels) == [
        ("flat, bytes pages, to parquet", [100, 1000]),
        ("orders, bytes pages, to parquet", [300]),
    ]
    assert panels[0].points[0].times_faster == 8
    assert panels[0].points[1].times_faster is None


def test_the_best_of_the_reference_may_be_its_defaults() -> None:
    (panel,) = panels_of([result(100, ours=1, best=8, default=5)])

    assert panel.points[0].times_faster == 5


def test_what_differs_or_did_not_run_is_left_out() -> None:
    failed = result(100, best=2)
    failed["sides"].append({"side": "ours", "settings": "default", "error": "no", "wall_median": None, "runs": []})

    assert panels_of([result(100, compared="items: the rows differ", ours=1, best=2), failed]) == []


def test_of_two_runs_of_a_case_the_later_one_counts() -> None:
    (panel,) = panels_of([result(100, ours=1, best=10), result(100, ours=2, best=10)])

    assert panel.points[0].times_faster == 5


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[100], [100, 300, 1000]], ids=["bars", "growth"])
def test_it_is_drawn(sizes: list[int], tmp_path: Path) -> None:
    path = tmp_path / "speed.png"
    shapes = ["flat", "orders", "events", "wide", "variants"]
    write_plot(path, [result(rows, shape=shape, ours=1, best=7, bare=2) for shape in shapes for rows in sizes])

    assert path.read_bytes().startswith(PNG)
    assert path.stat().st_size < 150_000


def test_nothing_to_show_is_no_picture(tmp_path: Path) -> None:
    write_plot(tmp_path / "speed.png", [])

    assert not (tmp_path / "speed.png").exists()
