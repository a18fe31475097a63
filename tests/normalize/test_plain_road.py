"""The compiled extension: what it accepts means what Python's json says, and everything else is refused."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, strategies as st

from asyncelt.flow import JsonBody, JsonPages, Rows
from asyncelt.normalize.plain_road import is_available
from tests.normalize.running import normalizer, outcome, run

if not is_available():
    if os.environ.get("CI"):
        pytest.fail("the extension was not built: a C compiler is needed to test it", pytrace=False)

    pytest.skip("the extension was not built here", allow_module_level=True)

from asyncelt.normalize._columns import Columns, Refused

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
keys = st.sampled_from(["a", "b", "a b", "ключ", "\n", '"', "\\", ""]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
documents = st.lists(st.dictionaries(keys, values, max_size=6), max_size=8)


def rebuilt(columns: Columns) -> list[Any]:
    """The rows that the tables tell, without what columns do not show: nulls, empty objects, empty lists."""
    tables = []

    for rows, element, *links in columns.finish():
        tables.append((rows, arrays(element), [pa.array(link).to_pylist() for link in links]))

    return [value_at(tables, tables[0][1], row) or {} for row in range(tables[0][0])]


def arrays(place: Any) -> Any:
    key, lanes, below, elements = place
    taken = [pa.array(lane) for _, lane in lanes]

    for array in taken:
        array.validate(full=True)

    return key, [array.to_pylist() for array in taken], below and [arrays(inner) for inner in below], elements


def value_at(tables: Sequence[Any], place: Any, row: int) -> Any:
    _, lanes, below, elements = place
    found = [lane[row] for lane in lanes if lane[row] is not None]
    inner = {one[0]: value for one in below or () if (value := value_at(tables, one, row)) is not None}

    if inner:
        found.append(inner)

    if elements is not None:
        rows, element, links = tables[elements]
        items = [value_at(tables, element, at) for at in range(rows) if links[0][at] == row]

        if items:
            found.append(items)

    assert len(found) <= 1

    return found[0] if found else None


def shown(value: Any) -> Any:
    """A value as far as columns show it."""
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := shown(inner)) is not None} or None

    if isinstance(value, list):
        return [shown(inner) for inner in value] or None

    return value


def same(found: list[Any], expected: list[Any]) -> None:
    # By their text, so that 1, 1.0 and True, and 0.0 and -0.0, are told apart; keys are in any order.
    assert json.dumps(found, sort_keys=True) == json.dumps([shown(row) or {} for row in expected], sort_keys=True)


def of_json(*texts: bytes) -> list[Any]:
    columns = Columns()

    for text in texts:
        columns.add_json(text)

    return rebuilt(columns)


def of_rows(rows: list[Any]) -> list[Any]:
    columns = Columns()
    assert columns.add_rows(rows, 0, 1e9) == len(rows)

    return rebuilt(columns)


@given(documents)
@example([{"a": 5e-324}, {"a": 1.7976931348623157e308}, {"a": 0.1}, {"a": 123456789.12345678}, {"a": -0.0}])
@example([{"a": 2**63 - 1}, {"a": -(2**63)}, {"a": [[], [[1]], {}]}])
def test_every_form_of_the_same_rows(rows: list[dict[str, Any]]) -> None:
    text = json.dumps(rows).encode()
    same(of_json(text), rows)
    same(of_json(json.dumps(rows, ensure_ascii=False, indent=1).encode()), rows)
    same(of_json(b"\n".join(json.dumps(row).encode() for row in rows)), rows)
    same(of_json(text, text), rows * 2)
    same(of_rows(rows), rows)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["r", ".17g", ".20e", ".3e"]))
def test_floats_to_the_last_bit(number: float, form: str) -> None:
    text = repr(number) if form == "r" else format(number, form)
    value = float(text)

    if value in {float("inf"), float("-inf")}:
        return

    (row,) = of_json(b'{"a": %s}' % (text if set(text) & set(".en") else text + ".0").encode())
    assert repr(row["a"]) == repr(value)


@given(documents, st.data())
def test_damaged_text_is_refused_or_means_the_same(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    text = bytearray(json.dumps(rows, ensure_ascii=data.draw(st.booleans())).encode())

    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))

    try:
        found = of_json(bytes(text))
    except Refused:
        return

    loaded = json.loads(text.decode()) if text.strip()[:1] == b"[" else [json.loads(line) for line in lines(text)]
    same(found, loaded)


def lines(text: bytes | bytearray) -> list[str]:
    whole = text.decode().strip()

    try:
        json.loads(whole)
    except ValueError:
        return [line for line in whole.split("\n") if line.strip()]

    return [whole]


@given(st.binary(max_size=60))
def test_garbage(data: bytes) -> None:
    try:
        of_json(data)
    except Refused:
        return


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":9223372036854775808}',
        b'{"a":-9223372036854775809}',
        b'{"a":12345678901234567890123}',
        b'{"a":1e400}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":.5}',
        b'{"a":+1}',
        b'{"a":-}',
        b'{"a":1e}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00"}',
        b'{"a":"\\x"}',
        b'{"a":"\\u12"}',
        b'{"a":"\x01"}',
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b'{"a":"x}',
        b'{"a":1',
        b'{"a":1,}',
        b'{"a" 1}',
        b"{a:1}",
        b'{"a":tru}',
        b'[{"a":1},]',
        b'[{"a":1}',
        b'[{"a":1}] x',
        b"[null]",
        b"[1]",
        b"null",
        b'{"a":1} {"a":2}',
        b'{"a":\n1}\n{"a":2}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_refused_text(text: bytes) -> None:
    columns = Columns()

    with pytest.raises(Refused):
        columns.add_json(text)

    with pytest.raises(ValueError, match="no rows can be added any more"):
        columns.add_json(b"{}")


class Name(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    "value",
    [Name("x"), Level.LOW, 2**63, -(2**63) - 1, "\ud800", b"x", (1, 2), Decimal(1), {1: 2}, {Name("x"): 1}, object()],
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"x": [{"y": value}]}])
def test_refused_rows(value: object, wrap: Any) -> None:
    with pytest.raises(Refused):
        Columns().add_rows([{"a": 1}, {"a": wrap(value)}], 0, 1.0)


@pytest.mark.parametrize("row", [None, 1, [], "x"])
def test_rows_that_are_no_dicts_are_refused(row: object) -> None:
    with pytest.raises(Refused):
        Columns().add_rows([row], 0, 1.0)


def test_an_object_in_itself_is_refused() -> None:
    row: dict[str, Any] = {}
    row["row"] = row

    with pytest.raises(Refused):
        Columns().add_rows([row], 0, 1.0)


def test_nan_and_infinity_of_python_rows_are_kept() -> None:
    found = of_rows([{"a": float("nan")}, {"a": float("inf")}])
    assert repr(found) == "[{'a': nan}, {'a': inf}]"


def test_rows_are_taken_in_slices() -> None:
    columns = Columns()
    rows: list[object] = [{"a": number} for number in range(100)]
    taken, steps = 0, 0

    while taken < len(rows):
        taken, steps = columns.add_rows(rows, taken, 0.0), steps + 1

    assert 1 < steps <= 100
    assert rebuilt(columns) == rows


def test_an_object_keyed_by_id_is_refused_before_it_is_made() -> None:
    columns = Columns()
    columns.add_rows([{f"k{number}": 1} for number in range(20_000)], 0, 1e9)

    with pytest.raises(Refused):
        columns.finish()


def test_values_are_taken_once() -> None:
    columns = Columns()
    columns.add_json(b'{"a":1}')
    ((_, (_, _, below, _)),) = columns.finish()
    ((_, [(_, values)], _, _),) = below
    assert pa.array(values).to_pylist() == [1]

    with pytest.raises(ValueError, match="handed over"):
        pa.array(values)

    with pytest.raises(ValueError, match="no rows can be added any more"):
        columns.finish()


def test_bodies_of_one_page_are_read_together_or_each_by_itself() -> None:
    plain, odd = b'[{"a":1},{"a":2}]', b'[{"a":3,"a":4}]'
    bodies = (JsonBody(plain), JsonBody(b'{"data":{"rows":[{"a":5}]}}', "data.rows"), JsonBody(b"[]"))

    for payload, expected in ((bodies, [1, 2, 5]), ((*bodies, JsonBody(odd)), [1, 2, 5, 4])):
        found = outcome(*run([JsonPages(payload)]))
        assert [row["a"] for row in found.rows["items"]] == expected


def test_the_road_is_left_alone_after_it_was_refused_and_nothing_is_lost() -> None:
    worker = normalizer()
    pages = [Rows([{"a": number, "b": 2**70 if number == 1 else 1}]) for number in range(40)]
    found = outcome(*run(pages, worker=worker))
    assert [row["a"] for row in found.rows["items"]] == list(range(40))
