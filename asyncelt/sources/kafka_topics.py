"""Kafka: a member of a consumer group as an event source."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from asyncelt._async import in_thread
from asyncelt.arguments import NAMES, SECONDS, TEXT, choice, expect
from asyncelt.errors import ConfigError, ExtractError, UsageError, warn
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import Bodies, Custody, Message, Receipt, Tell
from asyncelt.extract.receipts import parts_of
from asyncelt.sources.clients import import_client
from asyncelt.sources.kafka_client import arguments_of, check_options, is_passing
from asyncelt.sources.kafka_holding import Holding, end_of, name_of
from asyncelt.sources.kafka_records import bodies_of, message_of
from asyncelt.sources.outages import Outage
from asyncelt.types import OnGap, StartAt

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

__all__ = ["KafkaSource", "kafka"]

_LONG_POLL_S: Final = 5.0
_TELL_S: Final = 3.0
"""How long a commit of the group's offsets may take; they are for others to see, and the next one has them all."""
_LEAVE_S: Final = 5.0
_PIECE: Final = 1000
"""Receipts until others have their turn."""
_NEWS_S: Final = 0.05
"""Until the client tells this source what it knows itself already: not to claim over and over meanwhile."""

_import = partial(import_client, "kafka", "aiokafka", "kafka", "aiokafka", "aiokafka.errors")


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
        self._start = start
        self._on_gap = on_gap
        self._revoke_deadline_s = revoke_deadline_s
        self._options = dict(options)
        self._custody: Custody | None = None
        self._known: dict[str, Intervals] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._assigned: frozenset[TopicPartition] | None = None
        """What the group has given to this member, until it is held or taken away."""
        self._held: dict[TopicPartition, Holding] = {}
        self._settled = anyio.Event()
        self._reading: anyio.CancelScope | None = None
        """Around the request that is under way; cancelled when there is something to take over."""
        self._outage = Outage(first_s=0.1)
        self._was_open = False

    @property
    def name(self) -> str:
        """See `EventSource.name`. Without the topics: there may be more of them tomorrow."""
        return f"kafka_{self._group}"

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

    def entrust(self, custody: Custody) -> None:
        """See `SharesPartitions`."""
        self._custody = custody

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`. Joins the group; what it is given is taken over by `fetch`."""
        module = await in_thread(_import, anyio.CapacityLimiter(1))
        self._known = dict(committed)
        self._assigned = None
        source = self

        class Listener(module.ConsumerRebalanceListener):  # type: ignore[misc,name-defined]  # imported when needed
            async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
                await source._give_back(revoked)

            def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
                source._assigned = frozenset(assigned)

                if source._reading is not None:
                    source._reading.cancel()

        consumer, existing = await self._connected(module, is_again=self._was_open)
        self._was_open = True
        missing = [topic for topic in self._topics if topic not in existing]

        if missing:
            raise ConfigError(
                f"Kafka source {self.name!r}: there is no topic {', '.join(map(repr, missing))} at "
                f"{', '.join(self._servers)}, or it may not be seen. Create it, or check the name."
            )

        consumer.subscribe(list(self._topics), listener=Listener())

    async def _connected(self, module: ModuleType, *, is_again: bool) -> tuple[AIOKafkaConsumer, set[str]]:
        """A client, and the topics that it may see. Brokers that were there before are waited for."""
        while True:
            # Known before it connects: whoever is cancelled meanwhile closes it.
            self._consumer = consumer = module.AIOKafkaConsumer(
                **arguments_of(self._servers, self._group, self._revoke_deadline_s, self._options)
            )

            try:
                await consumer.start()
                existing = await consumer.topics()
            except module.errors.KafkaError as error:
                if not is_again or not is_passing(error):
                    raise ExtractError(
                        f"Kafka source {self.name!r}: cannot connect to {', '.join(self._servers)}: {error}. Is the "
                        "address right (servers=), is the broker up, and does it want TLS or a password "
                        "(security_protocol=...)?"
                    ) from error

                await consumer.stop()
                await self._outage.wait(error)
                continue

            self._outage.over()

            return consumer, existing

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`. Never ends by itself; brokers that are away are waited for."""
        return [message_of(one, holding, self) for holding, some in await self._fetched(most) for one in some]

    async def fetch_bodies(self, most: int) -> Sequence[Bodies]:
        """See `DeliversBodies.fetch_bodies`."""
        return [bodies_of(some, holding, self) for holding, some in await self._fetched(most)]

    async def _fetched(self, most: int) -> Sequence[tuple[Holding, Sequence[ConsumerRecord]]]:
        consumer = self._required()

        while True:
            await self._take_over()
            found: Mapping[TopicPartition, Sequence[ConsumerRecord]] = {}

            try:
                # Whatever was read when this is cancelled belongs to partitions that are about to be sought anew.
                with anyio.CancelScope() as self._reading:
                    found = await consumer.getmany(timeout_ms=int(_LONG_POLL_S * 1000), max_records=most)
            except self._kafka.OffsetOutOfRangeError as error:
                await self._bridge(error.args[0])
                continue
            except self._kafka.NoOffsetForPartitionError:
                # It was assigned a moment ago, and has not been taken over.
                continue
            except self._kafka.KafkaError as error:
                await self._endure(error)
                continue

            if not await self._is_there(has_sent=bool(found)):
                continue

            taken = [
                (self._held[partition], records)
                for partition, records in found.items()
                if partition in self._held and self._assigned is None and records
            ]

            for holding, records in taken:
                holding.open += len(records)
                holding.following = records[-1].offset + 1

            if taken:
                return taken

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`. One owner reads a partition, in order, so what was committed last is a floor."""
        reached: dict[Holding, int] = {}
        counts: Counter[Holding] = Counter()

        try:
            # There may be many: others have their turn.
            for at in range(0, len(receipts), _PIECE):
                for _, position, token in parts_of(receipts[at : at + _PIECE]):
                    if isinstance(token, Holding) and position is not None:
                        reached[token] = max(position, reached.get(token, -1))
                        counts[token] += 1

                await anyio.lowlevel.checkpoint()

            await self._tell_group(reached)
        finally:
            self._settle(counts)

        return {holding.name: position for holding, position in reached.items()}

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`. Whoever claims the partition next reads them again."""
        self._settle(Counter(token for _, _, token in parts_of(receipts) if isinstance(token, Holding)))

    async def close(self) -> None:
        """See `EventSource.close`. Leaves the group."""
        consumer, self._consumer = self._consumer, None
        self._held.clear()
        self._settled.set()

        if consumer is None:
            return

        with anyio.move_on_after(_LEAVE_S) as leaving:
            await consumer.stop()

        if leaving.cancelled_caught:
            # It waits for a broker, or for another member. Its sockets and tasks are closed all the same.
            consumer._closed = False  # noqa: SLF001 - it has no other way to be asked again
            await consumer.stop()

    # ------------------------------------------------------------------ owning partitions

    async def _give_back(self, revoked: set[TopicPartition]) -> None:
        """Nothing more is taken of these; what the stream has of them is committed first, if that is quick enough.

        If it is not, the next owner's claim refuses it, and reads it again.
        """
        self._assigned = None
        leaving = [self._held.pop(one) for one in revoked if one in self._held]

        with anyio.move_on_after(self._revoke_deadline_s):
            while any(one.open for one in leaving) and self._consumer is not None:
                self._settled = anyio.Event()
                self._guard.hurry()
                await self._settled.wait()

    async def _take_over(self) -> None:
        """Claim what was assigned, and read on behind what is committed."""
        while (assigned := self._assigned) is not None:
            try:
                starts = await self._starts(assigned)
            except self._kafka.KafkaError as error:
                await self._endure(error)
                continue

            known = await self._guard.claim(starts)

            # Meanwhile it may have been taken away again.
            if self._assigned is assigned:
                self._known.update(known)

                if not self._hold(assigned, known):
                    await anyio.sleep(_NEWS_S)

    def _hold(self, assigned: frozenset[TopicPartition], known: Mapping[str, Intervals]) -> bool:
        held = {one: Holding(one, name_of(one), end_of(known[name_of(one)]) + 1) for one in assigned}

        if not all(map(self._seek, held.values())):
            return False

        self._held, self._assigned = held, None

        return True

    def _seek(self, holding: Holding) -> bool:
        """Read on there; False if the partition has just been taken away, of which this source is about to hear."""
        try:
            self._required().seek(holding.partition, holding.following)
        except self._kafka.IllegalStateError:
            return False

        return True

    async def _starts(self, assigned: frozenset[TopicPartition]) -> dict[str, int | None]:
        """By partition, what precedes the first message that is wanted, if nothing is known in the destination."""
        consumer = self._required()
        fresh = [one for one in assigned if not self._known.get(name_of(one))]
        starts: dict[str, int | None] = {name_of(one): None for one in assigned}

        if not fresh:
            return starts

        # Of a topic that is read already, a partition that has been added since holds nothing that is old.
        seen = {name.rpartition(":")[0] for name, known in self._known.items() if known}
        late = [one for one in fresh if self._start == "latest" and one.topic not in seen]
        first = await consumer.beginning_offsets(fresh)
        last = await consumer.end_offsets(late) if late else {}

        for one in fresh:
            offset = last.get(one, first[one])

            if self._start == "group":
                offset = max(await consumer.committed(one) or 0, offset)

            starts[name_of(one)] = offset - 1

        return starts

    async def _bridge(self, gone: Mapping[TopicPartition, int]) -> None:
        """Messages are not there any more: an error, or another one's business.

        Raises:
            ExtractError: They are missed.
        """
        try:
            first = await self._required().beginning_offsets(list(gone))
        except self._kafka.KafkaError as error:
            await self._endure(error)
            return

        for partition, offset in gone.items():
            holding = self._held.get(partition)

            if holding is None:
                continue

            where = f"Kafka source {self.name!r}, partition {holding.name!r}"

            if offset > first[partition]:
                raise ExtractError(
                    f"{where}: it has no offset {offset}, up to which it was read. Was the topic made anew? Then "
                    f"delete this partition's row of source {self.name!r} in _asyncelt_positions, and start the "
                    "stream again."
                )

            if self._on_gap == "fail":
                raise ExtractError(
                    f"{where}: the messages from offset {offset} to {first[partition] - 1} were deleted before they "
                    "were read; the oldest one there is the one after them. If they may stay lost, use on_gap='skip'."
                )

            warn(f"{where}: offsets {offset} to {first[partition] - 1} were deleted before they were read.")
            holding.following = first[partition]
            self._seek(holding)

    async def _is_there(self, *, has_sent: bool) -> bool:
        """Whether the brokers are; ones that have sent nothing are asked, since the client only waits for them."""
        if not has_sent and self._assigned is None:
            try:
                await self._required().topics()
            except self._kafka.KafkaError as error:
                await self._outage.wait(error)
                return False

        self._outage.over()

        return True

    async def _endure(self, error: Exception) -> None:
        """Wait, if that may help; then go on behind what was handed out.

        Raises:
            ExtractError: It does not.
        """
        if not is_passing(error):
            raise ExtractError(f"Kafka source {self.name!r}: {type(error).__name__}: {error}") from error

        await self._outage.wait(error)

        for holding in self._held.values():
            self._seek(holding)

    async def _tell_group(self, reached: Mapping[Holding, int]) -> None:
        """Commit offsets, for others to see."""
        offsets = {
            holding.partition: position + 1
            for holding, position in reached.items()
            if self._held.get(holding.partition) in (holding, None)
        }

        # The group may be giving out its partitions anew at this moment.
        with contextlib.suppress(self._kafka.CommitFailedError, self._kafka.IllegalStateError):
            if offsets:
                with anyio.move_on_after(_TELL_S):
                    await self._required().commit(offsets)

    def _settle(self, counts: Mapping[Holding, int]) -> None:
        for holding, count in counts.items():
            holding.open -= count

        self._settled.set()

    # ------------------------------------------------------------------ parts

    @property
    def _kafka(self) -> ModuleType:
        return importlib.import_module("aiokafka.errors")  # it has been, in `position`

    @property
    def _guard(self) -> Custody:
        if self._custody is None:
            raise UsageError(f"Kafka source {self.name!r} is read by nobody. Pass it to pipeline.stream().")

        return self._custody

    def _required(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise UsageError(f"Kafka source {self.name!r} is not connected. Pass it to pipeline.stream().")

        return self._consumer


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
    expect("kafka", NAMES, topics=topics, servers=servers)
    expect("kafka", TEXT, group=group)
    expect("kafka", SECONDS, revoke_deadline_s=revoke_deadline_s)
    names = [topics] if isinstance(topics, str) else list(topics)

    if not names or not all(names) or not group:
        raise ConfigError(f"kafka({topics!r}, group={group!r}): both names are needed.")

    expect(f"kafka({topics!r})", choice(StartAt), start=start)
    expect(f"kafka({topics!r})", choice(OnGap), on_gap=on_gap)
    check_options(topics, options)

    return KafkaSource(
        names,
        group,
        servers=[servers] if isinstance(servers, str) else servers,
        start=start,
        on_gap=on_gap,
        revoke_deadline_s=revoke_deadline_s,
        options=options,
    )
