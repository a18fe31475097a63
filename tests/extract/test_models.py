"""Rows that go through a model, or through a validator of one's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import pydantic
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, ConfigError, DataValidationError, ResourceExtractionError
from asyncelt.extract.models import ModelValidator
from tests.extract.pumping import pumped
from tests.support.bad_rows import items, make, rows_of


class Inner(pydantic.BaseModel):
    a: int


class Model(pydantic.BaseModel):
    id: int
    v: int = pydantic.Field(default=7, gt=0)
    inner: Inner | None = pydantic.Field(default=None, alias="In")
    many: list[Inner] = []


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    bark: str


class Pet(pydantic.RootModel[Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]]):
    pass


async def through(*pages: object, **hints: Any) -> list[object]:
    return (await pumped(asyncelt.resource(list(pages), name="r", **hints))).rows()


ROW = {"id": "1", "In": {"a": "5", "deep": 1}, "many": [{"a": 2, "deep": 2}], "new": 3}
PLAIN = {"id": 1, "v": 7, "In": {"a": 5}, "many": [{"a": 2}]}


@pytest.mark.covers("Resource.validator", "resource.columns", "Resource.apply_hints.columns")
async def test_rows_are_what_the_model_makes_of_them() -> None:
    assert await through([ROW, {"id": 2}], columns=Model) == [PLAIN, {"id": 2, "v": 7, "In": None, "many": []}]
    assert await through(ROW, columns=Model) == [PLAIN]
    assert await through(json.dumps([ROW]).encode(), columns=Model) == [PLAIN]
    assert await through([Model(id=3)], columns=Model) == [{"id": 3, "v": 7, "In": None, "many": []}]


async def test_columns_say_what_other_fields_cost() -> None:
    kept = {**PLAIN, "new": 3, "In": {"a": 5, "deep": 1}, "many": [{"a": 2, "deep": 2}]}

    assert await through([ROW], columns=Model, schema_contract={"columns": "evolve"}) == [kept]
    assert await through([ROW], columns=Model, schema_contract={"columns": "discard_value"}) == [PLAIN]
    assert await through([ROW, {"id": 2}], columns=Model, schema_contract={"columns": "discard_row"}) == [
        {"id": 2, "v": 7, "In": None, "many": []}
    ]

    with pytest.raises(
        DataValidationError, match=r"model Model: field 'In.deep': Extra inputs.*freezes columns"
    ) as raised:
        await through([{"id": 1}, ROW], columns=Model, schema_contract={"columns": "freeze"})

    assert "In resource 'r', row 1 of a page, after 0 rows." in raised.value.__notes__


async def test_types_say_what_wrong_values_cost() -> None:
    wrong = [{"id": 1, "v": -1}, {"id": 2, "v": "text"}, {"id": 3}]

    with pytest.raises(DataValidationError, match=r"field 'v': Input should be greater than 0 .*freezes data_type"):
        await through(wrong, columns=Model)

    assert [row["id"] for row in await through(wrong, columns=Model, schema_contract={"data_type": "discard_row"})] == [
        3
    ]  # type: ignore[index]

    for mode in ("evolve", "discard_value"):
        found = await through([{"id": 1, "v": "text", "new": 1}], columns=Model, schema_contract={"data_type": mode})
        assert found == [{"id": 1, "v": "text", "In": None, "many": None}]


async def test_what_is_no_row_is_refused_whatever_may_be_left_out() -> None:
    with pytest.raises(DataValidationError, match="a Inner is neither a mapping nor the model"):
        await through([Inner(a=1)], columns=Model, schema_contract="discard_row")


@pytest.mark.parametrize("mode", ["evolve", "freeze", "discard_row", "discard_value"])
def test_a_union_is_told_apart(mode: str) -> None:
    validator = ModelValidator(Pet, mode, "freeze")
    row = {"kind": "dog", "bark": "wau", "new": 1}
    plain = {"kind": "dog", "bark": "wau"}

    assert validator(plain) == validator(Dog(kind="dog", bark="wau")) == plain

    if mode == "freeze":
        with pytest.raises(DataValidationError, match=r"dog\.new"):
            validator(row)
    else:
        assert validator(row) == {"evolve": row, "discard_row": None, "discard_value": plain}[mode]


async def test_models_stay_models_where_they_say_so() -> None:
    class Kept(Model):
        dlt_config: ClassVar[dict[str, bool]] = {"return_validated_models": True}

    assert await through([{"id": 1}], columns=Kept) == [Kept(id=1)]


async def test_tables_do_not_go_through_it_and_empty_pages_stay() -> None:
    found = await pumped(asyncelt.resource([pa.table({"id": ["x"]})], name="r", columns=Model))

    assert found.rows() == [{"id": "x"}]
    assert await through([], columns=Model) == []


async def test_it_comes_behind_other_steps_and_before_the_cursor() -> None:
    cursor: Any = asyncelt.sources.incremental("id", initial_value=2)
    resource = asyncelt.resource([[{"n": "1"}, {"n": "2"}, {"n": "3"}]], name="r", columns=Model, incremental=cursor)
    resource.add_map(lambda row: {"id": row["n"]})

    assert [row["id"] async for row in resource] == [2, 3]  # type: ignore[index]


def test_a_contract_makes_it_anew_and_a_wrong_one_changes_nothing() -> None:
    resource = asyncelt.resource([], name="r", columns=Model)
    assert repr(resource.validator) == "<ModelValidator Model, columns=discard_value, data_type=freeze>"

    resource.apply_hints(schema_contract="evolve")
    assert resource.validator == ModelValidator(Model, "evolve", "evolve")

    with pytest.raises(ConfigError, match="data_type is one of evolve, discard_value, freeze, discard_row, not 'no'"):
        resource.apply_hints(schema_contract={"data_type": "no"})

    assert resource.validator == ModelValidator(Model, "evolve", "evolve")
    resource.apply_hints(columns={"id": {"description": "the key"}})
    assert resource.validator == ModelValidator(Model, "evolve", "evolve")
    assert asyncelt.resource([], name="r").validator is None


def test_the_contract_of_a_model_outlives_columns_that_are_laid_over_it() -> None:
    resource = asyncelt.resource([], name="r", columns=Model).apply_hints(columns={"id": {"description": "the key"}})

    assert resource.hints.schema_contract == {"tables": "evolve", "columns": "discard_value", "data_type": "freeze"}


async def test_a_validator_of_ones_own() -> None:
    def even(row: Any) -> object:
        if row["id"] < 0:
            raise DataValidationError("negative")

        return row if row["id"] % 2 == 0 else None

    resource = asyncelt.resource([[{"id": number} for number in range(100)]], name="r")
    resource.validator = even
    assert [row["id"] async for row in resource] == list(range(0, 100, 2))  # type: ignore[index]

    bad = resource.clone().add_map(lambda row: {"id": -1})

    with pytest.raises(DataValidationError, match="negative"):
        [row async for row in bad]

    bad.validator = lambda row: row["no"]

    with pytest.raises(ResourceExtractionError, match=r"in its validator.*KeyError"):
        [row async for row in bad]

    bad.validator = None
    assert len([row async for row in bad]) == 100


@pytest.mark.parametrize("steps", [False, True])
async def test_refused_rows_go_to_quarantine_and_come_back(tmp_path: Path, steps: bool) -> None:
    rows = [{"id": 1}, {"id": 2, "v": -5, "many": []}, {"id": 3, "v": "x", "many": []}]
    pipeline = make(tmp_path, "memory")

    async def load() -> None:
        if not steps:
            await pipeline.run(items([rows], "quarantine", columns=Model))
            return

        await pipeline.extract(items([rows], "quarantine", columns=Model))
        await pipeline.normalize()
        await pipeline.load()

    with pytest.warns(AsynceltWarning, match=r"2 row\(s\) of resource 'items'"):
        await load()

    assert await rows_of(pipeline, "items", "id", "v") == [(1, 7)]
    lines = await rows_of(pipeline, "_asyncelt_quarantine", "error_kind", "payload_form", "payload")
    assert lines == [("DataValidationError", "json", json.dumps(row)) for row in rows[1:]]

    # A replay goes by the columns and the contract, not by the model: -5 is a number.
    with pytest.warns(AsynceltWarning, match=r"1 row\(s\)"):
        await pipeline.replay(items([], "quarantine", columns=Model))

    assert await rows_of(pipeline, "items", "id", "v") == [(1, 7), (2, -5)]


async def test_skipped_rows_are_counted(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")

    async def pages() -> AsyncIterator[object]:
        yield [{"id": number, "v": number % 2} for number in range(100)]

    with pytest.warns(AsynceltWarning, match="50 row"):
        info = await pipeline.run(asyncelt.resource(pages, name="items", columns=Model, on_error="skip"))

    assert info.row_counts["items"] == 50
    assert info.skipped_rows == {"items": 50}
