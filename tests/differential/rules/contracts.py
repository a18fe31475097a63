"""behaviour.md 6: schema contracts, entity by mode, on root and nested tables."""

from __future__ import annotations

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


def _frozen(change: str, mode: str) -> str | None:
    return None if mode != "freeze" or change == "null-only" else "contract"


def _entity(change: str) -> str:
    entity = change.removeprefix("nested-")

    return entity if entity in {"columns", "tables", "data_type"} else "columns"


CASES: tuple[Case, ...] = (
    *_changes(),
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
