"""Job files: Arrow tables in, Parquet or JSON lines out. Blocking: called from threads.

A writer owns one open file of one fixed schema. Both forms write the same columns; JSON lines leave out nulls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from asyncelt.schema.capabilities import ParquetForm
from asyncelt.storage.jsonl import json_lines
from asyncelt.types import FileFormat

__all__ = ["EXTENSIONS", "FileWriter", "open_writer"]

EXTENSIONS: dict[FileFormat, str] = {"parquet": "parquet", "jsonl": "jsonl"}


class FileWriter(Protocol):
    """One open job file."""

    def write(self, table: pa.Table) -> None:
        """Append rows; their schema must be the file's."""
        ...

    def tell(self) -> int:
        """Bytes written so far, as far as they are known before the file is closed."""
        ...

    def close(self) -> None:
        """Finish the file. It is complete only afterwards."""
        ...


def open_writer(path: Path, schema: pa.Schema, file_format: FileFormat, form: ParquetForm) -> FileWriter:
    """Create the file and return its writer."""
    if file_format == "parquet":
        return _ParquetFile(path, schema, form)

    return _JsonLinesFile(path)


class _ParquetFile:
    def __init__(self, path: Path, schema: pa.Schema, form: ParquetForm) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression=form.compression,
            use_dictionary=form.is_kept,
            write_statistics=form.is_kept,
            store_schema=False,
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def tell(self) -> int:
        return int(self._sink.tell())

    def close(self) -> None:
        self._writer.close()
        self._sink.close()


class _JsonLinesFile:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, table: pa.Table) -> None:
        for chunk in json_lines(table):
            self._file.write(chunk)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
