"""Bodies as rows, where rows are needed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from asyncelt import JsonPage
from asyncelt.errors import ConfigError, InvalidResourceData
from asyncelt.extract.jsonbody import parse_in_slices
from asyncelt.flow import JsonBody


def parsed(data: bytes, items: str | None = None) -> list[Any]:
    return [row for part in parse_in_slices(JsonBody(data, items)) for row in part]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'\n{"a":\n 1}\n', [{"a": 1}]),
        (b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        (b'[\n{"a": 1},\n{"a": 2}\n]', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1}\n{"a": 2}\r\n\n{"a": 3}', [{"a": 1}, {"a": 2}, {"a": 3}]),
        (b'[{"a": 1}]\n[{"a": 2}]', [{"a": 1}, {"a": 2}]),
        (b"[]", []),
        (b"", []),
        (b" \n ", []),
        (b"[1, null, [2]]", [1, None, [2]]),
        (b'{"a": 18446744073709551616}', [{"a": 2**64}]),
        (b'[{"a": 1e400}]', [{"a": math.inf}]),
        (b'[{"a": 1}, {"a": Infinity}]', [{"a": 1}, {"a": math.inf}]),
        ('{"ä": "\\ud83d\\ude00 \u2028"}'.encode(), [{"ä": "😀 \u2028"}]),
    ],
)
def test_documents_arrays_and_lines(data: bytes, expected: list[object]) -> None:
    assert parsed(data) == expected


@pytest.mark.parametrize(
    ("data", "path", "expected"),
    [
        (b'{"x": {"y": [{"a": 1}]}}', "x.y", [{"a": 1}]),
        (b'{"x": [{"a": 1}]}\n{"x": [{"a": 2}]}', "x", [{"a": 1}, {"a": 2}]),
        (b'{"x": null}', "x", []),
        (b'{"x": [{"a": Infinity}]}', "x", [{"a": math.inf}]),
        (b'{"x": [{"a": 1e999}]}\n{"x": []}', "x", [{"a": math.inf}]),
        (b'{"x": {"a": 1}}', "x", [{"a": 1}]),
    ],
)
def test_items_are_cut_out_of_their_envelope(data: bytes, path: str, expected: list[object]) -> None:
    assert parsed(data, path) == expected


def test_large_bodies_come_in_slices() -> None:
    body = b"[" + b",".join([b'{"text": "' + b"x" * 1_000 + b'"}'] * 1_000) + b"]"
    parts = list(parse_in_slices(JsonBody(body)))

    assert len(parts) == 4
    assert sum(map(len, parts)) == 1_000


@pytest.mark.parametrize("data", [b"{", b"nonsense", b'{"a": 1}\nnonsense', b"\xff\xfe"])
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(InvalidResourceData, match="not JSON"):
        parsed(data)


@pytest.mark.parametrize("data", [b'{"x": {}}', b"[1]", b"1"])
def test_a_path_that_leads_nowhere(data: bytes) -> None:
    with pytest.raises(InvalidResourceData, match=r"path 'x\.y' does not exist"):
        parsed(data, "x.y")


@pytest.mark.parametrize(("body", "items"), [(b"{}", ""), (b"{}", "a..b"), ({"a": 1}, "a"), (None, None)])
def test_wrong_pages_are_refused(body: Any, items: str | None) -> None:
    with pytest.raises(ConfigError):
        JsonPage(body, items=items)
