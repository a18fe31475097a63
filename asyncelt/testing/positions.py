"""Conformance of positions: what is committed of a message source, for destinations that keep it."""

# ruff: noqa: S101, D102 - tests: their names are sentences

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from asyncelt.errors import LeaseLost
from asyncelt.flow import PositionClaim, PositionMove
from asyncelt.load.protocol import Session, SupportsPositions
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit

__all__ = ["PositionConformance"]

_ROWS = pa.table({"id": [1]})


class PositionConformance:
    """Tests of `SupportsPositions`; skipped where the destination says that it does not keep positions."""

    async def test_positions_are_empty_before_the_first_commit(self, owner: Owner) -> None:
        assert await _stored(owner) == {}

    async def test_positions_move_with_the_rows(self, owner: Owner) -> None:
        await _commit(owner, PositionMove(source="s", partition="p", taken="1-3;7", epoch=2))
        await _commit(
            owner,
            PositionMove(source="s", partition="p", taken="4", floor=1, epoch=2),
            PositionMove(source="s", partition="other", taken="4"),
        )

        assert await _stored(owner) == {("s", "p"): (2, "..4;7"), ("s", "other"): (0, "4")}
        assert len(await owner.rows("t")) == 2

    async def test_a_position_that_is_committed_refuses_the_whole_commit(self, owner: Owner) -> None:
        await _commit(owner, PositionMove(source="s", partition="p", taken="1-3"))

        with pytest.raises(LeaseLost, match="position 3"):
            await _commit(
                owner,
                PositionMove(source="s", partition="new", taken="1"),
                PositionMove(source="s", partition="p", taken="3-5"),
            )

        assert await _stored(owner) == {("s", "p"): (0, "1-3")}
        assert len(await owner.rows("t")) == 1

    async def test_a_partition_with_a_newer_owner_refuses_the_commit(self, owner: Owner) -> None:
        await _commit(owner, PositionMove(source="s", partition="p", taken="1", epoch=5))

        with pytest.raises(LeaseLost, match="epoch 5, ours is 4"):
            await _commit(owner, PositionMove(source="s", partition="p", taken="2", epoch=4))

        assert await _stored(owner) == {("s", "p"): (5, "1")}

    async def test_a_claim_makes_room_for_one_owner_only(self, owner: Owner) -> None:
        assert await _claim(owner, PositionClaim(source="s", partition="p", start=9)) == [(1, "..9")]
        await _commit(owner, PositionMove(source="s", partition="p", taken="10-11", epoch=1))

        # Somebody else takes it over, and knows at once how far it was read.
        claims = [PositionClaim(source="s", partition="new"), PositionClaim(source="s", partition="p", start=0)]
        assert await _claim(owner, *claims) == [(1, ""), (2, "..11")]

        with pytest.raises(LeaseLost, match="epoch 2, ours is 1"):
            await _commit(owner, PositionMove(source="s", partition="p", taken="12", epoch=1))

        await _commit(owner, PositionMove(source="s", partition="p", taken="12", epoch=2))
        assert await _stored(owner) == {("s", "new"): (1, ""), ("s", "p"): (2, "..12")}

    async def test_a_claim_of_who_has_it_changes_nothing(self, owner: Owner) -> None:
        await _claim(owner, PositionClaim(source="s", partition="p"))
        await _commit(owner, PositionMove(source="s", partition="p", taken="3", epoch=1))

        assert await _claim(owner, PositionClaim(source="s", partition="p", epoch=1)) == [(1, "3")]

    async def test_what_was_committed_without_a_claim_can_be_claimed(self, owner: Owner) -> None:
        await _commit(owner, PositionMove(source="s", partition="p", taken="3"))

        assert await _claim(owner, PositionClaim(source="s", partition="p")) == [(1, "3")]

    async def test_a_commit_that_is_made_again_moves_nothing(self, owner: Owner) -> None:
        package = replace(
            await owner.make({"t": _ROWS}), positions=(PositionMove(source="s", partition="p", taken="1"),)
        )
        await _require(owner)

        async with owner.destination.connect(owner.target) as session:
            commit = make_commit(owner.target, await owner.acquire(session), package)
            await owner.commit_in(session, commit)
            result = await owner.commit_in(session, commit)

        assert result.already_committed
        assert await _stored(owner) == {("s", "p"): (0, "1")}


async def _commit(owner: Owner, *moves: PositionMove) -> None:
    await _require(owner)
    await owner.commit(replace(await owner.make({"t": _ROWS}), positions=moves))


async def _claim(owner: Owner, *claims: PositionClaim) -> list[tuple[int, str]]:
    await _require(owner)

    async with owner.destination.connect(owner.target) as session:
        found = await _keeping(session).claim(owner.target.pipeline_name, claims)

    assert [(one.source, one.partition) for one in found] == [(one.source, one.partition) for one in claims]

    return [(one.epoch, one.position) for one in found]


async def _stored(owner: Owner) -> dict[tuple[str, str], tuple[int, str]]:
    await _require(owner)

    async with owner.destination.connect(owner.target) as session:
        found = await _keeping(session).positions(owner.target.pipeline_name)

        assert await _keeping(session).positions("somebody else") in ((), [])

    return {(one.source, one.partition): (one.epoch, one.position) for one in found}


async def _require(owner: Owner) -> None:
    if not owner.destination.capabilities.stores_positions:
        async with owner.destination.connect(owner.target) as session:
            assert not isinstance(session, SupportsPositions)

        pytest.skip("the destination keeps no positions")


def _keeping(session: Session) -> SupportsPositions:
    assert isinstance(session, SupportsPositions)

    return session
