"""Every merge strategy over several runs, with its options."""

from __future__ import annotations

from collections.abc import Sequence

from tests.differential.cases import Case, Run, case

JANUARY, FEBRUARY, MARCH = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"
GROWING: tuple[list[dict[str, object]], ...] = (
    [
        {"id": 1, "v": "a", "lines": [{"n": 1, "tags": ["x", "y"]}, {"n": 2}]},
        {"id": 2, "v": "b", "lines": [{"n": 3}]},
        {"id": 3, "v": "c"},
    ],
    [
        {"id": 1, "v": "a2", "lines": [{"n": 1, "tags": ["z"]}]},
        {"id": 3, "v": "c", "lines": [{"n": 4, "tags": ["u", "v"]}, {"n": 5}]},
        {"id": 4, "v": "d", "lines": []},
    ],
    [{"id": 2, "v": "b", "lines": [{"n": 3}, {"n": 6}]}, {"id": 1, "v": "a3", "lines": []}],
)
"""Lists that grow, shrink, vanish and appear, two levels deep."""
FLAGGED: tuple[list[dict[str, object]], ...] = (
    [{"id": number, "gone": False, "l": [number]} for number in (1, 2, 3)],
    [{"id": 1, "gone": True}, {"id": 2, "gone": False, "l": [5, 6]}, {"id": 4, "gone": None, "l": [7]}],
)
FLAG = {"gone": {"hard_delete": True}}
REGIONS: tuple[list[dict[str, object]], ...] = (
    [
        {"id": 1, "region": "eu", "day": 1, "v": 1, "l": [1]},
        {"id": 2, "region": "eu", "day": 1, "v": 2, "l": [2, 3]},
        {"id": 3, "region": "us", "day": 1, "v": 3, "l": [4]},
        {"id": 4, "region": "eu", "day": 2, "v": 4},
    ],
    [{"id": 1, "region": "eu", "day": 1, "v": 9, "l": [9]}, {"id": 5, "region": "ap", "day": 1, "v": 5}],
)
HASHED = ("upsert", "insert-only", "cdc")


def _merge(strategy: str, **options: object) -> dict[str, object]:
    return {"disposition": "merge", "strategy": strategy, **options}


def _case(
    name: str,
    strategy: str,
    runs: Sequence[Sequence[object]],
    *,
    options: dict[str, object] | None = None,
    primary_key: object = "id",
    **more: object,
) -> Case:
    first, *then = runs
    random_ids = more.pop("random_ids", False)
    keys = {} if primary_key is None else {"primary_key": primary_key}

    return case(
        f"7.5-{strategy}-{name}",
        *first,
        then=then,
        exact_ids=strategy != "delete-insert" and not random_ids,
        write_disposition=_merge(strategy, **(options or {})),
        **keys,
        **more,  # type: ignore[arg-type]
    )


def _scd2(
    name: str, runs: Sequence[Sequence[object]], *, table: dict[str, object] | None = None, **options: object
) -> Case:
    """Each run has a boundary of its own, a day after that of the run before."""
    hints = table or {}
    random_ids = hints.pop("random_ids", None) is not None

    return Case(
        id=f"7.5-scd2-{name}",
        runs=tuple(
            Run(
                pages=(tuple(rows),),
                arguments={
                    "write_disposition": _merge("scd2", boundary_timestamp=f"2024-05-{at:02}T00:00:00Z", **options),
                    **{key: value for key, value in hints.items() if key != "merge_key"},
                },
                hints={key: value for key, value in hints.items() if key == "merge_key"},
            )
            for at, rows in enumerate(runs, start=1)
        ),
        exact_ids=not random_ids,
    )


CASES: tuple[Case, ...] = (
    _case("three-runs", "upsert", GROWING),
    _case("three-runs", "cdc", GROWING),
    _case("once", "insert-only", [GROWING[0], [*GROWING[0], {"id": 9, "v": "n", "lines": [{"n": 9}]}]]),
    _case("other-values", "insert-only", [GROWING[0], [{"id": 1, "v": "other"}, {"id": 5, "lines": [{"n": 1}]}]]),
    _case("key-of-text", "upsert", [[{"id": "x/1", "v": [1]}], [{"id": "x/1", "v": [2, 3]}, {"id": "é", "v": []}]]),
    *(
        _case(
            "compound-key",
            one,
            [[{"a": 1, "b": "x", "l": [1]}], [{"a": 1, "b": "x"}, {"a": 1, "b": "y", "l": [2]}]],
            primary_key=["b", "a"],
        )
        for one in HASHED
    ),
    *(_case("nothing-arrives", one, [GROWING[0], []]) for one in HASHED),
    *(
        _case("new-columns", one, [[{"id": 1}], [{"id": 1, "w": 2, "more": [1]}, {"id": 2, "w": 3}]])
        for one in HASHED[::2]
    ),
    *(_case("flag", one, FLAGGED, columns=FLAG) for one in ("upsert", "cdc")),
    _case(
        "flag", "insert-only", [FLAGGED[0], [{"id": 1, "gone": True}, {"id": 5, "gone": True}, {"id": 6}]], columns=FLAG
    ),
    _case(
        "flag-moment",
        "upsert",
        [[{"id": 1, "at": None}, {"id": 2, "at": None}], [{"id": 1, "at": JANUARY}, {"id": 2, "at": None}]],
        columns={"at": {"data_type": "timestamp", "hard_delete": True}},
    ),
    _case(
        "flagged-and-unknown",
        "cdc",
        [FLAGGED[0], [{"id": 9, "gone": True, "l": [1]}, {"id": 1, "gone": False}]],
        columns=FLAG,
    ),
    _case("merge-key", "upsert", REGIONS, hints={"merge_key": "region"}),
    _case("merge-key", "cdc", REGIONS, hints={"merge_key": "region"}),
    _case("two-merge-keys", "cdc", REGIONS, hints={"merge_key": ["region", "day"]}),
    _case("scope", "cdc", REGIONS, options={"destination_scope": "region = 'eu' AND {table}.day = 1"}),
    _case("filter", "upsert", REGIONS, options={"source_filter": "region <> 'ap'"}),
    _case("filter", "cdc", REGIONS, options={"source_filter": "region = 'eu'"}, hints={"merge_key": "region"}),
    *(_case("skip-unchanged", one, GROWING, options={"skip_unchanged_rows": True}) for one in ("upsert", "cdc")),
    _case(
        "skip-unchanged-with-nulls",
        "upsert",
        [
            [{"id": 1, "a": None, "b": 1}, {"id": 2, "a": 2, "b": 2}],
            [{"id": 1, "a": None, "b": 1}, {"id": 2, "a": None, "b": 2}],
        ],
        options={"skip_unchanged_rows": True},
    ),
    *(
        _case(
            "row-version",
            one,
            [
                [{"id": 1, "n": 1, "v": "a"}, {"id": 2, "n": 1, "v": "b"}, {"id": 3, "n": 1, "v": "c"}],
                [{"id": 1, "n": 1, "v": "A"}, {"id": 2, "n": 2, "v": "B"}, {"id": 3, "n": 1, "v": "c"}],
            ],
            options={"skip_unchanged_rows": True, "row_version_column_name": "n"},
        )
        for one in ("upsert", "cdc")
    ),
    _case("filter", "delete-insert", REGIONS, options={"source_filter": "region <> 'ap'"}),
    _case("scope", "delete-insert", REGIONS, options={"destination_scope": "region = 'eu'"}),
    _case("scope-without-keys", "delete-insert", REGIONS, options={"destination_scope": "day = 1"}, primary_key=None),
    _case("two-merge-keys", "delete-insert", REGIONS, hints={"merge_key": ["region", "day"]}, primary_key=None),
    _case("flag-without-keys", "delete-insert", FLAGGED, columns=FLAG, primary_key=None),
    *(
        _case(
            "nested-table-that-merges",
            one,
            [
                [{"id": 1, "lines": [{"n": 1, "t": [1]}, {"n": 2}]}, {"id": 2, "lines": [{"n": 3}]}],
                [{"id": 1, "lines": [{"n": 1, "w": 1}, {"n": 4, "t": [2, 3]}]}],
            ],
            nested_hints={"lines": {"primary_key": "n", "write_disposition": "merge"}},
            random_ids=True,
        )
        for one in ("delete-insert", "upsert")
    ),
    _scd2("three-runs", GROWING),
    _scd2(
        "flat", [[{"id": 1, "v": 1}, {"id": 2, "v": 2}], [{"id": 1, "v": 1}], [{"id": 2, "v": 2}, {"id": 1, "v": 3}]]
    ),
    _scd2("comes-back", [[{"id": 1, "l": [1]}], [{"id": 2, "l": [2]}], [{"id": 1, "l": [1]}]]),
    _scd2("nothing-arrives", [GROWING[0], []]),
    _scd2("new-column", [[{"id": 1}, {"id": 2}], [{"id": 1, "w": 1}, {"id": 2}]]),
    _scd2("merge-key", REGIONS, table={"merge_key": "region"}),
    _scd2("two-merge-keys", REGIONS, table={"merge_key": ["region", "day"]}),
    _scd2("natural-key", REGIONS, table={"merge_key": "id"}),
    _scd2("scope", REGIONS, destination_scope="region = 'eu'"),
    _scd2("filter", REGIONS, source_filter="region <> 'ap'"),
    _scd2("names", GROWING, validity_column_names=["since", "till"]),
    _scd2("active", GROWING, active_record_timestamp="9999-12-31T00:00:00Z"),
    _scd2("active-date", REGIONS, table={"merge_key": "id"}, active_record_timestamp="9999-12-31"),
    _scd2(
        "version-column",
        [
            [{"id": 1, "h": "x", "v": 1}, {"id": 2, "h": "y", "v": 2}],
            [{"id": 1, "h": "x", "v": 7}, {"id": 2, "h": "z", "v": 3}],
        ],
        table={"random_ids": True},
        row_version_column_name="h",
    ),
    _scd2("flag-is-data", FLAGGED, table={"columns": FLAG}),
    _scd2("nothing-arrives-twice-before", [[], [], [{"id": 1, "v": 0}]]),
    Case(
        id="7.5-scd2-boundary-is-forgotten-by-none",
        runs=(
            Run(pages=(({"id": 1},),), arguments={"write_disposition": _merge("scd2", boundary_timestamp=JANUARY)}),
            Run(pages=(({"id": 1},),), arguments={"write_disposition": _merge("scd2", boundary_timestamp=None)}),
        ),
        exact_ids=True,
    ),
    Case(
        id="7.6-append-then-upsert-flat",
        runs=(
            Run(pages=(({"id": 1, "v": 1}, {"id": 2, "v": 2}),)),
            Run(
                pages=(({"id": 1, "v": 3}, {"id": 3}),),
                arguments={"write_disposition": _merge("upsert"), "primary_key": "id"},
            ),
        ),
    ),
    Case(
        id="7.6-upsert-then-append",
        runs=(
            Run(pages=(tuple(GROWING[0]),), arguments={"write_disposition": _merge("upsert"), "primary_key": "id"}),
            Run(pages=(tuple(GROWING[1]),), arguments={"write_disposition": "append"}),
        ),
    ),
    Case(
        id="7.6-upsert-then-replace",
        runs=(
            Run(pages=(tuple(GROWING[0]),), arguments={"write_disposition": _merge("upsert"), "primary_key": "id"}),
            Run(pages=(tuple(GROWING[1]),), arguments={"write_disposition": "replace"}),
        ),
    ),
    Case(
        id="7.6-upsert-then-cdc-then-insert-only",
        runs=tuple(
            Run(pages=(tuple(rows),), arguments={"write_disposition": _merge(strategy), "primary_key": "id"})
            for strategy, rows in zip(
                ("upsert", "cdc", "insert-only"), (*GROWING[:2], [{"id": 4, "v": "x"}]), strict=True
            )
        ),
        exact_ids=True,
    ),
    Case(
        id="7.6-upsert-then-delete-insert",
        runs=tuple(
            Run(pages=(tuple(rows),), arguments={"write_disposition": _merge(strategy), "primary_key": "id"})
            for strategy, rows in zip(("upsert", "delete-insert"), GROWING[:2], strict=True)
        ),
    ),
)
