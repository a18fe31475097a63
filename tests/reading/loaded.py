"""A dataset to read: three rows with nested ones, loaded by a pipeline into each kind of destination."""

from __future__ import annotations

import asyncelt

KINDS = ["duckdb", "filesystem", "memory", "postgres"]
ITEMS = [
    {"id": 1, "name": "one", "price": 1.5, "at": "2024-01-01T00:00:00Z", "tags": [{"tag": "a", "of": [{"z": 1}]}]},
    {"id": 2, "name": "two", "price": 2.5, "at": "2024-01-02T00:00:00Z", "tags": [{"tag": "b"}, {"tag": "c"}]},
    {"id": 3, "name": None, "price": 3.5, "at": "2024-01-03T00:00:00Z", "tags": []},
]
OWNERS = [{"item": 1, "owner": "Ann"}, {"item": 2, "owner": "Bob"}, {"item": 9, "owner": "Cid"}]


def dsn_of(folder):
    """The file that says which database of Postgres belongs to a folder."""
    return folder.with_name(f"{folder.name}.dsn")


def destination(kind, folder):
    if kind == "duckdb":
        return asyncelt.destinations.duckdb(folder / "data.duckdb")

    if kind == "postgres":
        return asyncelt.destinations.postgres(dsn_of(folder).read_text())

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
