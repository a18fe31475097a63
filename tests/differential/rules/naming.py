"""Names of columns, tables and schemas."""

from __future__ import annotations

from tests.differential.cases import Case, Run, case

LONG = "averyveryverylongidentifier" * 4

CASES: tuple[Case, ...] = (
    case("5.2-camel-case", {"camelCase": 1, "HTTPServer": 2, "userID": 3, "UserIDs": 4, "XMLHttpRequest2": 5}),
    case("5.2-separators", {"a b": 1, "c.d": 2, "e/f": 3, "g-h": 4, "i,j;k": 5, " padded ": 6}),
    case("5.2-signs", {"x+y": 1, "x*z": 2, "u@mail": 3, "p|q": 4, "$ref": 5, "@type": 6, "100%": 7}),
    case("5.2-leading-digit", {"2024Sales": 1, "1st": "x", "9": 2.5}),
    case("5.2-not-ascii", {"café": 1, "Straße": 2, "日本": 3, "naïve": "x"}),
    case("5.2-not-ascii-collide", {"日本": 1, "emoji 😀": 2, "😀": 3}),
    case("5.2-underscores", {"name_": 1, "__name": 2, "a__b": 3, "name__": 4, "_": 5, "a___b": 6, "_x": 7}),
    case("5.2-path-of-camel-case", {"CamelCase__SnakeCase": 1, "CamelCase": {"SnakeCase2": 2}}),
    case("5.2-empty-keys", {"": 1, "a": 2}, {"   ": 3, "a": 4}),
    case("5.2-list-below-a-blank-key", {"a": {"": {"l": [1, 2]}}}, {"l": [{"": {"m": [{"x": 1}]}, "x": 1}]}),
    case("5.2-dict-under-a-blank-key", {"": {"x": 1}}, {"a": {"": {"x": 2}}}),
    case("5.2-keys-that-are-not-text", {1: "one", None: "none", 2.5: "float", True: "yes"}),
    case("5.2-collision-later-wins", {"aB": 1, "a_b": 2}, {"a_b": 3, "aB": 4}, {"a_b": 5, "aB": None}),
    case("5.2-collision-with-nested", {"a__b": 1, "a": {"b": 2}}, {"a": {"b": 3}, "a__b": 4}, {"a": {"b": 5}}),
    case("5.2-collision-of-lists", {"aB": [1, 2], "a_b": [3]}, {"a_b": [{"x": 1}], "aB": 5}),
    case("5.2-collision-of-kinds", {"aB": 1, "a_b": "text"}, {"a_b": "text", "aB": 1}),
    case("5.2-collision-over-rows", {"aB": 1}, {"a_b": 2}, {"AB": 3}),
    case("5.2-table-name", {"id": 1}, table_name="MyTable Name"),
    case("5.2-table-name-path", {"id": 1, "items": [{"x": 1}]}, table_name="Outer__Inner"),
    case("5.2-nested-table-names", {"lineItems": [{"Tax Lines": [{"amount%": 1}]}], "$extra": {"Sub List": [1]}}),
    case("5.2-long-names", {LONG: 1, "deep": {LONG: {LONG: 2}}, "list": [{LONG: 3}]}),
    case("5.2-reserved-words", {"select": 1, "order": 2, "from": {"group": [1]}, "table": "x"}),
    case("5.2-names-of-system-columns", {"id": 1, "_dlt_id": "mine"}, {"id": 2, "_dlt_id": "yours"}, exact_ids=True),
    case("5.2-a-load-id-of-the-users-own", {"id": 1, "_dlt_load_id": "mine"}),
    case("5.2-child-list-idx-of-the-users-own", {"id": 1, "list": [{"_dlt_list_idx": 7, "x": 1}]}),
    case("5.2-key-named-value-and-list", {"value": 1, "list": [[1], [2]]}, {"value": [1, {"value": 2}]}),
    case("5.2-case-only-collision", {"ID": 1, "id": 2, "Id": 3}),
    case("5.2-convention-direct", {"camelCase": 1, "a b": {"C d": [1]}}, naming="direct"),
    case("5.2-convention-sql-ci", {"camelCase": 1, "a b": {"C d": [1]}}, naming="sql_ci_v1"),
    case("5.2-convention-sql-cs", {"camelCase": 1, "a b": {"C d": [1]}}, naming="sql_cs_v1"),
    Case(
        id="5.2-another-convention-for-tables-with-data",
        runs=(Run(pages=(({"newCol": 1},),)), Run(pages=(({"newCol": 2},),), naming="direct")),
        raises="tableidentifiersfrozen",
    ),
    Case(
        id="5.2-another-convention-for-tables-without-data",
        runs=(
            Run(pages=((),), arguments={"columns": {"someCol": {"data_type": "text"}, "id": {"primary_key": True}}}),
            Run(pages=(({"id": 1, "someCol": 2, "l": [{"aB": 1}]},),), naming="sql_ci_v1"),
        ),
    ),
    case("5.2-convention-duck-case", {"camelCase": 1, "a b": {"C d": [1]}, "日本": 2}, naming="duck_case"),
)
