"""The same calls on the same dataset, through both libraries: same columns, same rows."""

from __future__ import annotations

import datetime as dt
import json

import pytest

import asyncelt
from asyncelt.errors import QueryError
from tests.differential import relations_worker
from tests.reading.loaded import loaded

pytestmark = [pytest.mark.differential, pytest.mark.xdist_group("relations")]

CALLS = [
    "ds['items'].order_by('id')",
    "ds.items.select('name', 'id').order_by('id', 'desc')",
    "ds.table('items')[['id', 'price']].order_by('id').limit(2)",
    "ds['items'].limit(2).order_by('id', 'desc').where('id', 'lt', 3).select('id')",
    "ds['items'].where('id', 'in', [1, 3]).order_by('id').select('id')",
    "ds['items'].filter('id', 'not_in', [1, 3]).select('id')",
    "ds['items'].where('price > 2').where('id < 3').select('id')",
    "ds['items'].where('at', 'gte', '2024-01-02').order_by('id').select('id')",
    "ds['items'].where('name', 'ne', 'one').select('id')",
    "ds['items'].select('id').max()",
    "ds['items'].where('id', 'lt', 3).select('price').min()",
    "ds['items__tags'].join('items').order_by('tag').select('tag', 'items__id')",
    "ds['items'].join('items__tags', kind='left').where('id', 'ne', 2).order_by('id').select('id', 'items__tags__tag')",
    "ds['items'].join('items__tags__of').select('id', 'items__tags__of__z')",
    "ds['items'].join('owners', on='items.id = owners.item', alias='o').order_by('id').select('id', 'o__owner')",
    "ds['items'].order_by('id').limit(1).join('items__tags').select('id', 'items__tags__tag')",
    "ds('SELECT id, upper(name) AS u FROM items ORDER BY id')",
    "ds('SELECT count(*) AS n FROM items')",
    "ds.row_counts(table_names=['items', 'owners'])",
    "ds['_dlt_loads'].select('status', 'schema_name')",
    "ds['items__tags'].from_loads(['1']).select('tag')",
    "ds['items'].join('_dlt_loads').select('id', '_dlt_loads__status').order_by('id')",
    *(
        f"ds['items'].incremental(inc('{path}', on_cursor_value_missing='{missing}', {options})).order_by('id').select('id')"
        for path, missing, options in [
            ("id", "exclude", ""),
            ("id", "exclude", "initial_value=2"),
            ("id", "exclude", "initial_value=2, range_start='open'"),
            ("id", "exclude", "initial_value=1, end_value=3"),
            ("id", "exclude", "initial_value=1, end_value=3, range_end='closed'"),
            ("id", "exclude", "initial_value=2, last_value_func='min'"),
            ("id", "exclude", "initial_value=3, end_value=1, last_value_func='min', range_start='open'"),
            ("name", "exclude", "initial_value='p'"),
            ("name", "include", "initial_value='p'"),
            ("name", "include", ""),
            ("at", "exclude", "initial_value='2024-01-02T00:00:00Z'"),
            ("at", "exclude", "initial_value=dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc)"),
            ("at", "exclude", "initial_value=dt.datetime(2024, 1, 2)"),
            ("at", "exclude", "initial_value=dt.date(2024, 1, 2)"),
            ("_dlt_loads.inserted_at", "exclude", "initial_value=dt.datetime(2020, 1, 1)"),
        ]
    ),
    "ds['items__tags'].incremental(inc('items.id', 2, on_cursor_value_missing='exclude')).order_by('tag').select('tag')",
    "ds.table('items', incremental=inc('id', 3, on_cursor_value_missing='exclude')).select('id', 'name')",
    "ds('SELECT id, name FROM items').incremental(inc('ID', 3, on_cursor_value_missing='exclude'))",
    # Errors.
    "ds['items'].incremental(inc('nope'))",
    "ds['items'].incremental(inc('nope.id'))",
    "ds['items'].incremental(inc('owners.item', on_cursor_value_missing='include'))",
    "ds['items'].incremental(inc('$.id'))",
    "ds['items'].incremental(inc('id', last_value_func=len))",
    "ds['nope']",
    "ds['items'][['nope']]",
    "ds['items'].select('nope')",
    "ds('SELECT nope FROM items')",
    "ds('SELECT id FROM nope')",
    "ds('DELETE FROM items')",
]
NONE = "ds['items'].where('name', 'eq', None).select('id')"
NO_LOADS = "ds.table('items', load_ids=[]).order_by('id').select('id')"
EVERYTHING = [*CALLS, NONE, NO_LOADS]


@pytest.fixture(scope="module")
async def answers(anyio_backend, tmp_path_factory, dlt_nursery):
    """Ours beside theirs, by call."""
    folder = tmp_path_factory.mktemp("relations")
    pipeline = await loaded("duckdb", folder)
    ours = [await answer(pipeline.dataset(), call) for call in EVERYTHING]
    output = folder / "theirs.json"
    assert dlt_nursery.start(relations_worker.main, folder / "data.duckdb", EVERYTHING, output).wait() == 0
    theirs = json.loads(output.read_text())

    return dict(zip(EVERYTHING, zip(ours, theirs, strict=True), strict=True))


async def answer(ds, call):
    try:
        relation = eval(call, {"ds": ds, "inc": asyncelt.sources.incremental, "dt": dt})
        rows = await relation.fetchall()
    except QueryError as error:
        return {"error": type(error).__name__}

    return {"columns": relation.columns, "rows": [list(map(str, row)) for row in rows]}


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_both_give_the_same(answers, call):
    ours, theirs = answers[call]

    if "error" in ours:
        assert "error" in theirs
    elif theirs["columns"] == ["_col_0"]:
        # The reference has no name for an aggregate.
        assert ours["rows"] == theirs["rows"]
    else:
        assert ours == theirs


@pytest.mark.slow
def test_comparing_with_none_asks_for_a_value_that_is_missing(answers):
    """docs/reading.md: the reference compares with NULL, which is never true."""
    ours, theirs = answers[NONE]
    assert ours["rows"] == [["3"]]
    assert theirs["rows"] == []


@pytest.mark.slow
def test_rows_of_no_loads_are_none(answers):
    """docs/reading.md: the reference takes an empty list for none given, and reads the rows of all loads."""
    ours, theirs = answers[NO_LOADS]
    assert ours["rows"] == []
    assert theirs["rows"] == [["1"], ["2"], ["3"]]
