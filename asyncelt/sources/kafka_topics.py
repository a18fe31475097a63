"""Kafka: a member of a consumer group as an event source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, get_args

import anyio

from asyncelt.errors import ConfigError, ExtractError
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import Custody, Message, Receipt
from asyncelt.sources.broker import connected, imported
from asyncelt.sources.kafka_partitions import Holding, Partitions, kafka_errors
from asyncelt.types import OnGap, StartAt

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

__all__ = ["KafkaSource", "kafka"]

_LONG_POLL_S: Final = 5.0
_TELL_S: Final = 3.0
"""How long a commit of the group's offsets may take; they are for others to see, and the next one has them all."""
_LEAVE_S: Final = 5.0
_NEVER_MS: Final = 2**31 - 1
_MARGIN_MS: Final = 10_000
_OURS: Final = {
    "auto_offset_reset": "start= says where a partition starts, on_gap= what happens when messages are gone",
    "bootstrap_servers": "use servers=",
    "enable_auto_commit": "offsets are committed after the rows",
    "group_id": "use group=",
    "key_deserializer": "use asyncelt.sources.events(source, decode=...)",
    "value_deserializer": "use asyncelt.sources.events(source, decode=...)",
}
"""Arguments of the client that would say something else than ours."""


class KafkaSource:
    """Messages of topics, as one member of a consumer group. Made by `kafka`.

    Positions are offsets. A partition that is assigned to this member is claimed in the destination first, so nobody
    who had it before can commit any more, and is read on behind what is committed there, whatever the group believes.
    """

    def __init__(
        self,
        topics: Sequence[str],
        group: str,
        *,
        servers: Sequence[str],
        start: StartAt,
        on_gap: OnGap,
        revoke_deadline_s: float,
        options: Mapping[str, object],
    ) -> None:
        self._topics = tuple(dict.fromkeys(topics))
        self._group = group
        self._servers = list(servers)
        self._start: StartAt = start
        self._on_gap: OnGap = on_gap
        self._revoke_deadline_s = revoke_deadline_s
        self._options = dict(options)
        self._custody: Custody | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: Partitions | None = None

    @property
    def name(self) -> str:
        """See `EventSource.name`. Without the topics: there may be more of them tomorrow."""
        return f"kafka_{self._group}"

    @property
    def can_reopen(self) -> bool:
        """See `SupportsReopening.can_reopen`."""
        return True

    def entrust(self, custody: Custody) -> None:
        """See `SharesPartitions`."""
        self._custody = custody

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`. Joins the group; what it is given is taken over by `fetch`."""
        module = await imported("kafka", "aiokafka", "kafka", "aiokafka", "aiokafka.errors")
        self._consumer = consumer = module.AIOKafkaConsumer(**self._arguments())
        self._partitions = partitions = Partitions(
            self.name, consumer, self._custody, committed, start=self._start, on_gap=self._on_gap
        )
        deadline_s = self._revoke_deadline_s

        class Listener(module.ConsumerRebalanceListener):  # type: ignore[misc,name-defined]  # imported when needed
            async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
                await partitions.give_back(revoked, deadline_s)

            def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
                partitions.assign(assigned)

        try:
            await consumer.start()
            existing = await consumer.topics()
        except module.errors.KafkaError as error:
            raise ExtractError(
                f"Kafka source {self.name!r}: cannot connect to {', '.join(self._servers)}: {error}. Is the address "
                "right (servers=), is the broker up, and does it want TLS or a password (security_protocol=...)?"
            ) from error

        missing = [topic for topic in self._topics if topic not in existing]

        if missing:
            raise ConfigError(
                f"Kafka source {self.name!r}: there is no topic {', '.join(map(repr, missing))} at "
                f"{', '.join(self._servers)}, or it may not be seen. Create it, or check the name."
            )

        consumer.subscribe(list(self._topics), listener=Listener())

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`. Never ends by itself; brokers that are away are waited for."""
        consumer, partitions = self._required()
        errors = kafka_errors()

        while True:
            await partitions.take_over()
            found: Mapping[TopicPartition, Sequence[ConsumerRecord]] = {}

            try:
                # Whatever was read when this is cancelled belongs to partitions that are about to be sought anew.
                with anyio.CancelScope() as partitions.reading:
                    found = await consumer.getmany(timeout_ms=int(_LONG_POLL_S * 1000), max_records=most)
            except errors.OffsetOutOfRangeError as error:
                await partitions.bridge(error.args[0])
                continue
            except errors.NoOffsetForPartitionError:
                # It was assigned a moment ago, and has not been taken over.
                continue
            except errors.KafkaError as error:
                await partitions.endure(error)
                continue

            partitions.patience.reset()
            messages = [
                self._message(partitions.held[partition], one)
                for partition, records in found.items()
                if partition in partitions.held and partitions.is_up_to_date
                for one in records
            ]

            if messages:
                return messages

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`. One owner reads a partition, in order, so what was committed last is a floor."""
        consumer, partitions = self._required()
        reached: dict[Holding, int] = {}

        for one in receipts:
            if isinstance(one.token, Holding) and one.position is not None:
                reached[one.token] = max(one.position, reached.get(one.token, -1))

        offsets = {
            holding.partition: position + 1
            for holding, position in reached.items()
            if partitions.held.get(holding.partition) in (holding, None)
        }

        try:
            if offsets:
                with anyio.move_on_after(_TELL_S):
                    await consumer.commit(offsets)
        except (kafka_errors().CommitFailedError, kafka_errors().IllegalStateError):
            # The group gives out its partitions anew at this moment.
            pass
        finally:
            partitions.settle(receipts)

        return {holding.name: position for holding, position in reached.items()}

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`. Whoever claims the partition next reads them again."""
        if self._partitions is not None:
            self._partitions.settle(receipts)

    async def close(self) -> None:
        """See `EventSource.close`. Leaves the group."""
        consumer, self._consumer = self._consumer, None

        if self._partitions is not None:
            self._partitions.close()

        if consumer is None:
            return

        with anyio.move_on_after(_LEAVE_S) as leaving:
            await consumer.stop()

        if leaving.cancelled_caught:
            # It waits for a broker, or for another member. Its sockets and tasks are closed all the same.
            consumer._closed = False  # noqa: SLF001 - it has no other way to be asked again
            await consumer.stop()

    # ------------------------------------------------------------------ parts

    def _arguments(self) -> dict[str, object]:
        revoke_ms = int(self._revoke_deadline_s * 1000)
        # A stream whose destination is away reads nothing, and yet is alive: its heartbeats say so. A member that
        # gives partitions back may take its time, and those who wait for it ask for that long.
        defaults = {
            "max_poll_interval_ms": _NEVER_MS,
            "rebalance_timeout_ms": revoke_ms + _MARGIN_MS,
            "request_timeout_ms": max(40_000, revoke_ms + 2 * _MARGIN_MS),
        }
        ours = {
            "bootstrap_servers": self._servers,
            "group_id": self._group,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
        }

        return {**defaults, **self._options, **ours}

    def _message(self, holding: Holding, one: ConsumerRecord) -> Message:
        holding.open += 1
        holding.following = one.offset + 1

        return Message(
            one.value,
            Receipt(holding.name, one.offset, holding),
            self,
            table_name=one.topic,
            headers={name: value.decode("utf-8", "replace") for name, value in one.headers},
            key=one.key,
            topic=one.topic,
            partition=one.partition,
            timestamp=one.timestamp / 1000,
        )

    def _required(self) -> tuple[AIOKafkaConsumer, Partitions]:
        source = f"Kafka source {self.name!r}"

        return connected(self._consumer, source), connected(self._partitions, source)


def kafka(
    topics: str | Sequence[str],
    *,
    group: str,
    servers: str | Sequence[str] = "127.0.0.1:9092",
    start: StartAt = "earliest",
    on_gap: OnGap = "fail",
    revoke_deadline_s: float = 30.0,
    **options: object,
) -> KafkaSource:
    """Messages of Kafka topics, exactly once in the destination, for `Pipeline.stream`. Each topic is a table.

    Offsets that are committed with the rows win over those of the group, which follow after each commit for others to
    see. What the destination knows is kept under the group's name: another group begins anew.

    Args:
        topics: Names of the topics, which exist. There may be others after a restart.
        group: Members of a group share the partitions.
        servers: Where to connect, as ``host:port``.
        start: Where a partition starts of which the destination knows nothing: ``earliest``, ``latest``, or ``group``,
            where the group stands. Partitions that are added to a topic later start at ``earliest``.
        on_gap: What happens when messages were deleted before they were read: ``fail`` ends the stream, ``skip`` warns
            and goes on at the oldest that is there.
        revoke_deadline_s: When the group gives a partition to another member: how long that one waits until what is
            in flight has been committed. Then it is given up, and the new owner reads it again.
        options: More arguments of ``aiokafka.AIOKafkaConsumer``: security, time-outs, sizes.

    Raises:
        ConfigError: A name is missing, or an argument is not possible.
    """
    names = [topics] if isinstance(topics, str) else list(topics)

    if not names or not all(names) or not group:
        raise ConfigError(f"kafka({topics!r}, group={group!r}): both names are needed.")

    if start not in get_args(StartAt) or on_gap not in get_args(OnGap) or revoke_deadline_s < 0:
        raise ConfigError(
            f"kafka({topics!r}): start is one of {', '.join(get_args(StartAt))}, on_gap one of "
            f"{', '.join(get_args(OnGap))}, revoke_deadline_s not negative; got {start!r}, {on_gap!r}, "
            f"{revoke_deadline_s}."
        )

    for name in options:
        if name in _OURS:
            raise ConfigError(f"kafka({topics!r}, {name}=...): {_OURS[name]}.")

    return KafkaSource(
        names,
        group,
        servers=[servers] if isinstance(servers, str) else servers,
        start=start,
        on_gap=on_gap,
        revoke_deadline_s=revoke_deadline_s,
        options=options,
    )
