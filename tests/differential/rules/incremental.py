"""Incremental cursors over several runs, by type, function, range, order and form of page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from tests.differential.cases import Case, Run

Rows = Sequence[Mapping[str, object]]
JSON_FORMS = ("pages", "bytes", "ndjson", "one-by-one", "by-two")
ROW_FORMS = ("pages", "one-by-one")
START = datetime(2024, 1, 1, tzinfo=UTC)

KINDS: Mapping[str, tuple[Callable[[int], object], tuple[str, ...]]] = {
    "int": (lambda n: n, JSON_FORMS),
    "float": (lambda n: n + 0.5, JSON_FORMS),
    "text": (lambda n: f"2024-01-{n:02}", JSON_FORMS),
    "time-text": (lambda n: f"2024-01-{n:02}T00:00:00Z", JSON_FORMS),
    "time": (lambda n: START + timedelta(days=n), ROW_FORMS),
    "naive-time": (lambda n: (START + timedelta(days=n)).replace(tzinfo=None), ROW_FORMS),
    "date": (lambda n: date(2024, 1, n), ROW_FORMS),
    "decimal": (lambda n: (Decimal(n) / 4 + 10).quantize(Decimal("0.01")), ROW_FORMS),
}
"""Makes a cursor value of a number from 1 to 28; and the forms that can carry it."""

FIRST = ((1, 1), (2, 2), (3, 3), (4, 3))
SECOND = ((3, 3), (4, 3), (5, 3), (6, 4), (1, 1), (7, 5), (8, 5), (6, 5))
THIRD = ((7, 5), (8, 5), (9, 5))
FOURTH = ((1, 1), (2, 4), (5, 5))
RUNS = (FIRST, SECOND, THIRD, FOURTH)
ONE_OF_EACH = (FIRST, SECOND[:-1], THIRD, FOURTH)
"""(id, cursor) of each row; overlapping, with new rows at the last value and older ones in between."""


def rising(values: Sequence[int]) -> int:
    """A function of one's own that is what max is."""
    top, *rest = values

    for value in rest:
        top = max(top, value)

    return top


def longest(values: Sequence[str]) -> str:
    """A function of one's own in an order of its own."""
    return max(values, key=len)


def _rows(kind: str, run: Sequence[tuple[int, int]]) -> list[dict[str, object]]:
    make = KINDS[kind][0]

    return [{"id": number, "at": make(value), "v": f"row {number}"} for number, value in run]


def _case(
    name: str,
    runs: Sequence[Rows],
    options: Mapping[str, object] | Sequence[Mapping[str, object]],
    *,
    forms: tuple[str, ...] = ("pages",),
    hints: Mapping[str, object] | None = None,
    raises: str | None = None,
    pages: int = 2,
) -> Case:
    each = [options] * len(runs) if isinstance(options, Mapping) else options

    return Case(
        id=f"8.6-{name}",
        runs=tuple(
            Run(
                pages=tuple(tuple(rows[start : start + pages * 2]) for start in range(0, max(len(rows), 1), pages * 2)),
                hints={**(hints or {}), "incremental": {"cursor_path": "at", **given}},
            )
            for rows, given in zip(runs, each, strict=True)
        ),
        forms=forms,
        raises=raises,
    )


def _matrix(
    name: str,
    kinds: Sequence[str],
    options: Mapping[str, object],
    runs: Sequence[Sequence[tuple[int, int]]] = RUNS,
    **more: object,
) -> list[Case]:
    """One case per kind. Functions among the options are called with what makes a value of the kind."""
    return [
        _case(
            f"{name}-{kind}",
            [_rows(kind, run) for run in runs],
            {key: value(KINDS[kind][0]) if key.endswith("_value") else value for key, value in options.items()},  # type: ignore[operator]
            forms=KINDS[kind][1],
            **more,  # type: ignore[arg-type]
        )
        for kind in kinds
    ]


def _arrow(name: str, kinds: Sequence[str], options: Mapping[str, object], **more: object) -> list[Case]:
    """The same as `_matrix`, with tables for pages."""
    return [
        _case(
            f"arrow-{name}-{kind}",
            [[pa.Table.from_pylist(_rows(kind, run))] for run in RUNS],  # type: ignore[list-item]
            {key: value(KINDS[kind][0]) if key.endswith("_value") else value for key, value in options.items()},  # type: ignore[operator]
            **more,  # type: ignore[arg-type]
        )
        for kind in kinds
    ]


ALL_KINDS = tuple(KINDS)
MISSING = (
    [{"id": 1, "at": 1}, {"id": 2}, {"id": 3, "at": None}, {"id": 4, "at": 2}],
    [{"id": 5}, {"id": 4, "at": 2}, {"id": 6, "at": 3}],
)
NESTED = (
    [{"id": 1, "meta": {"at": 1}, "list": [{"at": 3}, {"at": 9}]}, {"id": 2, "meta": {"at": 2}, "list": [{"at": 4}]}],
    [{"id": 2, "meta": {"at": 2}, "list": [{"at": 4}]}, {"id": 3, "meta": {"at": 2}, "list": [{"at": 4}]}],
)
ORDERED = ((1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 6), (8, 7))


def _up(kind: str) -> list[dict[str, object]]:
    return _rows(kind, ORDERED)


def _down(kind: str) -> list[dict[str, object]]:
    return _rows(kind, ORDERED[::-1])


CASES: tuple[Case, ...] = (
    *_matrix("max", ALL_KINDS, {}),
    *_matrix("min", ("int", "time"), {"last_value_func": "min"}),
    *_matrix("key", ("int", "time-text"), {"primary_key": "id"}),
    *_matrix("key-of-two", ("int",), {"primary_key": ("id", "v")}),
    *_matrix("no-key", ("int",), {"primary_key": ()}),
    *_matrix("key-of-the-resource", ("int",), {}, hints={"primary_key": "id"}),
    *_matrix("key-of-both", ("int",), {"primary_key": "v"}, hints={"primary_key": "id"}),
    *_matrix("merge", ("int", "time"), {}, ONE_OF_EACH, hints={"primary_key": "id", "write_disposition": "merge"}),
    *_matrix("replace", ("int",), {}, hints={"write_disposition": "replace"}),
    *_matrix("open-start", ("int", "text"), {"range_start": "open"}),
    *_matrix("initial", ("int", "time", "text"), {"initial_value": lambda make: make(2)}),
    *_matrix("initial-open", ("int",), {"initial_value": lambda make: make(2), "range_start": "open"}),
    *_matrix("initial-min", ("int",), {"initial_value": lambda make: make(3), "last_value_func": "min"}),
    *_matrix(
        "end", ("int", "time", "float"), {"initial_value": lambda make: make(2), "end_value": lambda make: make(4)}
    ),
    *_matrix(
        "end-closed",
        ("int", "date"),
        {"initial_value": lambda make: make(2), "end_value": lambda make: make(4), "range_end": "closed"},
    ),
    *_matrix(
        "end-min",
        ("int",),
        {"initial_value": lambda make: make(4), "end_value": lambda make: make(2), "last_value_func": "min"},
    ),
    *_matrix("lag", ("int", "float"), {"lag": 1}),
    *_matrix("lag-of-days", ("text", "date"), {"lag": 1}),
    *_matrix("lag-of-a-day", ("time", "time-text", "naive-time"), {"lag": 86400}),
    *_matrix("lag-to-the-initial", ("int",), {"lag": 10, "initial_value": lambda make: make(2)}),
    *_matrix("lag-min", ("int",), {"lag": 1, "last_value_func": "min"}),
    *_matrix("function", ("int",), {"last_value_func": rising}),
    _case(
        "function-of-length",
        [[{"id": 1, "at": "a"}, {"id": 2, "at": "bbb"}], [{"id": 3, "at": "cc"}, {"id": 4, "at": "dddd"}]],
        {"last_value_func": longest},
        forms=JSON_FORMS,
    ),
    _case("missing-include", MISSING, {"on_cursor_value_missing": "include"}, forms=JSON_FORMS),
    _case("missing-exclude", MISSING, {"on_cursor_value_missing": "exclude"}, forms=JSON_FORMS),
    _case("missing-raise", MISSING, {}, forms=JSON_FORMS, raises="does not have this field"),
    _case("none-raises", [MISSING[0][::2]], {}, forms=JSON_FORMS, raises="none in this field"),
    _case("nested-path", NESTED, {"cursor_path": "meta.at", "primary_key": "id"}, forms=JSON_FORMS),
    _case("rooted-path", NESTED, {"cursor_path": "$.meta.at", "primary_key": "id"}, forms=JSON_FORMS),
    _case("list-path", NESTED, {"cursor_path": "list[*].at", "primary_key": "id"}, forms=JSON_FORMS),
    _case("element-path", NESTED, {"cursor_path": "list[0].at"}, forms=JSON_FORMS),
    _case(
        "quoted-path", [[{"a.b": 1}, {"a.b": 2}], [{"a.b": 2}, {"a.b": 3}]], {"cursor_path": "'a.b'"}, forms=JSON_FORMS
    ),
    _case("name-that-changes", [[{"At Time": 1}, {"At Time": 2}]] * 2, {"cursor_path": "'At Time'"}, forms=JSON_FORMS),
    _case("wrong-type", [[{"at": 1}], [{"at": "a"}]], {}, forms=JSON_FORMS, raises="cannot be compared"),
    _case("wrong-initial", [[{"at": 1}]], {"initial_value": "a"}, forms=JSON_FORMS, raises="cannot be compared"),
    _case("key-missing", [[{"at": 1}]], {"primary_key": "id"}, forms=JSON_FORMS, raises="primary key"),
    _case("changed-row-at-the-last-value", [[{"at": 1, "v": "a"}], [{"at": 1, "v": "b"}]], {}, forms=JSON_FORMS),
    _case("nothing-at-all", [[], [{"at": 1}], []], {"initial_value": 0}, forms=("pages",)),
    _case("nothing-new", [[{"at": 5}], [{"at": 1}], [{"at": 5}]], {}, forms=JSON_FORMS),
    _case("values-that-are-no-rows-of-dicts", [[{"at": 1, "v": {"b": [1, 2]}}], [{"at": 1, "v": {"b": [1, 2]}}]], {}),
    _case(
        "a-range-in-between",
        [_up("int"), _up("int"), _up("int")],
        [{}, {"initial_value": 2, "end_value": 4}, {}],
        forms=JSON_FORMS,
    ),
    _case(
        "ascending-to-an-end",
        [_up("int")],
        {"row_order": "asc", "initial_value": 2, "end_value": 4},
        forms=("pages", "bytes"),
        pages=1,
    ),
    _case("descending", [_down("int")[4:], _down("int")], {"row_order": "desc"}, forms=("pages", "bytes"), pages=1),
    *_arrow("max", ("int", "float", "text", "time", "naive-time", "date", "decimal"), {}),
    *_arrow("min", ("int",), {"last_value_func": "min"}),
    *_arrow("key-of-two", ("int",), {"primary_key": ["id", "v"]}),
    *_arrow("no-key", ("int",), {"primary_key": ()}),
    *_arrow("open-start", ("int",), {"range_start": "open"}),
    *_arrow("initial", ("time",), {"initial_value": lambda make: make(2)}),
    *_arrow("end", ("int", "time"), {"initial_value": lambda make: make(2), "end_value": lambda make: make(4)}),
    *_arrow("lag", ("int",), {"lag": 1}),
    *(
        _case(
            f"arrow-missing-{what}",
            [
                [pa.Table.from_pylist(list(rows), schema=pa.schema({"id": pa.int64(), "at": pa.int64()}))]
                for rows in MISSING
            ],  # type: ignore[list-item]
            {"on_cursor_value_missing": what},
        )
        for what in ("include", "exclude")
    ),
)
