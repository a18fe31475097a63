"""What the work on an item asks of whoever drives it, and what comes out of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from asyncelt.extract.messages import SafePoint
from asyncelt.schema.hints import TableHints

__all__ = [
    "PAUSE_ROWS",
    "Ahead",
    "Emit",
    "HintNews",
    "Note",
    "Offered",
    "Offload",
    "Pull",
    "Puller",
    "Request",
    "Singles",
    "TableName",
    "Work",
]

PAUSE_ROWS: Final = 32
"""Rows between two pauses. Small, because nobody knows how long a user's function takes."""

TableName: TypeAlias = str | Callable[[object], str]
"""A table's name, or a function of an item that says it."""


@dataclass(frozen=True, slots=True)
class Offload:
    """Call ``function`` where it may block."""

    function: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Ahead:
    """Await this, or call it; the driver may begin other items meanwhile, as long as results come out in order."""

    task: Awaitable[object] | Offload


class Puller(Protocol):
    """Where a driver reads an iterator."""

    async def next(self) -> list[object] | None:
        """The next items; None at the end."""
        ...

    async def close(self) -> None:
        """Close the iterator, where it is read."""
        ...


@dataclass(slots=True)
class Pull:
    """Give the next items of ``iterator``, always from the same thread."""

    iterator: Iterator[object]
    thread: Puller | None = None
    """Set by a driver that has opened a thread for this iterator."""


@dataclass(frozen=True, slots=True)
class Singles:
    """Rows that were yielded one by one, together only because they were handed over together."""

    rows: list[object]


@dataclass(frozen=True, slots=True)
class HintNews:
    """From here on, a table has these hints."""

    hints: TableHints


@dataclass(frozen=True, slots=True)
class Offered:
    """An item on its way to the transformers that read from this resource."""

    item: object


Note: TypeAlias = HintNews | Offered | SafePoint
"""What comes out beside data, in its place among the data."""

Request: TypeAlias = Awaitable[object] | Ahead | Offload | Pull | None
Work: TypeAlias = Generator[Request, object, None]


class Emit(Protocol):
    """Takes what comes out at the end: single rows, lists, `Singles`, a `JsonBody`, an Arrow table, or a `Note`."""

    def __call__(self, table: str, item: object, /) -> None:
        """Take one."""
        ...
