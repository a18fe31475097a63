"""A process of its own that answers cases with what the reference library makes of them.

Protocol: frames of a 4-byte big-endian length and a pickle, on stdin and stdout (both ends are our own). A request is
``(pipeline name, dataset name, Case)``, the reply an ``Outcome``. One process answers many requests, each in a fresh
pipeline, so that the import is paid once. Telemetry, traces and logs are off.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import duckdb

from tests.differential.cases import Case, Run
from tests.differential.reading import Dataset, read_dataset
from tests.differential.reference import Outcome

os.environ.update(
    RUNTIME__DLTHUB_TELEMETRY="false",
    RUNTIME__LOG_LEVEL="CRITICAL",
    RUNTIME__INTERCEPT_SIGNALS="false",
    ENABLE_RUNTIME_TRACE="false",
)
LENGTH = struct.Struct(">I")


def main() -> None:
    """Answer requests until stdin ends."""
    incoming = sys.stdin.buffer
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the reference prints must not get into the protocol
    warnings.simplefilter("ignore")

    # The reference makes hundreds of thousands of objects in each run and keeps few of them.
    gc.set_threshold(100_000, 50, 50)

    while (request := _read(incoming)) is not None:
        try:
            reply = _answer(*request)
        except Exception as error:
            reply = Outcome(Dataset(), f"worker: {type(error).__name__}: {error}")

        body = pickle.dumps(reply, protocol=pickle.HIGHEST_PROTOCOL)
        outgoing.write(LENGTH.pack(len(body)) + body)
        outgoing.flush()


def _read(stream: BinaryIO) -> Any:
    head = stream.read(LENGTH.size)

    return pickle.loads(stream.read(LENGTH.unpack(head)[0])) if len(head) == LENGTH.size else None


def _answer(pipeline_name: str, dataset_name: str, case: Case) -> Outcome:
    folder = Path(tempfile.mkdtemp(dir=os.environ["DLT_DATA_DIR"]))
    database = folder / "reference.duckdb"

    try:
        # The reference opens the file several times a run. Where somebody has it open, that does not make a whole DuckDB
        # each time, which would be half of what a run takes.
        with duckdb.connect(str(database)) as connection:
            connection.execute("SET threads = 1")
            error = _run_all(pipeline_name, dataset_name, case, folder, database)

        return Outcome(read_dataset(database, dataset_name), error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_all(pipeline_name: str, dataset_name: str, case: Case, folder: Path, database: Path) -> str | None:
    import dlt

    options = {"naming_convention": case.naming} if case.naming else {}
    pipeline = dlt.pipeline(
        pipeline_name,
        destination=dlt.destinations.duckdb(str(database), **options),
        dataset_name=dataset_name,
        pipelines_dir=str(folder / "pipelines"),
    )

    try:
        for run in case.runs:
            os.environ.pop("SCHEMA__NAMING", None)

            if run.naming:
                os.environ["SCHEMA__NAMING"] = run.naming

            pipeline.run(_resource(dlt, run), schema=_schema(dlt, run), **run.arguments)
    except Exception as error:
        return _told(error)
    finally:
        os.environ.pop("SCHEMA__NAMING", None)
        pipeline.deactivate()

    return None


def _schema(dlt: Any, run: Run) -> Any:
    if run.schema is None:
        return None

    said = copy.deepcopy(dict(run.schema))
    # Made by hand: one that is read from a document counts as stored, and has a version more.
    schema = dlt.Schema(said["name"], normalizers=said.get("normalizers"))
    schema.settings.update(said.get("settings", {}))
    schema._compile_settings()

    for table in said.get("tables", {}).values():
        schema.update_table(table)

    return schema


def _resource(dlt: Any, run: Run) -> Any:
    resource = dlt.resource(_pages(dlt, run), name=run.table_name, **run.hints)

    if run.nested_hints:
        resource.apply_hints(
            nested_hints={tuple(path.split("/")): dict(hints) for path, hints in run.nested_hints.items()}
        )

    return resource


def _pages(dlt: Any, run: Run) -> Iterator[list[object]]:
    for page in run.counted(dlt.current.resource_state()) if run.counts else run.pages:
        yield list(page)


def _told(error: BaseException) -> str:
    texts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error

    while current is not None and id(current) not in seen:
        seen.add(id(current))
        texts.append(f"{type(current).__name__}: {current}")
        current = current.__cause__ or current.__context__

    return "\ncaused by ".join(texts)


if __name__ == "__main__":
    main()
