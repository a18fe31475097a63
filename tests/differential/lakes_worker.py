"""Loads the cases of `test_lakes.py` with the reference, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def main(folder: str, cases: dict[str, Any]) -> None:
    """Load into a folder; the file ``said`` there has the errors of what was refused."""
    import dlt

    pipeline = dlt.pipeline(
        "lakes",
        pipelines_dir=f"{folder}/pipelines",
        destination=dlt.destinations.filesystem(folder),
        dataset_name="raw",
    )
    said = []

    for number in range(2):
        pipeline.run([dlt.resource(one["loads"][number], name=name, **one["hints"]) for name, one in cases.items()])

    for name, one in cases.items():
        if "refused" in one:
            try:
                pipeline.run(dlt.resource(one["refused"], name=name, **one["hints"]))
            except Exception as error:
                said.append(str(error))

    Path(folder, "said").write_text("\n".join(said))
