"""Records of Kafka as messages."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asyncelt.extract.messages import Bodies, EventSource, Message, Receipt
from asyncelt.extract.receipts import Receipts
from asyncelt.sources.kafka_holding import Holding

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = ["bodies_of", "message_of"]


def bodies_of(records: Sequence[ConsumerRecord], holding: Holding, origin: EventSource) -> Bodies:
    """Records of a partition that is held: their values alone."""
    topic, offsets = holding.partition.topic, array("q", [one.offset for one in records])
    receipts = Receipts.fresh(holding.name, offsets, [holding] * len(records))

    return Bodies([one.value for one in records], [topic] * len(records), receipts, origin, topic)


def message_of(one: ConsumerRecord, holding: Holding, origin: EventSource) -> Message:
    """A record of a partition that is held. Producers may leave out the value of a header, and old ones the time."""
    return Message(
        one.value,
        Receipt(holding.name, one.offset, holding),
        origin,
        table_name=one.topic,
        headers={name: (value or b"").decode("utf-8", "replace") for name, value in one.headers},
        key=one.key,
        topic=one.topic,
        partition=one.partition,
        timestamp=None if one.timestamp is None or one.timestamp < 0 else one.timestamp / 1000,
    )
