"""Write dispositions and strategies, and the ids that follow from them."""

from __future__ import annotations

from tests.differential.cases import Case, Run, case

ORDERS = (
    {"id": 1, "v": "a", "lines": [{"sku": "x", "n": 1}, {"sku": "y", "n": 2}]},
    {"id": 2, "v": "b", "lines": [{"sku": "z", "n": 3, "tags": ["p", "q"]}]},
)
CHANGED = ({"id": 2, "v": "B", "lines": [{"sku": "w", "n": 4}]}, {"id": 3, "v": "c", "lines": []})
MERGE = {"write_disposition": "merge"}


def _strategy(name: str, **options: object) -> dict[str, object]:
    return {"write_disposition": {"disposition": "merge", "strategy": name, **options}}


CASES: tuple[Case, ...] = (
    case("7.1-append-twice", *ORDERS, then=[ORDERS]),
    case("7.1-append-new-columns", {"id": 1}, then=[[{"id": 2, "a": 1}], [{"id": 3, "b": "x", "l": [1]}]]),
    case("7.2-replace", *ORDERS, then=[CHANGED], write_disposition="replace"),
    case("7.2-replace-by-nothing", *ORDERS, then=[[]], write_disposition="replace"),
    case("7.2-replace-by-rows-without-lists", *ORDERS, then=[[{"id": 9}]], write_disposition="replace"),
    case("7.2-replace-as-dict", *ORDERS, then=[CHANGED], write_disposition={"disposition": "replace"}),
    Case(
        id="7.2-append-then-replace",
        runs=(Run(pages=(ORDERS,)), Run(pages=(CHANGED,), arguments={"write_disposition": "replace"})),
    ),
    Case(
        id="7.2-replace-leaves-other-tables",
        runs=(
            Run(pages=(ORDERS,), table_name="kept"),
            Run(pages=(ORDERS,), table_name="changed"),
            Run(pages=(CHANGED,), table_name="changed", arguments={"write_disposition": "replace"}),
        ),
    ),
    case("7.4-merge-by-primary-key", *ORDERS, then=[CHANGED], primary_key="id", **MERGE),
    case("7.4-merge-flat", {"id": 1, "v": 1}, {"id": 2, "v": 2}, then=[[{"id": 2, "v": 3}]], primary_key="id", **MERGE),
    case("7.4-merge-by-merge-key", *ORDERS, then=[CHANGED], hints={"merge_key": "id"}, **MERGE),
    case(
        "7.4-merge-key-keeps-duplicates",
        {"day": 1, "v": 1},
        {"day": 1, "v": 1},
        {"day": 2, "v": 2},
        then=[[{"day": 1, "v": 9}]],
        hints={"merge_key": "day"},
        **MERGE,
    ),
    case("7.4-merge-by-both-keys", *ORDERS, then=[CHANGED], primary_key="id", hints={"merge_key": "v"}, **MERGE),
    case("7.4-merge-without-keys", *ORDERS, then=[CHANGED], **MERGE),
    case(
        "7.4-merge-by-two-keys",
        {"a": 1, "b": 1, "v": 1},
        then=[[{"a": 1, "b": 1, "v": 2}, {"a": 1, "b": 2, "v": 3}]],
        primary_key=["a", "b"],
        **MERGE,
    ),
    case(
        "7.4-duplicates-in-one-load-by-dedup-sort",
        {"id": 1, "at": 3, "v": "c"},
        {"id": 1, "at": 5, "v": "e"},
        {"id": 1, "at": 4, "v": "d"},
        primary_key="id",
        columns={"at": {"dedup_sort": "desc"}},
        **MERGE,
    ),
    case(
        "7.4-duplicates-in-one-load-by-dedup-sort-asc",
        {"id": 1, "at": 3, "v": "c", "l": [1]},
        {"id": 1, "at": 5, "v": "e", "l": [2]},
        primary_key="id",
        columns={"at": {"dedup_sort": "asc"}},
        **MERGE,
    ),
    case(
        "7.4-hard-delete-bool",
        *({"id": number, "gone": False, "l": [number]} for number in (1, 2, 3)),
        then=[[{"id": 1, "gone": True}, {"id": 2, "gone": False, "l": [5]}, {"id": 7, "gone": True}]],
        primary_key="id",
        columns={"gone": {"hard_delete": True}},
        **MERGE,
    ),
    case(
        "7.4-hard-delete-moment",
        {"id": 1, "at": None},
        {"id": 2, "at": None},
        then=[[{"id": 1, "at": "2024-01-02T03:04:05Z"}]],
        primary_key="id",
        columns={"at": {"data_type": "timestamp", "hard_delete": True}},
        **MERGE,
    ),
    case(
        "7.4-hard-delete-and-dedup-sort",
        {"id": 1, "n": 1, "gone": False},
        then=[
            [
                {"id": 1, "n": 2, "gone": True},
                {"id": 1, "n": 3, "gone": False},
                {"id": 2, "n": 1, "gone": False},
                {"id": 2, "n": 2, "gone": True},
            ]
        ],
        primary_key="id",
        columns={"gone": {"hard_delete": True}, "n": {"dedup_sort": "desc"}},
        **MERGE,
    ),
    case(
        "7.4-not-deduplicated",
        *ORDERS,
        then=[CHANGED],
        primary_key="id",
        **_strategy("delete-insert", deduplicated=True),
    ),
    case(
        "7.4-new-column-while-merging",
        *ORDERS,
        then=[[{"id": 1, "v": "a", "w": 5, "more": [1]}]],
        primary_key="id",
        **MERGE,
    ),
    case(
        "7.4-deep-nested",
        {"id": 1, "a": [{"b": [{"c": [1]}]}]},
        then=[[{"id": 1, "a": [{"b": [{"c": [2, 3]}]}]}]],
        primary_key="id",
        **MERGE,
    ),
    case("7.4-merge-nothing", *ORDERS, then=[[]], primary_key="id", **MERGE),
    case(
        "7.4-key-of-text",
        {"id": "x", "v": 1},
        then=[[{"id": "x", "v": 2}, {"id": "y", "v": 3}]],
        primary_key="id",
        **MERGE,
    ),
    case(
        "7.4-key-with-odd-name", {"User ID": 1, "v": 1}, then=[[{"User ID": 1, "v": 2}]], primary_key="User ID", **MERGE
    ),
    case("7.5-upsert", *ORDERS, then=[CHANGED], primary_key="id", exact_ids=True, **_strategy("upsert")),
    case("7.5-upsert-without-key", *ORDERS, then=[CHANGED], raises="primary", **_strategy("upsert")),
    case("7.5-insert-only", *ORDERS, then=[CHANGED], primary_key="id", exact_ids=True, **_strategy("insert-only")),
    case(
        "7.5-upsert-two-keys",
        {"b": "é", "a": 1.5, "v": [1]},
        primary_key=["b", "a"],
        exact_ids=True,
        **_strategy("upsert"),
    ),
    case(
        "7.5-scd2",
        *ORDERS,
        then=[CHANGED],
        exact_ids=True,
        **_strategy("scd2", boundary_timestamp="2024-01-02T03:04:05Z"),
    ),
    case(
        "7.5-scd2-flat-unchanged",
        {"id": 1, "v": "a"},
        {"id": 2, "v": "b"},
        then=[[{"id": 1, "v": "a"}, {"id": 2, "v": "B"}], [{"id": 1, "v": "A"}]],
        exact_ids=True,
        **_strategy("scd2", boundary_timestamp="2024-01-02T03:04:05Z"),
    ),
    Case(
        id="7.6-append-then-merge-flat",
        runs=(
            Run(pages=(({"id": 1, "v": 1}, {"id": 2, "v": 2}),)),
            Run(pages=(({"id": 1, "v": 3},),), arguments={"write_disposition": "merge", "primary_key": "id"}),
        ),
    ),
    Case(
        id="7.6-merge-then-append",
        runs=(
            Run(pages=(ORDERS,), arguments={"write_disposition": "merge", "primary_key": "id"}),
            Run(pages=(CHANGED,), arguments={"write_disposition": "append"}),
        ),
    ),
)
