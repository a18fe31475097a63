"""Tables of a real server, written and read by COPY with our codec."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pyarrow as pa

from asyncelt.destinations.postgres_impl.copy import CopyColumn, arrow_type_of, decode, encode


class Copying:
    """One connection and a table ``t`` that is made anew for each use. For tests that are not coroutines."""

    def __init__(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._dsn = dsn
        self.connection: asyncpg.Connection = self._runner.run(self._connected())

    async def _connected(self) -> asyncpg.Connection:
        return await asyncpg.connect(self._dsn)

    def close(self) -> None:
        self._runner.run(self.connection.close())
        self._runner.close()

    def table(self, columns: Sequence[CopyColumn]) -> None:
        definitions = ", ".join(f'"{column.name}" {column.type}' for column in columns)
        self.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t ({definitions})")

    def execute(self, statement: str) -> None:
        self._runner.run(self.connection.execute(statement))

    def fetch(self, query: str = "SELECT * FROM t") -> list[asyncpg.Record]:
        return self._runner.run(self.connection.fetch(query))

    def copy_in(
        self, batches: Sequence[pa.RecordBatch], columns: Sequence[CopyColumn], chunk_bytes: int = 1 << 20
    ) -> None:
        self.table(columns)
        self._runner.run(self._copy_in(batches, columns, chunk_bytes))

    async def _copy_in(self, batches, columns, chunk_bytes) -> None:
        async def chunks():
            for chunk in encode(batches, columns, chunk_bytes=chunk_bytes):
                yield chunk

        names = [column.name for column in columns]
        await self.connection.copy_to_table("t", source=chunks(), columns=names, format="binary")

    def raw(self, query: str = "SELECT * FROM t") -> bytes:
        return self._runner.run(self._raw(query))

    async def _raw(self, query: str) -> bytes:
        found = bytearray()

        async def keep(data):
            found.extend(data)

        await self.connection.copy_from_query(query, output=keep, format="binary")

        return bytes(found)

    def copy_out(self, columns: Sequence[CopyColumn], query: str = "SELECT * FROM t") -> pa.Table:
        schema = pa.schema([(column.name, arrow_type_of(column.type)) for column in columns])
        return pa.Table.from_batches(decode([self.raw(query)], columns, batch_rows=1000), schema)
