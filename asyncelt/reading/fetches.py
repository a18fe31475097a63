"""The ways to get the rows of a relation: each opens a cursor, takes what is asked for and closes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING

import pyarrow as pa

from asyncelt.reading.cursor import CHUNK_ROWS, Cursor, Row, as_frame, as_polars, as_rows

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["Fetches"]


class Fetches:
    """Coroutines that read. Each opens a connection and closes it, unless the dataset is open.

    Cancellation:
        Safe at any await: a statement that runs is interrupted.
    """

    def _cursor(self, rows: int | None = None) -> AbstractAsyncContextManager[Cursor]:
        """A cursor of which about ``rows`` rows will be taken at once."""
        raise NotImplementedError

    async def _table(self) -> pa.Table:
        """Everything."""
        raise NotImplementedError

    async def arrow(self, chunk_size: int | None = None) -> pa.Table:
        """All rows as an Arrow table; with ``chunk_size`` the first so many of them."""
        if chunk_size is None:
            return await self._table()

        async with self._cursor(chunk_size) as cursor:
            return await cursor.arrow(chunk_size)

    async def df(self, chunk_size: int | None = None) -> pd.DataFrame:
        """The same as a pandas frame.

        Raises:
            ConfigError: pandas is not installed.
        """
        return await as_frame(await self.arrow(chunk_size))

    async def polars(self, chunk_size: int | None = None) -> pl.DataFrame:
        """The same as a polars frame, which shares the memory of the Arrow table.

        Raises:
            ConfigError: polars is not installed.
        """
        return await as_polars(await self.arrow(chunk_size))

    async def fetchall(self) -> list[Row]:
        """All rows as tuples of Python values; whole numbers of any width are integers."""
        return await as_rows(await self._table())

    async def fetchmany(self, chunk_size: int) -> list[Row]:
        """The first ``chunk_size`` rows."""
        async with self._cursor(chunk_size) as cursor:
            return await cursor.fetchmany(chunk_size)

    async def fetchone(self) -> Row | None:
        """The first row; None where there is none."""
        async with self._cursor(1) as cursor:
            return await cursor.fetchone()

    async def fetchscalar(self) -> object:
        """The only value of a result with one row and one column; None where there is no row.

        Raises:
            QueryError: There are more rows, or more columns.
        """
        async with self._cursor(2) as cursor:
            return await cursor.fetchscalar()

    async def scalar(self) -> object:
        """The same as `fetchscalar`."""
        return await self.fetchscalar()

    async def iter_arrow(self, chunk_size: int = CHUNK_ROWS) -> AsyncGenerator[pa.Table, None]:
        """Arrow tables of exactly ``chunk_size`` rows, the last one less, read as they are asked for.

        The connection stays open until the end. Leave the loop early through ``contextlib.aclosing``, or it is closed
        some time later.
        """
        async with self._cursor(chunk_size) as cursor, aclosing(cursor.iter_arrow(chunk_size)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def iter_df(self, chunk_size: int = CHUNK_ROWS) -> AsyncGenerator[pd.DataFrame, None]:
        """The same as pandas frames."""
        async with aclosing(self.iter_arrow(chunk_size)) as chunks:
            async for chunk in chunks:
                yield await as_frame(chunk)

    async def iter_fetch(self, chunk_size: int = CHUNK_ROWS) -> AsyncGenerator[list[Row], None]:
        """The same as lists of tuples."""
        async with aclosing(self.iter_arrow(chunk_size)) as chunks:
            async for chunk in chunks:
                yield await as_rows(chunk)
