"""Somebody else who does the same at the worst moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asyncelt.failpoints import installed

__all__ = ["finished_by_another"]


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
