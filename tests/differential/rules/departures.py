"""Where asyncelt is meant to differ: what the reference makes of a case, what asyncelt makes of it, and why.

A departure is right only where the reference loses or corrupts a value, or breaks a promise of the design. Each has a
section of its name in docs/departures.md; the suite checks that both outputs are what is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
from pydantic import BaseModel, Field

from tests.differential.cases import Case, Run, case

__all__ = ["ALL", "Departure", "Rows"]

Rows = dict[str, list[dict[str, object]]]
"""Table name to its rows without system columns and without nulls, in any order."""
INFINITY = float("inf")
BIG = 2**64 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """One meant difference. ``reference`` is what it loads, or a part of the error with which it gives up."""

    name: str
    case: Case
    reference: Rows | str
    ours: Rows
    notice: str | None = None
    """Kind of the notice asyncelt gives in the run's info."""


def _departure(
    name: str,
    *rows: object,
    reference: Rows | str,
    ours: Sequence[dict[str, object]],
    nested: Rows | None = None,
    notice: str | None = None,
) -> Departure:
    return Departure(
        name=name,
        case=case(f"departure-{name}", *rows),
        reference=reference,
        ours={"items": list(ours), **(nested or {})},
        notice=notice,
    )


class Named(BaseModel):
    """Has a field with another name in the data."""

    id: int
    v: int | None = None
    renamed: str | None = Field(default=None, alias="someName")


NAMED = ({"id": 1, "v": "text", "someName": "a"}, {"id": 2, "v": 3})


def _model(name: str, mode: str, *, reference: Rows | str, ours: Rows) -> Departure:
    """Rows that go through a model whose types are not frozen."""
    run = Run(pages=(NAMED,), arguments={"columns": Named}, hints={"schema_contract": {"data_type": mode}})

    return Departure(name=name, case=Case(id=f"departure-{name}", runs=(run,)), reference=reference, ours=ours)


def _merged(strategy: str, **options: object) -> dict[str, object]:
    return {"write_disposition": {"disposition": "merge", "strategy": strategy, **options}, "primary_key": "id"}


def _runs(name: str, *runs: tuple[dict[str, object], list[dict[str, object]]]) -> Case:
    """A case of one page per run: the run's arguments, and its rows."""
    made = tuple(Run(pages=(tuple(rows),), arguments=arguments) for arguments, rows in runs)

    return Case(id=f"departure-{name}", runs=made)


def _cursor(name: str, *runs: Sequence[object], reference: Rows | str, ours: Rows, **options: object) -> Departure:
    made = tuple(Run(pages=(page,), hints={"incremental": {"cursor_path": "at", **options}}) for page in runs)

    return Departure(
        name=name,
        case=Case(id=f"departure-{name}", runs=made, forms=("pages",)),
        reference=reference,
        ours=ours,
    )


def _arrow(name: str, contract: str | None, *, reference: Rows | str, ours: Rows) -> Departure:
    """A column of numbers, and then one of texts of which one is no number."""
    numbers = Run(pages=((pa.table({"id": [1], "v": [1]}),),))
    texts = pa.table({"id": [2, 3], "v": ["text", "3"]})
    arguments = {} if contract is None else {"schema_contract": {"data_type": contract}}
    case = Case(id=f"departure-{name}", runs=(numbers, Run(pages=((texts,),), arguments=arguments)), forms=("pages",))

    return Departure(name=name, case=case, reference=reference, ours=ours)


BOUNDARY = {"boundary_timestamp": "2024-05-01T00:00:00Z"}
MAY = datetime(2024, 5, 1, tzinfo=UTC)
ORDER = {"id": 1, "lines": [{"n": 1}]}
REPLACE = {"write_disposition": {"disposition": "replace"}}

ALL: tuple[Departure, ...] = (
    _departure(
        "nan-and-infinity",
        {"v": 1.5},
        {"v": float("nan")},
        {"v": INFINITY},
        {"v": -INFINITY},
        reference={"items": [{"v": 1.5}, {}, {}, {}]},
        ours=[{"v": 1.5}, {"v": float("nan")}, {"v": INFINITY}, {"v": -INFINITY}],
    ),
    _departure(
        "infinity-as-text",
        {"v": 1.5},
        {"v": "inf"},
        reference="inf",
        ours=[{"v": 1.5}, {"v": INFINITY}],
    ),
    _departure(
        "integers-over-64-bits",
        {"v": BIG},
        {"v": 1},
        reference="Integer exceeds 64-bit range",
        ours=[{"v": Decimal(BIG)}, {"v": Decimal(1)}],
    ),
    _departure(
        "integers-over-64-bits-in-a-bigint-column",
        {"v": 1},
        {"v": BIG},
        reference="Integer exceeds 64-bit range",
        ours=[{"v": 1}, {"v__v_wei": Decimal(BIG)}],
    ),
    _departure(
        "integers-wider-than-the-destination",
        {"v": 1},
        {"v": 10**60},
        reference="Integer exceeds 64-bit range",
        ours=[{"v": 1}, {"v__v_text": str(10**60)}],
    ),
    _departure(
        "variant-of-a-variant",
        {"v": 1},
        {"v": "2024-01-02T03:04:05Z"},
        {"v": "abc"},
        reference="Cannot coerce type `text` to `timestamp`",
        ours=[{"v": 1}, {"v__v_text": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)}, {"v__v_text__v_text": "abc"}],
        notice="variant_of_variant",
    ),
    _departure(
        "decimal-out-of-range",
        {"v": Decimal(1)},
        {"v": Decimal(10**30)},
        reference="Could not cast value",
        ours=[{"v": Decimal("1.000000000")}, {"v__v_text": str(10**30)}],
    ),
    _departure(
        "negative-zero",
        {"v": -0.0},
        reference={"items": [{"v": 0.0}]},
        ours=[{"v": -0.0}],
    ),
    _departure(
        "last-bit-of-doubles",
        {"v": 0.10385958677423489},
        reference={"items": [{"v": 0.10385958677423487}]},
        ours=[{"v": 0.10385958677423489}],
    ),
    _departure(
        "text-with-nul",
        {"v": "a\x00b"},
        reference={"items": [{"v": "ab"}]},
        ours=[{"v": "a\x00b"}],
    ),
    _departure(
        "empty-bytes",
        {"v": b""},
        {"v": b"a"},
        reference={"items": [{"v": "\uf02b"}, {"v": "YQ=="}]},
        ours=[{"v": b""}, {"v": b"a"}],
    ),
    _departure(
        "list-under-a-blank-key",
        {"a": 1, "": [True]},
        reference="NOT NULL constraint failed: items._dlt_load_id",
        ours=[{"a": 1}],
        nested={"items___empty": [{"value": True}]},
    ),
    _departure(
        "list-of-dicts-under-a-blank-key",
        {"a": 1, "": [{"b": 3}]},
        reference={"items": [{"a": 1}, {"b": 3}]},
        ours=[{"a": 1}],
        nested={"items___empty": [{"b": 3}]},
    ),
    _departure(
        "list-under-a-blank-key-of-a-dict",
        {"a": {"": [1]}},
        {"a": [2]},
        reference={"items": [{}, {}], "items__a": [{"value": 1}, {"value": 2}]},
        ours=[{}, {}],
        nested={"items__a": [{"value": 2}], "items__a___empty": [{"value": 1}]},
    ),
    _departure(
        "list-under-a-blank-key-in-a-list",
        {"l": [{"": [1], "x": 1}]},
        reference={"items": [{}], "items__l": [{"x": 1}, {"value": 1}]},
        ours=[{}],
        nested={"items__l": [{"x": 1}], "items__l___empty": [{"value": 1}]},
    ),
    Departure(
        name="replace-as-a-mapping-resets-state",
        case=Case(
            id="departure-replace-as-a-mapping-resets-state",
            runs=(Run(pages=(({"id": 1},),), arguments=REPLACE, counts=True),) * 2,
        ),
        reference={"items": [{"id": 1, "run": 2}]},
        ours={"items": [{"id": 1, "run": 1}]},
    ),
    Departure(
        name="root-key-on-existing-nested-tables",
        case=Case(
            id="departure-root-key-on-existing-nested-tables",
            runs=(
                Run(pages=((ORDER,),)),
                Run(
                    pages=(({"id": 1, "lines": [{"n": 2}]},),),
                    arguments={"write_disposition": "merge", "primary_key": "id"},
                ),
            ),
        ),
        reference="Adding columns with constraints not yet supported",
        ours={"items": [{"id": 1}], "items__lines": [{"n": 2}]},
    ),
    Departure(
        name="upsert-of-one-key-twice",
        case=_runs(
            "upsert-of-one-key-twice",
            (_merged("upsert"), [{"id": 1, "v": "a", "l": [1, 2]}, {"id": 1, "v": "b", "l": [3]}]),
        ),
        reference={"items": [{"id": 1, "v": "a"}, {"id": 1, "v": "b"}]},
        ours={"items": [{"id": 1, "v": "b"}], "items__l": [{"value": 3}]},
    ),
    Departure(
        name="upsert-of-an-unknown-deleted-row",
        case=_runs(
            "upsert-of-an-unknown-deleted-row",
            ({**_merged("upsert"), "columns": {"gone": {"hard_delete": True}}}, [{"id": 1, "gone": False}]),
            (
                {**_merged("upsert"), "columns": {"gone": {"hard_delete": True}}},
                [{"id": 1, "gone": True}, {"id": 2, "gone": True}],
            ),
        ),
        reference={"items": [{"id": 2, "gone": True}]},
        ours={"items": []},
    ),
    Departure(
        name="insert-only-and-longer-lists",
        case=_runs(
            "insert-only-and-longer-lists",
            (_merged("insert-only"), [{"id": 1, "v": "a", "l": [1]}]),
            (_merged("insert-only"), [{"id": 1, "v": "b", "l": [7, 8]}]),
        ),
        reference={"items": [{"id": 1, "v": "a"}], "items__l": [{"value": 1}, {"value": 8}]},
        ours={"items": [{"id": 1, "v": "a"}], "items__l": [{"value": 1}]},
    ),
    Departure(
        name="scd2-of-one-record-twice",
        case=_runs(
            "scd2-of-one-record-twice",
            ({"write_disposition": _merged("scd2", **BOUNDARY)["write_disposition"]}, [{"id": 1}, {"id": 1}]),
        ),
        reference={"items": [{"id": 1}, {"id": 1}]},
        ours={"items": [{"id": 1}]},
    ),
    Departure(
        name="scd2-of-one-primary-key-twice",
        case=_runs(
            "scd2-of-one-primary-key-twice", (_merged("scd2", **BOUNDARY), [{"id": 1, "v": "a"}, {"id": 1, "v": "b"}])
        ),
        reference={"items": [{"id": 1, "v": "a"}, {"id": 1, "v": "b"}]},
        ours={"items": [{"id": 1, "v": "b"}]},
    ),
    Departure(
        name="scd2-by-a-version-column-with-lists",
        case=_runs(
            "scd2-by-a-version-column-with-lists",
            (_merged("scd2", **BOUNDARY, row_version_column_name="h"), [{"id": 1, "h": "x", "l": [1]}]),
            (_merged("scd2", **BOUNDARY, row_version_column_name="h"), [{"id": 1, "h": "x", "l": [1]}]),
        ),
        reference={"items": [{"id": 1, "h": "x"}], "items__l": [{"value": 1}, {"value": 1}]},
        ours={"items": [{"id": 1, "h": "x"}], "items__l": [{"value": 1}]},
    ),
    Departure(
        name="upsert-after-delete-insert",
        case=_runs(
            "upsert-after-delete-insert",
            (_merged("delete-insert"), [{"id": 1, "l": [1, 2]}]),
            (_merged("upsert"), [{"id": 1, "l": [3]}]),
        ),
        reference={"items": [{"id": 1}], "items__l": [{"value": 1}, {"value": 2}, {"value": 3}]},
        ours={"items": [{"id": 1}], "items__l": [{"value": 3}]},
    ),
    Departure(
        name="skip",
        case=_runs("skip", ({}, [{"id": 1}]), ({"write_disposition": "skip"}, [{"id": 2}])),
        reference="skip",
        ours={"items": [{"id": 1}]},
    ),
    _cursor(
        "nan-as-a-cursor",
        ({"at": 1.0}, {"at": float("nan")}),
        ({"at": 1.0}, {"at": 2.0}),
        reference={"items": [{"at": 1.0}, {}, {"at": 1.0}, {"at": 2.0}]},
        ours={"items": [{"at": 1.0}, {"at": float("nan")}, {"at": 2.0}]},
        on_cursor_value_missing="include",
    ),
    _cursor(
        "later-rows-of-a-key-in-arrow-tables",
        (pa.table({"id": [1], "at": [1]}),),
        (pa.table({"id": [1, 1], "at": [1, 2]}),),
        reference={"items": [{"id": 1, "at": 1}]},
        ours={"items": [{"id": 1, "at": 1}, {"id": 1, "at": 2}]},
        primary_key="id",
    ),
    _arrow(
        "arrow-column-of-another-type",
        None,
        reference="Could not convert string 'text' to INT64",
        ours={"items": [{"id": 1, "v": 1}, {"id": 2, "v__v_text": "text"}, {"id": 3, "v": 3}]},
    ),
    _arrow(
        "arrow-rows-of-another-type",
        "discard_row",
        reference={"items": [{"id": 1, "v": 1}]},
        ours={"items": [{"id": 1, "v": 1}, {"id": 3, "v": 3}]},
    ),
    _arrow(
        "arrow-values-of-another-type",
        "discard_value",
        reference={"items": [{"id": 1, "v": 1}, {"id": 2}, {"id": 3}]},
        ours={"items": [{"id": 1, "v": 1}, {"id": 2}, {"id": 3, "v": 3}]},
    ),
    Departure(
        name="arrow-rows-in-a-table-of-dicts",
        case=Case(
            id="departure-arrow-rows-in-a-table-of-dicts",
            runs=(Run(pages=(({"id": 1},),)), Run(pages=((pa.table({"id": [2]}),),))),
            forms=("pages",),
        ),
        reference="NOT NULL constraint failed: items._dlt_load_id",
        ours={"items": [{"id": 1}, {"id": 2}]},
    ),
    _model(
        "aliases-of-a-model-whose-types-evolve",
        "evolve",
        reference={"items": [{"id": 1, "v__v_text": "text"}, {"id": 2, "v": 3}]},
        ours={"items": [{"id": 1, "v__v_text": "text", "some_name": "a"}, {"id": 2, "v": 3}]},
    ),
    _model(
        "values-a-model-does-not-take",
        "discard_value",
        reference="Cannot discard defined fields with validation errors",
        ours={"items": [{"id": 1, "some_name": "a"}, {"id": 2, "v": 3}]},
    ),
    Departure(
        name="declared-columns-under-a-contract",
        case=_runs(
            "declared-columns-under-a-contract",
            ({}, [{"id": 1}]),
            (
                {"columns": {"new": {"data_type": "text"}}, "schema_contract": {"columns": "discard_value"}},
                [{"id": 2, "new": "a"}],
            ),
        ),
        reference={"items": [{"id": 1}, {"id": 2}]},
        ours={"items": [{"id": 1}, {"id": 2, "new": "a"}]},
    ),
)
