"""The same pages through the reference's normalizer and through ours: same tables, columns, order, values."""

from __future__ import annotations

import enum
import random
import uuid
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from dlt.common.schema.exceptions import CannotCoerceColumnException
from hypothesis import HealthCheck, assume, given, settings

from asyncelt.flow import Payload
from asyncelt.normalize.plain_road import is_available
from tests.differential.cases import Case
from tests.differential.strategies import append_cases, steady_cases
from tests.normalize.reference_rows import Outcome, comparable, normalized
from tests.normalize.running import as_array, as_lines, as_rows, linked, normalizer, outcome, run, types_of
from tests.support.fuzzing import examples

Pages = Sequence[Sequence[object]]
Form = Callable[[Pages], list[Payload]]
BERLIN = timezone(timedelta(hours=2))


class Letter(enum.Enum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


@dataclass
class Point:
    x: int
    rest: list[object]


Pair = namedtuple("Pair", "p q")


class Model(pydantic.BaseModel):
    id: int
    name: str = pydantic.Field(alias="theName")


def same(found: Outcome, expected: Outcome) -> None:
    """Compare everything but random ids."""
    assert found.columns == expected.columns
    assert list(found.columns) == list(expected.columns)
    assert values_of(found) == values_of(expected)


def values_of(found: Outcome) -> dict[str, list[dict[str, Any]]]:
    types = types_of(found)

    return {
        table: [{key: comparable(value, types[table][key]) for key, value in row.items()} for row in rows]
        for table, rows in linked(found).items()
    }


def check(pages: Pages, forms: Sequence[Form] = (as_rows,), max_nesting: int | None = None) -> None:
    """Every form, cut and road gives what the reference gives."""
    expected = normalized(pages, max_nesting=max_nesting)
    rows = [row for page in pages for row in page]

    for form in forms:
        for cut in (pages, [rows], [[row] for row in rows]):
            for ahead, compiled in ((False, True), (True, True), (False, False), (True, False)):
                worker = normalizer(compiled=compiled and is_available())
                same(outcome(*run(form(cut), worker=worker, ahead=ahead, max_nesting=max_nesting)), expected)


JSON_CASES: dict[str, list[object]] = {
    "flat": [{"id": 1, "name": "a"}, {"id": 2, "name": None, "score": 1.5}],
    "nested dicts come in reverse order": [{"a": {"x": 1}, "b": {"y": {"z": 2}}, "c": 3}],
    "order of the row that brings a column": [{"a": None, "b": None, "c": 1}, {"b": 1, "a": 2}],
    "lists": [{"a": [1, 2], "b": [{"x": [{"y": 1}]}, {"x": []}]}, {"b": [{"z": "q"}]}],
    "lists of lists": [{"a": [[1, 2], [], [None, [3]]]}],
    "nulls in lists": [{"a": [None, None]}, {"a": [None, 1, {"x": 2}]}],
    "empty things": [{}, {"a": {}}, {"b": []}, {"c": {"d": {}}}],
    "nulls among rows": [None, {"id": 1}, None],
    "values that are no dicts": [1, "x", [1, [2]], {"value": 3}],
    "first value decides": [{"a": 1}, {"a": 2.5}, {"a": "7"}, {"a": "x"}, {"a": True}, {"a": 3.0}],
    "float first": [{"a": 1.5}, {"a": 1}, {"a": True}, {"a": "2"}],
    "integers and floats under text": [{"a": "x"}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": 1e22}],
    "text that becomes a time": [{"a": "2024-01-01T00:00:00Z"}, {"a": "2024-01-01"}, {"a": "2024-05-05 10:00"}],
    "a variant that is a time": [{"a": 1}, {"a": "2024-01-01T00:00:00Z"}, {"a": "2025-01-01T00:00:00+02:00"}],
    "dates stay text": [{"a": "2024-01-01"}, {"a": ["2024-01-01", "10:00"]}],
    "a dict where a scalar was": [{"a": 1}, {"a": {"b": 2}}, {"a": [3]}, {"a": "x"}],
    "colliding keys": [{"userId": 1, "user_id": 2}, {"user_id": 3, "userId": None}, {"userId": [1], "user_id": [2]}],
    "a path and a key collide": [{"a": {"b": 1}, "a__b": 2}, {"a__b": 3, "a": {"b": 4}}],
    "a key named list": [{"a": [[1], {"list": [2]}]}],
    "odd keys": [{"": 1, "  ": 2, "a b": 3, "+1": 4, "-1": 5, "日本": 6, "a__": 7}],
    "wide numbers": [{"a": 2**53 + 1}, {"a": 1.5}, {"a": -(2**63)}],
    "user ids": [{"_dlt_id": "u1", "c": [{"x": 1}, 2]}, {"_dlt_id": "u2", "c": [3]}],
}

PYTHON_CASES: dict[str, list[object]] = {
    "times": [{"a": datetime(2020, 1, 1, 5), "b": datetime(2020, 1, 1, 5, tzinfo=BERLIN), "c": date(2020, 1, 1)}],
    "time of day, decimal, bytes, uuid": [
        {"d": time(1, 2, 3, 4), "e": Decimal("1.50"), "f": b"a", "g": uuid.UUID(int=5)}
    ],
    "dates and times mixed": [
        {"a": datetime(2020, 1, 1, 5, tzinfo=UTC)},
        {"a": date(2020, 1, 1)},
        {"a": 5},
        {"a": "zz"},
    ],
    "times as text show their own zone": [
        {"a": "x", "b": 1},
        {"a": datetime(2020, 1, 1, 5), "b": datetime(2020, 1, 1, 5)},
        {"a": datetime(2020, 1, 1, 5, tzinfo=UTC), "b": datetime(2020, 1, 1, 5, 1, 2, 3, tzinfo=BERLIN)},
        {"a": datetime(2020, 1, 1, 5, tzinfo=BERLIN)},
    ],
    "decimals as text show their own places": [
        {"a": "x"},
        {"a": Decimal("1.50")},
        {"a": Decimal(2)},
        {"a": Decimal("1E+3")},
    ],
    "a date first": [{"a": date(2020, 1, 1)}, {"a": datetime(2020, 1, 1, 5)}, {"a": "2020-01-01"}],
    "decimals": [{"a": Decimal("1.5")}, {"a": 1}, {"a": 2.5}, {"a": "3"}, {"a": True}, {"a": Decimal("1e10")}],
    "decimals after integers": [{"a": 1}, {"a": Decimal("1.5")}, {"a": Decimal(2)}],
    "bytes": [{"a": b"x"}, {"a": "eA=="}, {"a": "!!"}, {"a": 5}],
    "bytes after text": [{"a": "x"}, {"a": b"x"}],
    "enums": [{"a": Letter.A, "b": Number.ONE}],
    "objects": [
        Point(1, [1, 2]),
        {"x": Point(2, [{"y": 1}]), "nt": Pair(1, [2])},
        Pair(3, 4),
        Model(id=1, theName="x"),
    ],
    "tuples": [{"a": (1, 2)}, {"a": [(3,), 4]}],
    "keys that are no text": [{2: 2, None: 3, True: 4}, {"a": {1: {"b": 2}}}],
    "bools among floats": [{"a": 1.5}, {"a": True}, {"a": 1}, {"a": {"b": [1.5, True, 1]}}],
}


@pytest.mark.parametrize("name", JSON_CASES)
def test_json_shaped_rows(name: str) -> None:
    check([JSON_CASES[name]], (as_rows, as_array, as_lines))


@pytest.mark.parametrize("name", PYTHON_CASES)
def test_python_rows(name: str) -> None:
    check([PYTHON_CASES[name]])


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_nesting_limits(levels: int) -> None:
    deep = [{"a": {"b": {"c": {"d": 1}}}, "l": [[{"x": {"y": 1}}], {"z": {"w": [1]}}], "s": 1}, {"a": None, "l": "x"}]
    check([deep], (as_rows, as_array), max_nesting=levels)


KEYS = ("a", "b", "c", "aB", "a_b", "d e", "list", "value", "a__b")
SCALARS = ("int", "float", "bool", "str", "none")


def value(rng: random.Random, depth: int, kinds: Sequence[str]) -> object:
    below = kinds if depth > 1 else SCALARS

    match rng.choice(kinds):
        case "int":
            return rng.choice((0, 1, 5, -3, 10**6))
        case "float":
            return rng.choice((0.0, 1.0, 2.5, -1.5))
        case "bool":
            return rng.random() < 0.5
        case "str":
            return rng.choice(("x", "5", "2.5", "2024-01-01T00:00:00Z", "true", "", "2024-01-01", '{"q":1}'))
        case "dict":
            return {rng.choice(KEYS): value(rng, depth - 1, below) for _ in range(rng.randint(0, 3))}
        case "list":
            return [value(rng, depth - 1, below) for _ in range(rng.randint(0, 3))]
        case _:
            return None


@pytest.mark.parametrize("seed", range(40))
def test_random_documents(seed: int) -> None:
    rng = random.Random(seed)
    kinds = rng.choice(((*SCALARS, "dict", "list"), SCALARS, ("int", "none", "dict", "list"), ("float", "int", "list")))
    keys = rng.sample(KEYS, rng.randint(1, len(KEYS)))

    def item() -> object:
        own = [key for key in keys if rng.random() < 0.6]
        rng.shuffle(own)
        return {key: value(rng, 3, kinds) for key in own}

    pages = [[item() for _ in range(rng.randint(1, 5))] for _ in range(2)]

    try:
        normalized(pages)
    except Exception:  # what the reference gives up on is tested elsewhere
        return

    check(pages, (as_rows, as_array))


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
@given(case=append_cases() | steady_cases())
def test_documents_nobody_thought_of(case: Case) -> None:
    # Extract sends a page without rows only where a table is asked for that may stay empty.
    pages = [page for part in case.runs for page in part.pages if page]
    assume(pages)

    try:
        normalized(pages)
    except CannotCoerceColumnException:
        # A value that fits neither its column nor the variant: here it has to be kept.
        for form in (as_rows, as_array):
            run(form(pages))

        return

    check(pages, (as_rows, as_array))
