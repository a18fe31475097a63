"""The floor: parse the same bytes with pyarrow and write Parquet, with none of the semantics.

No child tables, no ids, no types of its own, no names, no schema, no commit: struct and list columns as pyarrow reads
them. Bodies are joined up to about 1 MB, the size at which pyarrow's parser works best; a chunk whose columns differ
from those before it begins a file of its own.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from benchmarks.data import Pool
from benchmarks.job import Job, Measured, Meter, cpu_seconds

__all__ = ["measure", "possible"]

CHUNK = 1024 * 1024
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


def possible(shape: str) -> bool:
    """Whether pyarrow can read the shape at all: it refuses columns of mixed kinds."""
    return shape != "variants"


def measure(job: Job, pool: Pool) -> Measured:
    """Run the job once, after one page as warm-up."""
    output = Path(job.folder) / "bare"
    output.mkdir(parents=True, exist_ok=True)
    pages = job.pages(pool)
    _write(_tables(pool.pages(job.form, pool.shape.page_rows), job.form), output / "warm")
    meter, cpu, start = Meter(), cpu_seconds(), time.perf_counter()
    _write(_tables(pages, job.form), output / "part")

    return Measured(
        wall=time.perf_counter() - start, cpu=cpu_seconds() - cpu, rss_before=meter.before, rss_peak=meter.peak()
    )


def _tables(pages: Iterable[Any], form: str) -> Iterator[pa.Table]:
    if form == "dict":
        yield from (pa.Table.from_struct_array(pa.array(page)) for page in pages)
        return

    if form == "arrow":
        yield from pages
        return

    for chunk in _chunks(pages):
        options = pj.ReadOptions(use_threads=True, block_size=len(chunk) + 1)
        yield pj.read_json(io.BytesIO(chunk), read_options=options)


def _chunks(pages: Iterable[bytes]) -> Iterator[bytes]:
    lines: list[bytes] = []
    size = 0

    for page in pages:
        lines.append(b"\n".join(map(bytes, _ITEMS.decode(page))))
        size += len(page)

        if size >= CHUNK:
            yield b"\n".join(lines)
            lines, size = [], 0

    if lines:
        yield b"\n".join(lines)


def _write(tables: Iterable[pa.Table], stem: Path) -> None:
    writer: pq.ParquetWriter | None = None
    schema: pa.Schema | None = None
    number = 0

    for table in tables:
        if writer is None or schema != table.schema:
            if writer is not None:
                writer.close()

            schema = table.schema
            writer = pq.ParquetWriter(f"{stem}{number}.parquet", table.schema)
            number += 1

        writer.write_table(table)

    if writer is not None:
        writer.close()
