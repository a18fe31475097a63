"""Incremental cursors: definition, how they reach functions, what those see, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Optional

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import asyncelt
from asyncelt import current
from asyncelt.errors import (
    AsynceltWarning,
    ConfigError,
    IncrementalCursorInvalidCoercion,
    IncrementalCursorPathHasValueNone,
    IncrementalCursorPathMissing,
    IncrementalPrimaryKeyMissing,
)
from asyncelt.extract.incremental.digests import digest
from asyncelt.extract.incremental.paths import MISSING, parse_path
from asyncelt.extract.jsonbody import parse_in_slices
from asyncelt.extract.resource import Resource
from asyncelt.flow import JsonPages, Rows
from asyncelt.sources import incremental
from tests.extract.pumping import pumped

Row = dict[str, object]
State = dict[str, object]


async def rows_of(resource: Resource, state: State | None = None) -> list[object]:
    """The rows that one run lets pass; the state is changed as a run would."""
    with current.activate_resource({} if state is None else state, "s", resource.name, resource=resource):
        pages = (await pumped(resource)).pages

    found: list[object] = []

    for page in pages:
        if isinstance(page.payload, JsonPages):
            found += [row for body in page.payload.bodies for part in parse_in_slices(body) for row in part]
        else:
            found += page.payload.items if isinstance(page.payload, Rows) else page.payload.table.to_pylist()

    return found


def cursor_of(state: State, resource: str = "r", path: str = "at") -> dict[str, object]:
    """What a state says of one cursor."""
    return state["sources"]["s"]["resources"][resource]["incremental"][path]  # type: ignore[index,no-any-return]


def items(*values: object) -> list[Row]:
    return [{"id": number, "at": value} for number, value in enumerate(values)]


# ---------------------------------------------------------------------- how it reaches a function


@asyncelt.resource(name="r")
async def with_default(at: incremental[int] = incremental("at", initial_value=2), top: int = 5) -> AsyncIterator[Row]:
    for value in range(at.last_value or 0, top):
        yield {"at": value, "last": at.last_value, "start": at.start_value}


@pytest.mark.covers("Incremental.last_value", "Incremental.start_value")
async def test_a_function_sees_its_cursor_move() -> None:
    state: State = {}
    first = await rows_of(with_default(), state)
    second = await rows_of(with_default(top=7), state)

    assert first == [
        {"at": 2, "last": 2, "start": 2},
        {"at": 3, "last": 2, "start": 2},
        {"at": 4, "last": 3, "start": 2},
    ]
    assert [row["at"] for row in second] == [4, 5, 6]  # type: ignore[index]
    assert cursor_of(state)["initial_value"] == 2
    assert cursor_of(state)["last_value"] == 6
    assert cursor_of(state)["start_value"] == 4


@pytest.mark.covers("Incremental.merge", "Incremental.merge.other")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (incremental("at", initial_value=4), [4]),
        (incremental(initial_value=3), [3, 4]),
        (incremental(initial_value=3, end_value=4), [3]),
        (3, [3, 4]),
        (None, [0, 1, 2, 3, 4]),
    ],
)
async def test_what_is_passed_is_merged_with_the_default(given: object, expected: list[int]) -> None:
    rows = await rows_of(with_default(at=given))  # type: ignore[arg-type]

    assert [row["at"] for row in rows] == expected  # type: ignore[index]


async def test_hints_win_over_defaults_and_decorators_do_not_win_over_arguments() -> None:
    hinted = with_default().apply_hints(incremental={"cursor_path": "at", "initial_value": 4})
    assert [row["at"] for row in await rows_of(hinted)] == [4]  # type: ignore[index]

    @asyncelt.resource(incremental=incremental("at", initial_value=1))
    def decorated(at: incremental[int], more: int = 0) -> Iterator[Row]:
        yield from items(*range(at.last_value or 0, 3 + more))

    assert [row["at"] for row in await rows_of(decorated)] == [1, 2]  # type: ignore[index]
    assert [row["at"] for row in await rows_of(decorated(more=1))] == [1, 2, 3]  # type: ignore[index]
    passed = decorated(at=incremental("at", initial_value=2))
    assert [row["at"] for row in await rows_of(passed)] == [2]  # type: ignore[index]


async def test_an_optional_cursor_may_be_absent() -> None:
    @asyncelt.resource
    def optional(at: Optional[incremental[int]] = None) -> Iterator[Row]:  # noqa: UP045 - the older spelling too
        yield {"at": at}

    @asyncelt.resource
    def required(at: incremental[int] | None) -> Iterator[Row]:
        yield {"at": at}

    @asyncelt.resource
    def partial(at: incremental[int] = incremental(initial_value=1)) -> Iterator[Row]:
        yield {"at": at.last_value}

    assert await rows_of(optional) == [{"at": None}]
    assert await rows_of(required) == [{"at": None}]

    assert len(await rows_of(partial(at=incremental("at")))) == 1

    with pytest.raises(IncrementalCursorPathMissing, match="its incremental has no cursor_path"):
        await rows_of(partial)


@pytest.mark.covers("resource.incremental", "Resource.incremental", "Resource.apply_hints.incremental")
async def test_data_and_transformers_have_cursors_too() -> None:
    state: State = {}
    resource = asyncelt.resource(items(1, 2), name="r", incremental={"cursor_path": "at"})
    assert await rows_of(resource, state) == items(1, 2)
    assert await rows_of(resource, state) == []
    assert await rows_of(asyncelt.resource(items(5), name="r").add_step(incremental("at", initial_value=6))) == []

    @asyncelt.transformer(data_from=asyncelt.resource(items(1, 2), name="parent"))
    def doubled(item: Row, at: incremental[int] = incremental("at", initial_value=3)) -> Row:
        return {"at": item["at"] * 2, "start": at.start_value}  # type: ignore[operator]

    assert await rows_of(doubled) == [{"at": 4, "start": 3}]


@pytest.mark.covers("Incremental.get_cursor_column_name")
async def test_the_cursor_column_has_a_hint() -> None:
    assert with_default.hints.incremental == "at"
    assert asyncelt.resource([], name="r", incremental=incremental("a.b")).hints.incremental is None


async def test_the_same_resource_can_be_run_again_and_side_by_side() -> None:
    first, second = with_default(), with_default(top=4)
    state: State = {}
    assert len(await rows_of(first, state)) == 3
    assert len(await rows_of(first, {})) == 3
    assert await rows_of(second, state) == []
    assert with_default().cursor is not None
    assert with_default().cursor.window is None  # type: ignore[union-attr]


async def test_looking_at_rows_leaves_the_state_alone() -> None:
    state: State = {}

    with current.activate_resource(state, "s", "r"):
        assert len([row async for row in with_default()]) == 3

    assert "incremental" not in str(state)


# ---------------------------------------------------------------------- values and forms


@dataclass
class Model:
    id: int
    at: int


class Struct(msgspec.Struct):
    id: int
    at: int


FORMS = {
    "rows": lambda rows: iter(rows),
    "page": lambda rows: iter([rows]),
    "bytes": lambda rows: iter([msgspec.json.encode(rows)]),
    "ndjson": lambda rows: iter([b"\n".join(msgspec.json.encode(row) for row in rows)]),
    "envelope": lambda rows: iter([asyncelt.JsonPage(msgspec.json.encode({"d": {"r": rows}}), "d.r")]),
    "dataclasses": lambda rows: iter([[Model(**row) for row in rows]]),
    "structs": lambda rows: iter([Struct(**row) for row in rows]),
    "arrow": lambda rows: iter([pa.Table.from_pylist(rows)]),
    "batches": lambda rows: iter(pa.Table.from_pylist(rows).to_batches()),
    "chunks": lambda rows: iter([pa.concat_tables(pa.Table.from_pylist([row]) for row in rows)]),
    "pandas": lambda rows: iter([pd.DataFrame(rows)]),
    "polars": lambda rows: iter([pl.DataFrame(rows)]),
}


def _ids(rows: list[object]) -> list[int]:
    found: list[int] = []

    for row in rows:
        loaded = row if isinstance(row, list) else [row]
        found += [one["id"] if isinstance(one, dict) else one.id for one in loaded]

    return found


@pytest.mark.covers("probe.9.range")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("func", ["max", "min"])
async def test_each_form_of_page_gives_the_same(form: str, func: str) -> None:
    sign = 1 if func == "max" else -1
    runs = [(1, 2, 3, 3), (3, 3, 1, 4, 3), (9, 0, 4)]
    state: State = {}
    found = []

    for number, run in enumerate(runs):
        rows = [{"id": number * 10 + place, "at": sign * value} for place, value in enumerate(run)]
        rows[:2] = [{"id": 2, "at": sign * 3}, {"id": 3, "at": sign * 3}] if number == 1 else rows[:2]
        resource = asyncelt.resource(
            FORMS[form](rows), name="r", primary_key="id", incremental=incremental("at", last_value_func=func)
        )
        found.append(_ids(await rows_of(resource, state)))

    assert found == [[0, 1, 2, 3], [13, 14], [20, 22]]
    assert cursor_of(state)["last_value"] == sign * 9
    assert cursor_of(state)["unique_hashes"] == [digest(20)]


async def test_a_body_whose_rows_are_all_new_goes_on_as_it_is() -> None:
    body = msgspec.json.encode(items(1, 2, 3))
    cursor = incremental("at")

    with current.activate_resource({}, "s", "r"):
        result = await pumped(asyncelt.resource([body], name="r", incremental=cursor))

    assert result.pages[0].payload.bodies[0].data is body  # type: ignore[union-attr]


async def test_large_pages_are_looked_at_in_slices() -> None:
    rows = items(*range(50_000))

    for page in (rows, msgspec.json.encode(rows), pa.Table.from_pylist(rows)):
        state: State = {}
        assert len(await rows_of(asyncelt.resource([page], name="r", incremental=incremental("at")), state)) == 50_000
        again = asyncelt.resource([page], name="r", incremental=incremental("at", range_start="open"))
        assert await rows_of(again, state) == []


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("ns", "UTC"), pa.dictionary(pa.int32(), pa.string())]
)
async def test_columns_that_the_state_cannot_hold_as_they_are(kind: pa.DataType) -> None:
    values = ["a", "b", "b"] if pa.types.is_dictionary(kind) else [1_000, 2_001, 2_999]
    table = pa.table(
        {"id": [1, 2, 3], "at": pa.array(values).cast(kind) if values[0] == "a" else pa.array(values, kind)}
    )
    state: State = {}
    resource = asyncelt.resource([table], name="r", incremental=incremental("at"))

    assert len(await rows_of(resource, state)) == 3
    assert await rows_of(resource, state) == []
    assert isinstance(cursor_of(state)["last_value"], str | datetime)


# ---------------------------------------------------------------------- order


@pytest.mark.covers("incremental.row_order", "probe.9.order")
@pytest.mark.parametrize("form", ["rows", "page", "bytes", "arrow"])
async def test_a_source_in_order_is_closed_at_the_end_of_the_range(form: str) -> None:
    asked: list[int] = []

    def pages(values: Iterator[int]) -> Iterator[object]:
        for value in values:
            asked.append(value)
            yield from FORMS[form](items(value))

    rising = incremental("at", initial_value=1, end_value=3, row_order="asc")
    rows = await rows_of(asyncelt.resource(pages(iter(range(100))), name="r", incremental=rising))
    assert [row["at"] for row in rows] == [1, 2]  # type: ignore[index]
    assert asked == [0, 1, 2, 3]

    asked.clear()
    falling = incremental("at", initial_value=96, row_order="desc", range_start="open")
    rows = await rows_of(asyncelt.resource(pages(iter(range(100, 0, -1))), name="r", incremental=falling))
    assert [row["at"] for row in rows] == [100, 99, 98, 97]  # type: ignore[index]
    assert asked == [100, 99, 98, 97, 96]


@pytest.mark.covers("incremental.row_order", "probe.9.order")
@pytest.mark.parametrize("form", ["page", "bytes", "arrow"])
async def test_a_wrong_order_is_told_and_nothing_is_lost(form: str) -> None:
    cursor = incremental("at", initial_value=0, end_value=10, row_order="asc")
    pages = itertools.chain(FORMS[form](items(1, 12, 3)), FORMS[form](items(11, 4)))

    with pytest.warns(AsynceltWarning, match="rows do not come in this order"):
        rows = await rows_of(asyncelt.resource(pages, name="r", incremental=cursor))

    assert [row["at"] for row in rows if row["at"] < 10] == [1, 3, 4]  # type: ignore[index]


async def test_a_function_may_stop_when_it_is_out_of_range() -> None:
    seen: list[tuple[bool, bool]] = []

    @asyncelt.resource(name="r")
    def falling(at: incremental[int] = incremental("at", initial_value=3)) -> Iterator[object]:
        for page in ([6, 5], [4, 3], [2, 1]):
            yield items(*page)
            seen.append((at.start_out_of_range, at.end_out_of_range))

    assert len(await rows_of(falling)) == 4
    assert seen == [(False, False), (False, False), (True, False)]


# ---------------------------------------------------------------------- zones, lag, paths


async def test_zones_follow_the_data() -> None:
    aware, naive = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2)

    for value, initial in ((aware, datetime(2024, 1, 1)), (naive, datetime(2024, 1, 1, tzinfo=UTC))):
        for data in (items(value), pa.Table.from_pylist(items(value))):
            state: State = {}

            with pytest.warns(AsynceltWarning, match="not both times with a zone"):
                rows = await rows_of(asyncelt.resource([data], name="r", incremental=incremental("at", initial)), state)

            assert len(rows) == 1
            assert cursor_of(state)["last_value"] == value


@pytest.mark.covers("incremental.lag", "probe.9.lag")
@pytest.mark.parametrize(
    ("last", "lag", "expected"),
    [
        (10, 3, 7),
        (2.5, 1, 1.5),
        ("2024-03-01", 1, "2024-02-29"),
        ("2024-03-01T00:00:00Z", 1, "2024-02-29T23:59:59Z"),
        ("2024-03-01T00:00:00.500000+01:00", 1, "2024-02-29T23:59:59.500000+01:00"),
        ("2024-03-01T00:00:00+0100", 1, "2024-02-29T23:59:59+0100"),
        ("2024-03-01T00:00", 60, "2024-02-29T23:59"),
        (date(2024, 3, 1), 1, date(2024, 2, 29)),
        (datetime(2024, 3, 1, tzinfo=timezone(timedelta(hours=1))), 1, datetime(2024, 2, 29, 22, 59, 59, tzinfo=UTC)),
    ],
)
async def test_lag_moves_the_start_back(last: object, lag: float, expected: object) -> None:
    state: State = {}
    await rows_of(asyncelt.resource(items(last), name="r", incremental=incremental("at")), state)
    seen: list[object] = []

    @asyncelt.resource(name="r")
    def lagging(at: incremental[object] = incremental("at", lag=lag)) -> Iterator[object]:
        seen.extend((at.start_value, at.last_value))
        yield items(last)
        seen.append(at.last_value)

    assert len(await rows_of(lagging, state)) == 1
    assert seen == [expected, expected, last]


async def test_lag_needs_something_to_count() -> None:
    state: State = {}
    resource = asyncelt.resource(items("a"), name="r", incremental=incremental("at", lag=1))
    await rows_of(resource, state)

    with pytest.raises(ConfigError, match="lag= needs a cursor of numbers, dates or times"):
        await rows_of(resource, state)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", {"b": [{"c": 1}, {"c": 2}], "d.e": 3}),
        ("a.b[1].c", 2),
        ("$.a.b[-1].c", 2),
        ("a.b[0:1].c", 1),
        ("a.b[*].c", 1),
        ("a['d.e']", 3),
        ('a."d.e"', 3),
        ("$..c", 1),
        ("a.x,b[1].c", 2),
        ("a.*[0].c", 1),
        ("a.nothing", MISSING),
        ("a.b.c", MISSING),
    ],
)
def test_paths(path: str, expected: object) -> None:
    row = {"a": {"b": [{"c": 1}, {"c": 2}], "d.e": 3}}

    assert parse_path(path).find(row) == expected
    assert parse_path(path).find_all([row]) == [None if expected is MISSING else expected]


@pytest.mark.parametrize("path", ["", "$", ".a", "a.", "a..", "a[?(@.b)]", "a[", "a,", ",a", "a.`len`", "a[b]"])
def test_paths_that_cannot_be_read(path: str) -> None:
    with pytest.raises(ConfigError, match="Cursor path"):
        parse_path(path)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row_order": "up"}, "row_order is one of"),
        ({"on_cursor_value_missing": "skip"}, "on_cursor_value_missing is one of"),
        ({"range_start": "half"}, "range_start is one of"),
        ({"lag": "1"}, "lag is a number"),
        ({"last_value_func": "mean"}, "last_value_func is max, min or a function"),
        ({"end_value": 1}, "end_value needs an initial_value"),
        ({"initial_value": 2, "end_value": 1}, "does not come after initial_value"),
        ({"initial_value": "a", "end_value": 1}, "cannot be compared"),
        ({"cursor_path": 1}, "a field's name or a JSON path, not 1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        incremental(**{"cursor_path": "at", **arguments})  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=message):
        asyncelt.resource([], name="r", incremental={"cursor_path": "at", **arguments})


def test_hints_that_are_no_cursor() -> None:
    for wrong, message in ((1, "takes asyncelt.sources.incremental"), ({"path": "at"}, "unexpected keyword")):
        with pytest.raises(ConfigError, match=message):
            asyncelt.resource([], name="r", incremental=wrong)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ({"id": 1}, {}, IncrementalCursorPathMissing, "cursor 'at': a row does not have this field: .*'id': 1"),
        ({"at": None}, {}, IncrementalCursorPathHasValueNone, "a row has None in this field"),
        ({"at": float("nan")}, {}, IncrementalCursorPathHasValueNone, "a row has nan in this field"),
        ({"at": "a"}, {"initial_value": 1}, IncrementalCursorInvalidCoercion, "the value 'a' .* with start_value 1"),
        ({"at": 1}, {"primary_key": "key"}, IncrementalPrimaryKeyMissing, "does not have its primary key 'key'"),
        (pa.table({"id": [1]}), {}, IncrementalCursorPathMissing, "no such column in the table; it has id"),
        (pa.table({"at": [None, 1]}), {}, IncrementalCursorPathHasValueNone, "1 rows of a table have no value"),
        (pa.table({"at": [1]}), {"initial_value": "a"}, IncrementalCursorInvalidCoercion, "with start_value 'a'"),
        (pa.table({"at": [1]}), {"primary_key": "key"}, IncrementalPrimaryKeyMissing, "primary key 'key'"),
        (pa.table({"at": [1]}), {"last_value_func": sum}, ConfigError, "by max and min only"),
    ],
)
async def test_rows_that_cannot_be_followed(data: object, options: Row, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await rows_of(asyncelt.resource([data], name="r", incremental=incremental("at", **options)))  # type: ignore[arg-type]


async def test_nan_is_no_value() -> None:
    rows = items(1.0, float("nan"), 3.0)

    for page in (rows, pa.Table.from_pylist(rows)):
        state: State = {}
        cursor = incremental("at", on_cursor_value_missing="include")
        assert len(await rows_of(asyncelt.resource([page], name="r", incremental=cursor), state)) == 3
        assert cursor_of(state)["last_value"] == 3.0


async def test_values_of_every_type_that_has_an_order() -> None:
    for low, high in ((Decimal(1), Decimal("1.5")), (date(2024, 1, 1), date(2024, 1, 2)), ("a", "b"), (b"a", b"b")):
        state: State = {}
        cursor = incremental("at", primary_key=())
        assert len(await rows_of(asyncelt.resource(items(low, high), name="r", incremental=cursor), state)) == 2
        assert await rows_of(asyncelt.resource(items(low), name="r", incremental=cursor), state) == []
        assert cursor_of(state)["last_value"] == high
