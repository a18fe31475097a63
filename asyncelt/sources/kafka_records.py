"""Records of Kafka as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncelt.extract.messages import EventSource, Message, Receipt
from asyncelt.sources.kafka_holding import Holding

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = ["message_of"]


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
