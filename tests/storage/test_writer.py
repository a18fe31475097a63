"""Table files: alignment, rolling, order."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from asyncelt.config import Limits
from asyncelt.flow import ROOT_ROW, TableBatch
from asyncelt.schema.capabilities import FOR_READERS, UNTIL_COMMIT, Capabilities, ParquetForm
from asyncelt.schema.model import Column, Table
from asyncelt.storage.jsonl import json_lines
from asyncelt.storage.package import PackageDraft, PackageStore
from asyncelt.storage.writer import Chunk, TableBuffer, TableFiles
from asyncelt.types import ColumnName, DataType, LoadId, TableName

NAME = TableName("t")


def table_of(**columns: DataType) -> Table:
    """A table with these columns in this order."""
    return Table(
        name=NAME,
        columns={ColumnName(name): Column(name=ColumnName(name), data_type=kind) for name, kind in columns.items()},
    )


def chunk_of(table: Table, *pages: dict[str, list[object]]) -> Chunk:
    """Pages as one chunk."""
    buffer = TableBuffer(NAME)

    for page in pages:
        data = pa.table(page)
        buffer.add(TableBatch(table=NAME, data=data, rows=data.num_rows), data.nbytes)

    return buffer.take(table)


def draft_in(folder: Path, max_disk: int | None = None) -> PackageDraft:
    """A package below a working folder."""
    return PackageStore(folder, max_disk=max_disk).draft(LoadId("1.0"))


def files_in(folder: Path, limits: Limits | None = None) -> TableFiles:
    """A writer of Parquet files."""
    return TableFiles(draft_in(folder), NAME, "parquet", limits or Limits(), Capabilities())


def read(folder: Path, files: TableFiles) -> list[list[dict[str, object]]]:
    """Rows of every file, in file order."""
    jobs = folder / "packages" / "building" / "1.0" / "jobs"

    return [pq.read_table(jobs / job.file_name).to_pylist() for job in files.jobs]


def test_numbers_of_root_rows_go_into_the_files_of_those_that_have_them(tmp_path: Path) -> None:
    files, table = files_in(tmp_path), table_of(a="bigint")
    files.append(chunk_of(table, {"a": [1]}))
    files.append(chunk_of(table, {"a": [2], ROOT_ROW: [7]}, {"a": [3]}))
    files.append(chunk_of(table, {"a": [4], ROOT_ROW: [8]}))
    files.finish()

    assert read(tmp_path, files) == [
        [{"a": 1}],
        [{"a": 2, ROOT_ROW: 7}, {"a": 3, ROOT_ROW: None}, {"a": 4, ROOT_ROW: 8}],
    ]


def test_absent_columns_are_null_and_order_is_the_tables(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    files.append(chunk_of(table_of(a="bigint", b="text"), {"b": ["x"]}, {"a": [1]}))
    files.finish()

    assert read(tmp_path, files) == [[{"a": None, "b": "x"}, {"a": 1, "b": None}]]


def test_a_new_column_opens_a_new_file(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    files.append(chunk_of(table_of(a="bigint"), {"a": [1]}))
    files.append(chunk_of(table_of(a="bigint", b="text"), {"b": ["x"]}))
    files.finish()

    assert read(tmp_path, files) == [[{"a": 1}], [{"a": None, "b": "x"}]]


def test_columns_without_a_type_are_not_written(tmp_path: Path) -> None:
    columns = {
        ColumnName("a"): Column(name=ColumnName("a"), data_type="bigint"),
        ColumnName("later"): Column(name=ColumnName("later")),
    }
    files = files_in(tmp_path)
    files.append(chunk_of(Table(name=NAME, columns=columns), {"a": [1]}))
    files.finish()

    assert read(tmp_path, files) == [[{"a": 1}]]


@given(pages=st.lists(st.integers(1, 7), min_size=1, max_size=6), most=st.integers(1, 9))
def test_files_roll_by_rows_exactly_and_keep_order(
    tmp_path_factory: pytest.TempPathFactory, pages: list[int], most: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    files = files_in(folder, Limits(file_max_items=most))
    table = table_of(a="bigint")
    number = 0

    for rows in pages:
        files.append(chunk_of(table, {"a": list(range(number, number + rows))}))
        number += rows

    files.finish()
    found = read(folder, files)

    assert [row["a"] for rows in found for row in rows] == list(range(number))
    assert [len(rows) for rows in found[:-1]] == [most] * (len(found) - 1)
    assert [job.rows for job in files.jobs] == [len(rows) for rows in found]


def test_files_roll_by_bytes(tmp_path: Path) -> None:
    files = files_in(tmp_path, Limits(file_max_bytes=1000, parquet_compression="none"))
    table = table_of(a="text")

    for _ in range(3):
        files.append(chunk_of(table, {"a": ["x" * 2000]}))

    files.finish()

    assert len(files.jobs) == 3


@pytest.mark.parametrize("form", [FOR_READERS, UNTIL_COMMIT])
def test_files_that_are_kept_have_statistics_and_dictionaries(tmp_path: Path, form: ParquetForm) -> None:
    draft = draft_in(tmp_path / "package")
    files = TableFiles(draft, NAME, "parquet", Limits(), Capabilities(parquet=form))
    files.append(chunk_of(table_of(a="text"), {"a": ["x", "y"] * 50}))
    files.finish()
    column = pq.read_metadata(draft.jobs_folder / files.jobs[0].file_name).row_group(0).column(0)

    assert column.is_stats_set == column.has_dictionary_page == form.is_kept
    assert column.compression == ("SNAPPY" if form.is_kept else "LZ4")


def test_the_chosen_compression_is_taken(tmp_path: Path) -> None:
    draft = draft_in(tmp_path / "package")
    files = TableFiles(draft, NAME, "parquet", Limits(parquet_compression="zstd"), Capabilities(parquet=FOR_READERS))
    files.append(chunk_of(table_of(a="text"), {"a": ["x"]}))
    files.finish()
    column = pq.read_metadata(draft.jobs_folder / files.jobs[0].file_name).row_group(0).column(0)

    assert (column.compression, column.is_stats_set) == ("ZSTD", True)


def test_a_table_kept_in_a_table_format_has_plain_job_files() -> None:
    capabilities = Capabilities(parquet=FOR_READERS, table_formats=("delta",))

    assert capabilities.parquet_for({"table_format": "delta"}) is UNTIL_COMMIT
    assert capabilities.parquet_for({"table_format": "native"}) is FOR_READERS
    assert capabilities.parquet_for({}) is FOR_READERS


def test_json_lines_leave_out_nulls_and_keep_times() -> None:
    table = pa.table(
        {
            "a": [1, None],
            "d": pa.array([None, 5], pa.decimal128(10, 2)),
            "t": pa.array([0, None], pa.timestamp("us", "UTC")),
            "b": [b"\x00\xff", None],
        }
    )
    lines = [json.loads(line) for line in b"".join(json_lines(table)).splitlines()]

    assert lines == [{"a": 1, "t": "1970-01-01T00:00:00Z", "b": "AP8="}, {"d": "5.00"}]


def test_json_lines_spell_numbers_that_json_does_not_have() -> None:
    table = pa.table({"v": [1.5, float("nan"), float("inf"), float("-inf"), None], "w": [1.0, 2.0, 3.0, 4.0, 5.0]})
    rows = [json.loads(line) for line in b"".join(json_lines(table)).splitlines()]

    assert [row.get("v") for row in rows] == [1.5, "NaN", "Infinity", "-Infinity", None]
    assert [row["w"] for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
