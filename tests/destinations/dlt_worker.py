"""Runs the reference in a process of its own: `python dlt_worker.py duckdb|filesystem|postgres FOLDER RUNS`.

Instead of a number of runs, RUNS may be the arguments of one: a JSON object with ``rows`` and ``write_disposition``.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"


def main(kind: str, folder: str, runs: str) -> None:
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

    if runs.startswith("{"):
        wanted = json.loads(runs)
        pipeline.run(dlt.resource(wanted.pop("rows"), name="orders", primary_key="id"), **wanted)
        return

    @dlt.resource(name="orders", write_disposition="append")
    def orders(at=dlt.sources.incremental("at", initial_value=0)):  # noqa: B008 - as the reference documents it
        start = at.last_value or 0
        yield [{"id": start + 1, "at": start + 1, "items": [{"x": 1}, {"x": 2}]}]

    for _ in range(int(runs)):
        pipeline.run(orders())

    print(pipeline.state["sources"]["theirs"]["resources"]["orders"]["incremental"]["at"]["last_value"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
