"""The memory budget: bounds, order, cancellation."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, strategies as st

from asyncelt.budget import ByteBudget
from asyncelt.errors import ConfigError, UsageError


async def test_bytes_that_fit_are_granted_at_once() -> None:
    budget = ByteBudget(10)

    with anyio.fail_after(60):
        await budget.reserve(4)
        await budget.reserve(6)

    assert budget.used == 10


async def test_an_item_larger_than_the_limit_passes_alone() -> None:
    budget = ByteBudget(10)

    with anyio.fail_after(60):
        await budget.reserve(100)

    assert budget.used == 100

    with anyio.move_on_after(0.01) as scope:
        await budget.reserve(1)

    assert scope.cancelled_caught


async def test_what_is_pinned_counts_and_an_item_passes_beside_it() -> None:
    budget = ByteBudget(10)
    account = budget.account()

    with anyio.fail_after(60):
        await account.reserve(8)
        account.pin(8)
        await account.reserve(7)

    with anyio.move_on_after(0.01) as scope:
        await account.reserve(1)

    assert scope.cancelled_caught
    account.release(7)
    account.unpin(6)
    assert (account.held, account.pinned, budget.used) == (2, 2, 2)

    with anyio.fail_after(60):
        await account.reserve(8)

    account.close()
    account.unpin(2)
    assert (budget.used, account.pinned) == (0, 0)

    with anyio.fail_after(60):
        await budget.reserve(11)


async def test_pinning_lets_the_next_one_pass() -> None:
    """What was reserved stays, so nobody may wait for it."""
    budget = ByteBudget(10)
    await budget.reserve(9)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(budget.reserve, 5)
            await checkpoint()
            assert budget.waiting == 1
            budget.pin(9)

    assert budget.used == 14


async def test_waiters_are_served_in_order() -> None:
    budget = ByteBudget(10)
    await budget.reserve(10)
    served: list[int] = []

    async def wait_for(nbytes: int) -> None:
        await budget.reserve(nbytes)
        served.append(nbytes)

    async with anyio.create_task_group() as tasks:
        for nbytes in (9, 1, 2):
            tasks.start_soon(wait_for, nbytes)
            await checkpoint()

        budget.release(5)
        await checkpoint()
        assert served == []
        budget.release(5)
        await anyio.wait_all_tasks_blocked()
        assert served == [9, 1]
        budget.release(10)

    assert served == [9, 1, 2]


async def test_a_cancelled_waiter_takes_nothing_and_lets_the_next_one_pass() -> None:
    budget = ByteBudget(10)
    await budget.reserve(8)

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as impatient:

            async def give_up() -> None:
                await anyio.wait_all_tasks_blocked()
                impatient.cancel()

            tasks.start_soon(give_up)
            await budget.reserve(9)

        with anyio.fail_after(60):
            await budget.reserve(2)

    assert budget.used == 10
    assert budget.waiting == 0


async def test_pressure_is_announced_when_somebody_has_to_wait() -> None:
    budget = ByteBudget(10)
    await budget.reserve(10)
    calls: list[int] = []
    stop = budget.on_pressure(lambda: (calls.append(1), budget.release(10))[0])

    with anyio.fail_after(60):
        await budget.reserve(5)

    stop()
    assert calls == [1]


async def test_an_account_gives_everything_back_when_it_closes() -> None:
    budget = ByteBudget(100)
    account = budget.account()
    await account.reserve(30)
    account.adjust(20)
    account.release(10)
    assert (account.held, budget.used) == (40, 40)

    account.close()
    account.release(5)
    account.close()
    assert budget.used == 0


async def test_returning_more_than_was_taken_is_refused() -> None:
    budget = ByteBudget(10)

    with pytest.raises(UsageError, match="only 0 are reserved"):
        budget.release(1)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="limit is a whole number from 1, not 0"):
        ByteBudget(0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 60))
def test_the_bound_holds_for_any_sequence(sizes: list[int], limit: int) -> None:
    async def scenario() -> None:
        budget = ByteBudget(limit)
        holders = 0

        async def hold(nbytes: int) -> None:
            nonlocal holders
            await budget.reserve(nbytes)
            holders += 1
            assert budget.used <= limit or holders == 1
            await checkpoint()
            holders -= 1
            budget.release(nbytes)

        async with anyio.create_task_group() as tasks:
            for size in sizes:
                tasks.start_soon(hold, size)

        assert budget.used == 0

    anyio.run(scenario)
