"""Refresh, over tables, nested tables, stored schemas and state."""

from __future__ import annotations

from tests.differential.cases import Case, Run

FIRST = ({"id": 1, "old": 1, "lines": [{"n": 1}, {"n": 2}]},)
SECOND = ({"id": 2, "new": "x"},)
OTHER = ({"id": 7, "kept": True, "lines": [{"n": 7}]},)
MODES = ("drop_sources", "drop_resources", "drop_data")


def _refresh(mode: str, **arguments: object) -> dict[str, object]:
    return {"refresh": mode, **arguments}


CASES: tuple[Case, ...] = (
    *(
        Case(id=f"2.10-{mode}", runs=(Run(pages=(FIRST,)), Run(pages=(SECOND,), arguments=_refresh(mode))))
        for mode in MODES
    ),
    *(
        Case(
            id=f"2.10-{mode}-of-one-resource",
            runs=(
                Run(pages=(OTHER,), table_name="others"),
                Run(pages=(FIRST,)),
                Run(pages=(SECOND,), arguments=_refresh(mode)),
                Run(pages=(FIRST,)),
            ),
        )
        for mode in MODES
    ),
    *(
        Case(
            id=f"2.10-{mode}-and-state",
            runs=(
                Run(pages=(FIRST,), counts=True),
                Run(pages=(FIRST,), counts=True),
                Run(pages=(SECOND,), counts=True, arguments=_refresh(mode)),
                Run(pages=(SECOND,), counts=True),
            ),
        )
        for mode in MODES
    ),
    *(
        Case(
            id=f"2.10-{mode}-with-the-first-load",
            runs=(Run(pages=(FIRST,), arguments=_refresh(mode)), Run(pages=(SECOND,))),
        )
        for mode in MODES
    ),
    *(
        Case(
            id=f"2.10-{mode}-with-a-merge",
            runs=(
                Run(pages=(FIRST,), arguments={"write_disposition": "merge", "primary_key": "id"}),
                Run(
                    pages=(({"id": 1, "lines": [{"n": 3}]},),),
                    arguments=_refresh(mode, write_disposition="merge", primary_key="id"),
                ),
            ),
        )
        for mode in MODES
    ),
)
