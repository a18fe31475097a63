"""What a resource of a stream may yield beside rows: messages with a receipt, and checkpoints.

A *safe point* is a place in a resource's data where a package may end: everything before it is handed over, and the
state or the positions say so. `SafePoint` is how it travels, in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

from asyncelt.errors import ConfigError
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.tickets import Tickets

__all__ = [
    "Accepted",
    "Bodies",
    "Checkpoint",
    "Custody",
    "DeliversBodies",
    "EventSource",
    "Message",
    "Messages",
    "Positioned",
    "Receipt",
    "Renewable",
    "ReportsOutages",
    "SafePoint",
    "SharesPartitions",
    "StreamSide",
    "SupportsReopening",
    "Tell",
    "checkpoint",
    "entered",
    "required_stream_side",
    "stream_side",
]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is kept of a message until its package has committed. Its source gets an equal one back, made anew."""

    partition: str = ""
    """Positions are compared within a partition only."""
    position: int | None = None
    """Its place in the partition, the same each time it is delivered; None: it is never delivered twice."""
    token: object = None
    """What the source needs to acknowledge it."""
    again: bool = False
    """Whether the source has delivered it before, to whomever: maybe somebody else has committed it since."""


@dataclass(frozen=True, slots=True)
class Message:
    """A row, a page or a body with a receipt. Its package commits, then its source hears of it.

    Args:
        value: Whatever a resource may yield.
        receipt: Where it stands in its source.
        origin: The source; None: nobody wants to hear.
        table_name: The table it goes to; None: the resource's.
    """

    value: object
    receipt: Receipt = field(default_factory=Receipt)
    origin: EventSource | None = None
    table_name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key: bytes | str | None = None
    topic: str | None = None
    partition: int | None = None
    """Its partition's number in the topic, where there is one; None: the receipt's name of it."""
    timestamp: float | None = None
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Bodies:
    """Messages of which only the payload is wanted, in columns: many of them, and no object for each.

    Args:
        values: In bytes; None: a message without one.
        topics: As many, as are the others.
        receipts: Where they stand in their source.
        origin: The source.
        table_name: The table they all go to; None: the resource's.
    """

    values: Sequence[bytes | None]
    topics: Sequence[str]
    receipts: Sequence[Receipt]
    origin: EventSource
    table_name: str | None = None

    def part(self, first: int, end: int) -> Bodies:
        """Some of them, from one place to before another."""
        some = slice(first, end)

        return replace(self, values=self.values[some], topics=self.topics[some], receipts=self.receipts[some])

    def messages(self) -> Sequence[Message]:
        """Each by itself."""
        return [
            Message(value, receipt, self.origin, self.table_name, topic=topic)
            for value, topic, receipt in zip(self.values, self.topics, self.receipts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Messages:
    """What several messages that the stream has accepted hold for one table, as one item."""

    item: object
    tickets: Tickets
    table_name: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A safe point of the user's own. Made by `checkpoint`."""


def checkpoint() -> Checkpoint:
    """Yield this where a package of a stream may end: all rows so far are complete, and the state goes with them.

    Nothing happens in a run, which commits as a whole.
    """
    return Checkpoint()


@dataclass(frozen=True, slots=True)
class SafePoint:
    """Everything before this is complete. On its way from the chain to the pump, between rows."""

    tickets: Tickets = field(default_factory=Tickets)
    """Of the messages before it."""
    state: Mapping[str, object] | None = None
    """A copy of the source's state as of here, of a checkpoint; None: the state does not say where this is."""


@runtime_checkable
class EventSource(Protocol):
    """Where messages come from: a broker's consumer, a queue. Public: third parties implement it.

    The stream calls ``position`` once, then ``fetch`` again and again, ``ack`` after each commit in the order of the
    commits, ``nack`` for what will not be committed, ``close`` at the end. Calls may overlap; ``fetch`` has one caller.
    """

    @property
    def name(self) -> str:
        """Name under which positions are kept: the same after a restart, unique within the pipeline."""
        ...

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """Connect. What has been committed, by partition: a source that can goes there, whatever the broker thinks."""
        ...

    async def fetch(self, most: int) -> Sequence[Message]:
        """Wait for messages; at most so many. Empty: the source has ended.

        Cancellation:
            Safe: a message that was not returned counts as not delivered.
        """
        ...

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """These have been committed.

        Returns:
            By partition, the position up to which no message that is not committed will be delivered, where it knows:
            the stored positions are then pruned up to there. It must hold for all consumers of the source.
        """
        ...

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """These were delivered and will not be committed by this stream: they are for somebody else, or for later."""
        ...

    async def close(self) -> None:
        """Let go of everything. Called once, whatever has failed."""
        ...


@runtime_checkable
class DeliversBodies(EventSource, Protocol):
    """An event source that can deliver payloads alone, where nobody wants to know more of a message."""

    @property
    def has_bodies(self) -> bool:
        """Whether it can, as it was made."""
        ...

    async def fetch_bodies(self, most: int) -> Sequence[Bodies]:
        """See `EventSource.fetch`, in whose place it is called again and again."""
        ...


class Custody(Protocol):
    """What a stream does for a source whose partitions change hands while it runs."""

    async def claim(self, starts: Mapping[str, int | None]) -> Mapping[str, Intervals]:
        """Take partitions over: whoever had them before cannot commit messages of them any more.

        Args:
            starts: By partition, up to where nothing is wanted if nothing of it is known yet.

        Returns:
            By partition, what is committed, or on its way in this stream: it goes on behind that.

        Raises:
            ConfigError: The destination keeps no positions.
        """
        ...

    def hurry(self) -> None:
        """Let what was delivered be committed soon: the package ends at the next safe points."""
        ...


@runtime_checkable
class SharesPartitions(Protocol):
    """An event source whose partitions change hands while it runs. A message of one has one owner at a time."""

    def entrust(self, custody: Custody) -> None:
        """Called before each ``position``."""
        ...


@runtime_checkable
class Positioned(Protocol):
    """An event source that says beforehand whether its receipts have positions, which not every destination keeps."""

    @property
    def has_positions(self) -> bool:
        """Whether they have."""
        ...


@runtime_checkable
class Renewable(Protocol):
    """An event source that others put messages into, and that streams may read one after the other."""

    def renew(self) -> None:
        """Take messages again, if the stream that read it has ended: another one has been described."""
        ...


Tell: TypeAlias = Callable[[str | None], None]
"""Takes what is wrong with a broker, each time that it is tried again in vain; None: it is back."""


@runtime_checkable
class ReportsOutages(Protocol):
    """An event source that waits for a broker that is away, and says so meanwhile."""

    def report_to(self, tell: Tell) -> None:
        """Called before each ``position``."""
        ...


@runtime_checkable
class SupportsReopening(EventSource, Protocol):
    """An event source that can be closed and positioned again, any number of times.

    Where several processes share messages, one may find that another has committed some of those it has read. What it
    has in flight is given up then; a stream of such sources goes on by reading it again, any other one ends.
    """

    @property
    def can_reopen(self) -> bool:
        """Whether it can, as it was made."""
        ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """Deliveries that a stream has taken note of."""

    tickets: Sequence[int]
    """One for each."""
    repeated: Set[int]
    """Those of messages that are committed already, or about to be: their rows are not wanted."""


class StreamSide(Protocol):
    """What a running stream knows about messages."""

    async def open(self, source: EventSource) -> None:
        """Position a source, and take care of it from here on."""
        ...

    def knows(self, source: EventSource, receipt: Receipt) -> bool:
        """Whether the message is known as committed, or on its way, without looking again."""
        ...

    async def refresh(self) -> None:
        """Look again what has been committed, by anybody."""
        ...

    def accept(self, source: EventSource | None, receipts: Sequence[Receipt]) -> Accepted:
        """Take note of deliveries, each of which gets a ticket that goes with its rows; receipts are kept here.

        Raises:
            ConfigError: They have positions, which the destination does not keep.
        """
        ...


stream_side: ContextVar[StreamSide | None] = ContextVar("asyncelt_stream", default=None)
"""Of the stream that reads the resource at hand; None in a run."""


@contextmanager
def entered(side: StreamSide | None) -> Iterator[None]:
    """Let code inside find the stream it runs for."""
    token = stream_side.set(side)

    try:
        yield
    finally:
        stream_side.reset(token)


def required_stream_side() -> StreamSide:
    """The stream that reads the resource at hand.

    Raises:
        ConfigError: There is none.
    """
    side = stream_side.get()

    if side is None:
        raise ConfigError("An event source can only be read by a stream: await pipeline.stream(source).")

    return side
