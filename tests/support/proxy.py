"""A TCP proxy that does what networks do, at chosen bytes: cut a connection, fall silent, close one direction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Fault", "FaultProxy"]

_CHUNK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong once.

    Args:
        direction: ``up`` is to the server.
        at: After so many bytes of all connections, or at the first place where these bytes pass.
        further: So many bytes further on.
        do: ``cut``: both sides see a reset. ``stall``: nothing passes any more, in either direction. ``half_close``: the
            receiver sees the end of what is sent to it, and may still answer. ``linger``: the receiver is sent no more,
            and does not learn that the connection has ended.
    """

    direction: Literal["up", "down"]
    at: int | bytes
    further: int = 0
    do: Literal["cut", "stall", "half_close", "linger"]


@dataclass(slots=True)
class FaultProxy:
    """Stands before a server, as an async context manager. What is not `next_fault` passes unchanged.

    Args:
        upstream: Connection string or address of the server.
    """

    upstream: str
    next_fault: Fault | None = None
    done: list[Fault] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    _server: asyncio.Server | None = None
    _pipes: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

        for pipe in self._pipes:
            pipe.cancel()

        await asyncio.gather(*self._pipes, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def dsn(self) -> str:
        """The connection string that leads through the proxy."""
        assert self._server is not None
        url = urlsplit(self.upstream)
        port = self._server.sockets[0].getsockname()[1]

        user = f"{url.username}:{url.password}@" if url.username else ""

        return urlunsplit((url.scheme, f"{user}127.0.0.1:{port}", url.path, url.query, ""))

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        url = urlsplit(self.upstream)

        try:
            from_server, to_server = await asyncio.open_connection(url.hostname, url.port)
        except OSError:
            to_client.transport.abort()
            self._pipes.discard(task)

            return

        ended = asyncio.Event()

        def cut() -> None:
            to_client.transport.abort()
            to_server.transport.abort()
            ended.set()

        try:
            async with asyncio.TaskGroup() as pumps:
                silent = asyncio.Event()
                pumps.create_task(self._pump("up", from_client, to_server, cut, ended, silent))
                pumps.create_task(self._pump("down", from_server, to_client, cut, ended, silent))
        finally:
            cut()
            self._pipes.discard(task)

    async def _pump(
        self,
        direction: Literal["up", "down"],
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        cut: Callable[[], None],
        ended: asyncio.Event,
        silent: asyncio.Event,
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK):
                fault, place = self._due(direction, chunk)

                if silent.is_set():
                    continue

                sink.write(chunk if fault is None else chunk[:place])
                await sink.drain()

                if fault is None:
                    continue

                if fault.do == "half_close":
                    sink.write_eof()

                    return

                if fault.do == "linger":
                    await ended.wait()

                if fault.do == "cut":
                    break

                silent.set()

        # One side has ended, or was cut: so does the other.
        cut()

    def _due(self, direction: str, chunk: bytes) -> tuple[Fault | None, int]:
        fault = self.next_fault
        before = self.passed[direction]
        self.passed[direction] += len(chunk)

        if fault is None or fault.direction != direction:
            return None, 0

        found = fault.at - before if isinstance(fault.at, int) else chunk.find(fault.at)

        if found >= len(chunk) or (found < 0 and isinstance(fault.at, bytes)):
            return None, 0

        self.next_fault = None
        self.done.append(fault)

        return fault, max(found, 0) + fault.further
