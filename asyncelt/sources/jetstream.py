"""NATS JetStream: a durable pull consumer as an event source."""

from __future__ import annotations

import importlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import anyio
import orjson

from asyncelt._async import in_thread
from asyncelt.arguments import NAMES, SECONDS, TEXT, expect, expect_if_given
from asyncelt.errors import ConfigError, ExtractError, UsageError
from asyncelt.extract.intervals import EMPTY, Intervals
from asyncelt.extract.messages import Bodies, Message, Receipt, Tell
from asyncelt.extract.receipts import parts_of
from asyncelt.sources.clients import import_client
from asyncelt.sources.jetstream_consumer import DurableConsumer, PullLimits, bodies_of, delivery_of
from asyncelt.sources.outages import Outage

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["NatsSource", "nats"]

_LONG_POLL_S: Final = 30.0
"""A request waits at the server, which answers as soon as there is a message."""
_LOST_AFTER_S: Final = 5.0
"""A request that was not answered so long after its time got lost."""
_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""To ask for at a time, at most: messages may be large."""
_HEAD_BYTES: Final = 64 * 1024
"""What else is counted of a message."""
_FIRST_TRIES: Final = 5
"""To connect, with each server, when the stream starts."""
_FIRST_S: Final = 60.0
_FLUSH_S: Final = 4
_PIECE: Final = 1000
"""Acknowledgements until others have their turn."""
_NOT_IN_NAMES: Final = frozenset(" .*>/\\")
_OVER: Final = frozenset({"404", "408"})
"""A request's time is up; any other status says that something is wrong, or that it has got enough bytes."""
_Callback = Callable[..., Awaitable[None]]
_logger = logging.getLogger("asyncelt.sources.nats")

_import = partial(import_client, "nats", "nats-py", "nats", "nats.aio.client", "nats.js.errors", "nats.js.api")


class NatsSource:
    """Messages of one stream, through one durable consumer. Made by `nats`.

    Positions are sequence numbers of the stream, so a message that the server delivers again, acknowledged or not, is
    told apart. A stream that was deleted and made anew is another partition.
    """

    def __init__(
        self,
        stream: str,
        durable: str,
        *,
        subject: str | None,
        servers: Sequence[str],
        ack_wait_s: float,
        options: Mapping[str, object],
    ) -> None:
        self._consumer = DurableConsumer(stream, durable, subject, ack_wait_s)
        self._servers = list(servers)
        self._options = dict(options)
        self._partition = ""
        """Stream, and when it was made."""
        self._floor: int | None = None
        """Up to there everything is committed."""
        self._client: Client | None = None
        self._inbox = ""
        self._arrived: deque[Msg] = deque()
        self._news = anyio.Event()
        self._requested = 0
        """Messages that the server may still send without being asked again."""
        self._is_fruitless = True
        """Whether nothing has come of the last request."""
        self._limits = PullLimits()
        self._is_sure = False
        """Whether stream and consumer are known to be what they were."""
        self._trouble: object = None
        """Why the next request has to wait."""
        self._outage = Outage()
        self._last_error: object = None

    @property
    def name(self) -> str:
        """See `EventSource.name`."""
        return f"nats_{self._consumer.stream}_{self._consumer.durable}"

    @property
    def has_positions(self) -> bool:
        """See `Positioned.has_positions`."""
        return True

    @property
    def can_reopen(self) -> bool:
        """See `SupportsReopening.can_reopen`."""
        return True

    @property
    def has_bodies(self) -> bool:
        """See `DeliversBodies.has_bodies`."""
        return True

    def report_to(self, tell: Tell) -> None:
        """See `ReportsOutages`."""
        self._outage.report_to(tell)

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`. A consumer that does not exist is made, after what has been committed."""
        module = await in_thread(_import, anyio.CapacityLimiter(1))
        is_again, self._partition = bool(self._partition), ""
        self._requested, self._trouble, self._last_error = 0, None, None
        # Known before it connects: whoever is cancelled meanwhile closes it.
        client: Client = module.Client()
        self._client = client
        await self._connect(client, is_again=is_again)

        while not await self._find(committed):
            if not is_again:
                raise ExtractError(
                    f"NATS source {self.name!r}: {self._where()} says nothing of stream {self._consumer.stream!r}: "
                    f"{self._trouble}. Has the server JetStream, and may this user ask for it?"
                )

            await self._outage.wait(self._trouble)

        self._outage.over()
        self._trouble, self._is_sure = None, True
        self._inbox = client.new_inbox()
        await client.subscribe(self._inbox, cb=self._on_message)

    async def _connect(self, client: Client, *, is_again: bool) -> None:
        """Connect. When the stream starts, an address or a password may be wrong; later on a server is waited for."""
        errors = importlib.import_module("nats.errors")
        given = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.2, **self._options}
        arguments = {
            **given,
            "max_reconnect_attempts": -1 if is_again else _FIRST_TRIES,
            "error_cb": _both(self._on_error, self._options.get("error_cb")),
            "reconnected_cb": _both(self._on_reconnect, self._options.get("reconnected_cb")),
        }
        try:
            with anyio.fail_after(None if is_again else _FIRST_S):
                await client.connect(self._servers, **arguments)  # type: ignore[arg-type]  # whatever it takes
        except (OSError, TimeoutError, errors.Error) as error:
            raise ExtractError(
                f"NATS source {self.name!r}: cannot connect to {self._where()}: {self._last_error or error}. Is the "
                "address right (servers=), is the server up, and does it want TLS or a password (user=, password=)?"
            ) from error

        client.options["max_reconnect_attempts"] = given["max_reconnect_attempts"]
        self._last_error = None

    async def _find(self, committed: Mapping[str, Intervals]) -> bool:
        """Look whether stream and consumer are there; the consumer is made if it is not.

        Returns:
            False: the server does not answer; ``_trouble`` says how.

        Raises:
            ConfigError: The stream does not exist, or the consumer cannot be used.
            ExtractError: The stream is gone, or another one than it was; or the client has given up.
        """
        client, stream = self._required(), self._consumer.stream
        errors = importlib.import_module("nats.js.errors")

        if client.is_closed:
            raise ExtractError(
                f"NATS source {self.name!r}: the connection to {self._where()} is given up after "
                f"max_reconnect_attempts={client.options['max_reconnect_attempts']}: {self._last_error}. Without that "
                "argument the server is waited for."
            )

        try:
            created = (await client.jetstream().stream_info(stream)).created
            partition = stream if created is None else f"{stream}@{created:%Y-%m-%dT%H:%M:%S.%fZ}"

            if self._partition not in ("", partition):
                raise ExtractError(
                    f"NATS source {self.name!r}: the stream {stream!r} was deleted and made anew while it was read. "
                    "Start this stream again, which reads the new one from its beginning."
                )

            if not self._partition:
                self._floor = committed.get(partition, EMPTY).floor

            self._limits = await self._consumer.found(client, self._floor)
            self._partition = partition
        except errors.NotFoundError as error:
            where = f"NATS source {self.name!r}: there is no stream {stream!r} at {self._where()}"

            if self._partition:
                raise ExtractError(f"{where} any more: it was deleted while it was read.") from error

            raise ConfigError(f"{where}. Create it, or check the name.") from error
        except (TimeoutError, importlib.import_module("nats.errors").Error) as error:
            self._trouble = error
            return False

        return True

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`. Never ends by itself; a server that is away is waited for.

        Raises:
            ConfigError: The consumer was changed, so that messages would be lost.
            ExtractError: The stream was deleted, or deleted and made anew.
        """
        return [self._message(one) for one in await self._fetched(most)]

    async def fetch_bodies(self, most: int) -> Sequence[Bodies]:
        """See `DeliversBodies.fetch_bodies`. Raises what `fetch` does."""
        return [bodies_of(await self._fetched(most), self._partition, self)]

    async def _fetched(self, most: int) -> Sequence[Msg]:
        while not self._arrived:
            self._news = anyio.Event()

            if self._trouble is not None:
                trouble, self._trouble, self._is_sure = self._trouble, None, False
                await self._outage.wait(trouble)

            if not self._is_sure:
                self._is_sure = await self._find({})

                if not self._is_sure:
                    continue

                self._outage.answered()

            waiting_s = min(self._limits.seconds or _LONG_POLL_S, _LONG_POLL_S)

            if self._requested <= 0:
                await self._request(most, waiting_s)

            with anyio.move_on_after(waiting_s + _LOST_AFTER_S) as scope:
                await self._news.wait()

            if scope.cancelled_caught:
                self._requested, self._is_sure = 0, False

        self._outage.over()

        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def _request(self, most: int, waiting_s: float) -> None:
        client = self._required()
        # The server sends nothing at all of a message that is larger than what it was asked for.
        nbytes = max(_REQUEST_BYTES, client.max_payload + _HEAD_BYTES)
        self._requested = min(most, self._limits.messages or most)
        self._is_fruitless = True
        request = {
            "batch": self._requested,
            "max_bytes": min(nbytes, self._limits.nbytes or nbytes),
            "expires": int(waiting_s * 1_000_000_000),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._consumer.stream}.{self._consumer.durable}"

        try:
            await client.publish(subject, orjson.dumps(request), self._inbox)
        except importlib.import_module("nats.errors").Error as error:
            # Closed, or full of what it could not send.
            self._requested, self._trouble = 0, error
            self._news.set()

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`. The floor is the consumer's: below it everything was acknowledged, so committed."""
        client = self._required()
        await _publish(client, (str(token) for _, _, token in parts_of(receipts)), b"+ACK")
        await client.flush(_FLUSH_S)

        try:
            info = await client.jetstream().consumer_info(self._consumer.stream, self._consumer.durable)
        except (TimeoutError, importlib.import_module("nats.errors").Error):
            # Whether or not the server knows its floor now, it has been told.
            return {}

        floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0

        if not floor:
            return {}

        self._floor = max(floor, self._floor or 0)

        return {self._partition: floor}

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`."""
        client = self._required()

        await _publish(client, (str(token) for _, _, token in parts_of(receipts)), b"-NAK")
        await client.flush(_FLUSH_S)

    async def close(self) -> None:
        """See `EventSource.close`. The consumer stays, and what it has sent that nobody took goes back to it."""
        client, self._client = self._client, None

        if client is None:
            return

        try:
            if client.is_connected:
                await _publish(client, (one.reply for one in self._arrived), b"-NAK")
        finally:
            self._arrived.clear()
            await client.close()

    async def _on_message(self, one: Msg) -> None:
        status = one.headers.get("Status") if one.headers else None

        # Only messages can be acknowledged; they may have headers of any name, and no body.
        if one.reply:
            self._arrived.append(one)
            self._requested -= 1
            self._is_fruitless = False
        else:
            self._requested = 0

            # A request that has got something may have ended because of its size.
            if status in _OVER:
                self._outage.over()
            elif self._is_fruitless:
                self._trouble = f"{status} {one.headers.get('Description', '') if one.headers else ''}".strip()

        self._news.set()

    async def _on_error(self, error: Exception) -> None:
        # What a server says tells more than that a connection broke, which may be how it takes leave.
        if self._last_error is None or not isinstance(error, OSError):
            self._last_error = error

        if self._client is None:
            return

        if self._client.is_connected:
            _logger.warning("NATS source %r: %s", self.name, error)
        elif self._inbox:
            # It was there before.
            self._outage.noticed(error)

    async def _on_reconnect(self) -> None:
        self._requested, self._is_sure = 0, False
        self._news.set()

    def _where(self) -> str:
        """The servers, without passwords."""
        addresses = [urlsplit(one if "//" in one else f"//{one}").netloc for one in self._servers]

        return ", ".join(one.rpartition("@")[2] for one in addresses)

    def _required(self) -> Client:
        if self._client is None:
            raise UsageError(f"NATS source {self.name!r} is not connected. Pass it to pipeline.stream().")

        return self._client

    def _message(self, one: Msg) -> Message:
        position, is_again, timestamp = delivery_of(one.reply)

        return Message(
            one.data,
            Receipt(self._partition, position, one.reply, again=is_again),
            self,
            headers=one.headers or {},
            topic=one.subject,
            timestamp=timestamp,
        )


async def _publish(client: Client, subjects: Iterable[str], said: bytes) -> None:
    for number, subject in enumerate(subjects, 1):
        await client.publish(subject, said)

        if number % _PIECE == 0:
            await anyio.lowlevel.checkpoint()


def _both(ours: _Callback, theirs: object) -> _Callback:
    """A callback that calls ours, and then the user's if there is one."""
    if theirs is None:
        return ours

    also = cast("_Callback", theirs)

    async def call(*arguments: object) -> None:
        await ours(*arguments)
        await also(*arguments)

    return call


def nats(
    stream: str,
    *,
    durable: str,
    subject: str | None = None,
    servers: str | Sequence[str] = "nats://127.0.0.1:4222",
    ack_wait_s: float = 120.0,
    **options: object,
) -> NatsSource:
    """Messages of a JetStream stream, exactly once in the destination, for `Pipeline.stream`.

    Args:
        stream: Name of the stream, which exists.
        durable: Name of the consumer; made if it does not exist. Streams that share it share the messages.
        subject: Only messages of these subjects; counts when the consumer is made.
        servers: Where to connect.
        ack_wait_s: When the server delivers a message again that has not been acknowledged. Should be longer than a
            package takes until its commit; when it is not, repetitions are left out.
        options: More arguments of ``nats.connect``: credentials, TLS.

    Raises:
        ConfigError: A name is missing, or the server would take it for something else.
    """
    expect("nats", TEXT, stream=stream, durable=durable)
    expect("nats", NAMES, servers=servers)
    expect("nats", SECONDS, ack_wait_s=ack_wait_s)
    expect_if_given("nats", TEXT, subject=subject)

    if not stream or not durable:
        raise ConfigError(f"nats({stream!r}, durable={durable!r}): both names are needed.")

    if set(stream + durable) & _NOT_IN_NAMES or not (stream + durable).isprintable():
        raise ConfigError(
            f"nats({stream!r}, durable={durable!r}): names of streams and consumers have no spaces and none of "
            f"{' '.join(sorted(_NOT_IN_NAMES - {' '}))}"
        )

    return NatsSource(
        stream,
        durable,
        subject=subject,
        servers=[servers] if isinstance(servers, str) else servers,
        ack_wait_s=ack_wait_s,
        options=options,
    )
