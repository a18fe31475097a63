"""Extract, normalize and load one by one give what run gives, and carry on from wherever they were left."""

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
from asyncelt.errors import BadRecord, ConfigError, PackageCorrupt, PipelineConfigMissing, PipelineStepFailed
from asyncelt.failpoints import installed

Page = Any
RANDOM = {"_dlt_id", "_dlt_parent_id", "_dlt_root_id", "_dlt_load_id"}
VOLATILE = {"inserted_at", "created_at", "load_id", "_dlt_load_id", "_dlt_id"}


def make(folder: Path, name: str = "p", **options: Any) -> asyncelt.Pipeline:
    """A pipeline into memory, of which the destination goes on from one object to the next if it is passed."""
    options.setdefault("destination", asyncelt.destinations.memory())

    return asyncelt.pipeline(name, dataset_name="data", pipelines_dir=folder, **options)


def contents(destination: Any) -> dict[str, tuple[list[tuple[str, str]], list[tuple[object, ...]]]]:
    """Every table of the dataset: its columns with types, and its rows with ids told apart by their first place."""
    ids: dict[object, int] = {}
    found = {}

    # Parents sort before what is nested in them.
    for name, table in sorted(destination.tables("data").items()):
        drop = VOLATILE if name.startswith("_dlt") else set()
        columns = [(field.name, str(field.type)) for field in table.schema if field.name not in drop]
        rows = [
            tuple(
                ids.setdefault(row[column], len(ids)) if column in RANDOM and row[column] is not None else row[column]
                for column, _ in columns
            )
            for row in table.to_pylist()
        ]
        found[name] = (columns, rows)

    return found


async def by_steps(pipeline: asyncelt.Pipeline, data: object, **arguments: Any) -> None:
    """The three steps, each by a pipeline object of its own, as in three processes."""

    def again() -> asyncelt.Pipeline:
        settings = pipeline._options.settings

        return make(
            Path(pipeline.pipelines_dir), pipeline.pipeline_name, destination=pipeline.destination, settings=settings
        )

    await again().extract(data, **arguments)
    await again().normalize()
    await again().load()


# ------------------------------------------------------------------------------------------------ the same tables

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
@given(runs)
@settings(max_examples=100)
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


# ------------------------------------------------------------------------------------------------ between the steps


async def test_each_step_says_what_it_did_and_what_is_pending(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    extracted = await pipeline.extract([{"id": 1, "tags": [1, 2]}], table_name="t")
    (load_id,) = extracted.loads_ids

    assert pipeline.has_pending_data
    assert await pipeline.list_extracted_load_packages() == [load_id]
    assert (await pipeline.get_load_package_info(load_id)).state == "extracted"
    assert [name.partition(".")[0] for name in await pipeline.list_extracted_resources()] == [load_id.partition(".")[0]]
    assert pipeline.destination.tables("data") == {}  # type: ignore[union-attr]

    normalized = await pipeline.normalize()
    assert normalized is not None
    assert normalized.row_counts == {"t": 1, "t__tags": 2, "_dlt_pipeline_state": 1}
    assert normalized.loads_ids == (load_id,)
    assert await pipeline.list_extracted_load_packages() == []
    assert await pipeline.list_normalized_load_packages() == [load_id]
    assert (await pipeline.get_load_package_info(load_id)).state == "normalized"

    loaded = await pipeline.load()
    assert loaded is not None
    assert loaded.loads_ids == (load_id,)
    assert loaded.first_run is True
    assert not pipeline.has_pending_data
    assert await pipeline.list_completed_load_packages() == [load_id]
    assert (await pipeline.get_load_package_info(load_id)).state == "loaded"


async def test_several_extractions_build_on_each_others_state_and_load_in_order(tmp_path: Path) -> None:
    @asyncelt.resource
    async def counter() -> AsyncIterator[Mapping[str, object]]:
        state = asyncelt.current.resource_state()
        state["n"] = int(state.get("n", 0)) + 1  # type: ignore[call-overload]
        yield {"n": state["n"]}

    destination = asyncelt.destinations.memory()

    for _ in range(3):
        await make(tmp_path, destination=destination).extract(counter())

    pipeline = make(tmp_path, destination=destination)
    assert pipeline.state["sources"]["p"]["resources"]["counter"]["n"] == 3  # type: ignore[index]
    await pipeline.normalize()
    info = await pipeline.load()

    assert info is not None
    assert len(info.load_packages) == 3
    assert destination.tables("data")["counter"].column("n").to_pylist() == [1, 2, 3]
    assert len(destination.tables("data")["_dlt_loads"]) == 3


async def test_extract_works_without_a_destination_and_the_others_say_what_is_missing(tmp_path: Path) -> None:
    pipeline = asyncelt.pipeline("p", pipelines_dir=tmp_path)
    await pipeline.extract([{"Id": 1}], table_name="Things")

    for step in (pipeline.normalize, pipeline.load):
        with pytest.raises(PipelineConfigMissing, match="destination='duckdb'"):
            await step()

    destination = asyncelt.destinations.memory()
    pipeline = make(tmp_path, destination=destination)
    await pipeline.normalize()
    await pipeline.load()
    assert destination.tables("data")["things"].column("id").to_pylist() == [1]


async def test_nothing_to_do_is_none(tmp_path: Path) -> None:
    pipeline = make(tmp_path)

    assert await pipeline.normalize() is None
    assert await pipeline.load() is None
    assert (await pipeline.run()).is_empty


async def test_run_normalizes_and_loads_what_is_pending_first(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.extract([{"id": 1}], table_name="t")
    info = await pipeline.run([{"id": 2}], table_name="t", on_pending="load_then_run")

    assert len(info.load_packages) == 2
    assert pipeline.destination.tables("data")["t"].column("id").to_pylist() == [1, 2]  # type: ignore[union-attr]


async def test_an_extraction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[Mapping[str, object]]:
        asyncelt.current.resource_state()["n"] = 1
        yield {"id": 1}
        raise ZeroDivisionError

    pipeline = make(tmp_path)
    before = pipeline.state

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.extract(asyncelt.resource(broken, name="broken"))

    assert caught.value.step == "extract"
    assert pipeline.state == before
    assert not pipeline.has_pending_data
    assert list((tmp_path / "p" / "packages").glob("*/*")) == []


async def test_a_value_that_no_column_can_hold_fails_extract(tmp_path: Path) -> None:
    with pytest.raises(PipelineStepFailed) as caught:
        await make(tmp_path).extract([{"id": 1}, {"bad": {1, 2}}], table_name="t")

    assert isinstance(caught.value.__cause__, BadRecord)
    assert (caught.value.__cause__.table, caught.value.__cause__.row) == ("t", 1)


async def test_a_package_that_cannot_be_normalized_stays_extracted_and_says_what_to_do(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.run([{"id": 1}], table_name="t")
    contract = {"columns": "freeze"}
    poison = await pipeline.extract([{"id": 2, "new": 1}], table_name="t", schema_contract=contract)
    later = await pipeline.extract([{"id": 3}], table_name="t")

    with pytest.raises(PipelineStepFailed, match=r"abort_packages\('") as caught:
        await pipeline.normalize()

    assert (caught.value.step, caught.value.load_id) == ("normalize", poison.loads_ids[0])
    assert caught.value.has_pending_data
    assert await pipeline.list_extracted_load_packages() == [*poison.loads_ids, *later.loads_ids]

    with pytest.raises(PipelineStepFailed, match="stay extracted"):
        await pipeline.run([{"id": 4}], table_name="t")

    assert await pipeline.abort_packages() == [*poison.loads_ids, *later.loads_ids]
    await pipeline.run([{"id": 4}], table_name="t")
    assert pipeline.destination.tables("data")["t"].column("id").to_pylist() == [1, 4]  # type: ignore[union-attr]


async def test_a_damaged_page_file_is_named(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.extract([{"id": 1}], table_name="t")
    (file,) = (tmp_path / "p" / "packages" / "extracted").glob("*/pages/*")
    file.write_bytes(b"123")

    with pytest.raises(PipelineStepFailed, match="ends after 3 bytes") as caught:
        await pipeline.normalize()

    assert isinstance(caught.value.__cause__, PackageCorrupt)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        ("extract", {"workers": 0}, "workers must be at least 1"),
        ("extract", {"max_parallel_items": 0}, "max_parallel_items"),
        ("extract", {"loader_file_format": "csv"}, "parquet, jsonl, not 'csv'"),
        ("extract", {"refresh": "drop_everything"}, "drop_sources"),
        ("extract", {"write_disposition": "apend"}, "append"),
        ("normalize", {"workers": 0}, "workers must be at least 1"),
        ("normalize", {"loader_file_format": "csv"}, "not 'csv'"),
        ("load", {"workers": -1}, "workers must be at least 1"),
        ("load", {"destination": "duckbd"}, "duckdb"),
    ],
)
async def test_wrong_arguments_fail_before_any_io(
    tmp_path: Path, call: str, arguments: dict[str, object], message: str
) -> None:
    pipeline = make(tmp_path / "work")
    method = getattr(pipeline, call)

    with pytest.raises(ConfigError, match=message):
        await (method([{"id": 1}], table_name="t", **arguments) if call == "extract" else method(**arguments))

    assert not (tmp_path / "work").exists()


async def test_the_format_of_job_files_can_be_said_at_extract_or_at_normalize(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.extract([{"id": 1}], table_name="t", loader_file_format="jsonl")
    first = await pipeline.normalize()
    await pipeline.extract([{"id": 2}], table_name="t", loader_file_format="jsonl")
    second = await pipeline.normalize(workers=1, loader_file_format="parquet")

    assert first is not None
    assert second is not None
    assert {job.job_file_info.file_format for job in first.load_packages[0].all_jobs} == {"jsonl"}
    assert {job.job_file_info.file_format for job in second.load_packages[0].all_jobs} == {"parquet"}
    await pipeline.load(workers=1)
    assert pipeline.destination.tables("data")["t"].column("id").to_pylist() == [1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("workers", [1, 4])
async def test_workers_of_normalize_never_change_the_result(tmp_path: Path, workers: int) -> None:
    pages = [[{"id": n, f"c{n % 5}": n, "mixed": f"{n}x" if n % 3 else n}] for n in range(30)]
    destination = asyncelt.destinations.memory()
    limits = asyncelt.Limits(gather_rows=2)
    pipeline = make(tmp_path, destination=destination, settings=asyncelt.Settings(limits=limits))
    await pipeline.extract(iter(pages), table_name="t")
    await pipeline.normalize(workers=workers)
    await pipeline.load()
    table = destination.tables("data")["t"]

    assert table.column("id").to_pylist() == list(range(30))
    assert table.column_names == [
        "id", "c0", "mixed", "_dlt_load_id", "_dlt_id", "c1", "mixed__v_text", "c2", "c3", "c4",
    ]  # fmt: skip


async def test_memory_and_threads_are_given_back(tmp_path: Path) -> None:
    budget = asyncelt.ByteBudget(100_000)
    limits = asyncelt.Limits(gather_bytes=5_000)
    pipeline = make(tmp_path, max_memory=budget, settings=asyncelt.Settings(limits=limits))
    rows = ({"id": n, "text": "x" * 50} for n in range(3000))
    await pipeline.extract(rows, table_name="t")
    assert budget.used == 0
    await pipeline.normalize()
    assert budget.used == 0
    assert budget.peak < 200_000


# ------------------------------------------------------------------------------------------------ cut off anywhere


class Killed(BaseException):
    """What a failpoint raises in place of a kill."""


async def points_of(folder: Path, step: str) -> list[str]:
    """Failpoints that one step passes."""
    passed: list[str] = []
    pipeline = make(folder)
    await pipeline.extract([{"id": 1, "l": [1]}], table_name="t") if step != "extract" else None
    await pipeline.normalize() if step == "load" else None

    with installed(passed.append):
        if step == "extract":
            await pipeline.extract([{"id": 1, "l": [1]}], table_name="t")
        else:
            await getattr(pipeline, step)()

    return list(dict.fromkeys(passed))


@pytest.mark.parametrize("step", ["extract", "normalize", "load"])
async def test_cut_off_at_each_failpoint_the_next_call_carries_on(tmp_path: Path, step: str) -> None:
    points = await points_of(tmp_path / "points", step)
    assert len(points) >= 3

    for point in points:
        destination = asyncelt.destinations.memory()
        folder = tmp_path / point
        data = [{"id": n, "l": [n]} for n in range(3)]

        def fail(passed: str, point: str = point) -> None:
            if passed == point:
                raise Killed

        pipeline = make(folder, destination=destination)

        if step != "extract":
            await pipeline.extract(data, table_name="t")

        if step == "load":
            await pipeline.normalize()

        with installed(fail), pytest.raises(BaseException):  # noqa: B017 - Killed, or a group of it
            await (pipeline.extract(data, table_name="t") if step == "extract" else getattr(pipeline, step)())

        pipeline = make(folder, destination=destination)
        pending = [*await pipeline.list_extracted_load_packages(), *await pipeline.list_normalized_load_packages()]

        if not pending and step == "extract":
            await pipeline.extract(data, table_name="t")

        await pipeline.normalize()
        await pipeline.load()

        assert sorted(destination.tables("data")["t"].column("id").to_pylist()) == [0, 1, 2], point
        assert sorted(destination.tables("data")["t__l"].column("value").to_pylist()) == [0, 1, 2], point
        assert not make(folder, destination=destination).has_pending_data, point
