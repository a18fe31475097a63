"""Every form in which data may come, and what it becomes."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import types
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest

import asyncelt
from asyncelt.errors import ResourceExtractionError, SourceExhausted
from asyncelt.flow import ArrowPage, JsonBody, JsonPages
from tests.extract.pumping import pumped

ROWS = [{"a": 1}, {"a": 2}, {"a": 3}]


async def agen() -> AsyncIterator[object]:
    for row in ROWS:
        yield row


def gen() -> Iterator[object]:
    yield from ROWS


async def coroutine() -> object:
    await asyncio.sleep(0)
    return ROWS


class Aiterable:
    def __aiter__(self) -> AsyncIterator[object]:
        return agen()


class Iterable:
    def __iter__(self) -> Iterator[object]:
        return gen()


class CallableObject:
    async def __call__(self) -> AsyncIterator[object]:
        for row in ROWS:
            yield row


DATA: dict[str, Callable[[], object]] = {
    "list": lambda: ROWS,
    "tuple": lambda: tuple(ROWS),
    "list of pages": lambda: [ROWS[:2], ROWS[2:]],
    "generator": gen,
    "generator function": lambda: gen,
    "async generator": agen,
    "async generator function": lambda: agen,
    "coroutine": coroutine,
    "coroutine function": lambda: coroutine,
    "function returning a list": lambda: lambda: ROWS,
    "function returning a generator": lambda: lambda: gen(),
    "function returning an async generator": lambda: lambda: agen(),
    "function returning a coroutine": lambda: lambda: coroutine(),
    "partial of an async generator function": lambda: functools.partial(agen),
    "callable object": lambda: CallableObject(),
    "iterable": Iterable,
    "async iterable": Aiterable,
    "iterator": lambda: iter(ROWS),
    "map": lambda: map(dict, ROWS),
    "list of generators": lambda: [iter(ROWS[:1]), iter(ROWS[1:])],
    "list of coroutines": lambda: [coroutine()],
    "dict values": lambda: {"x": ROWS[0], "y": ROWS[1], "z": ROWS[2]}.values(),
    "future": lambda: asyncio.ensure_future(coroutine()),
}


@pytest.mark.parametrize("form", DATA)
async def test_what_a_resource_can_be_made_from(form: str) -> None:
    assert (await pumped(asyncelt.resource(DATA[form](), name="r"))).rows() == ROWS


@dataclass
class Person:
    a: int


class Model(pydantic.BaseModel):
    a: int


class Struct(msgspec.Struct):
    a: int


def nested() -> Iterator[object]:
    yield {"a": 1}
    yield iter([{"a": 2}, [{"a": 3}]])


async def nested_async() -> AsyncIterator[object]:
    yield coroutine()


ITEMS: dict[str, tuple[Callable[[], object], list[object]]] = {
    "row": (lambda: {"a": 1}, [{"a": 1}]),
    "empty row": (dict, [{}]),
    "page": (lambda: [{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
    "tuple of rows": (lambda: ({"a": 1}, {"a": 2}), [{"a": 1}, {"a": 2}]),
    "tuple of values is one row": (lambda: (1, "x"), [(1, "x")]),
    "tuple of rich values is one row": (lambda: (Decimal(1), date(2024, 1, 1)), [(Decimal(1), date(2024, 1, 1))]),
    "text": (lambda: "x", ["x"]),
    "number": (lambda: 1.5, [1.5]),
    "nothing": (lambda: None, []),
    "nothing in a page": (lambda: [None, {"a": 1}], [{"value": None}, {"a": 1}]),
    "lists in a page are values": (lambda: [[1, 2], [3]], [[1, 2], [3]]),
    "bytes": (lambda: b'{"a": 1}', [{"a": 1}]),
    "bytearray": (lambda: bytearray(b'{"a": 1}'), [{"a": 1}]),
    "memoryview": (lambda: memoryview(b'{"a": 1}'), [{"a": 1}]),
    "page of bodies": (lambda: [b'{"a": 1}', b'{"a": 2}'], [{"a": 1}, {"a": 2}]),
    "arrow table": (lambda: pa.table({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
    "arrow batch": (lambda: pa.record_batch({"a": [1]}), [{"a": 1}]),
    "arrow reader": (lambda: pa.table({"a": [1, 2]}).to_reader(), [{"a": 1}, {"a": 2}]),
    "pandas": (lambda: pd.DataFrame({"a": [1, 2]}, index=[5, 6]), [{"a": 1}, {"a": 2}]),
    "polars": (lambda: pl.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
    "lazy polars": (lambda: pl.LazyFrame({"a": [1]}), [{"a": 1}]),
    "frames in a page": (lambda: [pl.DataFrame({"a": [1]}), pa.table({"a": [2]})], [{"a": 1}, {"a": 2}]),
    "dataclass": (lambda: Person(1), [Person(1)]),
    "pydantic": (lambda: Model(a=1), [Model(a=1)]),
    "msgspec": (lambda: [Struct(1)], [Struct(1)]),
    "mapping": (lambda: types.MappingProxyType({"a": 1}), [{"a": 1}]),
    "generator": (nested, [{"a": 1}, {"a": 2}, {"a": 3}]),
    "generator in a page": (lambda: [iter([{"a": 1}])], [{"a": 1}]),
    "async generator": (nested_async, ROWS),  # type: ignore[dict-item]
    "coroutine": (coroutine, ROWS),  # type: ignore[dict-item]
    "function": (lambda: lambda: {"a": 1}, [{"a": 1}]),
    "async function": (lambda: coroutine, ROWS),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(
    "form",
    [
        *("row", "empty row", "bytes", "bytearray", "memoryview", "arrow table", "arrow batch", "arrow reader"),
        *("pandas", "polars", "lazy polars", "dataclass", "pydantic", "mapping", "tuple of rows"),
    ],
)
async def test_one_item_can_be_a_resource(form: str) -> None:
    make, expected = ITEMS[form]

    assert (await pumped(asyncelt.resource(make(), name="r"))).rows() == expected


@pytest.mark.parametrize("form", ITEMS)
async def test_what_an_async_generator_may_yield(form: str) -> None:
    make, expected = ITEMS[form]

    @asyncelt.resource
    async def items() -> AsyncIterator[object]:
        yield make()
        yield {"last": True}

    assert (await pumped(items())).rows() == [*expected, {"last": True}]


@pytest.mark.parametrize("form", ITEMS)
async def test_what_a_generator_may_yield(form: str) -> None:
    make, expected = ITEMS[form]

    @asyncelt.resource
    def items() -> Iterator[object]:
        yield make()
        yield {"last": True}

    assert (await pumped(items())).rows() == [*expected, {"last": True}]


@pytest.mark.parametrize("form", ITEMS)
async def test_what_a_list_may_hold(form: str) -> None:
    make, expected = ITEMS[form]

    assert (await pumped(asyncelt.resource([make(), {"last": True}], name="r"))).rows() == [*expected, {"last": True}]


async def test_database_rows_become_dicts() -> None:
    @asyncelt.resource
    def people() -> Iterator[object]:
        connection = sqlite3.connect(":memory:")
        connection.row_factory = sqlite3.Row
        yield from connection.execute("select 1 as a, 'x' as b")
        yield connection.execute("select 2 as a, 'y' as b").fetchall()
        connection.close()

    assert (await pumped(people())).rows() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


async def test_json_bodies_are_passed_on_as_they_are() -> None:
    body = b'{"data": {"results": [{"a": 1}]}}'

    async def bodies() -> AsyncIterator[object]:
        yield body
        yield asyncelt.JsonPage(body, items="data.results")
        yield b""

    pages = (await pumped(asyncelt.resource(bodies(), name="r"))).pages

    assert [page.payload for page in pages] == [JsonPages((JsonBody(body), JsonBody(body, "data.results")))]
    assert pages[0].payload.bodies[0].data is body  # type: ignore[union-attr]
    assert pages[0].nbytes == 2 * len(body)


async def test_an_empty_arrow_table_is_a_page_but_an_empty_list_is_none() -> None:
    empty = pa.table({"a": pa.array([], pa.int64())})
    pages = (await pumped(asyncelt.resource([empty, []], name="r"))).pages

    assert [(page.rows, page.payload) for page in pages] == [(0, ArrowPage(empty))]


async def test_rows_may_choose_their_table() -> None:
    data = [asyncelt.with_table_name({"a": 1}, "x"), {"a": 2}, asyncelt.with_table_name([{"a": 3}], "x")]
    result = await pumped(asyncelt.resource(data, name="r").add_map(lambda row: {**row, "b": 0}))

    assert result.rows("x") == [{"a": 1, "b": 0}, {"a": 3, "b": 0}]
    assert result.rows("r") == [{"a": 2, "b": 0}]
    assert result.report is not None
    assert result.report.tables == {"x": 2, "r": 1}


@pytest.mark.parametrize("make", [gen, agen, coroutine])
async def test_what_can_be_read_once_is_refused_the_second_time(make: Callable[[], object]) -> None:
    data = make()
    await pumped(asyncelt.resource(data, name="r"))

    with pytest.raises(SourceExhausted, match="'again'"):
        await pumped(asyncelt.resource(data, name="again"))


async def test_a_generator_that_was_started_is_refused() -> None:
    begun, begun_async = gen(), agen()
    next(begun)
    await anext(begun_async)

    for data in begun, begun_async:
        with pytest.raises(SourceExhausted):
            await pumped(asyncelt.resource(data, name="r"))

    await begun_async.aclose()  # type: ignore[attr-defined]


async def test_functions_are_called_anew_for_each_run() -> None:
    resource = asyncelt.resource(name="r")(agen)

    assert (await pumped(resource)).rows() == (await pumped(resource)).rows() == ROWS


async def test_a_list_is_not_changed_and_large_lists_are_cut() -> None:
    rows: list[object] = [{"a": number} for number in range(2_000)]
    before = list(rows)
    result = await pumped(asyncelt.resource(rows, name="r"), limits=asyncelt.Limits(gather_rows=300))

    assert rows == before == result.rows()
    assert [page.rows for page in result.pages] == [300] * 6 + [200]


@pytest.mark.parametrize("wrong", [b"{", b'{"a": 1}\n{"a'])
async def test_a_body_that_is_no_json_is_reported_where_rows_are_needed(wrong: bytes) -> None:
    with pytest.raises(asyncelt.errors.InvalidResourceData, match="not JSON"):
        await pumped(asyncelt.resource([wrong], name="r").add_map(lambda row: row))


async def test_stop_iteration_in_user_code_does_not_end_a_resource_silently() -> None:
    def stop(row: object) -> object:
        raise StopIteration

    async def astop(row: object) -> object:
        raise StopAsyncIteration

    for step in stop, astop:
        for data in (agen, gen):
            with pytest.raises(ResourceExtractionError, match="in add_map after 0 rows"):
                await pumped(asyncelt.resource(name="r")(data).add_map(step))

    async def awaitable() -> object:
        raise StopAsyncIteration("inside")

    with pytest.raises(ResourceExtractionError, match="in what it yielded"):
        await pumped(asyncelt.resource([awaitable()], name="r"))
