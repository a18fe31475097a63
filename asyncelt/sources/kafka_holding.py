"""A partition of a Kafka topic, while a member of the group has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncelt.extract.intervals import Intervals

if TYPE_CHECKING:
    from aiokafka import TopicPartition

__all__ = ["Holding", "end_of", "name_of"]


@dataclass(slots=True, eq=False)
class Holding:
    """A partition, for as long as this member has it. The token of its messages' receipts."""

    partition: TopicPartition
    name: str
    following: int
    """The offset behind the last message that was handed out."""
    open: int = 0
    """Messages that were handed out, and of which the stream has not said what became of them."""


def name_of(partition: TopicPartition) -> str:
    """Under which its positions are kept."""
    return f"{partition.topic}:{partition.partition}"


def end_of(known: Intervals) -> int:
    """The last position before the first that is not known. A partition is read in order, so there is one piece."""
    if known.floor is not None:
        return known.floor

    return known.ranges[0][1] if known.ranges else -1
