"""Runs the reference in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path


def main(kind: str, folder: str, runs: int | dict[str, object]) -> None:
    """Run the reference so many times, or once with these ``rows`` and arguments of ``run``.

    Afterwards the file ``last_value`` in the folder says how far the cursor is; runs with arguments have none.
    """
    import dlt

    if kind == "duckdb":
        destination = dlt.destinations.duckdb(f"{folder}/data.duckdb")
    elif kind == "postgres":
        with open(f"{folder}/dsn") as file:
            destination = dlt.destinations.postgres(file.read())
    else:
        destination = dlt.destinations.filesystem(f"{folder}/files")

    pipeline = dlt.pipeline(
        "theirs", pipelines_dir=f"{folder}/dlt{os.getpid()}", destination=destination, dataset_name="ds"
    )

    if isinstance(runs, dict):
        pipeline.run(dlt.resource(runs.pop("rows"), name="orders", primary_key="id"), **runs)
        return

    @dlt.resource(name="orders", write_disposition="append")
    def orders(at=dlt.sources.incremental("at", initial_value=0)):  # noqa: B008 - as the reference documents it
        start = at.last_value or 0
        yield [{"id": start + 1, "at": start + 1, "items": [{"x": 1}, {"x": 2}]}]

    for _ in range(runs):
        pipeline.run(orders())

    cursor = pipeline.state["sources"]["theirs"]["resources"]["orders"]["incremental"]["at"]
    Path(folder, "last_value").write_text(str(cursor["last_value"]))
