"""Evaluates calls on the reference's dataset, in a process of its own."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from pathlib import Path


def main(path: str, calls: list[str], output: str) -> None:
    """Answer the calls on the dataset in a DuckDB file, as JSON into another file."""
    warnings.simplefilter("ignore")
    import dlt
    from dlt.dataset import lineage

    qualify = lineage.qualify

    def without_inference(*args, infer_schema=None, **options):
        # The reference's query layer passes an argument that the parser of today no longer has.
        return qualify(*args, **options)

    lineage.qualify = without_inference
    ds = dlt.dataset(dlt.destinations.duckdb(path), "raw")
    answers = []

    for call in calls:
        try:
            relation = eval(call, {"ds": ds, "inc": dlt.sources.incremental, "dt": dt})
            answers.append({"columns": relation.columns, "rows": [list(map(str, row)) for row in relation.fetchall()]})
        except Exception as error:
            answers.append({"error": type(error).__name__})

    Path(output).write_text(json.dumps(answers))
