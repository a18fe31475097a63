"""P8: what Python does for a page does not grow with the number of its rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import orjson
import pytest

import asyncelt
from asyncelt.flow import JsonBody, JsonPages, Payload, Rows
from asyncelt.normalize.plain_road import is_available
from tests.normalize.running import run

PACKAGE = asyncelt.__path__[0]
FEW = 500
MANY = 8 * FEW


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"row {n}", "place": {"lat": n / 7}, "tags": ["a", "b"]} for n in range(count)]


def as_body(count: int) -> Payload:
    return JsonPages((JsonBody(b"\n".join(map(orjson.dumps, rows(count)))),))


def as_dicts(count: int) -> Payload:
    return Rows([*rows(count)])


def lines_of_python(payload: Payload) -> int:
    """How many lines of the package run until the page is columns; each turn of a loop counts."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count

        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None

        count += event == "line"

        return trace

    before = sys.gettrace()
    sys.settrace(trace)

    try:
        run([payload])
    finally:
        sys.settrace(before)

    return count


@pytest.mark.skipif(not is_available(), reason="not compiled")
@pytest.mark.parametrize("made", [as_body, as_dicts])
def test_no_line_of_python_runs_for_each_row(made: Callable[[int], Payload]) -> None:
    run([made(2)])  # what is done once: imports, caches
    few, many = lines_of_python(made(FEW)), lines_of_python(made(MANY))

    assert few > 0
    assert many - few < (MANY - FEW) / 2  # Python takes rows in slices; the gate between them is a few lines
