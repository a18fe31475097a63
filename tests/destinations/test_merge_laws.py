"""Laws of merging, over random loads: SQL does what the plain code does; cutting and repeating loads changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from sqlglot import exp

from asyncelt.destinations.duckdb_impl.types import duckdb_type
from asyncelt.destinations.memory_impl.merge import merge_chain
from asyncelt.destinations.sql import ddl
from asyncelt.destinations.sql.merge import MergePlan, merge_statements
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.flow import ROOT_ROW
from asyncelt.schema.model import Column
from asyncelt.testing.merging import child_table, key, root_table
from asyncelt.testing.strategies import by_strategy
from asyncelt.testing.versioning import versions_table
from tests.support.fuzzing import examples

CREATED_AT = 1_700_000_000.0
DATASET = Dataset("d")


@dataclass(frozen=True)
class Document:
    """A row: key, partition, value, order, flag, and a nested list of nested lists."""

    key: int
    part: int
    value: int | None
    at: int | None
    gone: bool | None
    lists: tuple[tuple[int, ...], ...]


documents = st.builds(
    Document,
    key=st.integers(0, 3),
    part=st.integers(0, 1),
    value=st.none() | st.integers(0, 2),
    at=st.none() | st.integers(0, 2),
    gone=st.none() | st.booleans(),
    lists=st.lists(st.lists(st.integers(0, 9), max_size=2).map(tuple), max_size=2).map(tuple),
)
loads = st.lists(st.lists(documents, max_size=5), min_size=1, max_size=4)
BY_KEY = st.sampled_from(["delete-insert", "upsert", "insert-only"])
STRATEGIES = st.sampled_from(["delete-insert", "upsert", "insert-only", "cdc", "scd2"])


def chain_of(strategy, *, merge_key=False, flag=False, order=None, skip_unchanged=False):
    part = key("part", merge_key=True) if merge_key else Column(name="part", data_type="bigint")
    columns = {
        "part": part,
        "value": Column(name="value", data_type="bigint"),
        "at": Column(name="at", data_type="bigint", dedup_sort=order),
        "gone": Column(name="gone", data_type="bool", hard_delete=flag),
    }

    if strategy == "scd2":
        root = versions_table(key("id"), *columns.values())[0]
    else:
        root = by_strategy(root_table(id=key("id"), **columns), strategy)

    if skip_unchanged:
        root = by_strategy(root, strategy, **{"x-merge-skip-unchanged-rows": True})

    with_root = strategy != "scd2"
    items = child_table("orders__items", "orders", root_key=with_root)

    return (root, items, child_table("orders__items__tags", "orders__items", root_key=with_root))


def staged_of(chain, load, number):
    """The rows of one load as the normalizer makes them."""
    rows = {one.name: [] for one in chain}
    by_content = chain[0].hints["x-merge-strategy"] == "scd2"

    for at, one in enumerate(load):
        own = str(one) if by_content else f"k{one.key}"
        data = {"id": one.key, "part": one.part, "value": one.value, "at": one.at, "gone": one.gone}
        rows["orders"].append({**data, "_dlt_load_id": str(number), "_dlt_id": own, ROOT_ROW: at})

        for place, tags in enumerate(one.lists):
            item = f"{own}-{place}"
            link = {"_dlt_root_id": own, "_dlt_list_idx": place, ROOT_ROW: at}
            rows["orders__items"].append({"value": len(tags), "_dlt_parent_id": own, "_dlt_id": item, **link})

            for inner, tag in enumerate(tags):
                link = {"_dlt_root_id": own, "_dlt_list_idx": inner, ROOT_ROW: at}
                nested = {"value": tag, "_dlt_parent_id": item, "_dlt_id": f"{item}-{inner}", **link}
                rows["orders__items__tags"].append(nested)

    return {
        one.name: pa.Table.from_pylist(rows[one.name], schema=schema_of(one).append(pa.field(ROOT_ROW, pa.int64())))
        for one in chain
        if rows[one.name]
    }


def schema_of(one):
    types = {"bigint": pa.int64(), "text": pa.string(), "bool": pa.bool_(), "timestamp": pa.timestamp("us", "UTC")}

    return pa.schema([pa.field(name, types[spec.data_type]) for name, spec in one.columns.items()])


def by_rows(chain, strategy, batches):
    found = {one.name: schema_of(one).empty_table() for one in chain}

    for number, load in enumerate(batches):
        found = merge_chain(chain, found, staged_of(chain, load, number), strategy, CREATED_AT + number)

    return {name: data.to_pylist() for name, data in found.items()}


def bounds_of(connection, name):
    """Of the keys of the staged root rows."""
    row = connection.execute(f'SELECT min("id"), max("id"), min("part"), max("part") FROM "s_{name}"').fetchone()
    low_id, high_id, low_part, high_part = (None if one is None else exp.Literal.number(one) for one in row)

    return {} if low_id is None else {"id": (low_id, high_id), "part": (low_part, high_part)}


def by_sql(chain, strategy, batches, *, bounded=False):
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(ddl.create_dataset(DATASET, "duckdb"))

        for one in chain:
            connection.execute(
                ddl.create_table(DATASET, one.name, one.columns.values(), duckdb_type, "duckdb").replace("NOT NULL", "")
            )

        for number, load in enumerate(batches):
            staged = staged_of(chain, load, number)

            for name, data in staged.items():
                connection.register("arriving", data)
                connection.execute(f'CREATE OR REPLACE TEMP TABLE "s_{name}" AS FROM arriving')

            plan = MergePlan(
                dataset=DATASET,
                chain=chain,
                staged={name: table(f"s_{name}") for name in staged},
                existing=frozenset(one.name for one in chain),
                arrival=lambda: exp.column("rowid"),
                keeps_order=True,
                dialect="duckdb",
                strategy=strategy,
                created_at=CREATED_AT + number,
                bounds=partial(bounds_of, connection, chain[0].name) if bounded else dict,
            )

            for statement in merge_statements(plan):
                connection.execute(statement.sql, statement.parameters)

        return {
            one.name: connection.execute(f'FROM d."{one.name}"').to_arrow_table().cast(schema_of(one)).to_pylist()
            for one in chain
        }


def bag(rows, *, without=()):
    return {
        name: sorted(repr({k: v for k, v in row.items() if k not in without}) for row in of)
        for name, of in rows.items()
    }


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@settings(max_examples=examples(30), deadline=None, report_multiple_bugs=False)
@given(
    batches=loads,
    strategy=STRATEGIES,
    merge_key=st.booleans(),
    flag=st.booleans(),
    order=st.sampled_from([None, "asc", "desc"]),
    skip_unchanged=st.booleans(),
    bounded=st.booleans(),
)
def test_sql_does_what_the_plain_code_does(batches, strategy, merge_key, flag, order, skip_unchanged, bounded):
    chain = chain_of(strategy, merge_key=merge_key, flag=flag, order=order, skip_unchanged=skip_unchanged)

    assert bag(by_sql(chain, strategy, batches, bounded=bounded)) == bag(by_rows(chain, strategy, batches))


@settings(max_examples=60, deadline=None)
@given(batches=loads, strategy=BY_KEY, flag=st.booleans())
def test_it_does_not_matter_how_rows_are_cut_into_loads(batches, strategy, flag):
    chain = chain_of(strategy, flag=flag)
    whole = [[row for load in batches for row in load]]
    one_by_one = [[row] for row in whole[0]]
    expected = bag(by_rows(chain, strategy, whole), without={"_dlt_load_id"})

    assert bag(by_rows(chain, strategy, batches), without={"_dlt_load_id"}) == expected
    assert bag(by_rows(chain, strategy, one_by_one), without={"_dlt_load_id"}) == expected


@settings(max_examples=60, deadline=None)
@given(
    batches=loads,
    strategy=STRATEGIES,
    merge_key=st.booleans(),
    flag=st.booleans(),
    order=st.sampled_from([None, "asc", "desc"]),
)
def test_a_load_that_comes_twice_is_as_good_as_once(batches, strategy, merge_key, flag, order):
    chain = chain_of(strategy, merge_key=merge_key, flag=flag, order=order)
    once = by_rows(chain, strategy, batches)
    twice = by_rows(chain, strategy, [*batches, batches[-1]])

    assert bag(twice, without={"_dlt_load_id"}) == bag(once, without={"_dlt_load_id"})


@pytest.mark.covers("probe.8.nested", "probe.8.duplicates")
@settings(max_examples=60, deadline=None)
@given(batches=loads, strategy=STRATEGIES, merge_key=st.booleans(), flag=st.booleans())
def test_every_nested_row_hangs_below_a_row_and_keys_are_unique(batches, strategy, merge_key, flag):
    chain = chain_of(strategy, merge_key=merge_key, flag=flag)
    found = by_rows(chain, strategy, batches)

    for one in chain[1:]:
        ids = {row["_dlt_id"] for row in found[one.parent]}
        assert all(row["_dlt_parent_id"] in ids for row in found[one.name])
        assert len({row["_dlt_id"] for row in found[one.name]}) == len(found[one.name])

    # Versions of one key in two groups of a merge key know nothing of each other.
    group = ("id", "part") if strategy == "scd2" and merge_key else ("id",)
    active = [row for row in found["orders"] if strategy != "scd2" or row["_dlt_valid_to"] is None]
    assert len({tuple(row[name] for name in group) for row in active}) == len(active)
