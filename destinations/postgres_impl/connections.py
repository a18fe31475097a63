"""The connections of one session, and what is true of each: it ends clean, whatever happens to its caller."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import asyncpg
from asyncpg.pool import PoolConnectionProxy

from asyncelt._async import shielded
from asyncelt.destinations._worker import wait_out
from asyncelt.destinations.postgres_impl.config import PostgresConfig
from asyncelt.destinations.postgres_impl.errors import DRIVER_ERRORS, POOLED, translated
from asyncelt.errors import ConfigError, DestinationRejected, LoadError

if TYPE_CHECKING:
    from asyncpg import Pool, Record

    Connection: TypeAlias = "asyncpg.Connection[Record] | PoolConnectionProxy[Record]"

__all__ = ["Connection", "Connections", "commit_now", "copying", "cut", "max_copies"]

if not TYPE_CHECKING:
    Connection = object

_CLEANUP_S = 5.0
"""How long a connection may take to end a transaction that nobody wants; then it is cut, which ends it too."""
_LEAST_S = 0.01
_KEEPALIVE = """
SELECT pg_backend_pid(), set_config('tcp_keepalives_idle', '10', false),
    set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false)
"""
"""The lock of an owner whose machine has vanished is free after 25 seconds."""
_KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 120_000}
"""The same on our side; what was sent, of which keepalive knows nothing, may stay unanswered for two minutes."""
_logger = logging.getLogger("asyncelt.destinations.postgres")
_PROCESS = "SELECT pg_backend_pid()"
_SETTINGS = "SELECT set_config('search_path', $1, true), set_config('TimeZone', 'UTC', true)"


class Connections:
    """A pool that is made when it is first needed, or the caller's.

    Args:
        config: Where to connect.
        application: How the server lists the connections.
    """

    def __init__(self, config: PostgresConfig, application: str) -> None:
        self._config = config
        self._application = application
        self._pool: Pool[Record] | None = config.pool
        self._lock = anyio.Lock()
        self._dedicated: Connection | None = None

    @asynccontextmanager
    async def transaction(self, search_path: str, *, doing: str, begin: str = "BEGIN") -> AsyncIterator[Connection]:
        """A transaction, which is undone when the block is left, unless `commit_now` has been called before.

        Args:
            search_path: Of the transaction.
            doing: For messages.
            begin: The statement that begins it.

        Raises:
            DestinationUnavailable: There is no connection, or it broke.

        Cancellation:
            The statement that runs is stopped by the server, and the transaction undone.
        """
        with translated(doing):
            pool = await self._open_pool()
            connection = await pool.acquire(timeout=self._config.address.timeout_s)

        try:
            with translated(doing):
                await connection.execute(begin)
                await connection.fetchrow(_SETTINGS, search_path)

            yield connection
        except LoadError as error:
            if _is_read_only(error):
                # Connections of before a failover would find the same server for ever; new ones may find the primary.
                await pool.expire_connections()
                # In the middle of a transaction, so that a pooler lets go of its own connection too.
                await cut(connection)

            raise
        finally:
            await _leave(pool, connection)

    @property
    def holds_dedicated(self) -> bool:
        """Whether the connection of `dedicated` is there and alive, as far as is known without asking."""
        return self._dedicated is not None and not self._dedicated.is_closed()

    async def dedicated(self) -> Connection:
        """A connection that stays open until the session is closed; always the same.

        Raises:
            DestinationRejected: A pooler stands before the server that gives it to others after each transaction.
        """
        if self._dedicated is not None and self._dedicated.is_closed():
            # Its lock went with it.
            broken, self._dedicated = self._dedicated, None
            await self._release(broken)

        if self._dedicated is None:
            self._dedicated = await self._open_dedicated()

        return self._dedicated

    async def _open_dedicated(self) -> Connection:
        pool = self._config.pool

        if pool is None:
            await self._check_files()
            made: Connection = await asyncpg.connect(**self._arguments())
        else:
            made = await pool.acquire(timeout=self._config.address.timeout_s)

        try:
            await _keep_alive(made)

            if await made.fetchval(_KEEPALIVE) != made.get_server_pid():
                await self._refuse_pooler(made)
        except BaseException:
            with shielded(_CLEANUP_S):
                await self._release(made)

            raise

        return made

    async def _refuse_pooler(self, dedicated: Connection) -> None:
        """Refuse what stands before the server if a lock could not be held there.

        A connection to the server itself, or by a pooler of sessions, is always the same process of the server, and
        nobody else has that meanwhile.
        """
        before = await dedicated.fetchval(_PROCESS)

        async with self.transaction("public", doing="looking for a pooler") as other:
            taken = await other.fetchval(_PROCESS)
            after = await dedicated.fetchval(_PROCESS)

        if before == after != taken:
            return

        raise DestinationRejected(
            f"A pooler stands before the server {self._config.location} and gives a connection to others after each "
            "transaction. Nobody would know who owns a pipeline.",
            hint=POOLED,
        )

    async def close(self) -> None:
        """Close what this session has opened, also while the task is being cancelled."""
        own, self._dedicated = self._dedicated, None
        pool, self._pool = self._pool, None

        with shielded(_CLEANUP_S):
            if own is not None:
                await self._release(own)

            if pool is not None and pool is not self._config.pool:
                await pool.close()

                return

        if pool is not None and pool is not self._config.pool:
            pool.terminate()

    async def _release(self, dedicated: Connection) -> None:
        if not isinstance(dedicated, PoolConnectionProxy):
            await _close(dedicated)
        elif self._config.pool is not None:
            await self._config.pool.release(dedicated)

    async def _open_pool(self) -> Pool[Record]:
        async with self._lock:
            if self._pool is None:
                await self._check_files()
                size = self._config.pool_size
                # Nothing of ours outlives a transaction behind a pooler; what was undone would be somebody else's.
                reset = _leave_as_it_is if self._config.pooled else None
                self._pool = await asyncpg.create_pool(
                    min_size=0, max_size=size, init=_keep_alive, reset=reset, **self._arguments()
                )

            return self._pool

    async def _check_files(self) -> None:
        # The driver would say neither which file is missing nor what it is for.
        for name, path in self._config.address.files.items():
            if not await anyio.Path(path).is_file():
                raise ConfigError(f"postgres credentials: {name} is {path!r}, which is not a file that can be read.")

    def _arguments(self) -> dict[str, Any]:
        address = self._config.address

        return {
            "dsn": address.dsn,
            **address.parts,
            "timeout": address.timeout_s,
            "server_settings": {"application_name": self._application},
            # Behind a pooler, a statement that was prepared stays at a server that is somebody else's by then.
            **({"statement_cache_size": 0} if self._config.pooled else {}),
        }


def max_copies(config: PostgresConfig) -> int:
    """How many connections of a run may be busy at once, beside the one that holds its lease."""
    return config.pool_size if config.pool is None else config.pool.get_max_size() - 1


async def commit_now(connection: Connection, *, timeout_s: float) -> None:
    """COMMIT, which no cancellation disturbs.

    Raises:
        DestinationRejected: A statement of the transaction had failed, so that the server has undone it.
        TimeoutError: No answer has come in ``timeout_s``; the connection is cut. Whether the server has committed is
            for the next connection to ask.

    Cancellation:
        Goes on when the answer has come, at latest after ``timeout_s``.
    """
    answer = asyncio.ensure_future(connection.execute("COMMIT"))

    try:
        await asyncio.wait([answer], timeout=timeout_s)
    except asyncio.CancelledError:
        await wait_out(answer, grace_s=timeout_s)
        raise

    if not answer.done():
        connection.terminate()

        with suppress(*DRIVER_ERRORS):
            await answer

        raise TimeoutError(f"no answer to COMMIT in {timeout_s:g} seconds")

    if answer.result() != "COMMIT":
        raise DestinationRejected(
            "A statement of the transaction had failed, so Postgres has undone all of it. Leave the transaction when a "
            "statement fails, or put a SAVEPOINT before it."
        )


@contextmanager
def copying(connection: Connection) -> Iterator[Callable[[], bool]]:
    """Around a COPY, which the driver may not end by itself when the connection ends.

    Where the server has not taken all rows yet, the driver waits until it may send again, of which nobody tells it any
    more. And where the server has said that it ends the connection before the COPY began, the driver raises, but has
    made a future already: it fails with the connection, and the event loop would report that nobody has asked for it.
    There is no public way to either.

    Yields:
        Whether the connection has ended. Then there is no sense in more rows; the driver says why it has.
    """
    ended = asyncio.Event()
    protocol: Any = getattr(connection, "_protocol", None)

    def end(_connection: object) -> None:
        ended.set()
        protocol.resume_writing()

    connection.add_termination_listener(end)

    try:
        yield ended.is_set
    except asyncpg.InternalClientError:
        for one in gc.get_referents(protocol):
            if isinstance(one, asyncio.Future):
                one.add_done_callback(lambda future: future.cancelled() or future.exception())

        raise
    finally:
        # One that has ended is not the pool's any more, and has none.
        with suppress(asyncpg.InterfaceError):
            connection.remove_termination_listener(end)


def _is_read_only(error: LoadError) -> bool:
    return isinstance(error.__cause__, asyncpg.ReadOnlySQLTransactionError) or (
        isinstance(error, DestinationRejected) and error.code == asyncpg.ReadOnlySQLTransactionError.sqlstate
    )


async def _leave_as_it_is(_connection: Connection) -> None:
    pass


async def cut(connection: Connection) -> None:
    """End a connection at once, of which a statement may be under way that was cancelled: the server ends it too.

    The driver forgets to ask for that when the connection ends first. The server would work on for nobody then, until
    it has something to send; and a pooler does not know any more whom a request that comes later means.

    Cancellation:
        Takes effect when the connection is cut.
    """
    # There is no public way to the requests that are on their way.
    requests = tuple(getattr(connection, "_cancellations", ()))

    try:
        for request in requests:
            await wait_out(request, grace_s=_CLEANUP_S)
    finally:
        # What has broken is out of the pool already.
        with suppress(asyncpg.InterfaceError):
            connection.terminate()


async def _keep_alive(connection: Connection) -> None:
    """Notice a server whose machine has vanished, also while nothing is sent to it."""
    # The driver has no public way to its socket; without one the system's own patience, two hours, remains.
    transport = getattr(connection, "_transport", None)
    own = transport.get_extra_info("socket") if transport is not None else None

    if own is None or own.family not in (socket.AF_INET, socket.AF_INET6):
        return

    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    for name, value in _KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _leave(pool: Pool[Record], connection: PoolConnectionProxy[Record]) -> None:
    """Give a connection back; an open transaction is undone, if need be by cutting the connection."""
    is_clean = False
    deadline = anyio.current_time() + _CLEANUP_S

    try:
        # The driver keeps to the limit by itself: were it left alone with its work, nobody would ask for the outcome.
        with shielded(2 * _CLEANUP_S):
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK", timeout=_CLEANUP_S)

            await pool.release(connection, timeout=max(deadline - anyio.current_time(), _LEAST_S))
            is_clean = True
    except DRIVER_ERRORS:
        _logger.debug("A connection could not be given back; it is cut.", exc_info=True)
    finally:
        if not is_clean:
            # Its server process ends with it, and so does the transaction. What has broken is out of the pool already.
            with suppress(asyncpg.InterfaceError):
                connection.terminate()


async def _close(connection: asyncpg.Connection[Record]) -> None:
    try:
        await connection.close(timeout=_CLEANUP_S)
    except DRIVER_ERRORS:
        connection.terminate()
