"""Rows that cannot be loaded: what each policy makes of them, in every form of page and at every destination."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pyarrow as pa
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, BadRecord, DataValidationError, PipelineStepFailed
from asyncelt.types import OnError
from tests.support.bad_rows import DESTINATIONS, FORMS, Row, items, make, rows_of
from tests.support.stepwise import contents

ROWS: list[Row] = [{"id": 1, "n": 10}, {"id": None, "n": 20}, {"id": 3, "n": 30}, {"id": None, "n": 40}]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_bad_rows_go_to_quarantine_and_the_others_are_loaded(tmp_path: Path, destination: str, form: str) -> None:
    pipeline = make(tmp_path, destination)

    with pytest.warns(AsynceltWarning, match=r"2 row\(s\) of resource 'items'"):
        info = await pipeline.run(items([FORMS[form](ROWS)], "quarantine", primary_key="id"))

    assert await rows_of(pipeline, "items", "id", "n") == [(1, 10), (3, 30)]
    assert info.row_counts["items"] == 2
    assert info.row_counts["_asyncelt_quarantine"] == 2
    assert info.quarantined_rows == {"items": 2}
    assert "2 row(s) of resource 'items' could not be loaded" in str(info)

    columns = ("status", "tries", "pipeline_name", "schema_name", "resource", "table_name", "path", "error_kind")
    said = ("quarantined", 1, "p", "p", "items", "items", "id", "BadRecord")
    assert await rows_of(pipeline, "_asyncelt_quarantine", *columns) == [said, said]

    lines = await rows_of(pipeline, "_asyncelt_quarantine", "payload", "payload_form", "_dlt_load_id", "record_id")
    forms = {"arrow"} if form == "arrow" else {"json"}
    assert {line[1] for line in lines} == forms
    assert {line[2] for line in lines} == set(info.loads_ids)
    assert len({line[3] for line in lines}) == 2

    if form != "arrow":
        assert [json.loads(str(line[0])) for line in lines] == [ROWS[1], ROWS[3]]


@pytest.mark.parametrize("form", FORMS)
async def test_skipped_rows_are_counted_and_their_values_not_kept(tmp_path: Path, form: str) -> None:
    pipeline = make(tmp_path, "memory")

    with pytest.warns(AsynceltWarning, match="were left out"):
        info = await pipeline.run(items([FORMS[form](ROWS)], "skip", primary_key="id"))

    assert await rows_of(pipeline, "items", "id") == [(1,), (3,)]
    assert info.skipped_rows == {"items": 2}
    assert info.quarantined_rows == {}
    assert "_asyncelt_quarantine" not in pipeline.dataset().tables


@pytest.mark.parametrize("form", ["dicts", "bytes", "lines"])
async def test_by_default_a_bad_row_fails_the_run(tmp_path: Path, form: str) -> None:
    pipeline = make(tmp_path, "memory")

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.run(items([FORMS[form](ROWS)], "fail", primary_key="id"))

    assert isinstance(caught.value.__cause__, BadRecord)


@pytest.mark.parametrize("form", ["dicts", "bytes"])
async def test_a_frozen_column_costs_the_rows_that_bring_one(tmp_path: Path, form: str) -> None:
    pipeline = make(tmp_path, "memory")
    await pipeline.run(items([[{"id": 1}]], "fail"))
    rows: list[Row] = [{"id": 2}, {"id": 3, "new": 1}, {"id": 4}, {"id": 5, "more": [1]}]

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        await pipeline.run(items([FORMS[form](rows)], "quarantine", schema_contract="freeze"))

    assert await rows_of(pipeline, "items", "id") == [(1,), (2,), (4,)]
    assert set(pipeline.default_schema.tables["items"].columns) == {"id", "_dlt_load_id", "_dlt_id"}
    assert "items__more" not in pipeline.default_schema.tables
    kinds = await rows_of(pipeline, "_asyncelt_quarantine", "error_kind", "payload")
    assert [(kind, json.loads(str(payload))) for kind, payload in kinds] == [
        (DataValidationError.__name__, rows[1]),
        (DataValidationError.__name__, rows[3]),
    ]


async def test_a_new_table_takes_the_columns_of_its_first_row_however_the_page_is_cut(tmp_path: Path) -> None:
    contract = {"tables": "evolve", "columns": "freeze", "data_type": "freeze"}
    rows: list[object] = [{"id": 1, "n": 1}, *({"id": n, "n": n} for n in range(2, 9)), {"id": 9, "n": "text"}]
    pipeline = make(tmp_path, "memory")

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        info = await pipeline.run(items([rows], "quarantine", schema_contract=contract))

    assert info.row_counts["items"] == 8
    assert info.quarantined_rows == {"items": 1}


async def test_an_arrow_page_with_a_frozen_column_is_quarantined_whole(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    await pipeline.run(items([pa.table({"id": [1]})], "fail"))
    page = pa.table({"id": list(range(2, 502)), "new": [1] * 500})

    with pytest.warns(AsynceltWarning, match="500 row"):
        info = await pipeline.run(items([page], "quarantine", schema_contract={"columns": "freeze"}))

    assert info.quarantined_rows == {"items": 500}
    assert await rows_of(pipeline, "items", "id") == [(1,)]


async def test_a_frozen_table_costs_its_rows_and_leaves_no_table(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    await pipeline.run([{"id": 1}], table_name="known")

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        info = await pipeline.run(items([[{"id": 2}, {"id": 3}]], "quarantine", schema_contract={"tables": "freeze"}))

    assert info.quarantined_rows == {"items": 2}
    assert "items" not in pipeline.dataset().tables


async def test_rows_in_quarantine_outlive_a_refresh(tmp_path: Path) -> None:
    pipeline = make(tmp_path)

    with pytest.warns(AsynceltWarning, match="2 row"):
        await pipeline.run(items([ROWS], "quarantine", primary_key="id"))

    await pipeline.run(items([[{"id": 5}]], "quarantine"), refresh="drop_sources")

    assert await rows_of(pipeline, "items", "id") == [(5,)]
    assert len(await pipeline.quarantined().fetchall()) == 2


async def test_a_frozen_table_costs_its_rows_step_by_step_too(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    await pipeline.run([{"id": 1}], table_name="known")
    await pipeline.extract(items([[{"id": 2}, {"id": 3}]], "quarantine", schema_contract={"tables": "freeze"}))

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        await pipeline.normalize()

    info = await pipeline.load()
    assert info.row_counts["_asyncelt_quarantine"] == 2
    assert "items" not in pipeline.dataset().tables


async def test_what_is_no_json_is_kept_as_it_came(tmp_path: Path) -> None:
    pipeline = make(tmp_path, "memory")
    pages = [
        b'{"id": 1}\n{"id": 2\n{"id": 3}',
        b"[1, 2",
        b"\xff\xfe{",
        asyncelt.JsonPage(b'{"error": "x"}', "data.items"),
    ]

    with pytest.warns(AsynceltWarning, match="4 row"):
        await pipeline.run(items(pages, "quarantine"))

    assert await rows_of(pipeline, "items", "id") == [(1,), (3,)]
    assert await rows_of(pipeline, "_asyncelt_quarantine", "payload", "payload_form", "path") == [
        ('{"id": 2', "text", None),
        ("[1, 2", "text", None),
        ("//57", "base64", None),
        ('{"error": "x"}', "text", "data.items"),
    ]


@pytest.mark.parametrize("on_error", ["skip", "quarantine"])
async def test_a_value_that_no_column_can_hold_costs_its_row_in_one_step_or_several(
    tmp_path: Path, on_error: OnError
) -> None:
    rows = [{"id": 1}, {"id": 2, "x": object()}, {"id": 3}]
    fused, steps = make(tmp_path / "a", "memory"), make(tmp_path / "b", "memory")

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        await fused.run(items([rows], on_error))

    await steps.extract(items([rows], on_error))

    with pytest.warns(AsynceltWarning, match="could not be loaded"):
        await steps.normalize()

    await steps.load()

    assert await rows_of(fused, "items", "id") == [(1,), (3,)]
    assert await rows_of(steps, "items", "id") == [(1,), (3,)]


@pytest.mark.parametrize("workers", [1, 4])
async def test_bad_rows_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    limits = asyncelt.Limits(normalize_workers=workers, gather_bytes=200)
    pages = [[{"id": n if n % 7 else None, "n": n} for n in range(start, start + 10)] for start in range(0, 100, 10)]
    pipeline = make(tmp_path, "memory", settings=asyncelt.Settings(limits=limits))

    with pytest.warns(AsynceltWarning, match="15 row"):
        await pipeline.run(items(pages, "quarantine", primary_key="id"))

    assert await rows_of(pipeline, "items", "id") == [(n,) for n in range(100) if n % 7]
    payloads = [json.loads(str(text))["n"] for (text,) in await rows_of(pipeline, "_asyncelt_quarantine", "payload")]
    assert payloads == list(range(0, 100, 7))


def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(asyncelt.errors.ConfigError, match="on_error is one of fail, skip, quarantine"):
        asyncelt.resource([{"id": 1}], name="items", on_error="ignore")  # type: ignore[call-overload]

    resource = asyncelt.resource([{"id": 1}], name="items")

    with pytest.raises(asyncelt.errors.ConfigError, match="on_error"):
        resource.apply_hints(on_error="ignore", write_disposition="merge")  # type: ignore[arg-type]

    assert resource.write_disposition == "append"
    assert resource.apply_hints(on_error="skip").on_error == "skip"


@pytest.mark.parametrize(("form", "seed"), [("dicts", 1), ("bytes", 2), ("lines", 3)])
async def test_the_others_are_loaded_as_if_the_bad_ones_had_never_been_there(
    tmp_path: Path, form: str, seed: int
) -> None:
    random = Random(seed)
    clean: list[list[Row]] = []
    mixed: list[list[Row]] = []

    for _ in range(3):
        rows = [_any_row(random) for _ in range(random.randrange(1, 30))]
        clean.append([row for row in rows if row["id"] is not None])
        mixed.append(rows)

    found = []

    for name, pages in (("clean", clean), ("mixed", mixed)):
        destination = asyncelt.destinations.memory()
        pipeline = asyncelt.pipeline("p", destination=destination, dataset_name="data", pipelines_dir=tmp_path / name)

        with nullcontext() if name == "clean" else pytest.warns(AsynceltWarning, match="could not be loaded"):
            await pipeline.run(items([FORMS[form](page) for page in pages if page], "quarantine", primary_key="id"))

        tables = {name: rows for name, rows in destination.tables("data").items() if name.startswith("items")}  # type: ignore[attr-defined]
        found.append(contents(SimpleNamespace(tables=lambda _, tables=tables: tables)))

    assert found[1] == found[0]


def _any_row(random: Random) -> Row:
    """A row of which one in five has no key; bad ones bring columns, types and tables of their own too."""
    values = [1, 2.5, "text", True, {"a": 1}, {"b": "x"}, [1, 2], [{"c": 1}], "2024-01-01T00:00:00Z"]
    row: Row = {"id": random.choice([None, 1, 2, 3, 4])}

    return row | {f"k{random.randrange(6)}": random.choice(values) for _ in range(3)}
