"""A pipeline into Postgres, and rows for it."""

from __future__ import annotations

import asyncelt

__all__ = ["numbers", "pipeline_on"]


async def numbers(count):
    for start in range(0, count, 10):
        yield [{"id": number, "tags": ["a", "b"]} for number in range(start, start + 10)]


def pipeline_on(destination, folder, name="pg", **more):
    return asyncelt.pipeline(name, destination=destination, dataset_name="raw", pipelines_dir=folder, **more)
