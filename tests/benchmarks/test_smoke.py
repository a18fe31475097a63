"""The benchmarks run, and both sides of a comparison hold the same; the figures are never asserted."""

from __future__ import annotations

import asyncio
from itertools import cycle, product
from pathlib import Path

import orjson
import pytest

from benchmarks import bench_loop, bench_memory, bench_month, bench_small_runs, profile_run
from benchmarks.data import SHAPES, pool
from benchmarks.harness import Case, run_case
from tests.support.marks import LONG

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = {"parquet": "no gzip", "duckdb": "parquet, no gzip"}
IN_CI = {"flat", "orders", "events"}
"""Between them they have each form and each target. Every run of the benchmarks compares both sides for all shapes."""
KINDS = [
    pytest.param(shape, form, target, marks=() if shape in IN_CI else LONG)
    for shape, (form, target) in zip(SHAPES, cycle(product(["dict", "bytes"], SETTINGS)), strict=False)
]
"""Each shape in one form and into one target."""


def _silent(_message: str) -> None:
    pass


@pytest.mark.parametrize(("shape", "form", "target"), KINDS)
def test_both_sides_hold_the_same(shape: str, form: str, target: str) -> None:
    case = Case(shape=shape, form=form, target=target, rows=2 * SHAPES[shape].page_rows)

    assert run_case(case, [SETTINGS[target]], 1, _silent).compared == "equal"


def test_both_sides_hold_the_same_in_a_bucket() -> None:
    case = Case(shape="orders", form="bytes", target="s3", rows=2 * SHAPES["orders"].page_rows)

    assert run_case(case, ["no gzip"], 1, _silent).compared == "equal"


@pytest.mark.parametrize("target", [pytest.param("parquet", marks=LONG), "duckdb"])
def test_both_sides_hold_the_same_for_arrow(target: str) -> None:
    case = Case(shape="flat", form="arrow", target=target, rows=2_000)

    assert run_case(case, [SETTINGS[target]], 1, _silent).compared == "equal"


@pytest.mark.parametrize("shape", SHAPES)
def test_data_is_the_same_every_time(shape: str) -> None:
    assert pool(SHAPES[shape], page_rows=50).bodies == pool(SHAPES[shape], page_rows=50).bodies


@pytest.mark.parametrize("form", ["dict", "bytes"])
@pytest.mark.parametrize("shape", SHAPES)
def test_new_pages_have_ids_that_go_on(shape: str, form: str) -> None:
    made = pool(SHAPES[shape], page_rows=50)
    pages = list(made.new_pages(form, 200, 1_000))
    rows = [row for page in pages for row in (orjson.loads(page) if form == "bytes" else page)]
    kind = type(orjson.loads(made.bodies[0])[0]["id"])

    assert [row["id"] for row in rows] == [kind(number) for number in range(1_000, 1_200)]


@pytest.mark.parametrize(("target", "write"), [("s3", "append"), ("delta", "upsert")])
def test_memory_is_told_where_all_rows_are_there(target: str, write: str) -> None:
    wanted = bench_memory.Wanted(shape="orders", form="bytes", target=target, write=write, rows=4_000)
    told = bench_memory.measure(wanted)

    # Half of the rows that are upserted are known.
    assert told["found"] == (4_000 if write == "append" else 6_000), told
    assert told["rss_peak"] >= told["rss_before"] > 0


@pytest.mark.parametrize("form", ["dict", "bytes"])
def test_stages_of_a_run_are_told_apart(form: str) -> None:
    profile = profile_run.measure("events", form, "parquet", 200, 1)

    assert sum(profile.stages.values()) == pytest.approx(profile.total)
    assert all(profile.stages[stage] > 0 for stage in profile_run.STAGES)
    assert profile.stages[profile_run.COMMIT] > 0


@pytest.mark.parametrize(("form", "apart"), [("bytes", 0), ("dict", 2)], ids=["run", "stream"])
def test_the_ticker_counts(form: str, apart: int, tmp_path: Path) -> None:
    load = bench_loop.Load(name="smoke", shape="flat", form=form, page_rows=1_000, rows=3_000, apart=apart)
    found = asyncio.run(bench_loop.measure(load, "duckdb", tmp_path))

    assert found["idle"]["ticks"] > 0
    assert found["busy"]["ticks"] > 0


def test_small_runs_are_counted(tmp_path: Path) -> None:
    groups = asyncio.run(bench_small_runs.measure(3, tmp_path))

    assert [group["runs"] for group in groups] == [3]


def test_a_month_of_messages_is_sampled_and_counted(tmp_path: Path) -> None:
    samples = asyncio.run(bench_month.month(tmp_path, 300, address=str(tmp_path / "month.duckdb"), every_s=0.2))

    assert samples[-1].messages == 300
    assert samples[-1].state > 0
    assert bench_month.slope(samples, "messages") >= 0
