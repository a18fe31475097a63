"""NATS JetStream: a durable pull consumer as an event source."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from asyncelt._async import backoff_delays, in_thread
from asyncelt.config import Retry
from asyncelt.errors import ConfigError, UsageError
from asyncelt.extract.intervals import EMPTY, Intervals
from asyncelt.extract.messages import Message, Receipt

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.api import ConsumerConfig
    from nats.js.client import JetStreamContext

__all__ = ["NatsSource", "nats"]

_LONG_POLL_S: Final = 30.0
"""A fetch waits at the server, which answers as soon as there is a message."""
_CONNECT: Final = Retry(attempts=5, first_s=0.2, max_s=5.0)


class NatsSource:
    """Messages of one stream, through one durable consumer. Made by `nats`.

    Positions are sequence numbers of the stream, so a message that the server delivers again, acknowledged or not, is
    told apart. A stream that was deleted and made anew is another partition.
    """

    def __init__(
        self,
        stream: str,
        durable: str,
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
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._errors: Any = None  # the module nats.errors, imported off the loop

    @property
    def name(self) -> str:
        """See `EventSource.name`."""
        return f"nats_{self._stream}_{self._durable}"

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`. A consumer that does not exist is made, after what has been committed."""
        module, api = await in_thread(_import, anyio.CapacityLimiter(1))
        self._errors = module.errors
        client: Client = await module.connect(
            servers=self._servers, **{"max_reconnect_attempts": -1, "allow_reconnect": True, **self._options}
        )
        self._client = client
        jetstream = client.jetstream()
        info = await jetstream.stream_info(self._stream)
        created = getattr(info, "created", None)
        self._partition = self._stream if created is None else f"{self._stream}@{created:%Y-%m-%dT%H:%M:%S.%fZ}"
        floor = committed.get(self._partition, EMPTY).floor
        config: ConsumerConfig = api.ConsumerConfig(
            durable_name=self._durable,
            filter_subject=self._subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait_s,
            max_deliver=-1,
            max_ack_pending=-1,
            deliver_policy=api.DeliverPolicy.ALL if floor is None else api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=None if floor is None else floor + 1,
        )

        try:
            await jetstream.consumer_info(self._stream, self._durable)
        except module.js.errors.NotFoundError:
            await jetstream.add_consumer(self._stream, config)

        self._subscription = await jetstream.pull_subscribe_bind(durable=self._durable, stream=self._stream)

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`. Never ends by itself; a server that is away is waited for."""
        subscription, errors = self._subscription, self._errors

        if subscription is None:
            raise UsageError(f"NATS source {self.name!r} is not connected. Pass it to pipeline.stream().")

        delays = None

        while True:
            try:
                found = await subscription.fetch(most, timeout=_LONG_POLL_S)
            except (errors.TimeoutError, TimeoutError):
                continue
            except (errors.NoRespondersError, errors.ConnectionReconnectingError, self._unavailable()):
                # The server is starting again; the client itself reconnects.
                delays = delays or backoff_delays(_FOREVER)
                await anyio.sleep(next(delays))
                continue

            if found:
                return [self._message(one) for one in found]

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`. The floor is the consumer's: below it everything was acknowledged, so committed."""
        client, subscription = self._required()

        for receipt in receipts:
            await client.publish(str(receipt.token), b"+ACK")

        await client.flush()
        info = await subscription.consumer_info()
        floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0

        return {self._partition: floor} if floor else {}

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`."""
        client, _ = self._required()

        for receipt in receipts:
            await client.publish(str(receipt.token), b"-NAK")

        await client.flush()

    async def close(self) -> None:
        """See `EventSource.close`. The consumer stays."""
        client, self._client, self._subscription = self._client, None, None

        if client is not None:
            await client.close()

    def _required(self) -> tuple[Client, JetStreamContext.PullSubscription]:
        if self._client is None or self._subscription is None:
            raise UsageError(f"NATS source {self.name!r} is not connected. Pass it to pipeline.stream().")

        return self._client, self._subscription

    def _unavailable(self) -> type[Exception]:
        module = importlib.import_module("nats.js.errors")  # imported before

        return module.ServiceUnavailableError  # type: ignore[no-any-return]

    def _message(self, one: Any) -> Message:
        meta = one.metadata

        return Message(
            one.data,
            Receipt(self._partition, meta.sequence.stream, one.reply),
            self,
            headers=one.headers or {},
            topic=one.subject,
            timestamp=meta.timestamp.timestamp(),
        )


_FOREVER: Final = Retry(attempts=1_000_000_000, first_s=0.1, max_s=5.0)


def _import() -> tuple[Any, Any]:
    try:
        module = importlib.import_module("nats")
    except ModuleNotFoundError as error:
        raise ConfigError("asyncelt.sources.nats needs the package 'nats-py': pip install 'asyncelt[nats]'") from error

    importlib.import_module("nats.js.errors")

    return module, importlib.import_module("nats.js.api")


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

    return NatsSource(stream, durable, subject, [servers] if isinstance(servers, str) else servers, ack_wait_s, options)
