"""NATS JetStream: a durable pull consumer as an event source."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import anyio
import orjson

from asyncelt.errors import ConfigError
from asyncelt.extract.intervals import EMPTY, Intervals
from asyncelt.extract.messages import Message, Receipt
from asyncelt.sources.broker import Patience, connected, imported

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

__all__ = ["NatsSource", "nats"]

_LONG_POLL_S: Final = 30
"""A request waits at the server, which answers as soon as there is a message."""
_LOST_AFTER_S: Final = 35.0
"""A request that was not answered by then got lost."""
_NO_RESPONDERS: Final = "503"
_SHORT_REPLY: Final = 9
"""Parts of ``$JS.ACK.<stream>.<consumer>.<delivered>.<position>.<of the consumer>.<time>.<pending>``."""


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
        self._stream = stream
        self._durable = durable
        self._subject = subject
        self._servers = list(servers)
        self._ack_wait_s = ack_wait_s
        self._options = dict(options)
        self._partition = stream
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._inbox = ""
        self._arrived: deque[Msg] = deque()
        self._news = anyio.Event()
        self._requested = 0
        """Messages that the server may still send without being asked again."""
        self._is_away = False
        self._patience = Patience()

    @property
    def name(self) -> str:
        """See `EventSource.name`."""
        return f"nats_{self._stream}_{self._durable}"

    @property
    def can_reopen(self) -> bool:
        """See `SupportsReopening.can_reopen`."""
        return True

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`. A consumer that does not exist is made, after what has been committed."""
        module = await imported("nats", "nats-py", "nats", "nats", "nats.js.errors", "nats.js.api")
        reconnecting = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.2, **self._options}
        client: Client = await module.connect(
            servers=self._servers, **{**reconnecting, "reconnected_cb": self._on_reconnect}
        )
        self._client = client
        self._requested = 0
        self._is_away = False
        jetstream = self._jetstream = client.jetstream()
        created = (await jetstream.stream_info(self._stream)).created
        self._partition = self._stream if created is None else f"{self._stream}@{created:%Y-%m-%dT%H:%M:%S.%fZ}"
        await self._make_consumer(jetstream, committed.get(self._partition, EMPTY).floor)
        self._inbox = client.new_inbox()
        await client.subscribe(self._inbox, cb=self._on_message)

    async def _make_consumer(self, jetstream: JetStreamContext, floor: int | None) -> None:
        api = importlib.import_module("nats.js.api")  # imported off the loop before
        errors = importlib.import_module("nats.js.errors")

        try:
            await jetstream.consumer_info(self._stream, self._durable)
        except errors.NotFoundError:
            await jetstream.add_consumer(
                self._stream,
                api.ConsumerConfig(
                    durable_name=self._durable,
                    filter_subject=self._subject,
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=self._ack_wait_s,
                    max_deliver=-1,
                    max_ack_pending=-1,
                    deliver_policy=api.DeliverPolicy.ALL if floor is None else api.DeliverPolicy.BY_START_SEQUENCE,
                    opt_start_seq=None if floor is None else floor + 1,
                ),
            )

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`. Never ends by itself; a server that is away is waited for."""
        client = self._required()

        while not self._arrived:
            if self._is_away:
                self._is_away = False
                await self._patience.wait()

            self._news = anyio.Event()

            if self._requested <= 0:
                self._requested = most
                request = orjson.dumps({"batch": most, "expires": _LONG_POLL_S * 1_000_000_000})
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}", request, self._inbox)

            with anyio.move_on_after(_LOST_AFTER_S) as scope:
                await self._news.wait()

            if scope.cancelled_caught:
                self._requested = 0

        self._patience.reset()

        return [self._message(self._arrived.popleft()) for _ in range(min(most, len(self._arrived)))]

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`. The floor is the consumer's: below it everything was acknowledged, so committed."""
        client = self._required()

        for receipt in receipts:
            await client.publish(str(receipt.token), b"+ACK")

        await client.flush()

        if self._jetstream is None:
            return {}

        try:
            info = await self._jetstream.consumer_info(self._stream, self._durable)
        except importlib.import_module("nats.errors").Error:
            # Whether or not the server knows its floor now, it has been told.
            return {}

        floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0

        return {self._partition: floor} if floor else {}

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`."""
        client = self._required()

        for receipt in receipts:
            await client.publish(str(receipt.token), b"-NAK")

        await client.flush()

    async def close(self) -> None:
        """See `EventSource.close`. The consumer stays, and what it has sent that nobody took goes back to it."""
        client, self._client, self._jetstream = self._client, None, None

        if client is None:
            return

        try:
            for one in self._arrived:
                await client.publish(one.reply, b"-NAK")
        finally:
            self._arrived.clear()
            await client.close()

    async def _on_message(self, one: Msg) -> None:
        status = one.headers.get("Status") if one.headers else None

        if status is None or one.data:
            self._arrived.append(one)
            self._requested -= 1
        else:
            # The request is over: its time is up, or the server is starting or going.
            self._requested = 0
            self._is_away = status == _NO_RESPONDERS

        self._news.set()

    async def _on_reconnect(self) -> None:
        self._requested = 0
        self._news.set()

    def _required(self) -> Client:
        return connected(self._client, f"NATS source {self.name!r}")

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


def delivery_of(reply: str) -> tuple[int, bool, float]:
    """What the subject that a message is acknowledged to says of it. The client's own objects take ten times as long.

    Returns:
        Its position in the stream, whether it has been delivered before, and when it was published (Unix time).
    """
    parts = reply.split(".")
    # Newer servers put domain and account before the stream.
    first = 4 if len(parts) == _SHORT_REPLY else 6

    return int(parts[first + 1]), parts[first] != "1", int(parts[first + 3]) / 1e9


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
        ConfigError: A name is missing.
    """
    if not stream or not durable:
        raise ConfigError(f"nats({stream!r}, durable={durable!r}): both names are needed.")

    return NatsSource(
        stream,
        durable,
        subject=subject,
        servers=[servers] if isinstance(servers, str) else servers,
        ack_wait_s=ack_wait_s,
        options=options,
    )
