"""Write dispositions through whole runs: what commits, what is refused, what readers see meanwhile."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.errors import ConfigError, PipelineStepFailed
from asyncelt.failpoints import installed

Row = dict[str, object]
STRATEGIES = ("delete-insert", "upsert", "insert-only", "cdc")
LINKS = """
SELECT items.id, l.n, t.value FROM items
LEFT JOIN items__l l ON l._dlt_parent_id = items._dlt_id AND l._dlt_root_id = items._dlt_id
LEFT JOIN items__l__t t ON t._dlt_parent_id = l._dlt_id AND t._dlt_root_id = items._dlt_id ORDER BY ALL
"""


def merge(strategy: str, **options: object) -> dict[str, object]:
    """Arguments of run."""
    return {
        "table_name": "items",
        "write_disposition": {"disposition": "merge", "strategy": strategy, **options},
        "primary_key": "id",
    }


class Dataset:
    """A pipeline into a DuckDB database of this process, which others can read while it is written."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.connection = duckdb.connect(":memory:")
        limits = asyncelt.Limits(gather_rows=1, normalize_workers=2, buffer_max_items=2)
        self.pipeline = asyncelt.pipeline(
            "p",
            destination=destinations.duckdb(self.connection, **options),  # type: ignore[arg-type]
            dataset_name="data",
            pipelines_dir=folder / "work",
            settings=asyncelt.Settings(limits=limits),
        )

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        cursor = self.connection.cursor()
        cursor.execute("USE data")

        return cursor.execute(sql).fetchall()

    async def run(self, *pages: Sequence[Row], **arguments: object) -> None:
        async def source() -> AsyncIterator[list[Row]]:
            for page in pages:
                yield list(page)

        await self.pipeline.run(source(), **arguments)  # type: ignore[arg-type]


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path)


@pytest.mark.covers("disposition.skip")
async def test_a_skipped_resource_is_not_run_at_all(dataset):
    started = []

    @asyncelt.resource(write_disposition="skip", columns={"id": {"data_type": "bigint"}})
    async def skipped():
        started.append(1)
        asyncelt.current.resource_state()["position"] = 1
        yield {"id": 1}

    await dataset.pipeline.run([skipped(), asyncelt.resource([{"id": 1}], name="kept")])
    await dataset.run([{"id": 2}], table_name="kept", write_disposition="skip")

    assert started == []
    assert dataset.ask("SELECT id FROM kept") == [(1,)]
    assert ("skipped",) not in dataset.ask("SHOW TABLES")
    assert "position" not in str(dataset.pipeline.state)


async def test_a_nested_table_of_its_own_may_be_skipped(dataset):
    rows = asyncelt.resource([{"id": 1, "l": [{"n": 1}], "m": [{"n": 2}]}], name="items")
    rows.apply_hints(nested_hints={"l": {"write_disposition": "skip", "primary_key": "n"}})
    await dataset.pipeline.run(rows)

    tables = [name for (name,) in dataset.ask("SHOW TABLES")]
    assert "items__m" in tables
    assert "items__l" not in tables


@pytest.mark.parametrize("strategy", ["delete-insert", "upsert"])
async def test_a_nested_table_with_keys_of_its_own_is_appended_to_unless_it_says_otherwise(dataset, strategy):
    for value in (1, 2):
        rows = asyncelt.resource([{"id": 1, "l": [{"n": 1, "t": [value]}]}], name="items")
        rows.apply_hints(nested_hints={"l": {"primary_key": "n"}})
        await dataset.pipeline.run(rows, **{**merge(strategy), "table_name": None})

    assert dataset.ask("SELECT count(*) FROM items") == [(1,)]
    found = "SELECT l.n, t.value FROM items__l l JOIN items__l__t t ON t._dlt_parent_id = l._dlt_id ORDER BY ALL"
    assert dataset.ask(found) == [(1, 1), (1, 2)]


@pytest.mark.covers("disposition.replace.truncate-and-insert", "disposition.replace.insert-from-staging")
@pytest.mark.parametrize("strategy", ["truncate-and-insert", "insert-from-staging"])
async def test_readers_never_see_a_replaced_table_empty(tmp_path, strategy):
    dataset = Dataset(tmp_path, replace_strategy=strategy)
    seen = []

    def look(point):
        if point == "duckdb.before_commit":
            seen.append(dataset.ask("SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM items__l)"))

    await dataset.run([{"id": 1, "l": [1]}, {"id": 2, "l": [2, 3]}], table_name="items", write_disposition="replace")

    with installed(look):
        await dataset.run([{"id": 3, "l": [4]}], table_name="items", write_disposition="replace")

    assert seen == [[(2, 3)]]
    assert dataset.ask("SELECT id FROM items") == [(3,)]
    assert dataset.ask("SELECT value FROM items__l") == [(4,)]


@pytest.mark.covers("disposition.replace.truncate-and-insert", "disposition.replace.insert-from-staging")
@pytest.mark.parametrize("strategy", ["truncate-and-insert", "insert-from-staging"])
async def test_a_replace_that_fails_leaves_the_old_rows(tmp_path, strategy):
    dataset = Dataset(tmp_path, replace_strategy=strategy)
    await dataset.run([{"id": 1, "v": 1}], table_name="items", write_disposition="replace")
    dataset.connection.execute("ALTER TABLE data.items ALTER v TYPE TINYINT")

    with pytest.raises(PipelineStepFailed, match="items"):
        await dataset.run([{"id": 2, "v": 2}, {"id": 3, "v": 1000}], table_name="items", write_disposition="replace")

    assert dataset.ask("SELECT id FROM items") == [(1,)]


@pytest.mark.covers("disposition.replace.staging-optimized")
async def test_what_a_destination_cannot_do_is_refused_before_anything_is_read(tmp_path, dataset):
    with pytest.raises(ConfigError, match=r"replace strategy 'staging-optimized'.*truncate-and-insert"):
        await dataset.run(
            [], table_name="t", write_disposition={"disposition": "replace", "strategy": "staging-optimized"}
        )

    with pytest.raises(ConfigError, match="replace_strategy 'staging-optimized'; it has truncate-and-insert"):
        destinations.duckdb(":memory:", replace_strategy="staging-optimized")

    files = asyncelt.pipeline("f", destination=destinations.filesystem(tmp_path / "files"), pipelines_dir=tmp_path)

    with pytest.raises(ConfigError, match="'merge', which destination 'filesystem' cannot do"):
        await files.run([{"id": 1}], **merge("upsert"))


@pytest.mark.parametrize("strategy", ["upsert", "insert-only", "cdc"])
async def test_strategies_by_key_need_a_primary_key(dataset, strategy):
    with pytest.raises(ConfigError, match="needs a primary_key"):
        await dataset.run([{"id": 1}], **{**merge(strategy), "primary_key": None})


async def test_options_without_effect_are_warned_of(dataset, caplog):
    caplog.set_level(logging.WARNING, "asyncelt")
    rows = asyncelt.resource([{"id": 1}], name="items", merge_key="id", primary_key="id")
    await dataset.pipeline.run(rows, write_disposition={"disposition": "merge", "skip_unchanged_rows": True})
    upsert = {"disposition": "merge", "strategy": "upsert", "boundary_timestamp": "2024-01-01"}
    await dataset.pipeline.run(rows, write_disposition=upsert)

    assert "boundary_timestamp has no effect with the merge strategy upsert, only with scd2" in caplog.text
    assert "skip_unchanged_rows has no effect with the merge strategy delete-insert" in caplog.text
    assert "merge_key has no effect with the merge strategy upsert" in caplog.text


@pytest.mark.covers("probe.8.nested", "probe.8.duplicates")
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_of_rows_with_one_key_one_is_kept_with_all_that_it_came_with(dataset, strategy):
    """Within a page, over pages and over files."""
    pages = [
        [{"id": 1, "l": [{"n": 1, "t": [1, 2]}, {"n": 2}]}, {"id": 1, "l": [{"n": 3, "t": [3]}]}, {"id": 2}],
        [{"id": 2, "l": [{"n": 4, "t": [4]}]}, {"id": 3, "l": [{"n": 5}]}],
        [{"id": 3, "l": []}, {"id": 1, "l": [{"n": 6, "t": [5, 6]}]}],
    ]
    await dataset.run(*pages, **merge(strategy))

    first = [(1, 1, 1), (1, 1, 2), (1, 2, None), (2, None, None), (3, 5, None)]
    last = [(1, 6, 5), (1, 6, 6), (2, 4, 4), (3, None, None)]
    assert dataset.ask(LINKS) == (first if strategy == "insert-only" else last)
    assert dataset.ask("SELECT (SELECT count(*) FROM items__l), (SELECT count(*) FROM items__l__t)") == [
        (3, 2) if strategy == "insert-only" else (2, 3)
    ]


async def test_ids_of_the_users_own_tell_no_rows_apart(dataset):
    page = [{"id": 1, "_dlt_id": "mine", "l": [1, 2]}, {"id": 1, "_dlt_id": "mine", "l": [3]}]
    await dataset.run(page, **merge("delete-insert"))

    assert dataset.ask("SELECT id, _dlt_id FROM items") == [(1, "mine")]
    assert dataset.ask("SELECT value, _dlt_root_id FROM items__l") == [(3, "mine")]


@pytest.mark.parametrize("disposition", ["append", "replace"])
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_table_with_nested_rows_may_begin_to_merge(dataset, strategy, disposition):
    """The nested tables get their root keys, at every depth, for the rows that are there too."""
    old = [{"id": 1, "l": [{"n": 1, "t": [1]}]}, {"id": 2, "l": [{"n": 2, "t": [2, 3]}]}]
    await dataset.run(old, table_name="items", write_disposition=disposition)
    await dataset.run([{"id": 1, "l": [{"n": 9, "t": [9]}]}], **merge(strategy))

    left = [] if strategy == "cdc" else [(2, 2, 2), (2, 2, 3)]
    assert dataset.ask(LINKS) == [(1, 1, 1) if strategy == "insert-only" else (1, 9, 9), *left]
    assert dataset.ask("SELECT count(*) FROM items__l") == [(1 if strategy == "cdc" else 2,)]
    assert dataset.ask("SELECT count(*) FROM items__l__t") == [(1 if strategy == "cdc" else 3,)]


async def test_a_table_with_nested_rows_may_begin_to_keep_versions(dataset):
    old = [{"id": 1, "l": [{"n": 1}]}, {"id": 2, "l": [{"n": 2}]}]
    await dataset.run(old, table_name="items")
    await dataset.run([{"id": 1, "l": [{"n": 1}]}], **merge("scd2", boundary_timestamp="2024-05-01"))

    versions = dataset.ask("SELECT id, _dlt_valid_from IS NULL, _dlt_valid_to IS NULL FROM items ORDER BY ALL")
    assert versions == [(1, False, True), (1, True, False), (2, True, False)]
    assert dataset.ask(
        "SELECT items.id, l.n FROM items JOIN items__l l ON l._dlt_parent_id = items._dlt_id ORDER BY ALL"
    ) == [(1, 1), (1, 1), (2, 2)]


async def test_upsert_keeps_what_stands_in_columns_of_others(dataset):
    await dataset.run([{"id": 1, "l": [{"n": 1}]}, {"id": 2, "l": []}], **merge("upsert"))

    for table in ("items", "items__l"):
        dataset.connection.execute(f"ALTER TABLE data.{table} ADD COLUMN Note VARCHAR")
        dataset.connection.execute(f"UPDATE data.{table} SET Note = 'mine'")

    await dataset.run([{"id": 1, "l": [{"n": 2}, {"n": 3}]}, {"id": 3, "l": []}], **merge("upsert"))

    assert dataset.ask("SELECT id, Note FROM items ORDER BY id") == [(1, "mine"), (2, "mine"), (3, None)]
    assert dataset.ask("SELECT n, Note FROM items__l ORDER BY n") == [(2, "mine"), (3, None)]


async def test_ids_made_of_a_key_are_the_same_in_every_load(dataset):
    rows = [{"id": 1, "l": [{"n": 1, "t": [1, 2]}]}]
    await dataset.run(rows, **merge("upsert"))
    before = [dataset.ask(f"SELECT _dlt_id FROM {table} ORDER BY 1") for table in ("items", "items__l", "items__l__t")]
    await dataset.run(rows, **merge("upsert"))

    assert before == [
        dataset.ask(f"SELECT _dlt_id FROM {table} ORDER BY 1") for table in ("items", "items__l", "items__l__t")
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_arrow_tables_merge_without_row_ids(dataset, strategy):
    for rows in (
        [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}],
        [{"id": 2, "v": "c"}, {"id": 3, "v": "d"}, {"id": 3, "v": "e"}],
    ):
        await dataset.pipeline.run(pa.Table.from_pylist(rows), **merge(strategy))

    expected = {"insert-only": [(1, "a"), (2, "b"), (3, "d")], "cdc": [(2, "c"), (3, "e")]}
    assert dataset.ask("SELECT id, v FROM items ORDER BY id") == expected.get(strategy, [(1, "a"), (2, "c"), (3, "e")])


async def test_arrow_tables_keep_versions_by_a_column_of_their_own(dataset):
    versions = merge("scd2", row_version_column_name="v", boundary_timestamp="2024-05-01")

    for rows in ([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}], [{"id": 2, "v": "c"}, {"id": 1, "v": "a"}]):
        await dataset.pipeline.run(pa.Table.from_pylist(rows), **versions)

    found = dataset.ask("SELECT id, v, _dlt_valid_to IS NULL FROM items ORDER BY ALL")
    assert found == [(1, "a", True), (2, "b", False), (2, "c", True)]


async def test_versions_need_a_column_that_tells_them(dataset):
    with pytest.raises(PipelineStepFailed, match="_dlt_id"):
        await dataset.pipeline.run(pa.table({"id": [1]}), **merge("scd2"))


@pytest.mark.parametrize(
    "options,message",
    [
        ({"validity_column_names": ["a"]}, "two names that differ"),
        ({"validity_column_names": ["a", "a"]}, "two names that differ"),
        ({"active_record_timestamp": "soon"}, "active_record_timestamp is a datetime"),
        ({"boundary_timestamp": "soon"}, "boundary_timestamp is a datetime"),
        ({"skip_unchanged_rows": True}, "skip_unchanged_rows goes with the strategies upsert, cdc"),
        ({"source_filter": "{x} = 1"}, "unknown placeholders x"),
    ],
)
async def test_wrong_options_of_versions_are_refused(dataset, options, message):
    with pytest.raises(ConfigError, match=message):
        await dataset.run([{"id": 1}], **merge("scd2", **options))
