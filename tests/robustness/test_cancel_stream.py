"""P7 in a stream: cancelled at any moment it leaves nothing behind, and the next one carries on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.extract.intervals import Intervals
from tests.robustness.test_cancel import cancel_after, check_nothing_is_left, make

MESSAGES = 60
ROLL = asyncelt.Roll(rows=15, seconds=3600)


@dataclass(slots=True)
class Numbers:
    """Messages with positions, of which those that were not acknowledged come again."""

    name: str = "numbers"
    left: list[int] = field(default_factory=lambda: list(range(1, MESSAGES + 1)))
    given: set[int] = field(default_factory=set)
    is_open: bool = False

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        self.is_open = True

    async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
        await asyncio.sleep(0)
        found, self.left = self.left[:7], self.left[7:]
        self.given.update(found)

        return [
            asyncelt.Message(b'{"id": %d, "parts": [{"of": %d}, {"of": %d}]}' % (n, n, n), asyncelt.Receipt("p", n, n))
            for n in found
        ]

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        self.given.difference_update(int(str(one.token)) for one in receipts)

        return {}

    async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
        await asyncio.sleep(0)
        self.given.difference_update(int(str(one.token)) for one in receipts)

    async def close(self) -> None:
        self.is_open = False


async def turns_of_a_stream(folder: Path) -> int:
    """About how many turns of the loop an undisturbed stream takes."""
    turns = 0

    async with anyio.create_task_group() as tasks:

        async def count() -> None:
            nonlocal turns

            while True:
                await asyncio.sleep(0)
                turns += 1

        tasks.start_soon(count)
        await make(folder, "duckdb").stream(Numbers(), roll=ROLL)
        tasks.cancel_scope.cancel()

    return turns


@pytest.mark.slow
async def test_cancelled_at_any_turn_of_the_loop_nothing_is_left(tmp_path: Path) -> None:
    """Cancelled at moments spread over the whole stream; whatever it has taken it has acknowledged or given back."""
    (tmp_path / "probe").mkdir()
    turns = await turns_of_a_stream(tmp_path / "probe")
    threads_before = {thread.name for thread in threading.enumerate()}
    tasks_before: set[object] = set(asyncio.all_tasks())
    cancelled = 0

    for at in (0, 3, *range(turns // 8, turns, max(turns // 5, 1))):
        home = tmp_path / f"home_{at}"
        home.mkdir()
        source = Numbers()

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel_after, at, scope)
                await make(home, "duckdb").stream(source, roll=ROLL)

            cancelled += scope.cancelled_caught
            tasks.cancel_scope.cancel()

        await check_nothing_is_left(home, threads_before, tasks_before)
        assert source.given == set()
        assert not source.is_open

        await make(home, "duckdb").stream(Numbers(), roll=ROLL)

        async with make(home, "duckdb").sql_client() as client:
            ids = (await client.query("SELECT id FROM numbers ORDER BY id")).column("id").to_pylist()
            (parts,) = (await client.query("SELECT count(*) AS n FROM numbers__parts")).column("n").to_pylist()

        assert ids == list(range(1, MESSAGES + 1))
        assert parts == 2 * MESSAGES

    assert cancelled > 2
