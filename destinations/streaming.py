"""Rows of a query as a stream: each batch is fetched by a session's thread when it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pyarrow as pa

__all__ = ["BatchStream"]


class BatchStream:
    """See `ArrowStream`.

    Args:
        schema: Of the rows.
        fetch: Gets the next batch, None at the end.
    """

    def __init__(self, schema: pa.Schema, fetch: Callable[[], Awaitable[pa.RecordBatch | None]]) -> None:
        self._schema = schema
        self._fetch = fetch

    @property
    def schema(self) -> pa.Schema:
        """Columns and types."""
        return self._schema

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        batch = await self._fetch()

        if batch is None:
            raise StopAsyncIteration

        return batch
