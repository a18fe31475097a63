"""Schemas that are passed to a run, the first time and later."""

from __future__ import annotations

from typing import Any

from tests.differential.cases import Case, Run

NAME = "differential"
FIRST = Run(pages=(({"id": 1, "l": [{"x": 1}]},),))


def _schema(*, columns: dict[str, dict[str, Any]] | None = None, **document: Any) -> dict[str, Any]:
    said = {name: {"name": name, "nullable": True, **one} for name, one in (columns or {}).items()}
    table = {"name": "items", "columns": said, "resource": "items", "write_disposition": "append"}

    return {"name": NAME, **document, **({"tables": {"items": table}} if said else {})}


TYPED = _schema(
    columns={"note": {"data_type": "text", "nullable": True}, "id": {"data_type": "bigint", "primary_key": True}},
    settings={"preferred_types": {"re:^code": "text"}},
)
LATER = Run(pages=(({"id": 2, "code": 7, "l": [{"x": 2, "code_of": 8}]},),))
DIRECT = _schema(
    normalizers={"names": "direct", "json": {"module": "dlt.common.normalizers.json.relational"}},
    settings={"preferred_types": {"re:^code": "text"}},
)


def _with(run: Run, schema: dict[str, Any]) -> Run:
    return Run(pages=run.pages, arguments=run.arguments, schema=schema)


CASES: tuple[Case, ...] = (
    Case(id="5.13-a-schema-at-first", runs=(_with(LATER, TYPED), FIRST)),
    Case(id="5.13-a-bare-schema-at-first", runs=(_with(LATER, _schema()), FIRST)),
    Case(id="5.13-a-schema-later", runs=(FIRST, _with(LATER, TYPED))),
    Case(id="5.13-a-schema-later-then-none", runs=(FIRST, _with(LATER, TYPED), LATER)),
    *(
        Case(
            id=f"5.13-hints-of-a-run-without-rows-{name}",
            runs=(first, Run(pages=((),), arguments={"columns": {"v": {"data_type": "text"}}}), LATER, LATER),
        )
        for name, first in (("after-rows", FIRST), ("before-rows", Run(pages=((),))))
    ),
    Case(id="5.13-settings-are-replaced", runs=(_with(FIRST, TYPED), _with(LATER, _schema()))),
    Case(
        id="5.13-a-contract-comes-with-a-schema",
        runs=(FIRST, _with(LATER, _schema(settings={"schema_contract": {"columns": "discard_value"}}))),
    ),
    Case(
        id="5.13-keys-join-those-that-are-there",
        runs=(
            Run(pages=(({"id": 1, "v": 1},),), arguments={"primary_key": "v"}),
            Run(pages=(({"id": 2, "v": 2},),), schema=TYPED),
        ),
    ),
    Case(id="5.13-a-schema-of-another-convention", runs=(_with(LATER, DIRECT), FIRST)),
    Case(id="5.13-a-schema-of-another-convention-later", runs=(FIRST, _with(LATER, DIRECT))),
    Case(
        id="5.13-merging-below-a-later-schema",
        runs=(
            Run(pages=(({"id": 1, "l": [{"x": 1}]},),), arguments={"write_disposition": "merge", "primary_key": "id"}),
            Run(
                pages=(({"id": 1, "l": [{"x": 2}]},),),
                arguments={"write_disposition": "merge", "primary_key": "id"},
                schema=_schema(settings={"preferred_types": {"code": "text"}}),
            ),
        ),
    ),
)
