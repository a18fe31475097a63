"""One turn of the reference in a dataset that both sides merge into, in a process of its own.

What a turn loads is written here once, for both sides.
"""

from __future__ import annotations

from typing import Any

PIPELINE = "theirs"
STRATEGIES = ("delete-insert", "upsert", "insert-only", "cdc", "scd2")
COLUMNS = {"gone": {"data_type": "bool", "hard_delete": True}}
Row = dict[str, Any]


def _row(number: int, at: int, text: str, *parts: int, gone: bool = False) -> Row:
    return {"id": number, "at": at, "v": text, "gone": gone, "l": [{"x": part, "deep": [part, 0]} for part in parts]}


LOADS: tuple[tuple[Row, ...], ...] = (
    (_row(1, 1, "a", 1, 2), _row(2, 1, "b", 3), _row(3, 2, "c", 7)),
    (_row(1, 3, "A", 4), _row(2, 3, "b", gone=True), _row(3, 1, "too old", 8), _row(4, 3, "d", 5, 6)),
    (_row(4, 4, "D", 6), _row(2, 4, "back", 9), _row(4, 3, "too late", 1)),
)
"""Rows change, go, come back, and are older than what the cursor has seen."""


def disposition(strategy: str, turn: int) -> dict[str, str]:
    """The write disposition of one turn."""
    given = {"disposition": "merge", "strategy": strategy}

    return given | ({"boundary_timestamp": f"2024-01-0{turn + 1}T00:00:00Z"} if strategy == "scd2" else {})


def hints(strategy: str) -> dict[str, Any]:
    """Of the resource. Rows that a cursor leaves out would be retired by scd2, which knows no flag either."""
    return {} if strategy == "scd2" else {"primary_key": "id", "columns": COLUMNS}


def rows_of(strategy: str, turn: int) -> list[Row]:
    """The rows of one turn."""
    left_out = {"gone"} if strategy == "scd2" else set()

    return [{name: value for name, value in row.items() if name not in left_out} for row in LOADS[turn]]


def main(dsn: str, folder: str, turn: int) -> None:
    """Load one turn with each strategy, into a dataset of its own."""
    import dlt

    for strategy in STRATEGIES:

        def orders(strategy=strategy):
            state = dlt.current.resource_state()
            state["turns"] = [*state.get("turns", []), "theirs"]
            yield rows_of(strategy, turn)

        pipeline = dlt.pipeline(
            PIPELINE,
            destination=dlt.destinations.postgres(dsn),
            dataset_name=strategy.replace("-", "_"),
            pipelines_dir=f"{folder}/theirs-{turn}-{strategy}",
        )
        cursor = None if strategy == "scd2" else dlt.sources.incremental("at")
        resource = dlt.resource(orders, name="orders", incremental=cursor, **hints(strategy))
        pipeline.run(resource, write_disposition=disposition(strategy, turn))
