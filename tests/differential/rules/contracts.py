"""Schema contracts, entity by mode, on root and nested tables."""

from __future__ import annotations

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tests.differential.cases import Case, Run

FIRST = ({"id": 1, "v": 1, "l": [{"x": 1}]}, {"id": 2, "v": 2, "l": [{"x": 2}]})
CHANGES: dict[str, tuple[object, ...]] = {
    "columns": ({"id": 3, "v": 3, "new": "n"}, {"id": 4, "v": 4}),
    "nested-columns": ({"id": 3, "v": 3, "l": [{"x": 3, "new": 1}, {"x": 4}]},),
    "nested-tables": ({"id": 3, "v": 3, "other": [{"y": 1}]}, {"id": 4, "l": [{"x": 1, "deep": [1]}]}),
    "data_type": ({"id": 3, "v": "text"}, {"id": 4, "v": 4}),
    "nested-data_type": ({"id": 3, "v": 3, "l": [{"x": "text"}, {"x": 5}]},),
    "null-only": ({"id": 3, "v": 3, "new": None},),
    "json": ({"id": 3, "v": {"k": 1}}, {"id": 4, "v": [1]}),
}
MODES = ("freeze", "discard_row", "discard_value")
ALL_MODES = ("evolve", *MODES)


def _changes() -> list[Case]:
    return [
        Case(
            id=f"6-{change}-{mode}",
            runs=(
                Run(pages=(FIRST,)),
                Run(pages=(rows,), arguments={"schema_contract": {_entity(change): mode}}),
                Run(pages=(({"id": 9, "v": 9, "late": 1},),)),
            )[: 2 if mode == "freeze" else 3],
            raises=_frozen(change, mode),
        )
        for change, rows in CHANGES.items()
        for mode in ALL_MODES
    ]


TABLE = pa.table({"id": [1, 2], "v": [1, 2]})
LATER: dict[str, pa.Table] = {
    "columns": pa.table({"id": [3, 4], "v": [3, 4], "new": ["n", None]}),
    "data_type": pa.table({"id": [3, 4], "v": ["text", "4"]}),
}
"""What Arrow tables bring that breaks a contract. Where types may change, the two differ: docs/departures.md."""


class Ignoring(BaseModel):
    """Other fields are left out."""

    id: int
    v: int | None = None


class Forbidding(Ignoring):
    """Other fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Allowing(Ignoring):
    """Other fields become columns."""

    model_config = ConfigDict(extra="allow")


class Inner(BaseModel):
    """Lies in another model."""

    a: int = 1


class Checking(BaseModel):
    """Fills in, renames, reads numbers out of text, rounds, and knows what is too small."""

    id: int
    v: int = Field(default=7, gt=0)
    renamed: str | None = Field(default=None, alias="someName")
    inner: Inner | None = None

    @field_validator("renamed")
    @classmethod
    def _upper(cls, value: str | None) -> str | None:
        return value.upper() if value else value


GOOD = (
    {"id": "1", "v": 1.0, "someName": "a", "inner": {"a": "5", "z": 1}},
    {"id": 2},
    {"id": 3, "someName": None, "inner": {}},
)
NEW = ({"id": 4, "new": 1}, {"id": 5, "inner": {"a": 1, "new": [1]}}, {"id": 6})
WRONG = ({"id": 7, "v": -1}, {"id": 8, "v": "text"}, {"id": 9, "v": 9}, {"id": 10, "new": 1})


def _checked() -> list[Case]:
    """A model that changes rows, under contracts that are not its own."""
    return [
        Case(
            id=f"6-model-checks-{change}-{entity}-{mode}",
            runs=tuple(
                Run(pages=(rows,), arguments={"columns": Checking}, hints={"schema_contract": {entity: mode}})
                for rows in ((GOOD,) if mode != "evolve" or entity != "columns" else ()) + (then,)
            ),
            forms=("pages", "bytes", "one-by-one", "steps"),
            raises="contract" if change == "wrong" and mode != "discard_row" else None,
        )
        for change, entity, then in (
            ("new", "columns", NEW),
            ("wrong", "data_type", WRONG),
            ("wrong", "columns", WRONG),
        )
        for mode in ALL_MODES
        if (entity, mode) not in {("data_type", "discard_value"), ("columns", "freeze"), ("data_type", "evolve")}
    ]


def _arrow() -> list[Case]:
    return [
        Case(
            id=f"6-arrow-{entity}-{mode}",
            runs=(
                Run(pages=((TABLE,),)),
                Run(pages=((table,),), arguments={"schema_contract": {entity: mode}}),
            ),
            forms=("pages",),
            raises="contract" if mode == "freeze" else None,
        )
        for entity, table in LATER.items()
        for mode in (MODES if entity == "columns" else MODES[:1])
    ] + [
        Case(
            id=f"6-arrow-tables-{mode}",
            runs=(
                Run(pages=((TABLE,),)),
                Run(pages=((TABLE,),), table_name="other", arguments={"schema_contract": {"tables": mode}}),
            ),
            forms=("pages",),
            raises="contract" if mode == "freeze" else None,
        )
        for mode in ALL_MODES
    ]


def _models() -> list[Case]:
    return [
        Case(
            id=f"6-model-{model.__name__.lower()}-{change}",
            runs=(
                Run(pages=(({"id": 1, "v": 1},),), arguments={"columns": model}),
                Run(pages=(rows,), arguments={"columns": model}),
            ),
            forms=("pages", "bytes", "one-by-one"),
            raises=raises,
        )
        for model, change, rows, raises in (
            (Ignoring, "new-field", ({"id": 2, "v": 2, "new": 1},), None),
            (Forbidding, "new-field", ({"id": 2, "v": 2, "new": 1},), "contract"),
            (Allowing, "new-field", ({"id": 2, "v": 2, "new": 1},), None),
            (Ignoring, "wrong-type", ({"id": 2, "v": "text"},), "contract"),
        )
    ]


def _frozen(change: str, mode: str) -> str | None:
    return None if mode != "freeze" or change == "null-only" else "contract"


def _entity(change: str) -> str:
    entity = change.removeprefix("nested-")

    return entity if entity in {"columns", "tables", "data_type"} else "columns"


CASES: tuple[Case, ...] = (
    *_changes(),
    *_arrow(),
    *_models(),
    *_checked(),
    *(
        Case(
            id=f"6-new-root-table-{mode}",
            runs=(
                Run(pages=(FIRST,)),
                Run(pages=(({"id": 1},),), table_name="other", arguments={"schema_contract": {"tables": mode}}),
            ),
            raises=_frozen("tables", mode),
        )
        for mode in MODES
    ),
    *(
        Case(
            id=f"6-new-root-table-{mode}-and-later-runs",
            runs=(
                Run(pages=(FIRST,)),
                Run(pages=(({"id": 1},),), table_name="other", arguments={"schema_contract": {"tables": mode}}),
                Run(pages=(({"id": 2},),), table_name="other"),
                Run(pages=(({"id": 3},),)),
            ),
        )
        for mode in ("discard_row", "discard_value")
    ),
    *(
        Case(
            id=f"6-declared-root-table-{mode}",
            runs=(
                Run(
                    pages=(FIRST,),
                    arguments={"schema_contract": {"tables": mode}, "columns": {"id": {"data_type": "bigint"}}},
                ),
                Run(pages=(FIRST,), arguments={"schema_contract": {"tables": "evolve"}}),
            )[: 1 if mode == "freeze" else 2],
            raises=_frozen("tables", mode),
        )
        for mode in MODES
    ),
    Case(
        id="6-new-root-table-without-rows-freeze",
        runs=(Run(pages=((),), arguments={"schema_contract": {"tables": "freeze"}}),),
        raises="contract",
    ),
    Case(
        id="6-new-root-table-refused-by-its-resource",
        runs=(Run(pages=(FIRST,), hints={"schema_contract": {"tables": "discard_row"}}),),
    ),
    *(
        Case(
            id=f"6-new-table-may-evolve-once-{mode}",
            runs=(Run(pages=(FIRST,), arguments={"schema_contract": {"columns": mode}}),),
        )
        for mode in MODES
    ),
    *(
        Case(
            id=f"6-one-mode-for-all-{mode}",
            runs=(
                Run(pages=(FIRST,)),
                Run(pages=(({"id": 3, "v": "x", "new": 1, "t": [1]}, {"id": 4}),), arguments={"schema_contract": mode}),
            ),
            raises=_frozen("all", mode),
        )
        for mode in ALL_MODES
    ),
)
