"""Copies what is new of a table by the reference, run after run: `python relation_runs_worker.py FILE`, cases on stdin."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"


def main(path: str) -> None:
    warnings.simplefilter("ignore")
    import dlt
    import duckdb
    from dlt.dataset import lineage

    qualify = lineage.qualify

    def without_inference(*args, infer_schema=None, **options):
        # The reference's query layer passes an argument that the parser of today no longer has.
        return qualify(*args, **options)

    lineage.qualify = without_inference
    answers = []

    for number, case in enumerate(json.load(sys.stdin)):
        source, target = f"source{number}.duckdb", dlt.destinations.duckdb(f"target{number}.duckdb")
        shutil.copy(path, source)
        pipeline = dlt.pipeline(f"copy{number}", pipelines_dir="copies", destination=target, dataset_name="copy")

        cursor = dlt.sources.incremental(**case["cursor"])

        @dlt.resource(name="copied", primary_key=case["key"])
        def copied(at=cursor, source=source):
            dataset = dlt.dataset(dlt.destinations.duckdb(source), "raw")
            yield from dataset["items"].incremental(at).select("id").iter_arrow(1000)

        found = []

        for statement in ["", *case["between"]]:
            with duckdb.connect(source) as connection:
                connection.execute(statement or "SELECT 1")

            pipeline.run(copied())
            resource = (
                pipeline.state["sources"][f"copy{number}"]["resources"].get("copied", {})
                if pipeline.state.get("sources")
                else {}
            )
            cursor = next(iter(resource.get("incremental", {}).values()), {})

            try:
                rows = pipeline.dataset()["copied"].select("id").fetchall()
            except Exception:
                rows = []  # no table yet

            found.append([sorted(row[0] for row in rows), cursor.get("last_value")])

        answers.append(found)

    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
