"""Pipelines into memory, run fused or step by step, and what they left there in a form that can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncelt

RANDOM = {"_dlt_id", "_dlt_parent_id", "_dlt_root_id", "_dlt_load_id"}
VOLATILE = {"inserted_at", "created_at", "load_id", "_dlt_load_id", "_dlt_id"}


def make(folder: Path, name: str = "p", **options: Any) -> asyncelt.Pipeline:
    """A pipeline into memory, of which the destination goes on from one object to the next if it is passed."""
    options.setdefault("destination", asyncelt.destinations.memory())

    return asyncelt.pipeline(name, dataset_name="data", pipelines_dir=folder, **options)


def contents(destination: Any) -> dict[str, tuple[list[tuple[str, str]], list[tuple[object, ...]]]]:
    """Every table of the dataset: its columns with types, and its rows with ids told apart by their first place."""
    ids: dict[object, int] = {}
    found = {}

    # Parents sort before what is nested in them.
    for name, table in sorted(destination.tables("data").items()):
        drop = VOLATILE if name.startswith("_dlt") else set()
        columns = [(field.name, str(field.type)) for field in table.schema if field.name not in drop]
        rows = [
            tuple(
                ids.setdefault(row[column], len(ids)) if column in RANDOM and row[column] is not None else row[column]
                for column, _ in columns
            )
            for row in table.to_pylist()
        ]
        found[name] = (columns, rows)

    return found


async def by_steps(pipeline: asyncelt.Pipeline, data: object, **arguments: Any) -> None:
    """The three steps, each by a pipeline object of its own, as in three processes."""

    def again() -> asyncelt.Pipeline:
        settings = pipeline._options.settings

        return make(
            Path(pipeline.pipelines_dir), pipeline.pipeline_name, destination=pipeline.destination, settings=settings
        )

    await again().extract(data, **arguments)
    await again().normalize()
    await again().load()
