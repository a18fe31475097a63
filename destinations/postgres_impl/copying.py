"""Job files into a table by binary COPY: read and encoded in worker threads, one piece ahead of the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import anyio
import pyarrow as pa
import pyarrow.parquet as pq

from asyncelt._async import in_thread
from asyncelt.destinations._worker import wait_out
from asyncelt.destinations.postgres_impl.connections import Connection, copying
from asyncelt.destinations.postgres_impl.copy import CopyColumn, encode
from asyncelt.errors import DestinationRejected, PackageCorrupt
from asyncelt.failpoints import failpoint
from asyncelt.flow import ROOT_ROW

__all__ = ["copy_files"]

_BATCH_ROWS = 8192
_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Copy:
    """Files with the same columns, which go into the table by one COPY."""

    columns: tuple[CopyColumn, ...]
    paths: tuple[Path, ...]


async def copy_files(
    connection: Connection,
    paths: Sequence[Path],
    types: Mapping[str, str],
    *,
    target: str,
    schema: str | None,
    threads: anyio.CapacityLimiter,
    freeze: bool = False,
) -> None:
    """Append the rows of the files in their order. A column that a file lacks is null.

    Memory holds some pieces of a megabyte, whatever the size of the files.

    Args:
        connection: In a transaction.
        paths: Parquet files.
        types: The types of the table's columns at the destination.
        target: The table.
        schema: Its schema; None: a temporary table.
        threads: For reading and encoding.
        freeze: The table was made in this transaction: its rows need not be looked at again by a vacuum, nor marked
            by whoever reads them first.

    Raises:
        DestinationRejected: The table lacks a column.
        PackageCorrupt: A file is not what it was.

    Cancellation:
        The COPY is aborted; the transaction cannot go on.
    """
    for one in await in_thread(partial(_plan, paths, types, target), threads):
        chunks = encode(_batches(one), one.columns)

        with copying(connection) as has_ended:
            async with aclosing(_ahead(chunks, threads, has_ended)) as source:
                await connection.copy_to_table(
                    target,
                    source=source,
                    columns=[column.name for column in one.columns],
                    schema_name=schema,
                    format="binary",
                    freeze=freeze or None,
                )


def _plan(paths: Sequence[Path], types: Mapping[str, str], target: str) -> list[_Copy]:
    """One COPY per run of files with the same columns, in order."""
    footers = [(path, _names_in(path)) for path in paths]

    return [
        _Copy(
            columns=tuple(CopyColumn(name, _type(name, types, target)) for name in names if _is_kept(name, types)),
            paths=tuple(path for path, _ in group),
        )
        for names, group in groupby(footers, key=lambda footer: footer[1])
    ]


def _is_kept(name: str, types: Mapping[str, str]) -> bool:
    return name != ROOT_ROW or name in types


def _type(name: str, types: Mapping[str, str], target: str) -> str:
    try:
        return types[name]
    except KeyError:
        raise DestinationRejected(
            f"Table {target!r} has no column {name!r} any more: somebody has dropped or renamed it while the package "
            "was being loaded. Load again: the column is then added."
        ) from None


def _batches(one: _Copy) -> Iterator[pa.RecordBatch]:
    names = [column.name for column in one.columns]

    for path in one.paths:
        with _readable(path), pq.ParquetFile(path) as file:
            # One row group after the other: asked for all of them, the reader decodes far ahead of who takes the rows.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    yield batch.select(names)


def _names_in(path: Path) -> tuple[str, ...]:
    with _readable(path):
        return tuple(pq.read_schema(path).names)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise PackageCorrupt(f"Job file {path.name} cannot be read: {error}") from error


async def _ahead(
    chunks: Iterator[bytes], threads: anyio.CapacityLimiter, has_ended: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Pieces, the next of which is being made while one is sent, as long as somebody takes them."""

    def make() -> bytes | None:
        return next(chunks, None)

    coming = asyncio.ensure_future(in_thread(make, threads))

    try:
        while (chunk := await coming) is not None and not has_ended():
            coming = asyncio.ensure_future(in_thread(make, threads))

            yield chunk

            failpoint("postgres.copying")
    finally:
        # Its thread may still be reading the files.
        await wait_out(coming, grace_s=_GRACE_S)
