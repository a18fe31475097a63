"""A dataset to read: three rows with nested ones, loaded by a pipeline into each kind of destination."""

from __future__ import annotations

import asyncelt

KINDS = ["duckdb", "filesystem", "memory"]
ITEMS = [
    {"id": 1, "name": "one", "price": 1.5, "at": "2024-01-01T00:00:00Z", "tags": [{"tag": "a", "of": [{"z": 1}]}]},
    {"id": 2, "name": "two", "price": 2.5, "at": "2024-01-02T00:00:00Z", "tags": [{"tag": "b"}, {"tag": "c"}]},
    {"id": 3, "name": None, "price": 3.5, "at": "2024-01-03T00:00:00Z", "tags": []},
]
OWNERS = [{"item": 1, "owner": "Ann"}, {"item": 2, "owner": "Bob"}, {"item": 9, "owner": "Cid"}]


def destination(kind, folder):
    if kind == "duckdb":
        return asyncelt.destinations.duckdb(folder / "data.duckdb")

    return asyncelt.destinations.filesystem(folder / "lake") if kind == "filesystem" else asyncelt.destinations.memory()


def make_pipeline(kind, folder, **options):
    return asyncelt.pipeline(
        "reading",
        destination=destination(kind, folder),
        dataset_name="raw",
        pipelines_dir=folder / "pipelines",
        **options,
    )


async def loaded(kind, folder):
    pipeline = make_pipeline(kind, folder)
    await pipeline.run([asyncelt.resource(ITEMS, name="items"), asyncelt.resource(OWNERS, name="owners")])

    return pipeline
