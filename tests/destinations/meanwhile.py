"""Somebody else who does the same at the worst moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asyncelt.failpoints import installed
from asyncelt.load.protocol import Target
from asyncelt.testing.fixture import Owner

__all__ = ["finished_by_another", "other_owner"]


def other_owner(destination: Any, folder: Path) -> Owner:
    """Another pipeline's owner of the same dataset, whose load ids come after those of the first."""
    owner = Owner(destination, folder, "parquet", Target(pipeline_name="other", dataset_name="data"))
    owner.clock = 1_800_000_000

    return owner


@contextmanager
def finished_by_another(session: Any, moment: str) -> Iterator[list[str]]:
    """Have another session of a lake's dataset write the tables of a commit when its owner comes to this failpoint.

    Yields:
        The failpoint, once that has happened.
    """
    entered: list[str] = []

    def twice(point: str) -> None:
        if point == moment and not entered:
            entered.append(point)
            dataset = session._dataset
            [marker] = dataset.unsettled()
            dataset.lakes.write(marker)

    with installed(twice):
        yield entered
