"""Where the time of the normalizer goes: microseconds per row for a few shapes, beside bare Arrow.

Run ``python benchmarks/profile_normalize.py [shape ...]``; ``--profile`` prints a call profile of each.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.json as pa_json

from asyncelt.flow import JsonBody, JsonPages, Payload, RawBatch, Rows
from asyncelt.normalize.page import NormalizeContext, Normalizer
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import apply_delta
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import new_schema
from asyncelt.types import LoadId, TableName

PAGES = 12


def flat(count: int) -> list[dict[str, Any]]:
    """Ten scalar columns."""
    rng = random.Random(1)

    return [
        {
            "id": i,
            "name": f"user {i}",
            "email": f"u{i}@example.com",
            "age": rng.randint(1, 99),
            "score": rng.random() * 100,
            "active": rng.random() < 0.5,
            "created_at": f"2024-01-{i % 28 + 1:02d}T{i % 24:02d}:{i % 60:02d}:00Z",
            "country": rng.choice(("US", "DE", "FR")),
            "amount": round(rng.random() * 1000, 2),
            "note": None if i % 3 else "x",
        }
        for i in range(count)
    ]


def orders(count: int) -> list[dict[str, Any]]:
    """A nested dict, a list of dicts and a list of scalars."""
    rng = random.Random(2)

    return [
        {
            "id": i,
            "customer": {"id": i % 100, "name": f"c{i}", "address": {"city": "Berlin", "zip": "10115"}},
            "created_at": "2024-01-01T10:00:00Z",
            "total": round(rng.random() * 1000, 2),
            "items": [
                {"sku": f"s{j}", "qty": j + 1, "price": round(rng.random() * 50, 2)} for j in range(rng.randint(1, 4))
            ],
            "tags": ["a", "b"][: i % 3],
        }
        for i in range(count)
    ]


def wide(count: int) -> list[dict[str, Any]]:
    """Events of twenty kinds with nested objects of their own: several hundred sparse columns."""
    rng = random.Random(3)

    def entity(prefix: str, width: int) -> dict[str, Any]:
        return {
            f"{prefix}_{j}_url": f"https://api.example.com/{prefix}/{j}/{rng.randint(1, 10**6)}" for j in range(width)
        }

    def event(i: int) -> dict[str, Any]:
        kind = i % 20

        return {
            "id": str(i),
            "type": f"Kind{kind}Event",
            "actor": {"id": i % 1000, "login": f"user{i % 1000}", **entity("actor", 8)},
            "repo": {"id": i % 500, "name": f"repo{i % 500}", "url": "https://api.example.com/r"},
            "payload": {
                "action": "opened",
                "number": i,
                f"part{kind}": {
                    **entity(f"p{kind}", 25),
                    "user": {"id": i, "site_admin": False, **entity("user", 12)},
                    "labels": [{"id": j, "name": f"l{j}", "color": "fff"} for j in range(i % 3)],
                    "created_at": "2024-01-01T10:00:00Z",
                    "score": rng.random(),
                },
            },
            "public": True,
            "created_at": "2024-01-01T10:00:00Z",
        }

    return [event(i) for i in range(count)]


def variants(count: int) -> list[dict[str, Any]]:
    """Columns whose values change their type from row to row."""
    rng = random.Random(4)
    values: Sequence[Callable[[], Any]] = (
        lambda: rng.randint(0, 9),
        lambda: rng.random(),
        lambda: "text",
        lambda: rng.random() < 0.5,
        lambda: {"x": 1},
    )

    return [
        {"id": i, "a": rng.choice(values)(), "b": rng.choice(values[:3])(), "c": rng.choice(values[:2])(), "d": "fixed"}
        for i in range(count)
    ]


SHAPES: dict[str, tuple[Callable[[int], list[dict[str, Any]]], int]] = {
    "flat": (flat, 5_000),
    "orders": (orders, 4_000),
    "wide": (wide, 400),
    "variants": (variants, 5_000),
}


def measure(form: str, rows: list[dict[str, Any]]) -> tuple[float, float, Callable[[], None]]:
    """Seconds per page of shredding and of conforming, after the first pages; and one more page as a call."""
    context = NormalizeContext(
        load_id=LoadId("1700000000.0"), naming=naming_for("snake_case"), capabilities=Capabilities()
    )
    worker = Normalizer(context)
    schema = new_schema("bench")
    body = orjson.dumps(rows)
    shredding: list[float] = []
    conforming: list[float] = []

    for number in range(PAGES):
        payload: Payload = Rows(list[object](rows)) if form == "dicts" else JsonPages((JsonBody(body),))
        batch = RawBatch(
            page=number, schema_name="bench", resource="t", table=TableName("t"), payload=payload, rows=0, nbytes=0
        )
        began = time.thread_time()
        shredded = worker.shred(batch, schema)
        middle = time.thread_time()
        done = worker.conform(shredded, schema)
        ended = time.thread_time()
        schema = apply_delta(schema, done.delta)
        shredding.append(middle - began)
        conforming.append(ended - middle)

    final = schema

    return min(shredding), min(conforming), lambda: void(worker.conform(worker.shred(batch, final), final))


def repeat(work: Callable[[], None]) -> None:
    """Call ten times."""
    for _ in range(10):
        work()


def void(_: object) -> None:
    """Drop a result."""


def best(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the quickest of several calls."""
    found = []

    for _ in range(times):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)

    return min(found)


def bare_array(rows: list[dict[str, Any]]) -> float | None:
    """Seconds of ``pa.array`` alone."""
    try:
        return best(lambda: pa.array(rows))
    except pa.ArrowException:
        return None


def bare_json(rows: list[dict[str, Any]]) -> float | None:
    """Seconds of Arrow's JSON reader alone."""
    data = b"\n".join(map(orjson.dumps, rows))
    options = pa_json.ReadOptions(block_size=len(data) + 64, use_threads=False)

    try:
        return best(lambda: pa_json.read_json(io.BytesIO(data), read_options=options))
    except pa.ArrowException:
        return None


def main() -> None:
    """Print a line per shape and form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()

    for name in chosen.shapes:
        make, count = SHAPES[name]
        rows = make(count)
        scale = 1e6 / count
        array, reader = bare_array(rows), bare_json(rows)
        bare = {
            key: None if value is None else round(value * scale, 2)
            for key, value in (("array", array), ("json", reader))
        }
        print(f"{name}: {len(json.dumps(rows)) // count} bytes a row; bare us/row {bare}")

        for form in ("dicts", "bytes"):
            shredding, conforming, again = measure(form, rows)
            total = shredding + conforming
            print(
                f"  {form}: shred {shredding * scale:.2f} conform {conforming * scale:.2f} "
                f"total {total * scale:.2f} us/row, {count / total:,.0f} rows/s"
            )

            if chosen.profile:
                profile = cProfile.Profile()
                profile.runcall(repeat, again)
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
