"""What the folded commits of a dataset come to, in pieces: a fold writes the last one only. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from asyncelt.destinations.filesystem_impl.content import Content
from asyncelt.destinations.filesystem_impl.documents import CHECKPOINTS
from asyncelt.destinations.filesystem_impl.storage import Store

__all__ = ["FOLDED", "LARGE", "Piece", "extended", "read_pieces", "remove_pieces"]

FOLDED: Final = 64
"""Commits behind a checkpoint from which on the next one makes a new one."""
LARGE: Final = 8192
"""Files and loads of a piece from which on the next fold begins another one."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file with a part of the history."""

    number: int
    """Of its last commit."""
    size: int

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{CHECKPOINTS}/{self.number:010d}.json"


def read_pieces(store: Store, pieces: Iterable[Piece]) -> Content | None:
    """What all of them come to; None: one is there no more."""
    content = Content()

    for piece in pieces:
        text = store.read(piece.path)

        if text is None:
            return None

        content = content.and_then(Content.from_json(text))

    # What was superseded has been removed.
    return Content(files=content.files, load_ids=content.load_ids)


def extended(store: Store, pieces: Sequence[Piece], later: Content, number: int) -> list[Piece] | None:
    """The pieces with further commits, written; None: the last one is there no more.

    Args:
        store: Of the dataset.
        pieces: So far.
        later: Of the further commits.
        number: Of the last of them.
    """
    before = list(pieces)

    if before and before[-1].size < LARGE:
        text = store.read(before.pop().path)

        if text is None:
            return None

        later = Content.from_json(text).and_then(later)

    piece = Piece(number, later.size)
    store.write_all({piece.path: later.to_json()})

    return [*before, piece]


def remove_pieces(store: Store, keep: Iterable[Piece]) -> None:
    """Remove the pieces that nobody reads any more."""
    kept = {piece.path for piece in keep}
    paths = [f"{CHECKPOINTS}/{name}" for name in store.names(CHECKPOINTS) if name.removesuffix(".json").isdecimal()]
    store.remove([path for path in paths if path not in kept])
