"""Resources with bad rows, in every form of page, into every destination."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

import asyncelt
from asyncelt.types import OnError

Row = dict[str, Any]
Form = Callable[[list[Row]], object]

FORMS: dict[str, Form] = {
    "dicts": lambda rows: [dict(row) for row in rows],
    "bytes": lambda rows: json.dumps(rows).encode(),
    "lines": lambda rows: b"\n".join(json.dumps(row).encode() for row in rows),
    "arrow": lambda rows: pa.Table.from_struct_array(pa.array(rows)),
}
DESTINATIONS: dict[str, Callable[[Path], object]] = {
    "duckdb": lambda folder: asyncelt.destinations.duckdb(str(folder / "p.duckdb")),
    "filesystem": lambda folder: asyncelt.destinations.filesystem(str(folder / "files")),
    "memory": lambda _: asyncelt.destinations.memory(),
}


def make(folder: Path, destination: str = "duckdb", **options: Any) -> asyncelt.Pipeline:
    """A pipeline into an empty dataset."""
    return asyncelt.pipeline(
        "p",
        destination=DESTINATIONS[destination](folder),  # type: ignore[arg-type]
        dataset_name="data",
        pipelines_dir=folder / "work",
        **options,
    )


def items(pages: Iterable[object], on_error: OnError, **hints: Any) -> asyncelt.Resource:
    """A resource that yields these pages."""

    async def read() -> Any:
        for page in pages:
            yield page

    return asyncelt.resource(read, name="items", on_error=on_error, **hints)()


async def rows_of(pipeline: asyncelt.Pipeline, table: str, *columns: str) -> list[tuple[object, ...]]:
    """Some columns of a table, in the order of its rows."""
    found = await pipeline.dataset()[table].arrow()

    return [tuple(row[name] for name in columns) for row in found.to_pylist()]
