"""Steps: what they see, what they keep, in which order, and when they end a source."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pyarrow as pa
import pytest

import asyncelt
from asyncelt import mark
from asyncelt.errors import ConfigError, ResourceExtractionError
from asyncelt.extract.items import Mark
from tests.extract.pumping import pumped


def resource(*items: object) -> asyncelt.Resource:
    return asyncelt.resource(list(items), name="r")


def noting(seen: list[object]) -> Callable[[object], object]:
    """A step that writes down what it sees."""

    def note(row: object) -> object:
        seen.append(row)
        return row

    return note


async def later(row: dict[str, int]) -> dict[str, int]:
    await asyncio.sleep(0)
    return {**row, "b": row["a"]}


FORMS: dict[str, Callable[..., asyncelt.Resource]] = {
    "list": resource,
    "generator": lambda *items: asyncelt.resource(iter(items), name="r"),
    "async generator": lambda *items: asyncelt.resource(arange(items), name="r"),
}


async def arange(items: object) -> AsyncIterator[object]:
    for item in items:  # type: ignore[attr-defined]
        yield item


@pytest.mark.covers("Resource.add_map", "Resource.add_map.item_map", "probe.1.generators")
@pytest.mark.parametrize("form", FORMS)
async def test_steps_see_rows_one_by_one_whatever_they_come_in(form: str) -> None:
    seen: list[object] = []
    items = ({"a": 1}, [{"a": 2}, {"a": 3}], b'[{"a": 4}]', asyncelt.JsonPage(b'{"x": [{"a": 5}]}', items="x"))
    source = FORMS[form](*items).add_map(noting(seen))

    assert (await pumped(source)).rows() == seen == [{"a": number} for number in range(1, 6)]


@pytest.mark.covers(
    "Resource.add_map",
    "Resource.add_map.item_map",
    "Resource.add_filter",
    "Resource.add_filter.item_filter",
    "Resource.add_yield_map",
    "Resource.add_yield_map.item_map",
)
@pytest.mark.parametrize("form", FORMS)
async def test_async_functions_are_steps_too(form: str) -> None:
    async def odd(row: dict[str, int]) -> bool:
        await asyncio.sleep(0)
        return row["a"] % 2 == 1

    async def twice(row: dict[str, int]) -> AsyncIterator[object]:
        yield row
        await asyncio.sleep(0)
        yield row

    source = FORMS[form]({"a": 1}, [{"a": 2}, {"a": 3}]).add_filter(odd).add_map(later).add_yield_map(twice)

    assert (await pumped(source)).rows() == [{"a": 1, "b": 1}] * 2 + [{"a": 3, "b": 3}] * 2


@pytest.mark.parametrize("form", FORMS)
async def test_what_a_map_may_return(form: str) -> None:
    """As in the reference: None drops a row that came alone, and is an empty row within a page."""
    source = FORMS[form]({"a": 1}, [{"a": 2}, {"a": 3}]).add_map(lambda row: None if row["a"] < 3 else row)
    assert (await pumped(source)).rows() == [{"value": None}, {"a": 3}]

    source = FORMS[form]({"a": 1}, {"a": 2}).add_map(lambda row: [row, row])
    assert (await pumped(source)).rows() == [{"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}]

    source = FORMS[form]({"a": 1}).add_map(lambda row: later(row)).add_filter(lambda row: "b" in row)
    assert (await pumped(source)).rows() == [{"a": 1, "b": 1}]

    source = FORMS[form]({"a": 1}).add_map(lambda row: iter([row, row]))
    assert (await pumped(source)).rows() == [{"a": 1}, {"a": 1}]


@pytest.mark.covers("Resource.add_filter", "Resource.add_filter.item_filter")
@pytest.mark.parametrize("form", FORMS)
async def test_filters_keep_rows_and_drop_pages_they_empty(form: str) -> None:
    calls: list[object] = []
    source = FORMS[form]({"a": 1}, [{"a": 2}, {"a": 3}], [{"a": 0}]).add_filter(lambda row: row["a"] and row["a"] != 2)
    source.add_map(noting(calls))

    assert (await pumped(source)).rows() == calls == [{"a": 1}, {"a": 3}]


@pytest.mark.covers("Resource.add_yield_map", "Resource.add_yield_map.item_map")
async def test_yield_map_over_pages_and_plain_iterables() -> None:
    def twice(row: dict[str, int]) -> Iterator[object]:
        yield row
        yield [row, row]

    source = resource([{"a": 1}, {"a": 2}]).add_yield_map(twice).add_yield_map(lambda row: [row])

    assert (await pumped(source)).rows() == [{"a": 1}] * 3 + [{"a": 2}] * 3


async def test_arrow_is_given_to_a_step_as_it_is() -> None:
    source = (
        resource(pa.table({"a": [1, 2]})).add_map(lambda table: table.slice(1)).add_filter(lambda table: table.num_rows)
    )

    assert (await pumped(source)).rows() == [{"a": 2}]


async def test_a_second_parameter_is_the_references_meta() -> None:
    assert (await pumped(resource({"a": 1}).add_map(lambda row, meta: {**row, "meta": meta}))).rows() == [
        {"a": 1, "meta": None}
    ]
    assert (await pumped(resource({"a": 1}).add_map(lambda row, *, extra=2: {**row, "b": extra}))).rows() == [
        {"a": 1, "b": 2}
    ]
    assert (await pumped(resource(("a", 1)).add_map(dict.fromkeys))).rows() == [{"a": None, 1: None}]


@asyncelt.resource
def marked() -> Iterator[object]:
    yield mark.with_table_name({"a": 1}, "x")
    yield mark.with_table_name([{"a": 2}, {"a": 3}], "y")
    yield mark.with_hints({"a": 4}, mark.make_hints(table_name="z", primary_key="a"), create_table_variant=True)
    yield {"a": 5}


TOLD = [(1, "x"), (2, "y"), (3, "y"), (4, "z"), (5, None)]
"""Rows, and the tables that their marks name."""


@pytest.mark.parametrize("kind", ["add_map", "add_filter", "add_yield_map", "a default"])
async def test_functions_of_two_arguments_are_told_the_mark_of_their_row(kind: str) -> None:
    told: list[tuple[int, str | None]] = []

    def look(row: dict[str, int], said: Mark | None) -> object:
        told.append((row["a"], None if said is None else said.table_name))

        if said is not None and said.create_table_variant:
            assert said.hints == {"table_name": "z", "primary_key": "a"}

        return [row] if kind == "add_yield_map" else row

    def with_default(row: dict[str, int], meta: Mark | None = None) -> object:
        return look(row, meta)

    source = marked().add_map(with_default) if kind == "a default" else getattr(marked(), kind)(look)
    pages = (await pumped(source)).pages

    assert told == TOLD
    assert {page.table_name: page.rows for page in pages} == {"x": 1, "y": 2, "z": 1, "marked": 1}


@pytest.mark.parametrize("has_default", [True, False])
async def test_a_transformer_is_told_the_mark_of_its_item_as_meta(*, has_default: bool) -> None:
    told: list[tuple[object, str | None]] = []

    def look(item: object, meta: Mark | None) -> Iterator[object]:
        told.append((item, None if meta is None else meta.table_name))
        yield item

    def with_default(item: object, meta: Mark | None = None) -> Iterator[object]:
        yield from look(item, meta)

    transformer = asyncelt.transformer(with_default if has_default else look, name="t")  # type: ignore[call-overload]

    await pumped(marked() | transformer)

    assert told == [({"a": 1}, "x"), ([{"a": 2}, {"a": 3}], "y"), ({"a": 4}, "z"), ({"a": 5}, None)]


@pytest.mark.parametrize("wrong", [1, lambda: 1, lambda a, b, c: 1, lambda *, row: 1])
def test_functions_that_cannot_take_a_row_are_refused_at_once(wrong: object) -> None:
    with pytest.raises(ConfigError, match="add_map takes a function of one row"):
        resource({}).add_map(wrong)  # type: ignore[arg-type]


async def test_errors_say_which_step_failed_and_where() -> None:
    source = resource({"a": 1}, {"a": 0}).add_map(lambda row: 1 / row["a"])

    with pytest.raises(ResourceExtractionError, match="'r' failed in add_map after 1 rows: ZeroDivisionError"):
        await pumped(source)


@pytest.mark.covers("Resource.add_limit", "Resource.add_limit.max_items")
@pytest.mark.parametrize("form", FORMS)
async def test_limits_count_items_that_steps_have_left_over(form: str) -> None:
    items = [{"a": number} for number in range(10)]
    source = FORMS[form](*items).add_limit(3).add_filter(lambda row: row["a"] % 2)
    assert (await pumped(source)).rows() == [{"a": 1}, {"a": 3}, {"a": 5}]

    pages = [[{"a": 1}], [{"a": 2}, {"a": 3}], [{"a": 4}]]
    assert len((await pumped(FORMS[form](*pages).add_limit(2))).rows()) == 3
    assert (await pumped(FORMS[form](*pages).add_limit(0))).rows() == []
    assert len((await pumped(FORMS[form](*pages).add_limit(None))).rows()) == 4
    assert len((await pumped(FORMS[form](*pages).add_limit(-1))).rows()) == 4
    assert len((await pumped(FORMS[form](*pages).add_limit(1).add_limit(3))).rows()) == 4


@pytest.mark.covers("Resource.add_limit.count_rows")
@pytest.mark.parametrize("form", FORMS)
async def test_limits_of_rows_are_exact(form: str) -> None:
    pages = [[{"a": 1}] * 3, b'[{"a": 1}, {"a": 1}]', pa.table({"a": [1, 1, 1]}), {"a": 1}]

    for count in range(10):
        assert len((await pumped(FORMS[form](*pages).add_limit(count, count_rows=True))).rows()) == min(count, 9)


async def test_a_limit_asks_the_source_for_nothing_more() -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[object]:
        for number in range(100):
            pulled.append(number)
            yield {"a": number}

    await pumped(asyncelt.resource(numbers(), name="r").add_limit(2))
    assert pulled == [0, 1]

    await pumped(asyncelt.resource(numbers(), name="r").add_map(later).add_limit(2))
    assert pulled == [0, 1, 0, 1]

    await pumped(asyncelt.resource(name="r")(numbers).add_limit(0))
    assert pulled == [0, 1, 0, 1]


@pytest.mark.covers("Resource.add_limit.max_time")
async def test_a_limit_of_time_ends_after_the_item_at_hand() -> None:
    async def numbers() -> AsyncIterator[object]:
        while True:
            yield {"a": 1}
            await asyncio.sleep(0.001)

    rows = (await pumped(asyncelt.resource(numbers(), name="r").add_limit(max_time=0.01))).rows()

    assert rows
    assert (await pumped(resource({"a": 1}, {"a": 2}).add_limit(max_time=0))).rows() == [{"a": 1}]


async def test_a_limit_counts_anew_in_each_run() -> None:
    source = resource({"a": 1}, {"a": 2}).add_limit(1)

    assert (await pumped(source)).rows() == (await pumped(source)).rows() == [{"a": 1}]


def test_wrong_limits_are_refused() -> None:
    for wrong in (-2, True):
        with pytest.raises(ConfigError):
            resource({}).add_limit(wrong)

    with pytest.raises(ConfigError):
        resource({}).add_limit(max_time=-1)


@pytest.mark.covers("Resource.add_map.insert_at")
async def test_positions_of_steps() -> None:
    source = resource({"a": 1}).add_map(lambda row: {"a": row["a"] * 10}).add_map(lambda row: {"a": row["a"] + 1}, 0)

    assert (await pumped(source)).rows() == [{"a": 20}]


@pytest.mark.covers("Resource.apply_hints.table_name", "Resource.select_tables")
@pytest.mark.parametrize("form", FORMS)
async def test_a_function_may_choose_the_table(form: str) -> None:
    items = (
        {"t": "x", "n": 1},
        [{"t": "y", "n": 2}, {"t": "x", "n": 3}],
        b'[{"t": "y", "n": 4}]',
        pa.table({"t": ["z"]}),
    )
    source = FORMS[form](*items).apply_hints(table_name=lambda row: "arrow" if isinstance(row, pa.Table) else row["t"])  # type: ignore[index]
    result = await pumped(source)

    assert result.rows("x") == [{"t": "x", "n": 1}, {"t": "x", "n": 3}]
    assert result.rows("y") == [{"t": "y", "n": 2}, {"t": "y", "n": 4}]
    assert result.rows("arrow") == [{"t": "z"}]

    result = await pumped(source.clone().select_tables("x") if form == "list" else resource({"t": "x"}))
    assert all(row["t"] == "x" for row in result.rows())  # type: ignore[index]


@pytest.mark.parametrize("wrong", [None, "", 1])
async def test_a_table_function_must_return_a_name(wrong: object) -> None:
    source = asyncelt.resource([{"a": 1}], name="r", table_name=lambda row: wrong)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="must return the name of a table"):
        await pumped(source)


@pytest.mark.covers("transformer.f", "transformer.data_from", "Resource.pipe_data_from", "Resource.is_transformer")
async def test_transformers_take_items_as_they_were_yielded() -> None:
    seen: list[object] = []

    @asyncelt.resource
    async def users() -> AsyncIterator[object]:
        yield [{"id": 1}, {"id": 2}]
        yield {"id": 3}
        yield b'[{"id": 4}]'

    @asyncelt.transformer(data_from=users)
    async def details(item: object, factor: int = 1) -> AsyncIterator[object]:
        seen.append(item)

        for user in item if isinstance(item, list) else [item]:
            if isinstance(user, dict):
                yield {"detail": user["id"] * factor}

    assert (await pumped(details)).rows() == [{"detail": 1}, {"detail": 2}, {"detail": 3}]
    assert seen == [[{"id": 1}, {"id": 2}], {"id": 3}, b'[{"id": 4}]']
    assert (await pumped(details(factor=10).add_limit(1))).rows() == [{"detail": 10}]

    @asyncelt.transformer
    def names(item: dict[str, int], prefix: str) -> object:
        return [{"name": f"{prefix}{item['detail']}"}]

    piped = details | names("n")
    assert (await pumped(piped)).rows() == [{"name": "n1"}, {"name": "n2"}, {"name": "n3"}]

    with pytest.raises(ConfigError, match="takes arguments besides the item"):
        await pumped(details | names)

    with pytest.raises(ConfigError, match="has no resource to take its items from"):
        await pumped(names("n"))


async def test_a_resource_is_piped_into_functions() -> None:
    def twice(row: object) -> Iterator[object]:
        yield row
        yield row

    source = resource({"a": 1})

    assert (await pumped(source | later | twice)).rows() == [{"a": 1, "b": 1}] * 2
    assert (await pumped(source)).rows() == [{"a": 1}]


async def test_rows_of_a_resource_can_be_looked_at() -> None:
    items = ({"a": 1}, [{"a": 2}], b'[{"a": 3}]', pa.table({"a": [4]}))

    for form in FORMS.values():
        rows = [row async for row in form(*items)]
        assert rows[:3] == [{"a": 1}, {"a": 2}, {"a": 3}]
        assert rows[3].num_rows == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", FORMS)
async def test_coroutines_of_a_transformer_run_side_by_side_in_order(form: str) -> None:
    running = most = 0

    async def detail(item: dict[str, int]) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (item["a"] % 3))
        running -= 1

        return [{"a": item["a"]}, {"again": item["a"]}]

    parent = FORMS[form](*({"a": number} for number in range(60)))
    result = await pumped(asyncelt.transformer(detail, data_from=parent).add_filter(lambda row: "a" in row))

    assert result.rows() == [{"a": number} for number in range(60)]
    assert 5 < most <= 21


@pytest.mark.parametrize("form", FORMS)
async def test_an_error_in_one_of_them_ends_all(form: str) -> None:
    before = asyncio.all_tasks()

    async def detail(item: dict[str, int]) -> object:
        if item["a"] == 3:
            raise ValueError("three")

        await asyncio.sleep(0 if item["a"] < 3 else 60)
        return item

    parent = FORMS[form](*({"a": number} for number in range(60)))

    with pytest.raises(ResourceExtractionError, match="in transformer 'detail' after 3 rows: ValueError: three"):
        await pumped(asyncelt.transformer(detail, data_from=parent))

    assert asyncio.all_tasks() == before


async def test_cancelling_ends_all_of_them() -> None:
    begun: list[object] = []
    many = asyncio.Event()

    async def detail(item: object) -> object:
        begun.append(item)

        if len(begun) == 20:
            many.set()

        await asyncio.sleep(60)

    before = asyncio.all_tasks()
    task = asyncio.ensure_future(pumped(asyncelt.transformer(detail, data_from=resource(*[{"a": 1}] * 60))))
    await many.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == before


async def test_plain_functions_as_transformers_do_not_block_the_loop() -> None:
    where: list[int] = []

    def detail(item: dict[str, int]) -> object:
        where.append(threading.get_ident())
        return item

    for form in FORMS.values():
        assert (await pumped(asyncelt.transformer(detail, data_from=form({"a": 1})))).rows() == [{"a": 1}]

    assert threading.get_ident() not in where


@pytest.mark.parametrize("form", FORMS)
async def test_one_of_our_own_errors_is_raised_as_it_is_and_not_as_its_own_cause(form):
    def refuse(row):
        raise ConfigError("no such thing")

    with pytest.raises(ConfigError, match="no such thing") as raised:
        await pumped(FORMS[form]({"a": 1}).add_map(refuse))

    assert raised.value.__cause__ is None
    assert raised.value.__notes__ == ["In resource 'r', in add_map, after 0 rows."]
