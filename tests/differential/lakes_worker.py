"""Loads the cases of `test_lakes.py` with the reference, in a process of its own: `python lakes_worker.py FOLDER CASES`."""

from __future__ import annotations

import json
import os
import sys

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"


def main(folder: str, text: str) -> None:
    import dlt

    pipeline = dlt.pipeline(
        "lakes",
        pipelines_dir=f"{folder}/pipelines",
        destination=dlt.destinations.filesystem(folder),
        dataset_name="raw",
    )
    cases = json.loads(text)

    for number in range(2):
        pipeline.run([dlt.resource(one["loads"][number], name=name, **one["hints"]) for name, one in cases.items()])

    for name, one in cases.items():
        if "refused" in one:
            try:
                pipeline.run(dlt.resource(one["refused"], name=name, **one["hints"]))
            except Exception as error:
                print(error)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
