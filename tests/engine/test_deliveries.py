"""What is kept of messages until their commit: all that is needed, in hardly any objects."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import pytest

import asyncelt
from asyncelt.engine.stream.deliveries import Deliveries
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.tickets import Tickets

MANY = 2500


class Numbers:
    """Numbered messages of JSON; then nothing more comes."""

    name = "numbers"

    def __init__(self, count: int) -> None:
        self._left = list(range(1, count + 1))
        self.acked: list[int] = []

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        pass

    async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
        given, self._left = self._left[:most], self._left[most:]

        return [asyncelt.Message(b'{"n": %d}' % n, asyncelt.Receipt("p", n, f"reply {n}")) for n in given]

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        self.acked += [one.position or 0 for one in receipts]

        return {}

    async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
        pass

    async def close(self) -> None:
        pass


def test_what_was_delivered_is_found_by_its_ticket_until_it_is_settled() -> None:
    deliveries = Deliveries()
    sources = [Numbers(0), Numbers(0), None]
    noted: dict[int, list[int]] = {0: [], 1: [], 2: []}

    for n in range(3 * MANY):
        one = deliveries.note(sources[n % 3], asyncelt.Receipt("p", n, n), is_repeated=n % 5 == 0)
        noted[n % 3].append(one)

    every = Tickets(sorted(ticket for tickets in noted.values() for ticket in tickets))
    found = {source: [one.position for one in deliveries.receipts(own)] for source, own in deliveries.by_source(every)}
    assert found == {sources[at]: list(range(at, 3 * MANY, 3)) for at in range(3)}

    wanted: dict[object, list[int]] = {}

    for source, partition, positions in deliveries.wanted(every):
        assert partition == "p"
        wanted.setdefault(source, []).extend(positions)

    assert wanted == {sources[at]: [n for n in range(at, 3 * MANY, 3) if n % 5] for at in range(2)}

    # Some, all of one, and some again.
    few = Tickets(noted[1][10:20])
    assert sum(deliveries.settle(few)) == 10
    assert sum(deliveries.settle(Tickets(noted[0]))) == MANY
    assert sum(deliveries.settle(few)) == 10
    left = {source: [one.token for one in deliveries.receipts(own)] for source, own in deliveries.open()}
    of_second = list(range(1, 3 * MANY, 3))
    assert left == {sources[1]: of_second[:10] + of_second[20:], None: list(range(2, 3 * MANY, 3))}

    for tickets in noted.values():
        assert sum(deliveries.settle(Tickets(tickets)))

    assert deliveries.open() == []
    # One that is begun for each source, and no more.
    assert len(deliveries._blocks) == 3


@pytest.mark.slow
async def test_messages_in_flight_are_hardly_any_objects_for_the_collector(tmp_path: Path) -> None:
    """Full collections would stop the loop for as long as it takes to visit them."""

    class Waiting(Numbers):
        async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
            if not self._left:
                seen.set()
                await anyio.sleep_forever()

            return await super().fetch(most)

    async def objects(count: int) -> int:
        source = Waiting(count)
        stream = pipeline.stream(source, roll=asyncelt.Roll(rows=10**6, seconds=3600))

        async with stream:
            await seen.wait()
            gc.collect()
            found = len(gc.get_objects())

        assert stream.stats.messages == count
        assert sorted(source.acked) == list(range(1, count + 1))

        return found

    pipeline = asyncelt.pipeline(
        "kept", destination=asyncelt.destinations.memory(), dataset_name="data", pipelines_dir=tmp_path
    )
    found = []

    for count in (1000, 1000, 21_000):
        seen = anyio.Event()
        found.append(await objects(count))

    assert found[2] - found[1] < 20_000 / 20
