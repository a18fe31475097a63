"""Deferred work, parallelized transformers, metrics, chosen tables, limits, and what a source falls into."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

import asyncelt
from asyncelt import current, mark
from asyncelt.config import Limits
from asyncelt.errors import ConfigError, ResourceExtractionError, UsageError
from tests.extract.pumping import pumped

Row = dict[str, object]
COUNT = 40


class Together:
    """How many are under way at a time; in threads, waits until enough are there that it cannot be chance."""

    def __init__(self, wanted: int) -> None:
        self.most = self.now = 0
        self.lock = threading.Lock()
        self.barrier = threading.Barrier(wanted)

    async def there(self, number: int) -> Row:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001 * (3 - number % 3))
        self.now -= 1
        return {"a": number}

    def here(self, number: int) -> Row:
        if number < self.barrier.parties:
            self.barrier.wait(timeout=20)

        with self.lock:
            self.most += 1

        return {"a": number}


SOURCES: dict[str, Callable[[list[object]], object]] = {
    "async": lambda items: _later(items),
    "sync": lambda items: iter(items),
    "list": lambda items: items,
}


async def _later(items: list[object]) -> AsyncIterator[object]:
    for item in items:
        yield item


@pytest.mark.covers("probe.1.coroutines")
@pytest.mark.parametrize("source", SOURCES)
async def test_deferred_coroutines_run_side_by_side_in_order(source: str) -> None:
    together = Together(1)
    there = asyncelt.defer(together.there)
    result = await pumped(asyncelt.resource(SOURCES[source]([there(number) for number in range(COUNT)]), name="r"))

    assert result.rows() == [{"a": number} for number in range(COUNT)]
    assert 5 < together.most <= 21


@pytest.mark.covers("probe.1.coroutines")
@pytest.mark.parametrize("source", SOURCES)
async def test_coroutines_run_side_by_side_in_order(source: str) -> None:
    together = Together(1)
    items: list[object] = [together.there(number) for number in range(COUNT)]
    result = await pumped(asyncelt.resource(SOURCES[source](items), name="r"))

    assert result.rows() == [{"a": number} for number in range(COUNT)]
    assert 5 < together.most <= 21


@pytest.mark.covers("probe.1.coroutines")
@pytest.mark.parametrize("source", SOURCES)
async def test_deferred_functions_run_in_several_threads_in_order(source: str) -> None:
    together = Together(3)
    here = asyncelt.defer(together.here)
    result = await pumped(asyncelt.resource(SOURCES[source]([here(number) for number in range(COUNT)]), name="r"))

    assert result.rows() == [{"a": number} for number in range(COUNT)]
    assert together.most == COUNT


@pytest.mark.parametrize("source", SOURCES)
async def test_rows_between_deferred_work_keep_their_place(source: str) -> None:
    together = Together(1)
    there = asyncelt.defer(together.there)
    items: list[object] = [{"a": number} if number % 3 else there(number) for number in range(COUNT)]
    resource = asyncelt.resource(SOURCES[source](items), name="r").add_map(lambda row: {**row, "b": 1})
    result = await pumped(resource)

    assert result.rows() == [{"a": number, "b": 1} for number in range(COUNT)]


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_than_max_parallel_items_are_under_way(most: int) -> None:
    together = Together(1)
    there = asyncelt.defer(together.there)
    limits = replace(Limits(), max_parallel_items=most)
    items = [there(number) for number in range(COUNT)]
    assert len((await pumped(asyncelt.resource(_later(items), name="r"), limits=limits)).rows()) == COUNT
    assert together.most <= most + 1


@pytest.mark.parametrize("source", SOURCES)
async def test_an_error_in_deferred_work_ends_the_resource(source: str) -> None:
    before = asyncio.all_tasks()

    def broken(number: int) -> Row:
        if number == 3:
            raise ValueError("three")

        return {"a": number}

    later = asyncelt.defer(broken)

    with pytest.raises(ResourceExtractionError, match="after 3 rows: ValueError: three"):
        await pumped(asyncelt.resource(SOURCES[source]([later(number) for number in range(COUNT)]), name="r"))

    assert asyncio.all_tasks() == before


@pytest.mark.covers("transformer.parallelized", "transformer.f", "transformer.data_from", "transformer.name")
@pytest.mark.parametrize("source", SOURCES)
async def test_a_parallelized_transformer_runs_in_several_threads_in_order(source: str) -> None:
    together = Together(3)
    parent = asyncelt.resource(SOURCES[source]([{"a": number} for number in range(COUNT)]), name="parent")
    child = asyncelt.transformer(lambda item: together.here(item["a"]), data_from=parent, name="c", parallelized=True)

    assert (await pumped(child)).rows() == [{"a": number} for number in range(COUNT)]


async def test_a_transformer_may_give_deferred_work() -> None:
    together = Together(1)
    parent = asyncelt.resource([{"a": number} for number in range(5)], name="parent")

    @asyncelt.transformer(data_from=parent)
    async def details(item: Row) -> AsyncIterator[object]:
        yield asyncelt.defer(together.there)(item["a"])  # type: ignore[arg-type]

    assert (await pumped(details)).rows() == [{"a": number} for number in range(5)]


# ---------------------------------------------------------------------- metrics


@pytest.mark.covers("Resource.add_metrics", "Resource.add_metrics.metrics_f", "current.resource_metrics")
async def test_metrics_are_counted_by_the_resource() -> None:
    def count(items: object, meta: object, metrics: Row) -> None:
        metrics["items"] = int(metrics.get("items", 0)) + 1  # type: ignore[call-overload]
        metrics["rows"] = int(metrics.get("rows", 0)) + (len(items) if isinstance(items, list) else 1)  # type: ignore[call-overload]

    metrics: Row = {}
    resource = asyncelt.resource([{"a": 1}, [{"a": 2}, {"a": 3}]], name="r").add_metrics(count)

    with current.activate_resource({}, "s", "r", metrics=metrics):
        assert len((await pumped(resource)).rows()) == 3
        current.resource_metrics()["own"] = True

    assert metrics == {"items": 2, "rows": 3, "own": True}
    assert len([row async for row in resource]) == 3

    with pytest.raises(UsageError, match="resource_metrics"):
        current.resource_metrics()


@pytest.mark.covers("current.resource_metrics")
async def test_metrics_are_in_the_info_of_a_run(tmp_path) -> None:
    @asyncelt.resource
    def counted() -> Iterator[Row]:
        current.resource_metrics()["calls"] = 7
        yield {"a": 1}

    pipeline = asyncelt.pipeline("p", destination="memory", dataset_name="d", pipelines_dir=tmp_path)
    info = await pipeline.run([counted, asyncelt.resource([{"a": 1}], name="other")])

    assert info.custom_metrics == {"counted": {"calls": 7}}


# ---------------------------------------------------------------------- tables


@pytest.mark.covers("Resource.select_tables", "mark.with_table_name")
@pytest.mark.parametrize("form", ["rows", "page", "bytes"])
async def test_select_tables_knows_functions_and_marks(form: str) -> None:
    rows: list[Row] = [{"kind": kind} for kind in "abc"]
    data: list[object] = {
        "rows": list(rows),
        "page": [rows],
        "bytes": [b'[{"kind": "a"}, {"kind": "b"}, {"kind": "c"}]'],
    }[form]  # type: ignore[assignment]
    marked = [mark.with_table_name({"kind": "m"}, "b"), mark.with_table_name({"kind": "n"}, "z")]
    resource = asyncelt.resource([*data, *marked], name="r", table_name=lambda row: row["kind"])
    result = await pumped(resource.select_tables("a", "b"))

    assert result.rows("a") == [{"kind": "a"}]
    assert result.rows("b") == [{"kind": "b"}, {"kind": "m"}]
    assert {page.table_name for page in result.pages} == {"a", "b"}

    static = asyncelt.resource([{"kind": "a"}, *marked], name="r").select_tables("b")
    assert (await pumped(static)).rows() == [{"kind": "m"}]


@pytest.mark.covers(
    "Resource.apply_hints",
    "Resource.apply_hints.columns",
    "Resource.apply_hints.references",
    "Resource.apply_hints.additional_table_hints",
)
async def test_hints_of_columns_are_joined() -> None:
    resource = asyncelt.resource([], name="r", columns={"a": {"data_type": "text"}, "b": {"data_type": "text"}})
    resource.apply_hints(columns=[{"name": "b", "nullable": False}, {"name": "c", "data_type": "bigint"}])
    resource.apply_hints(additional_table_hints={"x-one": 1}).apply_hints(additional_table_hints={"x-two": 2})
    reference = {"columns": ["a"], "referenced_table": "t", "referenced_columns": ["id"]}
    resource.apply_hints(references=[reference]).apply_hints(references=[{**reference, "referenced_table": "u"}])

    assert resource.hints.columns == {
        "a": {"name": "a", "data_type": "text"},
        "b": {"name": "b", "data_type": "text", "nullable": False},
        "c": {"name": "c", "data_type": "bigint"},
    }
    assert resource.hints.additional == {"x-one": 1, "x-two": 2}
    assert [one["referenced_table"] for one in resource.hints.references or ()] == ["t", "u"]
    assert resource.apply_hints(columns=[]).hints.columns == []


@pytest.mark.covers("Resource.add_limit", "Resource.add_limit.count_rows")
@pytest.mark.parametrize(
    "page", [[{"a": number} for number in range(10)], pa.table({"a": list(range(10))})], ids=["rows", "arrow"]
)
async def test_a_limit_of_rows_is_exact(page: object) -> None:
    resource = asyncelt.resource([page, page], name="r").add_limit(13, count_rows=True)

    assert len((await pumped(resource)).rows()) == 13


# ---------------------------------------------------------------------- sources


@pytest.mark.covers("Source.decompose", "Source.decompose.strategy", "Source.selected_resources")
def test_a_source_falls_into_what_is_read_together() -> None:
    one = asyncelt.resource([{"a": 1}], name="one")
    two = asyncelt.resource([{"a": 1}], name="two", selected=False)
    children = [asyncelt.transformer(lambda item: item, data_from=two, name=name) for name in ("three", "four")]
    below = asyncelt.transformer(lambda item: item, data_from=children[0], name="five")
    source = asyncelt.Source("s", [one, two, *children, below])

    assert source.decompose("none") == [source]
    assert [list(part.selected_resources) for part in source.decompose("scc")] == [["one"], ["three", "four", "five"]]

    with pytest.raises(ConfigError, match="decompose takes 'none' or 'scc', not 'dag'"):
        source.decompose("dag")  # type: ignore[arg-type]
