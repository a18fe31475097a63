"""Moving and claiming the position of a partition: what every destination decides in a transaction. Pure."""

from __future__ import annotations

from dataclasses import replace

from asyncelt.errors import PositionsTaken
from asyncelt.extract.intervals import Intervals
from asyncelt.flow import PositionClaim, PositionMove
from asyncelt.load.protocol import StoredPosition

__all__ = ["claimed", "moved"]


def moved(stored: StoredPosition | None, move: PositionMove) -> StoredPosition:
    """What is committed of a partition after this move.

    Args:
        stored: What is committed so far, read under a lock; None: nothing.
        move: Positions of the messages that are being committed.

    Raises:
        PositionsTaken: The partition has a newer owner, or somebody else has committed one of these messages.
    """
    before = stored or StoredPosition(source=move.source, partition=move.partition, epoch=move.epoch, position="")
    where = f"Partition {move.partition!r} of source {move.source!r}"

    if before.epoch > move.epoch:
        raise PositionsTaken(
            f"{where} was taken over by another owner (epoch {before.epoch}, ours is {move.epoch}). Nothing was "
            "written. Its messages are the new owner's; start the stream again."
        )

    known, taken = Intervals.parse(before.position), Intervals.parse(move.taken)
    twice = known.overlap(taken)

    if twice is not None:
        raise PositionsTaken(
            f"{where}: the message at position {twice} has been committed by somebody else, so the package that holds "
            "it is not. Nothing was written. Start the stream again: what is not committed is delivered again."
        )

    return replace(before, epoch=move.epoch, position=known.union(taken).raised(move.floor).text())


def claimed(stored: StoredPosition | None, claim: PositionClaim) -> StoredPosition:
    """What is known of a partition once this stream has it: under a new epoch, unless nobody has had it in between.

    Args:
        stored: What is committed so far, read under a lock; None: nothing.
        claim: Of the new owner.
    """
    if stored is not None and stored.epoch and stored.epoch == claim.epoch:
        return stored

    epoch = 1 + (stored.epoch if stored is not None else 0)
    position = Intervals(claim.start).text() if stored is None or not stored.position else stored.position

    return StoredPosition(source=claim.source, partition=claim.partition, epoch=epoch, position=position)
