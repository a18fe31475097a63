"""What is committed of message sources: moved with each commit, claimed by who takes a partition over."""

from __future__ import annotations

from collections.abc import Sequence

from asyncelt.destinations.duckdb_impl.catalog import Catalog
from asyncelt.destinations.duckdb_impl.statements import DIALECT, Statements
from asyncelt.destinations.duckdb_impl.tables import migrate_table, require_dataset
from asyncelt.destinations.duckdb_impl.writing import Work
from asyncelt.destinations.sql import system
from asyncelt.destinations.sql.names import Dataset
from asyncelt.flow import Package, PositionClaim, PositionMove
from asyncelt.load.positions import claimed, moved
from asyncelt.load.protocol import StoredPosition

__all__ = ["claim_positions", "move_positions"]

_TABLE = system.POSITIONS_TABLE


def move_positions(work: Work, pipeline_name: str, packages: Sequence[Package]) -> None:
    """Make the messages of the packages known as committed; refuse when one of them is already."""
    for move in (move for package in packages for move in package.positions):
        stored = _stored(work, pipeline_name, move)
        _write(work, pipeline_name, stored, moved(stored, move))


def claim_positions(
    database: Statements, dataset: Dataset, pipeline_name: str, claims: Sequence[PositionClaim]
) -> list[StoredPosition]:
    """See `SupportsPositions.claim`.

    Args:
        database: Open, and ours alone to write.
        dataset: Created if it is not there.
        pipeline_name: Whose sources they are.
        claims: The partitions.
    """
    database.execute("BEGIN TRANSACTION")

    try:
        work = Work(database, dataset, Catalog(database, dataset), "truncate-and-insert")
        work.catalog.read([_TABLE.name])
        require_dataset(work)
        migrate_table(work, _TABLE)
        found = [_claim(work, pipeline_name, one) for one in claims]

        with database.uninterruptible():
            database.execute("COMMIT")
    except BaseException:
        database.rollback()
        raise

    return found


def _claim(work: Work, pipeline_name: str, claim: PositionClaim) -> StoredPosition:
    stored = _stored(work, pipeline_name, claim)
    after = claimed(stored, claim)

    if after != stored:
        _write(work, pipeline_name, stored, after)

    return after


def _stored(work: Work, pipeline_name: str, one: PositionMove | PositionClaim) -> StoredPosition | None:
    found = work.database.rows(
        system.select_position(work.dataset, DIALECT), [pipeline_name, one.source, one.partition]
    )

    if not found:
        return None

    epoch, position = found[0]

    return StoredPosition(source=one.source, partition=one.partition, epoch=int(str(epoch)), position=str(position))


def _write(work: Work, pipeline_name: str, before: StoredPosition | None, after: StoredPosition) -> None:
    sql = (
        system.insert_row(work.dataset, _TABLE.name, system.POSITION_COLUMNS, DIALECT)
        if before is None
        else system.move_position(work.dataset, DIALECT)
    )
    work.database.execute(sql, [pipeline_name, after.source, after.partition, after.epoch, after.position])
