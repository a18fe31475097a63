"""Statements of users: parameters, columns, and their rows as Arrow, streamed by binary COPY."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg
import pyarrow as pa
from anyio import from_thread

from asyncelt._async import in_thread
from asyncelt.destinations._worker import wait_out
from asyncelt.destinations.postgres_impl.connections import Connection, copying, cut
from asyncelt.destinations.postgres_impl.copy import CopyColumn, decode
from asyncelt.destinations.postgres_impl.results import Result, arrow_schema, result_of
from asyncelt.types import SqlValue

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.prepared_stmt import PreparedStatement

__all__ = ["CopyReader", "open_reader", "run_statement"]

_GRACE_S = 10.0
_BATCH_ROWS = 65_536
_TOKENS = re.compile(
    r"""
      [eE]'(?:[^'\\]|''|\\.)*'            # texts, with and without escapes
    | '(?:[^']|'')*'
    | (?P<tag>\$[A-Za-z_]*\$).*?(?P=tag)
    | "(?:[^"]|"")*"                      # names
    | --[^\n]* | /\*.*?\*/                # comments
    | (?P<mark>\?)
    | \$(?P<number>\d+)
    """,
    re.VERBOSE | re.DOTALL,
)
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)
_CHANGES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A statement that the server has understood."""

    text: str
    """With its parameters as literals."""
    columns: tuple[asyncpg.Attribute, ...]
    is_query: bool
    """Whether COPY takes it."""


async def run_statement(connection: Connection, sql: str, parameters: Sequence[SqlValue]) -> pa.Table:
    """Run one statement and return its rows; a table without columns where it has none.

    Args:
        connection: In a transaction.
        sql: The statement; its parameters are ``?`` or ``$1``.
        parameters: Their values.
    """
    prepared = await _prepare(connection, sql, parameters)

    if not prepared.columns:
        await connection.execute(prepared.text)

        return pa.table({})

    if not prepared.is_query:
        return _table(prepared.columns, await connection.fetch(prepared.text))

    reader = CopyReader(connection, await result_of(connection, prepared.text, prepared.columns), _BATCH_ROWS)

    try:
        batches = [batch async for batch in reader]
    finally:
        await reader.close()

    return pa.Table.from_batches(batches, reader.schema)


async def open_reader(connection: Connection, sql: str, parameters: Sequence[SqlValue], batch_rows: int) -> CopyReader:
    """The rows of one query, to be read as slowly as one likes and then closed. Arguments as `run_statement`."""
    prepared = await _prepare(connection, sql, parameters)

    return CopyReader(connection, await result_of(connection, prepared.text, prepared.columns), batch_rows)


class CopyReader:
    """Batches of one COPY. The server waits while nobody takes them.

    Args:
        connection: Busy with this until `close`.
        result: What is copied.
        batch_rows: Most rows of a batch.
    """

    def __init__(self, connection: Connection, result: Result, batch_rows: int) -> None:
        self._connection = connection
        self._result = result
        self._threads = anyio.CapacityLimiter(1)
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)
        self._copy = asyncio.ensure_future(self._copied())
        names = [CopyColumn(f"c{at}", column.type) for at, column in enumerate(result.columns)]
        self._batches = decode(self._chunks(), names, batch_rows=batch_rows)
        self.schema = arrow_schema(result.columns)

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        batch = await self.next_batch()

        if batch is None:
            raise StopAsyncIteration

        return batch

    async def next_batch(self) -> pa.RecordBatch | None:
        """The next rows; None at the end."""
        try:
            batch = await in_thread(self._next, self._threads)
        except Exception:
            # What is wrong with the bytes is what was wrong with the query, where that has failed.
            await self._settled()
            raise

        if batch is None:
            await self._settled()

        return batch

    async def close(self) -> None:
        """Stop the COPY. If it was still under way, the server ends the query, and the connection is cut.

        The driver may wait in vain for the rest of the rows on this connection.
        """
        is_over = self._copy.done()
        self._copy.cancel()
        await wait_out(self._copy, grace_s=_GRACE_S)

        if not is_over:
            await cut(self._connection)

        self._send.close()
        self._receive.close()

    async def _copied(self) -> None:
        with self._send, copying(self._connection):
            await self._connection.copy_from_query(self._result.sql, output=self._send.send, format="binary")

    async def _settled(self) -> None:
        await asyncio.wait([self._copy])

        if not self._copy.cancelled():
            self._copy.result()

    def _next(self) -> pa.RecordBatch | None:
        for batch in self._batches:
            if batch.num_rows:
                arrays = [one.cast(field.type) for one, field in zip(batch.columns, self.schema, strict=True)]

                return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

        return None

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                yield from_thread.run(self._receive.receive)
            except anyio.EndOfStream:
                return


async def _prepare(connection: Connection, sql: str, parameters: Sequence[SqlValue]) -> _Prepared:
    text = _numbered(sql) if parameters else sql
    # Without a name: nothing stays at the server.
    statement = await connection.prepare(text, name="")
    columns = tuple(statement.get_attributes())
    literal = await _with_literals(connection, statement, text, parameters) if parameters else text
    # It will stand in brackets, and may end with a comment.
    literal = literal.strip().rstrip(";") + "\n"
    word = _FIRST_WORD.match(literal)
    kind = "" if word is None else word[1].upper()
    is_query = kind in {"SELECT", "VALUES", "TABLE"} or (kind == "WITH" and not _CHANGES.search(literal))

    return _Prepared(literal, columns, is_query)


def _numbered(sql: str) -> str:
    """``$1`` and so on for each ``?``."""
    count = 0

    def number(found: re.Match[str]) -> str:
        nonlocal count

        if not found["mark"]:
            return found[0]

        count += 1

        return f"${count}"

    return _TOKENS.sub(number, sql)


async def _with_literals(
    connection: Connection, statement: PreparedStatement[Record], sql: str, parameters: Sequence[SqlValue]
) -> str:
    """The statement without parameters, which COPY does not take. The server itself writes the literals."""
    types = statement.get_parameters()

    if len(types) != len(parameters):
        raise asyncpg.InterfaceError(f"the statement has {len(types)} parameters, {len(parameters)} values were passed")

    names = [_type_name(one) for one in types]
    values = [_adapted(value, one.name) for value, one in zip(parameters, types, strict=True)]
    # Text is read by the server, whatever it stands for: a time, for instance.
    given = ["text" if isinstance(value, str) else name for value, name in zip(values, names, strict=True)]
    wanted = ", ".join(f"quote_nullable(${at}::{name}::text)" for at, name in enumerate(given, start=1))
    row = await connection.fetchrow(f"SELECT {wanted}", *values)

    if row is None:
        return sql

    literals = [f"({text}::{name})" for text, name in zip(row, names, strict=True)]

    return _TOKENS.sub(lambda found: literals[int(found["number"]) - 1] if found["number"] else found[0], sql)


def _type_name(one: asyncpg.Type) -> str:
    if one.schema == "pg_catalog":
        return one.name

    return ".".join('"' + part.replace('"', '""') + '"' for part in (one.schema, one.name))


def _adapted(value: SqlValue, type_name: str) -> object:
    if type_name in {"json", "jsonb"} and not isinstance(value, str) and value is not None:
        return json.dumps(value)

    return value


def _table(columns: Sequence[asyncpg.Attribute], rows: Sequence[Record]) -> pa.Table:
    """Rows of what COPY does not take: a few, of statements that change or show something."""
    arrays = [_array([row[at] for row in rows]) for at in range(len(columns))]

    return pa.Table.from_arrays(arrays, names=[one.name for one in columns])


def _array(values: list[Any]) -> pa.Array[Any]:
    try:
        found: pa.Array[Any] = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())

    return found
