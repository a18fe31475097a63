"""What is committed of message sources: moved with each commit, claimed by who takes a partition over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import anyio

from asyncelt._async import in_thread
from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.postgres_impl.locks import take_table_turns
from asyncelt.destinations.postgres_impl.migrating import require_table
from asyncelt.destinations.postgres_impl.reading import DIALECT
from asyncelt.destinations.postgres_impl.writing import Work
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.names import Dataset
from asyncelt.flow import Package, PositionClaim, PositionMove
from asyncelt.load.positions import claimed, moved
from asyncelt.load.protocol import StoredPosition

__all__ = ["claim_positions", "move_positions"]

_TABLE = system.POSITIONS_TABLE
_One = TypeVar("_One", PositionClaim, PositionMove)


async def move_positions(work: Work, pipeline_name: str, packages: Sequence[Package]) -> None:
    """Write down which messages the packages hold; before their rows, since a refusal makes those useless.

    Raises:
        PositionsTaken: A message has been committed already, or its partition has a newer owner.
    """
    moves = [move for package in packages for move in package.positions]
    await _decide(work.connection, work.dataset, pipeline_name, moves, moved, work.threads)


async def claim_positions(
    connection: Connection,
    dataset: Dataset,
    pipeline_name: str,
    claims: Sequence[PositionClaim],
    threads: anyio.CapacityLimiter,
) -> list[StoredPosition]:
    """See `SupportsPositions.claim`. In a transaction that is not committed here.

    Args:
        connection: In a transaction.
        dataset: Created if it is not there.
        pipeline_name: Whose sources they are.
        claims: The partitions.
        threads: For what takes long to decide.
    """
    await require_table(connection, dataset, _TABLE)
    found = await _decide(connection, dataset, pipeline_name, claims, claimed, threads)

    return [found[one.source, one.partition] for one in claims]


async def _decide(
    connection: Connection,
    dataset: Dataset,
    pipeline_name: str,
    wanted: Sequence[_One],
    decide: Callable[[StoredPosition | None, _One], StoredPosition],
    threads: anyio.CapacityLimiter,
) -> dict[tuple[str, str], StoredPosition]:
    """Read all rows, decide, and write what comes of it."""
    if not wanted:
        return {}

    stored = await _locked_all(connection, dataset, pipeline_name, {(one.source, one.partition) for one in wanted})
    # Off the loop: a position with gaps is a text of up to megabytes.
    found = await in_thread(partial(_decided, stored, wanted, decide), threads)

    for where, after in found.items():
        if stored[where] is None:
            sql = system.insert_row(dataset, _TABLE.name, system.POSITION_COLUMNS, DIALECT)
        else:
            sql = system.move_position(dataset, DIALECT)

        if after != stored[where]:
            await connection.execute(sql, pipeline_name, *where, after.epoch, after.position)

    return found


def _decided(
    stored: Mapping[tuple[str, str], StoredPosition | None],
    wanted: Sequence[_One],
    decide: Callable[[StoredPosition | None, _One], StoredPosition],
) -> dict[tuple[str, str], StoredPosition]:
    """What each partition comes to, by one decision after the other."""
    found: dict[tuple[str, str], StoredPosition] = {}

    for one in wanted:
        where = (one.source, one.partition)
        found[where] = decide(found.get(where, stored[where]), one)

    return found


async def _locked_all(
    connection: Connection, dataset: Dataset, pipeline_name: str, partitions: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], StoredPosition | None]:
    """The rows of partitions, locked in one order for everybody.

    The first row of a partition cannot be locked before it is there: its writers take turns.
    """
    stored: dict[tuple[str, str], StoredPosition | None] = {}
    has_turn = False

    for source, partition in sorted(partitions):
        key = (pipeline_name, source, partition)
        row = await _locked(connection, dataset, key)

        if row is None and not has_turn:
            await take_table_turns(connection, dataset.name, [_TABLE.name])
            row, has_turn = await _locked(connection, dataset, key), True

        stored[source, partition] = row

    return stored


async def _locked(connection: Connection, dataset: Dataset, key: tuple[str, str, str]) -> StoredPosition | None:
    row = await connection.fetchrow(system.select_position(dataset, DIALECT, for_update=True), *key)

    if row is None:
        return None

    return StoredPosition(source=key[1], partition=key[2], epoch=row[0], position=row[1])
