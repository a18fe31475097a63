"""Batches in page order become job files: the order of rows, memory given back, what is left after an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asyncelt.budget import BudgetAccount, ByteBudget
from asyncelt.config import Limits
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.writing import TableWriters, WritingPlan
from asyncelt.flow import TableBatch
from asyncelt.observe import Advanced, Event
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.storage.package import PackageDraft, PackageStore
from asyncelt.types import ColumnName, LoadId, TableName
from tests.support.open_files import open_files

ID = ColumnName("id")
TABLES = [TableName(name) for name in ("a", "b", "c")]


@pytest.fixture
def draft(tmp_path: Path) -> PackageDraft:
    """A package."""
    return PackageStore(tmp_path).draft(LoadId("1.0"))


def make_writers(
    draft: PackageDraft, account: BudgetAccount, limits: Limits, emit: Callable[[Event], None] = lambda event: None
) -> TableWriters:
    """Writers of three tables with one column each."""
    tables = {name: Table(name=name, columns={ID: Column(name=ID, data_type="bigint")}) for name in TABLES}
    plan = WritingPlan(
        pipeline_name="p", limits=limits, capabilities=Capabilities(), file_format="parquet", drafts={"s": draft}
    )

    return TableWriters(plan, SchemaBook({"s": Schema(name="s", tables=tables)}), account, emit)


def batch_of(table: TableName, *ids: int) -> TableBatch:
    """A batch with these ids."""
    return TableBatch(table=table, data=pa.table({"id": ids}), rows=len(ids))


def rows_of(writers: TableWriters, draft: PackageDraft) -> dict[TableName, list[list[int]]]:
    """The ids in each file of each table, in the order of the files."""
    return {
        table: [pq.read_table(draft.jobs_folder / job.file_name)["id"].to_pylist() for job in jobs]
        for (_, table), jobs in writers.written().items()
    }


@pytest.mark.parametrize("workers", [1, 2, 5])
async def test_rows_keep_their_order_in_each_table_whatever_the_number_of_writers(
    workers: int, draft: PackageDraft
) -> None:
    account = ByteBudget(10_000).account()
    limits = Limits(normalize_workers=workers, buffer_max_items=3, file_max_items=4)
    seen: list[Event] = []
    writers = make_writers(draft, account, limits, seen.append)

    async with writers.open():
        for number in range(10):
            for table in TABLES:
                await account.reserve(8)
                writers.add("s", batch_of(table, number), 8)

            await writers.flush_full()

    assert rows_of(writers, draft) == {table: [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] for table in TABLES}
    assert account.held == 0
    assert [event.rows for event in seen if isinstance(event, Advanced)] == [1] * 30


async def test_a_table_that_is_declared_has_a_file_without_rows(draft: PackageDraft) -> None:
    writers = make_writers(draft, ByteBudget(100).account(), Limits())

    async with writers.open():
        writers.declare("s", TABLES[0])

    assert rows_of(writers, draft) == {TABLES[0]: [[]]}


async def test_whoever_waits_for_memory_gets_what_buffers_hold(draft: PackageDraft) -> None:
    account = ByteBudget(8).account()
    writers = make_writers(draft, account, Limits())

    async with writers.open():
        await account.reserve(8)
        writers.add("s", batch_of(TABLES[0], 1), 8)
        await writers.flush_full()

        with anyio.fail_after(60):
            await account.reserve(8)

        writers.add("s", batch_of(TABLES[0], 2), 8)

    assert rows_of(writers, draft) == {TABLES[0]: [[1, 2]]}
    assert account.held == 0


async def test_all_buffers_together_hold_a_quarter_of_the_memory(draft: PackageDraft) -> None:
    account = ByteBudget(64).account()
    writers = make_writers(draft, account, Limits(max_memory=64))

    async with writers.open():
        await account.reserve(24)
        writers.add("s", batch_of(TABLES[0], 1), 8)
        writers.add("s", batch_of(TABLES[1], 2, 3), 16)
        await writers.flush_full()

        while account.held > 8:
            await anyio.lowlevel.checkpoint()

        assert account.held == 8

    assert rows_of(writers, draft) == {TABLES[1]: [[2, 3]], TABLES[0]: [[1]]}


async def fail() -> None:
    """What a block may do."""
    raise ValueError("no more")


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_an_error_or_a_cancellation_leaves_no_file_open(
    is_cancelled: bool, draft: PackageDraft, tmp_path: Path
) -> None:
    account = ByteBudget(100).account()
    writers = make_writers(draft, account, Limits(buffer_max_items=1))

    with anyio.CancelScope() as scope:
        try:
            async with writers.open():
                await account.reserve(8)
                writers.add("s", batch_of(TABLES[0], 1), 8)
                await writers.flush_full()

                while account.held:
                    await anyio.lowlevel.checkpoint()

                if is_cancelled:
                    scope.cancel()

                await (anyio.lowlevel.checkpoint() if is_cancelled else fail())
        except* ValueError:
            assert not is_cancelled

    assert scope.cancelled_caught == is_cancelled
    assert writers.written() == {("s", TABLES[0]): []}
    assert open_files(tmp_path) == []


async def test_what_is_added_while_somebody_waits_for_memory_does_not_keep_him_waiting(draft: PackageDraft) -> None:
    account = ByteBudget(100).account()
    writers = make_writers(draft, account, Limits(max_memory=1000))

    with anyio.fail_after(5):
        async with writers.open(), anyio.create_task_group() as tasks:
            await account.reserve(60)
            tasks.start_soon(account.reserve, 90)
            await anyio.wait_all_tasks_blocked()
            assert account.budget.waiting == 1
            writers.add("s", batch_of(TABLES[0], 1), 60)

    assert account.held == 90
