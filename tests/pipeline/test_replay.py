"""Rows out of quarantine: exactly once, in the commit that brings them into their table."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, PipelineStepFailed
from asyncelt.failpoints import installed
from tests.support.bad_rows import FORMS, Row, items, make, rows_of

FREEZE = {"columns": "freeze", "data_type": "freeze"}
ROWS: list[Row] = [{"id": 2}, {"id": 3, "new": "a"}, {"id": 4}, {"id": 5, "new": "b"}]


async def quarantined(pipeline: asyncelt.Pipeline, rows: object = ROWS, **hints: Any) -> None:
    """A dataset with two rows in quarantine, for a column that is new."""
    first = pa.table({"id": [1]}) if isinstance(rows, pa.Table) else [{"id": 1}]
    await pipeline.run(items([first], "fail", **hints))

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        await pipeline.run(items([rows], "quarantine", schema_contract=FREEZE, **hints))


@pytest.mark.parametrize(
    ("destination", "form"), [*(("memory", form) for form in FORMS), ("duckdb", "arrow"), ("filesystem", "dicts")]
)
async def test_rows_are_loaded_once_what_refused_them_is_gone(tmp_path: Path, destination: str, form: str) -> None:
    pipeline = make(tmp_path, destination)
    await quarantined(pipeline, FORMS[form](ROWS))
    waiting = len(await pipeline.quarantined().fetchall())
    assert waiting == (4 if form == "arrow" else 2)

    info = await asyncelt.replay(pipeline, items([], "quarantine", schema_contract="evolve"))

    assert info.row_counts["items"] == waiting
    rows = [(1, None), *((row["id"], row.get("new")) for row in ROWS)]
    assert sorted(await rows_of(pipeline, "items", "id", "new")) == rows
    assert await pipeline.quarantined().fetchall() == []

    again = await pipeline.replay(items([], "quarantine", schema_contract="evolve"))
    assert again.is_empty
    assert len(await rows_of(pipeline, "items", "id")) == 5


@pytest.mark.parametrize("destination", ["memory", "duckdb", "filesystem"])
async def test_where_nothing_was_quarantined_there_are_no_rows(tmp_path: Path, destination: str) -> None:
    pipeline = make(tmp_path, destination)
    await pipeline.run([{"id": 1}], table_name="items")

    waiting = pipeline.quarantined()

    assert await waiting.fetchall() == []
    assert await waiting.where("tries", "gt", 1).select("payload", "created_at").fetchall() == []
    assert (await waiting.arrow()).column_names[:3] == ["record_id", "status", "tries"]


async def test_rows_that_fail_again_stay_with_a_count_of_tries(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    await quarantined(pipeline)
    before = await pipeline.quarantined().select("record_id", "tries", "payload").fetchall()

    for tries in (2, 3):
        with pytest.warns(AsynceltWarning, match="2 row"):
            info = await pipeline.replay()

        assert info.quarantined_rows == {"items": 2}
        after = await pipeline.quarantined().select("record_id", "tries", "payload").fetchall()
        assert sorted(after) == sorted((record, tries, payload) for record, _, payload in before)

    assert len(await rows_of(pipeline, "items", "id")) == 3


async def test_one_page_of_which_some_fail_again(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    rows = [{"id": 2, "new": 1}, {"id": 3, "new": "text"}, {"id": 4, "new": 2}]
    await quarantined(pipeline, rows)

    columns = {"new": {"data_type": "bigint"}}

    with pytest.warns(AsynceltWarning, match="1 row"):
        await pipeline.replay(items([], "fail", schema_contract=FREEZE, columns=columns))

    assert await rows_of(pipeline, "items", "id", "new") == [(1, None), (2, 1), (4, 2)]
    assert [json.loads(str(one)) for (one,) in await pipeline.quarantined().select("payload").fetchall()] == [rows[1]]


async def test_where_and_the_resource_choose_what_is_replayed(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    await quarantined(pipeline)

    assert (await pipeline.replay(asyncelt.resource([], name="others"))).is_empty
    await pipeline.replay(items([], "fail", schema_contract="evolve"), where="payload LIKE '%\"a\"%'")

    assert await rows_of(pipeline, "items", "id", "new") == [(1, None), (2, None), (4, None), (3, "a")]
    assert len(await pipeline.quarantined().fetchall()) == 1


async def test_merging_rows_merge(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    merging = {"primary_key": "id", "write_disposition": "merge"}
    await quarantined(pipeline, [{"id": 1, "new": "a"}, {"id": 2}], **merging)
    await pipeline.replay(items([], "fail", schema_contract="evolve", **merging))

    assert sorted(await rows_of(pipeline, "items", "id", "new")) == [(1, "a"), (2, None)]


async def test_without_a_resource_the_tables_keep_their_hints(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    merging = {"primary_key": "id", "write_disposition": "merge"}
    await quarantined(pipeline, [{"id": 1, "new": "a"}, {"id": 2}], **merging)
    before = pipeline.default_schema.tables["items"]

    with pytest.warns(AsynceltWarning, match="1 row"):
        await pipeline.replay()

    assert pipeline.default_schema.tables["items"] == before


async def test_rows_of_a_table_that_is_replaced_join_it(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    await pipeline.run(items([[{"id": 1}]], "fail", write_disposition="replace"))

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        await pipeline.run(items([ROWS], "quarantine", schema_contract=FREEZE, write_disposition="replace"))

    await pipeline.replay(items([], "fail", schema_contract="evolve", write_disposition="replace"))

    assert await rows_of(pipeline, "items", "id") == [(2,), (4,), (3,), (5,)]


async def test_values_come_back_as_what_they_were(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    values = {
        "amount": Decimal("1.10"),
        "at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "raw": b"\x00\xff",
        "big": 2**70,
        "inner": {"tags": ["a", 1.5]},
    }
    await quarantined(pipeline, [{"id": n, name: value} for n, (name, value) in enumerate(values.items(), 2)])
    direct = make(tmp_path / "direct", "memory")
    rows: list[Row] = [{"id": 1}, *({"id": n, name: value} for n, (name, value) in enumerate(values.items(), 2))]
    await pipeline.replay(items([], "fail", schema_contract="evolve"))
    await direct.run(items([[rows[0]]], "fail"))
    await direct.run(items([rows[1:]], "fail"))

    names = [name for name in direct.default_schema.tables["items"].columns if not name.startswith("_dlt")]
    assert set(pipeline.default_schema.tables["items"].columns) == set(direct.default_schema.tables["items"].columns)
    found = sorted(await rows_of(pipeline, "items", *names), key=lambda row: str(row[0]))
    assert found == sorted(await rows_of(direct, "items", *names), key=lambda row: str(row[0]))


async def test_a_body_that_is_no_json_stays_in_quarantine(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")

    with pytest.warns(AsynceltWarning, match="3 row"):
        await pipeline.run(items([b'{"id": 1}\n{"id":', b"\xff", [{"id": 2, "x": object()}]], "quarantine"))

    with pytest.warns(AsynceltWarning, match="2 row"):
        await pipeline.replay()

    lines = await pipeline.quarantined().select("payload", "payload_form", "tries").fetchall()
    assert sorted(line[1:] for line in lines) == [("base64", 2), ("repr", 1), ("text", 2)]


@pytest.mark.parametrize("at", ["package.before_seal", "load.before_commit", "load.after_commit"])
async def test_broken_off_anywhere_no_row_is_lost_and_none_comes_twice(tmp_path: Path, at: str) -> None:
    pipeline = make(tmp_path)
    await quarantined(pipeline)

    def fail(name: str) -> None:
        if name == at:
            raise OSError("out of order")

    with installed(fail), pytest.raises(PipelineStepFailed):
        await pipeline.replay(items([], "fail", schema_contract="evolve"))

    await make(tmp_path).replay(items([], "fail", schema_contract="evolve"))

    assert sorted(await rows_of(pipeline, "items", "id")) == [(1,), (2,), (3,), (4,), (5,)]
    assert await make(tmp_path).quarantined().fetchall() == []


async def test_state_does_not_move(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    await quarantined(pipeline)
    before = pipeline.state
    await pipeline.replay(items([], "fail", schema_contract="evolve"))

    assert pipeline.state["sources"] == before["sources"] if "sources" in before else True
    assert pipeline.state["_state_version"] == before["_state_version"]


async def test_another_process_that_knows_nothing_yet_replays(tmp_path: Path) -> None:
    await quarantined(make(tmp_path))
    elsewhere = asyncelt.pipeline(
        "p",
        destination=asyncelt.destinations.duckdb(str(tmp_path / "p.duckdb")),
        dataset_name="data",
        pipelines_dir=tmp_path / "elsewhere",
    )
    await elsewhere.replay(items([], "fail", schema_contract="evolve"))

    assert sorted(await rows_of(elsewhere, "items", "id")) == [(1,), (2,), (3,), (4,), (5,)]


async def test_arrow_rows_come_back_with_their_types(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    page = pa.table({"id": pa.array([2], pa.int64()), "new": pa.array([[1, 2]], pa.list_(pa.int64()))})
    await quarantined(pipeline, page)
    await pipeline.replay(items([], "fail", schema_contract="evolve"))

    assert pipeline.default_schema.tables["items"].columns["new"].data_type == "json"  # type: ignore[index]
    assert await rows_of(pipeline, "items", "id", "new") == [(1, None), (2, "[1,2]")]
