"""Copies what is new of a table by the reference, run after run, in a process of its own."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

Found = list[tuple[list[int], object]]


def main(home: str, cases: list[dict[str, Any]], output: str) -> None:
    """Do the cases in a folder with a DuckDB file ``data.duckdb``; what came in, as JSON into another file."""
    warnings.simplefilter("ignore")
    from dlt.dataset import lineage

    qualify = lineage.qualify

    def without_inference(*args, infer_schema=None, **options):
        # The reference's query layer passes an argument that the parser of today no longer has.
        return qualify(*args, **options)

    lineage.qualify = without_inference
    answers = [_copied(Path(home), number, case) for number, case in enumerate(cases)]
    Path(output).write_text(json.dumps(answers))


def _copied(home: Path, number: int, case: dict[str, Any]) -> Found:
    """After each run: the rows that are there, and how far the cursor is."""
    import dlt
    import duckdb

    source, target = str(home / f"source{number}.duckdb"), str(home / f"target{number}.duckdb")
    shutil.copy(home / "data.duckdb", source)
    pipeline = dlt.pipeline(
        f"copy{number}",
        pipelines_dir=str(home / "copies"),
        destination=dlt.destinations.duckdb(target),
        dataset_name="copy",
    )

    @dlt.resource(name="copied", primary_key=case["key"])
    def copied(at=dlt.sources.incremental(**case["cursor"])):  # noqa: B008 - as the reference documents it
        dataset = dlt.dataset(dlt.destinations.duckdb(source), "raw")
        yield from dataset["items"].incremental(at).select("id").iter_arrow(1000)

    found: Found = []

    # Both are held open: the reference opens them many times, and would make a whole DuckDB each time.
    with duckdb.connect(source) as connection, duckdb.connect(target):
        for statement in ["SELECT 1", *case["between"]]:
            connection.execute(statement)
            pipeline.run(copied())
            found.append((_ids(pipeline), _last_value(pipeline)))

    return found


def _ids(pipeline: Any) -> list[int]:
    try:
        return sorted(row[0] for row in pipeline.dataset()["copied"].select("id").fetchall())
    except Exception:
        return []  # no table yet


def _last_value(pipeline: Any) -> object:
    source = pipeline.state.get("sources", {}).get(pipeline.pipeline_name, {"resources": {}})
    cursors = source["resources"].get("copied", {}).get("incremental", {})

    return next(iter(cursors.values()), {}).get("last_value")
