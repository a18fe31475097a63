"""Messages of a commit become known as committed, in its transaction."""

from __future__ import annotations

from collections.abc import Sequence

from asyncelt.destinations.postgres_impl.locks import take_table_turns
from asyncelt.destinations.postgres_impl.reading import DIALECT
from asyncelt.destinations.postgres_impl.writing import Work
from asyncelt.destinations.sql import system
from asyncelt.flow import Package, PositionMove
from asyncelt.load.positions import moved
from asyncelt.load.protocol import StoredPosition

__all__ = ["move_positions"]


async def move_positions(work: Work, pipeline_name: str, packages: Sequence[Package]) -> None:
    """Write down which messages the packages hold; before their rows, since a refusal makes those useless.

    Rows are locked, each partition's in one order for everybody. The first row of a partition cannot be locked before
    it is there: its writers take turns.

    Raises:
        PositionsTaken: A message has been committed already, or its partition has a newer owner.
    """
    moves = sorted(
        (move for package in packages for move in package.positions), key=lambda move: (move.source, move.partition)
    )
    is_first = False

    for move in moves:
        key = (pipeline_name, move.source, move.partition)
        stored = await _locked(work, key, move)

        if stored is None and not is_first:
            await take_table_turns(work.connection, work.dataset.name, [system.POSITIONS_TABLE.name])
            stored, is_first = await _locked(work, key, move), True

        after = moved(stored, move)

        if stored is None:
            names = system.POSITION_COLUMNS
            sql = system.insert_row(work.dataset, system.POSITIONS_TABLE.name, names, DIALECT)
        else:
            sql = system.move_position(work.dataset, DIALECT)

        await work.connection.execute(sql, *key, after.epoch, after.position)


async def _locked(work: Work, key: tuple[str, str, str], move: PositionMove) -> StoredPosition | None:
    row = await work.connection.fetchrow(system.select_position(work.dataset, DIALECT, for_update=True), *key)

    if row is None:
        return None

    return StoredPosition(source=move.source, partition=move.partition, epoch=row[0], position=row[1])
