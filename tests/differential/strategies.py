"""Documents as hypothesis draws them: nested, uneven, of mixed types, with odd names, several runs over one schema."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.differential.cases import Case, Run

__all__ = ["append_cases", "keyed_cases", "steady_cases"]

NAMES = (
    "id",
    "a",
    "aB",
    "a_b",
    "A",
    "a__b",
    "list",
    "value",
    "items",
    "b",
    "1x",
    "x y",
    "",
    "日本",
    "_c",
    "c_",
    "@d",
    "select",
)
PLAIN_NAMES = ("a", "b", "c", "list", "value", "items", "Camel Name")
TEXTS = (
    "",
    "x",
    "12",
    "-3.5",
    "0x1F",
    "true",
    "yes",
    "2024-01-02T03:04:05Z",
    "2024-01-02 03:04:05+02:00",
    "2024-01-02",
    "[1]",
    "日本 '\"\\",
)

integers = st.integers(-5, 5) | st.sampled_from((2**31, 2**53 + 1, -(2**63), 2**63 - 1, 1_700_000_000))
floats = st.sampled_from((0.0, -0.0, 0.5, 2.0, -1.25, 1e16, 1e-7, 1.7e9)) | st.floats(-1e9, 1e9, width=32)
texts = st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
scalars = st.none() | st.booleans() | integers | floats | texts


def _values(names: st.SearchStrategy[str], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3).map(_without_blank_list),
        max_leaves=6,
    )


def _rows(names: st.SearchStrategy[str], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(names, _values(names, leaves), max_size=5).map(_without_blank_list)


def _without_blank_list(row: dict[str, Any]) -> dict[str, Any]:
    """The reference puts the elements of such a list into a table of another path: a departure of its own."""
    return {key: value for key, value in row.items() if key or not isinstance(value, list)}


def _runs(rows: st.SearchStrategy[Any], **arguments: object) -> st.SearchStrategy[tuple[Run, ...]]:
    page = st.lists(rows, max_size=4).map(tuple)
    run = st.lists(page, min_size=1, max_size=2).map(lambda pages: Run(pages=tuple(pages), arguments=arguments))

    return st.lists(run, min_size=1, max_size=3).map(tuple)


def append_cases() -> st.SearchStrategy[Case]:
    """Anything that JSON can say, any kind at any place, appended in one to three runs."""
    rows = _rows(st.sampled_from(NAMES), scalars)

    return _runs(rows).map(lambda runs: Case(id="fuzz-append", runs=runs))


def steady_cases() -> st.SearchStrategy[Case]:
    """Documents whose keys keep their kinds: deep and uneven, but without a variant column."""
    leaves = {"a": integers, "b": st.sampled_from(TEXTS[:3]), "c": st.booleans(), "Camel Name": floats.filter(bool)}
    leaf = st.fixed_dictionaries({}, optional=leaves)
    tree = st.recursive(
        leaf,
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                **leaves,
                "items": st.lists(inner, max_size=3),
                "sub": inner,
                "tags": st.lists(integers, max_size=3),
            },
        ),
        max_leaves=8,
    )

    return _runs(tree).map(lambda runs: Case(id="fuzz-steady", runs=runs))


@st.composite
def keyed_cases(draw: st.DrawFn) -> Case:
    """Rows with a key under a write disposition that may change from run to run."""
    value = st.none() | integers.filter(lambda number: abs(number) < 10)
    row = st.fixed_dictionaries(
        {"id": st.integers(1, 4), "v": st.integers(0, 3)},
        optional={
            "w": value,
            "lines": st.lists(
                st.fixed_dictionaries(
                    {"n": st.integers(0, 3)}, optional={"tags": st.lists(st.integers(0, 2), max_size=2)}
                ),
                max_size=3,
            ),
        },
    )
    rows = st.lists(row, max_size=4, unique_by=lambda item: item["id"]).map(tuple)
    keyed = draw(st.sampled_from(("merge", "replace", "append")))
    disposition: object = keyed

    if keyed in {"upsert", "insert-only"}:
        disposition = {"disposition": "merge", "strategy": keyed}

    arguments = {"write_disposition": disposition, "primary_key": "id"}
    runs = draw(st.lists(rows, min_size=1, max_size=3))

    return Case(
        id=f"fuzz-{keyed}",
        runs=tuple(Run(pages=(page,), arguments=arguments) for page in runs),
        exact_ids=keyed in {"upsert", "insert-only"},
    )
