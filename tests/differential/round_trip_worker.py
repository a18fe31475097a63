"""One run of the reference over rows that both sides load in turn, in a process of its own."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

PIPELINE, DATASET = "turns", "data"
Row = dict[str, Any]


def _row(number: int, at: int) -> Row:
    return {
        "id": number,
        "at": at,
        "when": datetime(2024, 1, at, 12, 30, 1, 500, tzinfo=UTC),
        "day": date(2024, 1, at),
        "price": Decimal(number) / 4,
        "text": f"zeile ü {number}",
        "data": b"\x00\x01",
        "nested": {"b": [1, 2, {"c": None}], "a": True},
    }


RUNS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((1, 1), (2, 2), (3, 2)),
    ((3, 2), (4, 2), (5, 1), (2, 2)),
    ((4, 2), (6, 3), (7, 3), (3, 2)),
    ((7, 3), (8, 3), (6, 3), (9, 5)),
    ((9, 5), (10, 5), (8, 3)),
)
"""(id, cursor) of each row, by run."""
CURSORS: dict[str, dict[str, Any]] = {
    "whole-rows": {"cursor_path": "at"},
    "by-key": {"cursor_path": "at", "primary_key": "id"},
    "times": {"cursor_path": "when", "primary_key": ["id", "text"]},
    "dates-falling": {"cursor_path": "day", "last_value_func": "min"},
    "lag": {"cursor_path": "when", "lag": 86400},
}


def rows_of(run: int) -> list[Row]:
    """The rows of one run."""
    return [_row(number, at) for number, at in RUNS[run]]


def main(folder: str, kind: str, run: int) -> None:
    """Load one run with the reference, into a working folder of its own."""
    import dlt

    pipeline = dlt.pipeline(
        PIPELINE,
        destination=dlt.destinations.duckdb(f"{folder}/turns.duckdb"),
        dataset_name=DATASET,
        pipelines_dir=str(Path(folder) / f"theirs-{run}"),
    )
    pipeline.run(dlt.resource(rows_of(run), name="rows", incremental=CURSORS[kind]))
