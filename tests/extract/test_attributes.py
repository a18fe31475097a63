"""What resources, sources and cursors say about themselves, and that copies are copies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import asyncelt
from asyncelt import current
from asyncelt.errors import ConfigError, UsageError
from asyncelt.extract.steps import MapStep
from asyncelt.sources import incremental
from tests.extract.pumping import pumped

Row = dict[str, object]


@asyncelt.resource(section="one")
async def numbers(top: int = 3) -> AsyncIterator[Row]:
    for number in range(top):
        yield {"a": number}


@pytest.mark.covers("Resource.section", "resource.section", "Resource.with_name.new_section", "Resource.with_name")
def test_a_renamed_copy_may_move_to_another_section() -> None:
    assert numbers.section == "one"
    assert numbers.with_name("others").section == "one"
    moved = numbers.with_name("others", "two")
    assert (moved.name, moved.section, numbers.name, numbers.section) == ("others", "two", "numbers", "one")


@pytest.mark.covers("Resource.args_bound", "Resource.bind")
def test_arguments_are_bound_or_not() -> None:
    assert not numbers.args_bound
    bound = numbers(2)
    assert bound.args_bound
    assert asyncelt.resource([], name="r").args_bound

    with pytest.raises(UsageError, match="arguments already"):
        bound.bind(1)


@pytest.mark.covers("Resource.is_transformer", "Resource.pipe_data_from", "Resource.pipe_data_from.data_from")
async def test_a_transformer_can_be_given_another_parent() -> None:
    twice = asyncelt.transformer(lambda item: {"a": item["a"] * 2}, data_from=numbers(2), name="twice")
    assert twice.is_transformer
    assert not numbers.is_transformer
    assert (await pumped(twice)).rows() == [{"a": 0}, {"a": 2}]
    assert (await pumped(twice.pipe_data_from(numbers(3)))).rows() == [{"a": 0}, {"a": 2}, {"a": 4}]

    with pytest.raises(UsageError, match="is not a transformer"):
        numbers().pipe_data_from(twice)


@pytest.mark.covers(
    "Resource.add_step",
    "Resource.add_step.item_transform",
    "Resource.add_step.insert_at",
    "Resource.add_filter.insert_at",
    "Resource.add_yield_map.insert_at",
    "Resource.add_metrics.insert_at",
)
async def test_steps_go_where_they_are_told_to() -> None:
    counted: list[object] = []
    resource = numbers(2).add_map(lambda row: {"a": row["a"] + 10})
    resource.add_filter(lambda row: row["a"] == 1, insert_at=0)
    resource.add_yield_map(lambda row: [row, {"a": row["a"] + 1}], insert_at=1)
    resource.add_step(MapStep(lambda row: {"a": row["a"] * 100}), insert_at=2)
    resource.add_metrics(lambda items, meta, metrics: counted.append(items), insert_at=0)

    with current.activate_resource({}, "s", "numbers", metrics={}):
        assert (await pumped(resource)).rows() == [{"a": 110}, {"a": 210}]

    assert counted == [{"a": 0}, {"a": 1}]


@pytest.mark.covers("Resource.state", "Source.state", "current.source_state", "current.resource_state")
async def test_state_can_be_reached_from_the_objects(tmp_path: Path) -> None:
    seen: list[object] = []

    @asyncelt.resource
    def rows() -> Iterator[Row]:
        rows.state["n"] = 1
        current.source().state["shared"] = 2
        seen.append((dict(current.resource_state()), current.source_state()["shared"]))
        yield {"a": 1}

    pipeline = asyncelt.pipeline("p", destination="memory", pipelines_dir=tmp_path)
    await pipeline.run(asyncelt.Source("s", [rows]))
    assert seen == [({"n": 1}, 2)]


@pytest.mark.covers(
    "Resource.apply_hints.merge_key",
    "Resource.apply_hints.schema_contract",
    "Resource.apply_hints.table_format",
    "Resource.apply_hints.file_format",
    "Resource.apply_hints.nested_hints",
    "Resource.apply_hints.references",
)
def test_hints_of_every_kind_can_be_set_and_removed() -> None:
    given = {
        "merge_key": "a",
        "schema_contract": "freeze",
        "table_format": "delta",
        "file_format": "jsonl",
        "nested_hints": {"l": {"primary_key": "n"}},
        "references": [{"columns": ["a"], "referenced_table": "t", "referenced_columns": ["id"]}],
    }
    resource = numbers().apply_hints(**given)  # type: ignore[arg-type]
    hints = resource.hints
    assert (hints.merge_key, hints.schema_contract) == ("a", "freeze")
    assert (hints.table_format, hints.file_format, hints.references) == ("delta", "jsonl", given["references"])
    assert resource.hints.nested_hints
    resource.apply_hints(table_format="", file_format="", schema_contract="")
    assert (resource.hints.table_format, resource.hints.file_format, resource.hints.schema_contract) == (None,) * 3
    assert numbers.hints.merge_key is None


@pytest.mark.covers("transformer.selected", "resource.selected")
async def test_what_is_not_selected_is_not_loaded(tmp_path: Path) -> None:
    parent = asyncelt.resource([{"a": 1}], name="parent", selected=False)
    silent = asyncelt.transformer(lambda item: item, data_from=parent, name="silent", selected=False)
    spoken = asyncelt.transformer(lambda item: item, data_from=silent, name="spoken")
    pipeline = asyncelt.pipeline("p", destination="memory", pipelines_dir=tmp_path)
    info = await pipeline.run([parent, silent, spoken])
    assert {name: count for name, count in info.row_counts.items() if not name.startswith("_dlt")} == {"spoken": 1}


@pytest.mark.covers("Source.clone", "Source.clone.with_name")
def test_a_source_and_its_copy_do_not_share_resources() -> None:
    source = asyncelt.Source("shop", [numbers])
    copy = source.clone(with_name="store")
    copy.numbers.apply_hints(primary_key="a")
    assert (source.name, copy.name, source.clone().name) == ("shop", "store", "shop")
    assert copy.numbers.source_name == "store"
    assert source.numbers.hints.primary_key is None


@pytest.mark.covers(
    "Source.add_limit", "Source.add_limit.max_items", "Source.add_limit.max_time", "Source.add_limit.count_rows"
)
async def test_a_source_limits_each_of_its_resources() -> None:
    pages = asyncelt.resource([[{"a": 1}, {"a": 2}], [{"a": 3}]], name="pages")
    child = asyncelt.transformer(lambda item: item, data_from=pages, name="child")

    async def count(**limit: object) -> list[int]:
        source = asyncelt.Source("s", [numbers, pages, child]).add_limit(**limit)  # type: ignore[arg-type]

        return [len((await pumped(resource)).rows()) for resource in source.resources.values()]

    assert await count(max_items=1) == [1, 2, 2]
    assert await count(max_items=1, count_rows=True) == [1, 1, 1]
    assert await count(max_time=0) == [1, 2, 2]


@pytest.mark.covers(
    "Incremental.cursor_path",
    "Incremental.initial_value",
    "Incremental.end_value",
    "Incremental.row_order",
    "Incremental.on_cursor_value_missing",
    "Incremental.lag",
    "Incremental.range_start",
    "Incremental.range_end",
    "Incremental.primary_key",
    "Incremental.allow_external_schedulers",
    "Incremental.duplicate_cursor_warning_threshold",
    "Incremental.copy",
)
def test_a_cursor_says_what_it_was_given() -> None:
    given = {
        "cursor_path": "at",
        "initial_value": 1,
        "end_value": 9,
        "row_order": "asc",
        "on_cursor_value_missing": "include",
        "lag": 2,
        "range_start": "open",
        "range_end": "closed",
        "primary_key": "id",
        "allow_external_schedulers": False,
    }
    cursor = incremental(**given)  # type: ignore[arg-type, var-annotated]
    assert {name: getattr(cursor, name) for name in given} == given
    assert cursor.duplicate_cursor_warning_threshold == 200
    copy = cursor.copy()
    copy.initial_value = 5
    assert (cursor.initial_value, copy.end_value) == (1, 9)


@pytest.mark.covers("Incremental.bind", "Incremental.start_value", "Incremental.last_value")
def test_a_cursor_is_bound_to_the_state_of_a_resource() -> None:
    state: dict[str, object] = {"incremental": {"at": {"initial_value": 1, "last_value": 5, "unique_hashes": []}}}
    cursor: incremental[int] = incremental("at", initial_value=1)
    bound = cursor.bind("r", lambda name: {"r": state}[name])
    assert (bound.start_value, bound.last_value) == (5, 5)


@pytest.mark.covers(
    "Resource.columns",
    "Resource.schema_contract",
    "Resource.table_format",
    "Resource.parent_table_name",
    "Resource.nested_hints",
)
def test_hints_can_be_asked_for_one_by_one() -> None:
    plain = asyncelt.resource([], name="items")
    hinted = asyncelt.resource(
        [],
        name="items",
        columns=[{"name": "price", "data_type": "decimal"}],
        schema_contract={"columns": "freeze"},
        table_format="delta",
        nested_hints={"parts": {"columns": {"id": {"data_type": "text"}}}},
    )

    assert (plain.columns, plain.schema_contract, plain.table_format, plain.nested_hints) == (None, None, None, None)
    assert hinted.columns == {"price": {"name": "price", "data_type": "decimal"}}
    assert (hinted.schema_contract, hinted.table_format) == ({"columns": "freeze"}, "delta")
    assert list(hinted.nested_hints or ()) == ["parts"]
    assert plain.parent_table_name is None
    assert plain.apply_hints(parent_table_name="orders").parent_table_name == "orders"


def test_columns_that_are_a_function_of_a_row_are_given_as_they_are() -> None:
    def columns(row: Row) -> dict[str, dict[str, str]]:
        return {"a": {"data_type": "text"}}

    made = asyncelt.resource([], name="items", table_name=lambda row: row["kind"], columns=columns)  # type: ignore[arg-type]

    assert made.columns is columns


@pytest.mark.covers("Resource.table_name", "Resource.has_dynamic_table_name", "Resource.write_disposition")
def test_the_table_and_the_disposition_can_be_set() -> None:
    made = asyncelt.resource([{"id": 1}], name="items", primary_key="id")
    made.table_name = "things"
    made.write_disposition = "merge"
    assert (made.table_name, made.write_disposition, made.has_dynamic_table_name) == ("things", "merge", False)
    assert (made.hints.name, made.hints.write_disposition) == ("things", "merge")

    with pytest.raises(ConfigError, match="write_disposition"):
        made.write_disposition = "upsert everything"

    assert made.write_disposition == "merge"
    made.table_name = lambda row: row["kind"]
    assert made.has_dynamic_table_name
