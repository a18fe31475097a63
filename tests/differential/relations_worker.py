"""Evaluates calls on the reference's dataset in a process of its own: `python relations_worker.py FILE`, calls on stdin."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import warnings

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"


def main(path: str) -> None:
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

    for call in json.load(sys.stdin):
        try:
            relation = eval(call, {"ds": ds, "inc": dlt.sources.incremental, "dt": dt})
            answers.append({"columns": relation.columns, "rows": [list(map(str, row)) for row in relation.fetchall()]})
        except Exception as error:
            answers.append({"error": type(error).__name__})

    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
