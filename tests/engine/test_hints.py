"""Hints that change with the data, in whole runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import asyncelt
from asyncelt import mark
from asyncelt.errors import ConfigError, PipelineStepFailed
from asyncelt.observe import Advanced, Event
from tests.engine.test_run import ask, make

Row = dict[str, object]

EVENTS = [
    {"kind": "open", "id": 1, "at": "1"},
    {"kind": "close", "id": 2, "at": "2"},
    {"kind": "open", "id": 3, "at": "3"},
]


def _types(pipeline: asyncelt.Pipeline, table: str) -> dict[str, str | None]:
    return {name: column.data_type for name, column in pipeline.default_schema.tables[table].columns.items()}  # type: ignore[index]


@pytest.mark.covers("resource.table_name", "resource.columns", "resource.primary_key", "resource.write_disposition")
@pytest.mark.parametrize("as_page", [True, False])
@pytest.mark.parametrize("is_async", [True, False])
async def test_hints_may_be_functions_of_a_row(tmp_path: Path, as_page: bool, is_async: bool) -> None:
    def events() -> Iterator[object]:
        yield from [EVENTS] if as_page else EVENTS

    async def later() -> AsyncIterator[object]:
        for item in events():
            yield item

    resource = asyncelt.resource(
        later if is_async else events,
        name="events",
        table_name=lambda row: row["kind"],
        primary_key=lambda row: "id" if row["kind"] == "open" else ["id", "kind"],
        write_disposition=lambda row: "merge" if row["kind"] == "open" else "append",
        columns=lambda row: {"at": {"data_type": "bigint" if row["kind"] == "open" else "text"}},
    )
    pipeline = make(tmp_path)
    await pipeline.run(resource)
    await pipeline.run(resource)

    assert await ask(pipeline, 'SELECT id, "at" FROM "open" ORDER BY id') == [(1, 1), (3, 3)]
    assert await ask(pipeline, 'SELECT id, "at" FROM "close" ORDER BY id') == [(2, "2"), (2, "2")]


def test_other_hints_are_functions_only_if_the_table_name_is_one() -> None:
    with pytest.raises(ConfigError, match="columns is a function of a row, which it can be only if table_name is one"):
        asyncelt.resource(EVENTS, name="events", columns=lambda _: {})


async def test_what_a_hint_function_gives_is_checked(tmp_path: Path) -> None:
    resource = asyncelt.resource(
        EVENTS, name="events", table_name=lambda row: row["kind"], write_disposition=lambda _: "upset"
    )

    with pytest.raises((PipelineStepFailed, ConfigError), match="upset"):
        await make(tmp_path).run(resource)


@pytest.mark.covers(
    "mark.with_hints",
    "mark.with_hints.item",
    "mark.with_hints.hints",
    "mark.make_hints",
    "mark.make_hints.table_name",
    "mark.make_hints.columns",
)
async def test_hints_come_with_the_data(tmp_path: Path) -> None:
    @asyncelt.resource
    async def events() -> AsyncIterator[object]:
        yield {"id": 1, "n": "1"}
        yield mark.with_hints({"id": 2, "n": "2"}, mark.make_hints(columns={"n": {"data_type": "bigint"}}))
        yield {"id": 3, "n": "3"}
        yield mark.with_hints(None, mark.make_hints(table_name="later", columns={"m": {"data_type": "text"}}))
        yield {"id": 4, "n": "4", "m": 4}

    pipeline = make(tmp_path)
    await pipeline.run(events)

    assert await ask(pipeline, "SELECT id FROM events ORDER BY id") == [(1,), (2,), (3,)]
    assert await ask(pipeline, "SELECT id, n, m FROM later") == [(4, 4, "4")]


@pytest.mark.covers(
    "mark.with_hints",
    "mark.with_hints.create_table_variant",
    "mark.with_table_name",
    "mark.with_table_name.item",
    "mark.with_table_name.table_name",
    "mark.make_hints.table_name",
    "mark.make_hints.primary_key",
    "mark.make_hints.write_disposition",
)
async def test_variants_have_hints_of_their_own(tmp_path: Path) -> None:
    hints = mark.make_hints(table_name="other", primary_key="id", write_disposition="merge")

    @asyncelt.resource
    async def events() -> AsyncIterator[object]:
        yield mark.with_hints({"id": 1, "v": "a"}, hints, create_table_variant=True)
        yield {"id": 9}
        yield mark.with_table_name({"id": 1, "v": "b"}, "other")

    pipeline = make(tmp_path)
    await pipeline.run(events)
    await pipeline.run([mark.with_hints({"id": 1, "v": "c"}, hints, create_table_variant=True)], table_name="events")

    assert await ask(pipeline, "SELECT id, v FROM other") == [(1, "c")]
    assert await ask(pipeline, "SELECT id FROM events") == [(9,)]


@pytest.mark.parametrize(
    ("hints", "is_variant", "message"),
    [
        ({"columns": {}}, True, "needs hints with the name of a table"),
        ({"table_name": lambda _: "t"}, False, "can only be set before a run"),
    ],
)
def test_marks_are_checked(hints: dict[str, object], is_variant: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mark.with_hints({}, hints, create_table_variant=is_variant)


@pytest.mark.covers("mark.make_hints.incremental")
@pytest.mark.parametrize(
    ("hints", "is_variant", "message"),
    [
        (mark.make_hints(incremental={"cursor_path": "id"}), False, "incremental cannot be given while"),
        (mark.make_hints(table_name="t", columns=lambda _: {}), True, "cannot be functions: columns"),
        ({"colums": {}}, False, "There are no hints colums"),
        (mark.make_hints(write_disposition="upset"), False, "upset"),
    ],
)
async def test_wrong_hints_that_come_with_the_data_end_the_run(
    tmp_path: Path, hints: dict[str, object], is_variant: bool, message: str
) -> None:
    items = [mark.with_hints({"id": 1}, hints, create_table_variant=is_variant)]

    with pytest.raises((PipelineStepFailed, ConfigError), match=message):
        await make(tmp_path).run(items, table_name="t")


@pytest.mark.covers("mark.materialize_table_schema")
async def test_a_table_can_be_made_without_rows(tmp_path: Path) -> None:
    @asyncelt.resource(columns={"id": {"data_type": "bigint"}, "name": {"data_type": "text"}})
    async def empty() -> AsyncIterator[object]:
        yield mark.materialize_table_schema()

    pipeline = make(tmp_path)
    await pipeline.run(empty)

    assert await ask(pipeline, "SELECT id, name FROM empty") == []


@pytest.mark.covers(
    "mark.with_file_import",
    "mark.with_file_import.file_path",
    "mark.with_file_import.file_format",
    "mark.with_file_import.items_count",
    "mark.with_file_import.hints",
)
async def test_files_are_imported(tmp_path: Path) -> None:
    rows = [{"id": number, "name": f"n{number}"} for number in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("id,name\n" + "".join(f"{row['id']},{row['name']}\n" for row in rows))
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"id": {row["id"]}, "name": "{row["name"]}"}}\n' for row in rows))

    @asyncelt.resource(table_name="rows")
    async def files() -> AsyncIterator[object]:
        yield mark.with_file_import(tmp_path / "rows.parquet", "parquet")
        yield mark.with_file_import(tmp_path / "rows.csv", "csv")
        yield mark.with_table_name(mark.with_file_import(tmp_path / "rows.jsonl", "jsonl"), "lines")
        yield mark.with_file_import(
            tmp_path / "rows.parquet", "parquet", 5, pa.schema({"id": pa.int64(), "name": pa.string()})
        )

    pipeline = make(tmp_path)
    info = await pipeline.run(files)

    assert (info.row_counts["rows"], info.row_counts["lines"]) == (15, 5)
    assert await ask(pipeline, "SELECT id, name, count(*) FROM rows GROUP BY ALL ORDER BY id") == [
        (row["id"], row["name"], 3) for row in rows
    ]
    assert await ask(pipeline, "SELECT id, name FROM lines ORDER BY id") == [tuple(row.values()) for row in rows]
    assert (tmp_path / "rows.parquet").exists()

    with pytest.raises(PipelineStepFailed, match="nothing"):
        await pipeline.run([mark.with_file_import(tmp_path / "nothing", "csv")], table_name="rows")

    with pytest.raises(ConfigError, match="reads parquet, jsonl, csv, not 'xml'"):
        mark.with_file_import(tmp_path / "rows.csv", "xml")


@pytest.mark.parametrize("name", ["_dlt_loads", "_dlt_version", "_dlt_pipeline_state", "_asyncelt_lease", "_DLT_LOADS"])
async def test_rows_for_a_system_table_are_refused(tmp_path: Path, name: str) -> None:
    """They could forge what is known to be committed."""
    pipeline = asyncelt.pipeline("p", destination="memory", dataset_name="data", pipelines_dir=tmp_path)

    with pytest.raises(ConfigError, match="in which asyncelt keeps its own records"):
        await pipeline.run([{"load_id": "1"}], table_name=name)


@pytest.mark.parametrize("wanted", ["text", "bigint"])
async def test_rows_keep_the_type_that_they_have_got(tmp_path: Path, wanted: str) -> None:
    written = anyio.Event()

    class Watching:
        def on_event(self, event: Event) -> None:
            if isinstance(event, Advanced) and event.stage == "normalize":
                written.set()

    @asyncelt.resource
    async def events() -> AsyncIterator[object]:
        yield pa.table({"n": range(200_000)})  # too many to be kept for more to come

        with anyio.fail_after(30):
            await written.wait()

        yield mark.with_hints(pa.table({"n": [3]}), mark.make_hints(columns={"n": {"data_type": wanted}}))

    pipeline = make(tmp_path, progress=Watching())

    if wanted == "bigint":
        await pipeline.run(events)

        assert await ask(pipeline, "SELECT count(*), max(n) FROM events") == [(200_001, 199_999)]
    else:
        with pytest.raises(PipelineStepFailed, match=r"Column 'n' of table 'events' is bigint in rows .* want text"):
            await pipeline.run(events)
