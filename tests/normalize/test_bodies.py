"""JSON pages: the forms a body may have, and what Arrow's reader would get wrong."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from asyncelt.errors import BadRecord
from asyncelt.flow import JsonBody, JsonPages
from asyncelt.normalize.plain_road import is_available
from tests.normalize.running import as_array, as_rows, normalizer, outcome, run


def read(data: bytes, items: str | None = None) -> list[dict[str, Any]]:
    """Rows of the root table, without system columns."""
    found = outcome(*run([JsonPages((JsonBody(data, items),))]))

    return [
        {key: value for key, value in row.items() if not key.startswith("_dlt")} for row in found.rows.get("items", [])
    ]


@pytest.mark.parametrize(
    "data",
    [
        b'[{"a":1},{"a":2}]',
        b' \n[ {"a":1} ,\n {"a":2} ]\n',
        b'{"a":1}\n{"a":2}',
        b'{"a":1}\r\n\r\n{"a":2}\r\n',
        b'\xef\xbb\xbf[{"a":1},{"a":2}]',
        b'{"a":1} {"a":2}',
        b'[\n  {\n    "a": 1\n  },\n  {\n    "a": 2\n  }\n]',
    ],
)
def test_forms(data: bytes) -> None:
    assert read(data) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"", []),
        (b"  \n", []),
        (b"[]", []),
        (b"null", []),
        (b"{}", [{}]),
        (b'[{"a":1},null]', [{"a": 1}, {}]),
        (b'null\n{"a":1}', [{}, {"a": 1}]),
        (b'{"a": {\n"b": 1}\n}', [{"a__b": 1}]),
        (b"[1,2]", [{"value": 1}, {"value": 2}]),
        (b'"x"', [{"value": "x"}]),
        (b'{"a":1}\n7', [{"a": 1}, {"value": 7}]),
        (b'[{"a":1,"a":2}]', [{"a": 2}]),
        (b'[{"a":[null,1]}]', [{}]),
        (b'[{"a":"2024-01-01"},{"a":"10:00"}]', [{"a": "2024-01-01"}, {"a": "10:00"}]),
        (b'[{"a":-0.0},{"a":1e-3}]', [{"a": -0.0}, {"a": 0.001}]),
        (b'[{"a":9007199254740993},{"a":1.5}]', [{"a": 9007199254740993}, {"a__v_double": 1.5}]),
        (b'[{"a":123456789012345678901234567890}]', [{"a": Decimal(123456789012345678901234567890)}]),
        (b'[{"a":"x\\u0000y \\ud83d\\ude00"}]', [{"a": "x\0y \U0001f600"}]),
        ('[{"日本":"日本"}]'.encode(), [{"x": "日本"}]),
    ],
)
def test_documents(data: bytes, rows: list[object]) -> None:
    assert read(data) == rows


@pytest.mark.parametrize(
    "data", [b'{"data":{"rows":[{"a":1},{"a":2}]},"next":null}', b'{"x":[],"data":{"rows":[{"a":1},{"a":2}]}}']
)
def test_rows_inside_an_envelope(data: bytes) -> None:
    assert read(data, "data.rows") == [{"a": 1}, {"a": 2}]


def test_an_envelope_without_the_path_is_refused() -> None:
    with pytest.raises(BadRecord, match=r"no 'rows' on the path 'data\.rows'"):
        read(b'{"data":{}}', "data.rows")


@pytest.mark.parametrize("data", [b'[{"a":1}', b'{"a":}', b"nope", b'[{"a":"\xff"}]', b'[{"a":"\xff"},null]'])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadRecord, match="no JSON"):
        read(data)


def test_numbers_that_json_does_not_have_are_kept() -> None:
    first, second, third = read(b'[{"a":NaN},{"a":Infinity},{"a":1e400}]')

    assert first["a"] != first["a"]
    assert second["a"] == third["a"] == float("inf")


def test_a_lone_surrogate_is_refused_by_row() -> None:
    with pytest.raises(BadRecord, match="column 'a', row 1"):
        read(b'[{"a":"x"},{"a":"\\ud800"}]')


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000])
def test_a_body_nested_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(BadRecord):
        read(b'[{"a":' + text.encode() + b"}]")


def test_many_bodies_are_one_page() -> None:
    bodies = tuple(JsonBody(json.dumps([{"a": i}, {"a": str(i)}]).encode()) for i in range(3))
    found = outcome(*run([JsonPages(bodies)]))

    assert [row["a"] for row in found.rows["items"]] == [0, 0, 1, 1, 2, 2]


def test_a_large_body_is_read_in_pieces() -> None:
    rows = [{"id": i, "text": "x" * 200, "l": [i, i + 1], "n": None if i % 3 else 1.5} for i in range(15_000)]
    found = outcome(*run(as_array([rows])))

    assert [row["id"] for row in found.rows["items"]] == list(range(15_000))
    assert [row["value"] for row in found.rows["items__l"]][:4] == [0, 1, 1, 2]
    assert len(found.rows["items__l"]) == 30_000


@pytest.mark.parametrize("form", [as_rows, as_array])
def test_integers_and_floats_in_one_new_column(form: Any) -> None:
    for rows, expected in (
        ([{"a": 1}, {"a": 2.0}, {"a": 2.5}], [("a", "bigint"), ("a__v_double", "double")]),
        ([{"a": 1.0}, {"a": 2}, {"a": 2.5}], [("a", "double")]),
    ):
        found = outcome(*run(form([rows])))
        assert [column for column in found.columns["items"] if not column[0].startswith("_dlt")] == expected


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.skipif(not is_available(), reason="not compiled"))]
)
def test_an_empty_body_brings_nothing_of_earlier_ones(compiled: bool) -> None:
    worker = normalizer(compiled=compiled)
    run(as_array([[{"a": "2024-01-02T03:04:05Z"}]]), worker=worker)
    schema, done = run(as_array([[]]), worker=worker)

    assert "items" not in schema.tables
    assert done[0].batches == ()
