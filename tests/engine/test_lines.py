"""Items of many lines and a few workers: order within a line, none idle, how much is held."""

from __future__ import annotations

import gc
import random

import anyio
import anyio.lowlevel
import pytest

from asyncelt.engine.lines import Lines
from asyncelt.errors import UsageError


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("seed", range(10))
async def test_each_line_is_handled_in_its_order_by_one_worker_at_a_time(workers: int, seed: int) -> None:
    chance = random.Random(seed)
    handled: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    busy: set[str] = set()

    async def handle(key: str, item: int) -> None:
        assert key not in busy
        assert len(busy) < workers
        busy.add(key)

        for _ in range(chance.randrange(4)):
            await anyio.lowlevel.checkpoint()

        busy.remove(key)
        handled[key].append(item)

    lines = Lines(handle, workers=workers)
    sent: dict[str, list[int]] = {key: [] for key in handled}

    async def put_some(first: int) -> None:
        for number in range(first, first + 30):
            key = chance.choice("abc")
            sent[key].append(number)
            await lines.put(key, number)

    async with lines.open(), anyio.create_task_group() as putters:
        putters.start_soon(put_some, 0)
        putters.start_soon(put_some, 1000)

    assert handled == sent


async def test_no_worker_is_idle_while_a_line_waits() -> None:
    released = anyio.Event()
    handled: list[str] = []

    async def handle(key: str, item: int) -> None:
        if key == "slow":
            await released.wait()

        handled.append(f"{key}{item}")

    lines = Lines(handle, workers=2)

    with anyio.fail_after(5):
        async with lines.open():
            await lines.put("slow", 0)

            for number in range(5):
                await lines.put("quick", number)
                await lines.put("other", number)

            await anyio.wait_all_tasks_blocked()
            assert [name for name in handled if name.startswith("quick")] == [f"quick{number}" for number in range(5)]
            released.set()

    assert handled[-1] == "slow0"


async def test_who_puts_waits_while_one_more_than_there_are_workers_is_held() -> None:
    released = anyio.Event()
    put: list[int] = []

    async def handle(key: str, item: int) -> None:
        await released.wait()

    lines = Lines(handle, workers=2)

    async def put_all() -> None:
        for number in range(10):
            await lines.put("a", number)
            put.append(number)

    with anyio.fail_after(5):
        async with lines.open(), anyio.create_task_group() as putters:
            putters.start_soon(put_all)
            await anyio.wait_all_tasks_blocked()
            assert put == [0, 1, 2]
            released.set()

    assert put == list(range(10))


async def test_it_takes_nothing_and_leaves_nothing_as_long_as_it_is_not_open() -> None:
    async def handle(key: str, item: int) -> None:
        pass

    lines = Lines(handle, workers=2)

    with pytest.raises(UsageError):
        await lines.put("a", 0)

    # Streams that nobody has closed would warn, which is an error here.
    del lines
    gc.collect()


async def test_an_error_of_the_work_reaches_who_opened_it() -> None:
    async def handle(key: str, item: int) -> None:
        raise ValueError(key)

    lines = Lines(handle, workers=2)

    with pytest.RaisesGroup(ValueError), anyio.fail_after(5):
        async with lines.open():
            for number in range(5):
                await lines.put("a", number)


async def test_an_error_of_the_block_ends_the_work() -> None:
    async def handle(key: str, item: int) -> None:
        await anyio.sleep_forever()

    lines = Lines(handle, workers=2)

    async def use() -> None:
        async with lines.open():
            await lines.put("a", 0)
            raise KeyError("mine")

    with pytest.RaisesGroup(KeyError), anyio.fail_after(5):
        await use()
