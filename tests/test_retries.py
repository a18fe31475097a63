"""How long something is tried again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from asyncelt._async import retrying
from asyncelt.config import Retry
from asyncelt.errors import AsynceltError, DestinationRejected, DestinationUnavailable, LoadTimeout

EVER = Retry(attempts=1_000_000_000, first_s=0, max_s=0)


def failing(*errors: AsynceltError) -> tuple[Callable[[], Awaitable[int]], list[int]]:
    waiting, tries = list(errors), [0]

    async def attempt() -> int:
        tries[0] += 1

        if waiting:
            raise waiting.pop(0)

        return tries[0]

    return attempt, tries


async def test_what_is_away_is_tried_as_often_as_allowed() -> None:
    attempt, _ = failing(*[DestinationUnavailable("away")] * 500)
    assert await retrying(attempt, EVER) == 501

    attempt, tries = failing(*[DestinationUnavailable("away")] * 5)

    with pytest.raises(DestinationUnavailable):
        await retrying(attempt, Retry(attempts=3, first_s=0, max_s=0))

    assert tries == [3]


async def test_what_is_refused_is_not_tried_again() -> None:
    attempt, tries = failing(DestinationRejected("no"))

    with pytest.raises(DestinationRejected):
        await retrying(attempt, EVER)

    assert tries == [1]


async def test_what_always_takes_too_long_is_given_up() -> None:
    attempt, tries = failing(*[LoadTimeout("too slow")] * 500)

    with pytest.raises(LoadTimeout):
        await retrying(attempt, EVER)

    assert tries == [20]

    now_and_then = ([LoadTimeout("too slow")] * 19 + [DestinationUnavailable("away")]) * 10
    attempt, _ = failing(*now_and_then)
    assert await retrying(attempt, EVER) == 201
