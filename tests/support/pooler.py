"""A pooler in transaction mode, as PgBouncer is one: a client has a server connection from BEGIN to COMMIT only.

It resets nothing between two clients, so that whatever one leaves behind is met by the next. It also speaks TLS, where
it is given a certificate, which the server of the tests cannot.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias
from urllib.parse import urlsplit

__all__ = ["Pooler"]

_SSL_REQUEST = 80877103
_CANCEL_REQUEST = 80877102
_Message: TypeAlias = tuple[bytes, bytes]
_ASKS = b"QS"
"""Messages of a client that the server answers by saying that it is ready: a simple query, and Sync."""


@dataclass(slots=True)
class _Server:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    key: bytes = b""
    """With which its statements are cancelled."""


@dataclass(slots=True)
class _Asks:
    """How many answers the server owes."""

    open: int = 0


@dataclass(slots=True)
class Pooler:
    """An async context manager.

    Args:
        upstream: Connection string of the server, which asks for no password.
        size: Connections to it.
        certificate: For TLS.
        refusal: With which every client is sent away, in the state that PgBouncer has for all that it refuses.
    """

    upstream: str
    size: int = 3
    certificate: ssl.SSLContext | None = None
    refusal: str | None = None
    handed_out: int = 0
    """How often a client got a server connection."""
    _idle: asyncio.Queue[_Server] = field(default_factory=asyncio.Queue)
    _all: list[_Server] = field(default_factory=list)
    _greeting: bytes = b""
    _busy: dict[int, _Server] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        for _ in range(self.size):
            server = await self._connect()
            self._all.append(server)
            self._idle.put_nowait(server)

        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()

        for task in self._tasks:
            task.cancel()

        await asyncio.gather(*self._tasks, return_exceptions=True)

        for server in self._all:
            server.writer.transport.abort()

        await self._listener.wait_closed()

    @property
    def port(self) -> int:
        """Of the pooler."""
        assert self._listener is not None

        return int(self._listener.sockets[0].getsockname()[1])

    @property
    def dsn(self) -> str:
        """The connection string that leads through the pooler."""
        url = urlsplit(self.upstream)

        return f"postgresql://{url.username}@127.0.0.1:{self.port}{url.path}"

    async def _connect(self) -> _Server:
        url = urlsplit(self.upstream)
        server = _Server(*await asyncio.open_connection(url.hostname, url.port))
        wanted = f"user\0{url.username}\0database\0{url.path[1:]}\0client_encoding\0UTF8\0\0".encode()
        server.writer.write(struct.pack("!ii", len(wanted) + 8, 196608) + wanted)

        try:
            await self._welcomed(server)
        except BaseException:
            server.writer.transport.abort()
            raise

        return server

    async def _welcomed(self, server: _Server) -> None:
        greeting = b""

        while True:
            kind, body = await _message(server.reader)

            if kind == b"K":
                server.key = body
            elif kind == b"Z":
                self._greeting = greeting

                return
            elif kind == b"E":
                raise RuntimeError(f"the server refuses the pooler: {body!r}")
            else:
                greeting += _framed(kind, body)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = next(self._numbers)

        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if await self._greet(reader, writer, number):
                    await self._client(reader, writer, number)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        while True:
            size, code = struct.unpack("!ii", await reader.readexactly(8))
            rest = await reader.readexactly(size - 8)

            if code == _CANCEL_REQUEST:
                await self._cancel(struct.unpack("!i", rest[:4])[0])

                return False

            if code == _SSL_REQUEST and self.certificate is not None:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self.certificate)
            elif code == _SSL_REQUEST:
                writer.write(b"N")
            elif self.refusal is not None:
                writer.write(_framed(b"E", f"SFATAL\0C08P01\0M{self.refusal}\0\0".encode()))
                await writer.drain()

                return False
            else:
                writer.write(self._greeting + _framed(b"K", struct.pack("!ii", number, 0)) + _framed(b"Z", b"I"))

                return True

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        """Transaction by transaction."""
        inbox: asyncio.Queue[_Message | None] = asyncio.Queue(8)
        reading = asyncio.ensure_future(_read_all(reader, inbox))

        try:
            first = await inbox.get()

            while first is not None and first[0] != b"X":
                server = self._busy[number] = await self._idle.get()
                self.handed_out += 1

                try:
                    coming = await self._transaction(server, writer, inbox, first)
                finally:
                    # As PgBouncer: nobody can cancel what a client that has gone has left.
                    del self._busy[number]

                first = None if coming is None else await coming
        finally:
            reading.cancel()

    async def _transaction(
        self,
        server: _Server,
        writer: asyncio.StreamWriter,
        inbox: asyncio.Queue[_Message | None],
        message: _Message | None,
    ) -> asyncio.Future[_Message | None] | None:
        """Pass on what client and server say until the transaction is over; returns what the client will say next."""
        asks = _Asks()
        answers = asyncio.ensure_future(_answer(server, writer, asks))
        is_clean = False

        try:
            while message is not None and message[0] != b"X":
                asks.open += message[0] in _ASKS
                server.writer.write(_framed(*message))
                coming = asyncio.ensure_future(inbox.get())
                await asyncio.wait([coming, answers], return_when=asyncio.FIRST_COMPLETED)

                if answers.done():
                    answers.result()
                    is_clean = True

                    return coming

                message = coming.result()

            return None
        finally:
            if is_clean:
                self._idle.put_nowait(server)
            else:
                await self._replace(server, answers)

    async def _replace(self, server: _Server, answers: asyncio.Future[None]) -> None:
        # As PgBouncer: the server connection of a client that has gone in the middle is closed, and replaced.
        answers.cancel()
        server.writer.transport.abort()
        self._all.remove(server)
        fresh = await self._connect()
        self._all.append(fresh)
        self._idle.put_nowait(fresh)

    async def _cancel(self, number: int) -> None:
        server = self._busy.get(number)

        if server is not None:
            url = urlsplit(self.upstream)
            reader, writer = await asyncio.open_connection(url.hostname, url.port)

            try:
                writer.write(struct.pack("!ii", len(server.key) + 8, _CANCEL_REQUEST) + server.key)
                await reader.read()
            finally:
                writer.transport.abort()


async def _answer(server: _Server, client: asyncio.StreamWriter, asks: _Asks) -> None:
    """Pass on what the server says, until it is out of a transaction and owes nothing."""
    while True:
        kind, body = await _message(server.reader)
        client.write(_framed(kind, body))
        await client.drain()

        if kind == b"Z":
            asks.open -= 1

            if body == b"I" and asks.open == 0:
                return


async def _read_all(reader: asyncio.StreamReader, inbox: asyncio.Queue[_Message | None]) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            await inbox.put(await _message(reader))

    await inbox.put(None)


async def _message(reader: asyncio.StreamReader) -> _Message:
    kind = await reader.readexactly(1)

    return kind, await _body(reader)


async def _body(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack("!i", await reader.readexactly(4))

    return await reader.readexactly(size - 4)


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
