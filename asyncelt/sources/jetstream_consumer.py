"""The durable consumer of a JetStream stream, as it is at the server: found, checked, made."""

from __future__ import annotations

import importlib
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import orjson

from asyncelt.errors import AsynceltWarning, ConfigError
from asyncelt.extract.messages import Bodies, EventSource, Receipt
from asyncelt.extract.receipts import Receipts

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["DurableConsumer", "PullLimits", "bodies_of", "delivery_of"]

_MANY: Final = 100_000
"""Messages that a package has by default."""
_NOT_FOUND: Final = 404
_NANOSECONDS: Final = 1_000_000_000
_SHORT_REPLY: Final = 9
"""Parts of ``$JS.ACK.<stream>.<consumer>.<delivered>.<position>.<of the consumer>.<time>.<pending>``."""


@dataclass(frozen=True, slots=True)
class PullLimits:
    """What the server grants a request; None: anything."""

    messages: int | None = None
    nbytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class DurableConsumer:
    """Which one, and how it is made if it is not there."""

    stream: str
    durable: str
    subject: str | None
    ack_wait_s: float

    async def found(self, client: Client, floor: int | None) -> PullLimits:
        """Look for it; one that does not exist is made, behind ``floor``.

        Returns:
            What it grants.

        Raises:
            ConfigError: It is such that messages would be lost, or cannot be asked for any.
            nats.errors.Error: The server does not answer, or refuses to make it.
        """
        config = await self._config(client)

        if config is None:
            await self._make(client, floor)
            # Another member may have been quicker, with other arguments.
            config = await self._config(client) or {}

        return self._checked(config)

    async def _config(self, client: Client) -> dict[str, object] | None:
        """As the server says it: the client's own class leaves out what it does not know."""
        answer = await client.request(f"$JS.API.CONSUMER.INFO.{self.stream}.{self.durable}", b"", timeout=5)
        said = orjson.loads(answer.data)

        if error := said.get("error"):
            if error.get("code") == _NOT_FOUND:
                return None

            importlib.import_module("nats.js.errors").APIError.from_error(error)

        return cast("dict[str, object]", said["config"])

    async def _make(self, client: Client, floor: int | None) -> None:
        api = importlib.import_module("nats.js.api")  # imported off the loop before
        errors = importlib.import_module("nats.js.errors")
        config = api.ConsumerConfig(
            durable_name=self.durable,
            filter_subject=self.subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait_s,
            max_deliver=-1,
            max_ack_pending=-1,
            deliver_policy=api.DeliverPolicy.ALL if floor is None else api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=None if floor is None else floor + 1,
        )

        try:
            await client.jetstream().add_consumer(self.stream, config)
        except errors.APIError:
            if await self._config(client) is None:
                raise

    def _checked(self, config: dict[str, object]) -> PullLimits:
        deliveries, pending = _number(config, "max_deliver"), _number(config, "max_ack_pending")
        policy = config.get("ack_policy", "explicit")

        if config.get("deliver_subject"):
            raise self._unfit("it is a push consumer, which cannot be asked for messages")

        if policy != "explicit":
            raise self._unfit(
                f"its ack_policy is {policy!r}: an acknowledgement would cover messages that are not committed"
            )

        if deliveries is not None:
            raise self._unfit(
                f"its max_deliver is {deliveries}: messages would be given up before they are committed, and be lost"
            )

        if pending is not None and pending < _MANY:
            warnings.warn(
                f"Consumer {self.durable!r} of the NATS stream {self.stream!r} has max_ack_pending={pending}: no "
                "package has more messages, with all members together, whatever Roll says. -1 takes the limit away.",
                AsynceltWarning,
                stacklevel=2,
            )

        expires = _number(config, "max_expires")

        return PullLimits(
            messages=_number(config, "max_batch"),
            nbytes=_number(config, "max_bytes"),
            seconds=None if expires is None else expires / _NANOSECONDS,
        )

    def _unfit(self, why: str) -> ConfigError:
        return ConfigError(
            f"Consumer {self.durable!r} of the NATS stream {self.stream!r} cannot be used: {why}. Change it, use "
            "another durable=, or delete it: then it is made again, behind what has been committed."
        )


def _number(config: dict[str, object], name: str) -> int | None:
    """A limit; None where there is none."""
    found = config.get(name)

    return found if isinstance(found, int) and found > 0 else None


def delivery_of(reply: str) -> tuple[int, bool, float]:
    """What the subject that a message is acknowledged to says of it. The client's own objects take ten times as long.

    Returns:
        Its position in the stream, whether it has been delivered before, and when it was published (Unix time).
    """
    parts = reply.split(".")
    first = _first_of(len(parts))

    return int(parts[first + 1]), parts[first] != "1", int(parts[first + 3]) / 1e9


def _first_of(width: int) -> int:
    """Where the counts begin in a reply of so many parts: newer servers put domain and account before the stream."""
    return 4 if width == _SHORT_REPLY else 6


def bodies_of(arrived: Sequence[Msg], partition: str, origin: EventSource) -> Bodies:
    """Payloads alone, of messages that can be acknowledged."""
    replies = [one.reply for one in arrived]

    return Bodies(
        [one.data for one in arrived], [one.subject for one in arrived], _receipts(replies, partition), origin
    )


def _receipts(replies: Sequence[str], partition: str) -> Sequence[Receipt]:
    """As `delivery_of` says each; in columns where all of them are new, and told in one way."""
    parts = [one.split(".") for one in replies]
    width = len(parts[0])
    first = _first_of(width)

    if all(len(one) == width and one[first] == "1" for one in parts):
        return Receipts.fresh(partition, array("q", [int(one[first + 1]) for one in parts]), replies)

    deliveries = [delivery_of(one) for one in replies]

    return [
        Receipt(partition, position, reply, again=is_again)
        for (position, is_again, _), reply in zip(deliveries, replies, strict=True)
    ]
