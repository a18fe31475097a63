"""Extract, normalize and load one by one give what run gives, for any pages and any kind of source."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings, strategies as st

import asyncelt
from asyncelt.errors import PipelineStepFailed
from tests.support.fuzzing import examples
from tests.support.stepwise import by_steps, contents, make

Page = Any

numbers = st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63), 2**64, 2**70, -(2**90)]) | st.floats(-1e6, 1e6)
texts = st.sampled_from(["", "x", "12", "2024-01-02T03:04:05Z", "日本"]) | st.text(max_size=5)
special = st.one_of(
    st.decimals(-1000, 1000, places=3),
    st.datetimes(datetime(1990, 1, 1), datetime(2050, 1, 1), timezones=st.sampled_from([None, UTC])),
    st.dates(date(1990, 1, 1), date(2050, 1, 1)),
    st.times(),
    st.uuids(),
    st.binary(max_size=5),
)
leaves = st.none() | st.booleans() | numbers | texts | special
names = st.sampled_from(["id", "a", "aB", "items", "value", "list", "x y", "日本"])
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
rows_pages = st.lists(st.dictionaries(names, values, max_size=5), max_size=4)
json_leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | texts
json_values = st.recursive(
    json_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
json_pages = st.lists(st.dictionaries(names, json_values, max_size=5), max_size=4).map(
    lambda rows: json.dumps(rows).encode()
)
arrow_pages = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 9), "a": st.none() | st.text("ab", max_size=3), "n": st.floats(0, 1)}),
    max_size=4,
).map(lambda rows: pa.Table.from_pylist(rows, schema=pa.schema([("id", "int64"), ("a", "string"), ("n", "float64")])))
runs = st.lists(
    st.one_of(
        st.lists(rows_pages, min_size=1, max_size=3),
        st.lists(json_pages, min_size=1, max_size=3),
        st.lists(arrow_pages, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=2,
)


@dataclass(frozen=True)
class Outcome:
    """Tables, or the kind of error."""

    tables: object = None
    error: type[BaseException] | None = None


async def load_all(folder: Path, pages_of_runs: Sequence[Sequence[Page]], *, fused: bool) -> Outcome:
    """Load every run of pages; pages of a run go to one table, split into small files and pages."""
    limits = asyncelt.Limits(gather_rows=3, file_max_items=2)
    destination = asyncelt.destinations.memory()
    pipeline = make(folder, destination=destination, settings=asyncelt.Settings(limits=limits))

    async def resource(pages: Sequence[Page]) -> AsyncIterator[Page]:
        for page in pages:
            yield page

    try:
        for pages in pages_of_runs:
            data = asyncelt.resource(resource(pages), name="things")

            if fused:
                await pipeline.run(data)
            else:
                await by_steps(pipeline, data)
    except PipelineStepFailed as error:
        return Outcome(error=type(error.__cause__))

    return Outcome(tables=contents(destination))


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@given(runs)
@settings(max_examples=examples(25))
def test_run_and_the_three_steps_give_the_same_tables(pages_of_runs: Sequence[Sequence[Page]]) -> None:
    compare_both_roads(pages_of_runs)


@given(runs)
@settings(max_examples=5)
def test_run_and_the_three_steps_give_the_same_tables_in_short(pages_of_runs: Sequence[Sequence[Page]]) -> None:
    compare_both_roads(pages_of_runs)


def compare_both_roads(pages_of_runs: Sequence[Sequence[Page]]) -> None:
    """Two pipelines, one fused and one step by step."""

    async def both() -> tuple[Outcome, Outcome]:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            return (
                await load_all(Path(one), pages_of_runs, fused=True),
                await load_all(Path(other), pages_of_runs, fused=False),
            )

    fused, stepped = asyncio.run(both())
    assert fused == stepped


class Colour(Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    id: int
    at: datetime
    colour: Colour = Colour.RED


@dataclass
class Plain:
    id: int
    parts: list[Decimal]


OF_ALL_KINDS = [
    {"id": 1, "amount": Decimal("1.50"), "at": datetime(2024, 3, 31, 2, 30, tzinfo=timezone(timedelta(hours=2)))},
    {"id": 2, "naive": datetime(2024, 1, 1), "day": date(2024, 1, 1), "clock": time(1, 2, 3, 4)},
    {"id": 3, "uuid": UUID(int=7), "raw": b"\x00\xff", "wei": 2**70, "below": -(2**70)},
    {"id": 4, "colour": Colour.RED, "pair": (1, "x"), 5: "number as key", None: "none as key"},
    {"id": 5, "nested": [{"deep": [{"at": datetime(2020, 1, 1)}]}], "inf": float("inf"), "nan": float("nan")},
    Plain(6, [Decimal("0.1"), Decimal("1E+5")]),
    Model(id=7, at=datetime(2024, 1, 1, tzinfo=UTC)),
]


async def test_values_of_every_kind_survive_the_disk(tmp_path: Path) -> None:
    fused, stepped = asyncelt.destinations.memory(), asyncelt.destinations.memory()
    await make(tmp_path / "one", destination=fused).run(OF_ALL_KINDS, table_name="t")
    await by_steps(make(tmp_path / "two", destination=stepped), OF_ALL_KINDS, table_name="t")

    def comparable(tables: object) -> str:
        return repr(tables)  # NaN is not equal to itself

    assert comparable(contents(fused)) == comparable(contents(stepped))


@asyncelt.source
def shop() -> Sequence[asyncelt.Resource]:
    """Merge, replace, dynamic tables, hints, nesting limits and state, in two resources."""

    @asyncelt.resource(
        primary_key="id", write_disposition="merge", columns={"price": {"data_type": "decimal"}}, max_table_nesting=1
    )
    async def orders() -> AsyncIterator[Mapping[str, object]]:
        state = asyncelt.current.resource_state()
        state["seen"] = int(state.get("seen", 0)) + 1  # type: ignore[call-overload]
        yield {"id": 1, "price": "1.5", "lines": [{"sku": "a", "tags": ["x"]}], "seen": state["seen"]}
        yield {"id": 1 + int(str(state["seen"])), "price": 2}

    @asyncelt.resource(table_name=lambda row: str(row["kind"]), write_disposition="replace")
    def events() -> list[Mapping[str, object]]:
        return [{"kind": "click", "x": 1}, {"kind": "view", "y": [1, 2]}]

    return [orders(), events()]


@pytest.mark.covers("Pipeline.extract.data")
async def test_sources_with_state_hints_and_dispositions_give_the_same(tmp_path: Path) -> None:
    fused, stepped = asyncelt.destinations.memory(), asyncelt.destinations.memory()

    for _ in range(3):
        await make(tmp_path / "one", destination=fused).run(shop())
        await by_steps(make(tmp_path / "two", destination=stepped), shop())

    def sorted_rows(destination: Any) -> object:
        # Two resources take turns as they like, so tables may appear in another order.
        return {
            name: (columns, sorted(map(repr, rows)))
            for name, (columns, rows) in contents(destination).items()
            if name not in ("_dlt_version", "_dlt_loads")
        }

    tables = sorted_rows(fused)
    assert "orders__lines" in tables  # type: ignore[operator]
    assert {name: columns for name, (columns, _) in tables.items()} == {  # type: ignore[attr-defined]
        name: columns
        for name, (columns, _) in sorted_rows(stepped).items()  # type: ignore[attr-defined]
    }
    one, two = make(tmp_path / "one", destination=fused), make(tmp_path / "two", destination=stepped)
    assert one.state == two.state
    assert one.schemas["shop"].tables.keys() == two.schemas["shop"].tables.keys()
    assert sorted(fused.tables("data")["orders"].column("seen").to_pylist(), key=str) == sorted(
        stepped.tables("data")["orders"].column("seen").to_pylist(), key=str
    )


async def test_hints_that_change_with_the_data_are_kept_in_between(tmp_path: Path) -> None:
    """Functions as hints, marks and variants: the tables of normalize have what extract was told, page by page."""

    @asyncelt.resource(columns={"x": {"data_type": "bigint"}})
    async def marked() -> AsyncIterator[object]:
        yield [{"x": "1"}]
        yield asyncelt.mark.with_hints({"y": "2"}, asyncelt.mark.make_hints(columns={"y": {"data_type": "bigint"}}))
        yield [{"x": 3, "y": "4"}]
        yield asyncelt.mark.with_hints(
            {"id": 1},
            asyncelt.mark.make_hints(table_name="variant", primary_key="id", write_disposition="merge"),
            create_table_variant=True,
        )

    fused, stepped = asyncelt.destinations.memory(), asyncelt.destinations.memory()
    one, two = make(tmp_path / "one", destination=fused), make(tmp_path / "two", destination=stepped)
    await one.run(marked())
    await by_steps(two, marked())

    assert contents(fused) == contents(stepped)
    assert stepped.tables("data")["variant"].num_rows == 1
    assert stepped.tables("data")["marked"].column("x").to_pylist() == [1, None, 3]
    assert stepped.tables("data")["marked"].column("y").to_pylist() == [None, 2, 4]
    assert make(tmp_path / "two", destination=stepped).state == one.state


async def test_transformers_and_incremental_cursors_go_step_by_step(tmp_path: Path) -> None:
    @asyncelt.resource(selected=False)
    async def numbers(
        at: Any = asyncelt.sources.incremental("at", initial_value=0),
    ) -> AsyncIterator[list[dict[str, int]]]:
        yield [{"at": n} for n in range(at.last_value, at.last_value + 3)]

    @asyncelt.transformer(data_from=numbers)
    async def doubled(items: list[dict[str, int]]) -> AsyncIterator[list[dict[str, int]]]:
        yield [{"double": item["at"] * 2} for item in items]

    fused, stepped = asyncelt.destinations.memory(), asyncelt.destinations.memory()

    for _ in range(2):
        await make(tmp_path / "one", destination=fused).run(doubled)
        await by_steps(make(tmp_path / "two", destination=stepped), doubled)

    assert contents(fused) == contents(stepped)
    assert set(stepped.tables("data")) >= {"doubled"}
    assert make(tmp_path / "one", destination=fused).state == make(tmp_path / "two", destination=stepped).state


@pytest.mark.covers("Pipeline.extract.schema_contract")
async def test_frozen_tables_are_refused_by_extract(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.run([{"id": 1}], table_name="known")

    with pytest.raises(PipelineStepFailed, match="unknown"):
        await pipeline.extract([{"id": 2}], table_name="unknown", schema_contract={"tables": "freeze"})

    assert not pipeline.has_pending_data
    await pipeline.extract([{"id": 2}], table_name="unknown", schema_contract={"tables": "discard_row"})
    await pipeline.normalize()
    await pipeline.load()
    assert "unknown" not in pipeline.destination.tables("data")  # type: ignore[union-attr]


@pytest.mark.covers("Pipeline.extract.columns", "Pipeline.run.columns")
async def test_plain_hints_say_the_same_as_models(tmp_path: Path) -> None:
    """A pydantic model as columns is kept as columns and contract."""

    class Strict(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        id: int
        name: str | None = None

    fused, stepped = asyncelt.destinations.memory(), asyncelt.destinations.memory()
    rows = [{"id": 1, "name": "x"}]
    nested = {("parts",): {"columns": {"n": {"data_type": "text"}}}}
    await make(tmp_path / "one", destination=fused).run(rows, table_name="t", columns=Strict)
    pipeline = make(tmp_path / "two", destination=stepped)
    await by_steps(pipeline, rows, table_name="t", columns=Strict)
    assert contents(fused) == contents(stepped)

    data = asyncelt.resource([{"id": 1, "parts": [{"n": 5}]}], name="with_nested", nested_hints=nested)
    await make(tmp_path / "one", destination=fused).run(data)
    await by_steps(pipeline, data)
    assert contents(fused) == contents(stepped)
    assert stepped.tables("data")["with_nested__parts"].column("n").to_pylist() == ["5"]

    merge = {"disposition": "merge", "strategy": "scd2", "boundary_timestamp": datetime(2024, 1, 1, tzinfo=UTC)}
    await pipeline.extract([{"id": 9}], table_name="history", write_disposition=merge)
    await pipeline.normalize()
    assert (
        make(tmp_path / "two", destination=stepped)
        .schemas["p"]
        .tables["history"]
        .hints[  # type: ignore[index]
            "x-boundary-timestamp"
        ]
        == "2024-01-01T00:00:00+00:00"
    )
