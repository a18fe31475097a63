"""Rows of one running query, taken in pieces of any size, as Arrow, frames or Python values."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pyarrow as pa

from asyncelt._async import in_thread
from asyncelt.arguments import COUNT, expect
from asyncelt.errors import ConfigError, QueryError
from asyncelt.load.protocol import SupportsQuery, SupportsStream
from asyncelt.types import SqlValue

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["CHUNK_ROWS", "Cursor", "Row", "as_frame", "as_polars", "as_rows", "opened_cursor"]

Row: TypeAlias = "tuple[object, ...]"

CHUNK_ROWS = 10_000
_BATCH_ROWS = 65_536
_CELLS_PER_SLICE = 20_000
"""Values that become Python objects in one piece of work: a few milliseconds."""


class Cursor:
    """The rows that have not been taken yet. Every call goes on where the one before has stopped.

    Used by one task. Get one from `opened_cursor` or `SqlClient.execute_query`.
    """

    def __init__(self, schema: pa.Schema, batches: AsyncIterator[pa.RecordBatch]) -> None:
        self._schema = schema
        self._batches = batches
        self._waiting: list[pa.RecordBatch] = []

    @property
    def schema(self) -> pa.Schema:
        """Columns and Arrow types."""
        return self._schema

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._schema.names)

    async def arrow(self, chunk_size: int | None = None) -> pa.Table:
        """The next ``chunk_size`` rows, less only at the end; without it all that are left."""
        left = None if chunk_size is None else _checked_size(chunk_size)
        taken: list[pa.RecordBatch] = []

        while (left is None or left > 0) and (batch := await self._next()) is not None:
            if left is not None and batch.num_rows > left:
                self._waiting.append(batch.slice(left))
                batch = batch.slice(0, left)

            taken.append(batch)
            left = None if left is None else left - batch.num_rows

        return pa.Table.from_batches(taken, schema=self._schema)

    async def df(self, chunk_size: int | None = None) -> pd.DataFrame:
        """The same as a pandas frame."""
        return await as_frame(await self.arrow(chunk_size))

    async def polars(self, chunk_size: int | None = None) -> pl.DataFrame:
        """The same as a polars frame."""
        return await as_polars(await self.arrow(chunk_size))

    async def fetchall(self) -> list[Row]:
        """All rows that are left, as tuples of Python values."""
        return await as_rows(await self.arrow())

    async def fetchmany(self, chunk_size: int) -> list[Row]:
        """The next ``chunk_size`` rows."""
        return await as_rows(await self.arrow(chunk_size))

    async def fetchone(self) -> Row | None:
        """The next row; None where there is none."""
        found = await self.fetchmany(1)

        return found[0] if found else None

    async def fetchscalar(self) -> object:
        """The only value of a result with one row and one column; None where there is no row.

        Raises:
            QueryError: There are more rows, or more columns.
        """
        found = await self.arrow(2)

        if found.num_rows > 1:
            raise QueryError("The result has more than one row, so it is no single value: use limit(1) or fetchall().")

        if found.num_columns != 1:
            raise QueryError(f"The result has {found.num_columns} columns, so it is no single value: select() one.")

        values = await as_rows(found)

        return values[0][0] if values else None

    async def iter_arrow(self, chunk_size: int = CHUNK_ROWS) -> AsyncGenerator[pa.Table, None]:
        """Arrow tables of exactly ``chunk_size`` rows, the last one less, read as they are asked for."""
        while (chunk := await self.arrow(chunk_size)).num_rows:
            yield chunk

    async def iter_df(self, chunk_size: int = CHUNK_ROWS) -> AsyncGenerator[pd.DataFrame, None]:
        """The same as pandas frames."""
        while (chunk := await self.arrow(chunk_size)).num_rows:
            yield await as_frame(chunk)

    async def iter_fetch(self, chunk_size: int = CHUNK_ROWS) -> AsyncGenerator[list[Row], None]:
        """The same as lists of tuples."""
        while (chunk := await self.arrow(chunk_size)).num_rows:
            yield await as_rows(chunk)

    async def _next(self) -> pa.RecordBatch | None:
        return self._waiting.pop() if self._waiting else await anext(self._batches, None)


@asynccontextmanager
async def opened_cursor(
    session: SupportsQuery, sql: str, parameters: Sequence[SqlValue] = (), *, batch_rows: int | None = None
) -> AsyncIterator[Cursor]:
    """Run a query; its rows can be taken inside the block.

    Args:
        session: A session that can stream hands rows out as they are computed; another one all at once.
        sql: One query.
        parameters: Its values.
        batch_rows: About how many rows will be taken at once.

    Raises:
        ConfigError: ``batch_rows`` is less than one.
    """
    size = _BATCH_ROWS if batch_rows is None else min(_checked_size(batch_rows), _BATCH_ROWS)

    if isinstance(session, SupportsStream):
        async with session.stream(sql, parameters, batch_rows=size) as stream:
            yield Cursor(stream.schema, aiter(stream))
    else:
        whole = await session.query(sql, parameters)

        yield Cursor(whole.schema, _batches(whole, size))


async def as_rows(data: pa.Table) -> list[Row]:
    """Rows as tuples of Python values; whole numbers of any width are integers. Made in a thread, in slices."""
    limiter = anyio.CapacityLimiter(1)
    size = max(1, _CELLS_PER_SLICE // max(1, data.num_columns))
    made: list[Row] = []

    for start in range(0, data.num_rows, size):
        made += await in_thread(partial(_rows, data.slice(start, size)), limiter)

    return made


async def as_frame(data: pa.Table) -> pd.DataFrame:
    """A pandas frame, made in a thread.

    Raises:
        ConfigError: pandas is not installed.
    """
    return await in_thread(partial(_pandas_frame, data), anyio.CapacityLimiter(1))


async def as_polars(data: pa.Table) -> pl.DataFrame:
    """A polars frame, which shares the memory of the Arrow table.

    Raises:
        ConfigError: polars is not installed.
    """
    return await in_thread(partial(_polars_frame, data), anyio.CapacityLimiter(1))


def _rows(data: pa.Table) -> list[Row]:
    if not data.num_columns:
        return [()] * data.num_rows

    return list(zip(*(_values(column) for column in data.columns), strict=True))


def _values(column: pa.ChunkedArray[Any]) -> Sequence[object]:
    values: Sequence[object] = column.to_pylist()

    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        # Sums of integers and integers over 64 bits arrive like this.
        return [int(value) if isinstance(value, Decimal) else value for value in values]

    return values


def _pandas_frame(data: pa.Table) -> pd.DataFrame:
    try:
        return data.to_pandas()
    except ModuleNotFoundError as error:
        raise ConfigError("df() needs pandas, which is not installed: pip install 'asyncelt[pandas]'") from error


def _polars_frame(data: pa.Table) -> pl.DataFrame:
    try:
        import polars as pl
    except ModuleNotFoundError as error:
        raise ConfigError("polars() needs polars, which is not installed: pip install 'asyncelt[polars]'") from error

    frame = pl.from_arrow(data)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table becomes a frame

    return frame


async def _batches(whole: pa.Table, batch_rows: int) -> AsyncIterator[pa.RecordBatch]:
    for batch in whole.to_batches(max_chunksize=batch_rows):
        if batch.num_rows:
            yield batch


def _checked_size(rows: int) -> int:
    expect("A chunk", COUNT, rows=rows)

    return rows
