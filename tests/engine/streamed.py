"""Pipelines and messages for tests of streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

import asyncelt
from asyncelt.extract.intervals import Intervals
from asyncelt.load.protocol import Destination

__all__ = ["LONG", "Log", "ask", "make", "within"]

LONG = asyncelt.Roll(seconds=3600)
"""Nothing rolls by time."""


def make(folder: Path, **options: object) -> asyncelt.Pipeline:
    return asyncelt.pipeline(
        "stream",
        destination=asyncelt.destinations.duckdb(str(folder / "data.duckdb")),
        dataset_name="data",
        pipelines_dir=folder / "work",
        **options,  # type: ignore[arg-type]
    )


def within(folder: Path, budget: asyncelt.ByteBudget, destination: Destination) -> asyncelt.Pipeline:
    """A pipeline with so much memory, which does not wait long before it tries again."""
    return asyncelt.pipeline(
        "stream",
        destination=destination,
        dataset_name="data",
        pipelines_dir=folder / "work",
        max_memory=budget,
        settings=asyncelt.Settings(retry=asyncelt.Retry(first_s=0.02, max_s=0.02)),
    )


async def ask(pipeline: asyncelt.Pipeline, sql: str) -> list[tuple[object, ...]]:
    async with pipeline.sql_client() as client:
        table = await client.query(sql)

    return [tuple(row.values()) for row in table.to_pylist()]


@dataclass(slots=True)
class Log:
    """Numbered messages in one partition, which a test hands out; remembers what it is told."""

    batches: list[list[int]]
    name: str = "log"
    partition: str = "p"
    acked: list[int] = field(default_factory=list)
    nacked: list[int] = field(default_factory=list)
    told: dict[str, Intervals] = field(default_factory=dict)
    waits: bool = False
    """Whether it goes on waiting when it has nothing more."""
    quiet: anyio.Event = field(default_factory=anyio.Event)
    """Set when it has nothing more."""
    is_closed: bool = False
    floor: int | None = None
    given: int = 0
    given_meanwhile: int = 0
    """Of these, before anything was acknowledged."""
    in_step: bool = False
    """Whether each batch comes only when the one before has been acknowledged."""

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        self.told = dict(committed)

    async def fetch(self, most: int) -> Sequence[asyncelt.Message]:
        if not self.batches:
            self.quiet.set()

            if self.waits:
                await anyio.sleep_forever()

            return ()

        while self.in_step and len(self.acked) < self.given:
            await anyio.lowlevel.checkpoint()

        self.given += len(self.batches[0])

        return [
            asyncelt.Message({"n": n}, asyncelt.Receipt(self.partition, n, n), self) for n in self.batches.pop(0)[:most]
        ]

    async def ack(self, receipts: Sequence[asyncelt.Receipt]) -> Mapping[str, int]:
        self.acked += [int(str(receipt.token)) for receipt in receipts]

        return {} if self.floor is None else {self.partition: self.floor}

    async def nack(self, receipts: Sequence[asyncelt.Receipt]) -> None:
        self.nacked += [int(str(receipt.token)) for receipt in receipts]

    async def close(self) -> None:
        self.is_closed = True
