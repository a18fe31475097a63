"""How one item becomes rows of a table and of the tables below it."""

from __future__ import annotations

from tests.differential.cases import Case, Run, case

DEEP = {"a": {"b": {"c": {"d": [{"e": {"f": [{"g": 1}]}}]}}}}
MIXED_LIST = [1, "two", {"x": 3}, [4, [5]], None, 2.5]

CASES: tuple[Case, ...] = (
    case(
        "5.4-flat", {"id": 1, "name": "a", "price": 1.5, "ok": True}, {"id": 2, "name": "b", "price": 2.5, "ok": False}
    ),
    case("5.4-scalars-become-value", 1, 2, 3),
    case("5.4-text-becomes-value", "a", "b"),
    case("5.4-nested-dicts", {"id": 1, "a": {"x": 1, "y": {"z": 2}}}),
    case("5.4-column-order", {"a": {"x": 1}, "b": {"y": 2}, "c": 3}),
    case("5.4-column-order-deep", {"a": {"x": {"p": 1}, "y": 2}, "b": 3, "c": {"z": {"q": 4}, "w": {"r": 5}}}),
    case("5.4-column-order-over-rows", {"b": 1}, {"a": 1, "b": 2}, {"c": {"x": 1}, "a": 2, "d": 5}),
    case("5.4-empty-dict-and-list", {"id": 1, "d": {}, "l": []}, {"id": 2, "d": {"x": {}}, "l": [[]]}),
    case("5.4-list-of-dicts", {"id": 1, "l": [{"x": 1}, {"x": 2, "y": "s"}]}, {"id": 2, "l": []}, {"id": 3}),
    case("5.4-list-of-scalars", {"id": 1, "l": [1, 2, 3]}, {"id": 2, "l": ["a"]}),
    case("5.4-list-of-lists", {"id": 1, "l": [[1, 2], [3]]}, {"id": 2, "l": [[[4]], []]}),
    case("5.4-list-of-lists-of-dicts", {"id": 1, "l": [[{"x": 1}, {"x": 2}], [{"y": 3}]]}),
    case("5.4-mixed-list", {"id": 1, "l": MIXED_LIST}),
    case("5.4-mixed-list-other-order", {"id": 1, "l": list(reversed(MIXED_LIST))}, {"id": 2, "l": MIXED_LIST}),
    case("5.4-none-in-list", {"id": 1, "l": [None, 1, None]}),
    case("5.4-only-none-in-list", {"id": 1, "l": [None, None]}),
    case("5.4-list-of-empty-dicts", {"id": 1, "l": [{}, {}]}),
    case("5.4-dict-in-list-in-dict", {"id": 1, "a": {"b": [{"c": {"d": 1}, "e": [2]}]}}),
    case("5.4-deep", DEEP, {"a": {"b": {"c": {"d": []}}}}, {"a": {"b": 1}}),
    case("5.4-dict-here-scalar-there", {"v": {"x": 1}}, {"v": 2}, {"v": {"x": 3, "y": 4}}),
    case("5.4-list-here-scalar-there", {"v": [1, 2]}, {"v": 3}, {"v": ["x"]}),
    case("5.4-dict-here-list-there", {"v": {"x": 1}}, {"v": [{"x": 2}]}, {"v": {"x": [3]}}),
    case("5.4-all-kinds-in-one-key", {"v": 1}, {"v": "a"}, {"v": [1]}, {"v": {"k": 1}}, {"v": None}, {"v": True}),
    case("5.4-nested-kinds-in-one-key", {"a": {"v": 1}}, {"a": {"v": [1]}}, {"a": [{"v": 1}]}, {"a": "x"}),
    case("5.4-tables-of-two-paths-meet", {"a": {"b": [{"x": 1}]}, "a__b": [{"x": "s"}]}),
    case("5.4-tuple-is-a-list", {"id": 1, "l": (1, 2)}, {"id": 2, "l": ({"x": 1},)}),
    case("5.4-tables-in-order-of-sight", {"z": [{"x": 1}], "a": [{"x": 1}]}, {"m": [{"y": [1]}], "b": [1]}),
    case("5.4-list-under-key-named-as-table", {"items": [{"items": [{"items": 1}]}]}),
    case("5.4-max-nesting-0", {"id": 1, "d": {"x": [1]}, "l": [{"y": 2}]}, hints={"max_table_nesting": 0}),
    case("5.4-max-nesting-1", {"id": 1, "d": {"x": {"z": 1}}, "l": [{"y": [2]}]}, hints={"max_table_nesting": 1}),
    case("5.4-max-nesting-2", {"d": {"x": {"z": {"w": [1]}}}, "l": [{"y": [[2]]}]}, hints={"max_table_nesting": 2}),
    case(
        "5.4-json-column",
        {"id": 1, "d": {"x": [1, {"y": 2.5}]}},
        {"id": 2, "d": {}},
        columns={"d": {"data_type": "json"}},
    ),
    case(
        "5.4-json-column-of-a-list",
        {"id": 1, "l": [1, "a", None]},
        {"id": 2, "l": []},
        columns={"l": {"data_type": "json"}},
    ),
    case(
        "5.4-json-column-nested",
        {"id": 1, "d": {"e": {"x": 1}, "f": 2}},
        columns={"d__e": {"data_type": "json"}},
    ),
    case(
        "5.4-pseudo-root",
        {"id": 1, "l": [{"key": 10, "x": 1, "deep": [{"z": 1}]}]},
        nested_hints={"l": {"primary_key": "key", "write_disposition": "append"}},
    ),
    case("5.7-none-is-dropped", {"id": 1, "a": None, "b": 2}, {"id": 2, "a": 3}),
    case("5.7-only-none", {"id": 1, "never": None}, {"id": 2, "never": None}),
    case("5.7-only-none-in-nested", {"id": 1, "l": [{"never": None, "x": 1}], "d": {"never": None}}),
    case("5.7-none-then-value-in-a-later-run", {"id": 1, "a": None}, then=[[{"id": 2, "a": "x"}]]),
    case("5.7-null-where-column-is-known", {"id": 1, "a": 1, "d": {"x": 1}}, then=[[{"id": 2, "a": None, "d": None}]]),
    case(
        "5.7-not-nullable-null",
        {"id": 1, "a": None},
        raises="null",
        columns={"a": {"data_type": "text", "nullable": False}},
    ),
    case("5.7-not-nullable-missing", {"id": 1}, raises="null", columns={"a": {"data_type": "text", "nullable": False}}),
    case("5.7-incomplete-column", {"id": 1, "a": 5}, columns={"a": {"description": "later"}}),
    case("5.7-incomplete-column-never-seen", {"id": 1}, columns={"a": {"description": "later"}}),
    case("5.7-primary-key-never-seen", {"id": 1}, raises="key", primary_key="key"),
    case("5.11-nothing"),
    case("5.11-nothing-then-something", then=[[{"id": 1}]]),
    case("5.11-something-then-nothing", {"id": 1}, then=[[]]),
    case("5.11-empty-item", {}, {"id": 1}),
    case("5.11-none-item", None, {"id": 1}, None),
    case("5.11-only-empty-items", {}, {}),
    case("5.11-hinted-columns-without-data", columns={"a": {"data_type": "bigint"}}),
    Case(
        id="5.11-two-tables",
        runs=(Run(pages=(({"id": 1},),), table_name="a"), Run(pages=(({"id": 2, "l": [1]},),), table_name="b")),
    ),
    Case(
        id="5.4-several-pages",
        runs=(Run(pages=(({"id": 1, "l": [1]},), ({"id": "x"}, {"id": 2.5}), ({"l": [{"y": 1}]},))),),
    ),
)
