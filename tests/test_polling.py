"""P10: nothing sleeps and looks again, except where nobody tells. A new sleep is a decision, and this list shows it."""

from __future__ import annotations

import ast
from pathlib import Path

import asyncelt

PACKAGE = Path(asyncelt.__file__).parent
ROOTS = (PACKAGE, (PACKAGE / "destinations").resolve())  # a link, which rglob does not follow
NOT_ON_THE_PATH = {"testing", "demo"}

SLEEPING = {
    # pauses between two attempts, which grow
    "retrying": "after an error that may pass",
    "patiently": "a DuckDB file that another process has open",
    "_get": "a read of a bucket that was cut off",
    "pause": "writers of a lake that have come at once",
    "wait": "a broker that is away",
    "_when_free": "the lease of an owner on another machine",
    "hold_lock": "the lock of a working folder, held by another process",
    "_endure": "Kafka brokers that are away",
    "fetch": "NATS or Redis, while it is away",
    "_make_groups_patiently": "a Redis server that is starting",
    # once, not in a loop that looks
    "_flush_late": "rows that wait for more of them, woken by the first",
    "while_idle": "until a session may close its file",
    "go_idle": "the same, inside of it",
    # beside the data
    "beating": "the sign of life of an owner",
    "go_on": "the same, inside of it",
    "_renew": "the sign of life of an owner of a bucket",
    "_take_over": "a partition that was taken away while it was claimed",
    "take_over": "the same",
}


def test_only_these_functions_sleep() -> None:
    found = {
        function.name
        for root in ROOTS
        for path in root.rglob("*.py")
        if NOT_ON_THE_PATH.isdisjoint(path.relative_to(root).parts)
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep"
    }

    assert found
    assert found - set(SLEEPING) == set()
