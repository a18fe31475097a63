"""The middle of a run: pages become typed rows, in the order of the pages. One instance per run.

::

    pages ──▶ N workers (threads: shred, conform) ──▶ sequencer ──▶ `TableWriters` ──▶ job files

Workers run ahead of each other; the sequencer puts their results back into page order, so schemas grow and rows
are written as if one worker had done everything. A page that was conformed while an earlier page was changing
its tables is conformed again with the schema as of its own number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncelt._async import in_thread
from asyncelt.budget import BudgetAccount
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.setting_aside import SetAside, lines_of
from asyncelt.engine.working import (
    Done,
    conformed_page,
    free,
    shaped_page,
    shredded_page,
    sifted_page,
    still_valid,
    unsifted,
)
from asyncelt.engine.writing import TableWriters
from asyncelt.flow import ArrowPage, Conformed, JobFile, JsonPages, Notice, RawBatch, Rows
from asyncelt.normalize.page import Normalizer
from asyncelt.normalize.sifting import REFUSALS, Sifted
from asyncelt.observe import Event, Warned
from asyncelt.schema.evolve import apply_delta
from asyncelt.schema.quarantine import with_quarantine
from asyncelt.types import TableName

__all__ = ["Shaping", "ShapingPlan", "ShapingResult"]

_SHAPED_AT_ONCE: Final = 1000
"""Rows. Meanwhile no other page is going to change the schema, as it may while more are taken apart."""
_FREED_HERE: Final = 256
"""Rows, or bodies of any size. Letting go of so few takes less than handing them to a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapingPlan:
    """What stays the same during a run's shaping."""

    pipeline_name: str
    workers: int
    normalizers: Mapping[str, Normalizer]
    """By schema name."""


@dataclass(slots=True)
class ShapingResult:
    """What a run's shaping has produced."""

    jobs: dict[str, list[JobFile]] = field(default_factory=dict)
    """By schema name, in file order per table."""
    row_counts: dict[str, dict[TableName, int]] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    extracted: set[str] = field(default_factory=set)
    """Names of the schemas that rows came for, even if a contract dropped them all."""


class Shaping:
    """Turns the pages of one run into job files.

    Args:
        plan: What stays the same.
        book: Schemas; moved forward in page order.
        writers: Take the rows, in page order.
        budget: Page bytes come in reserved; they are exchanged for table bytes, which the writers return.
        emit: Receives events, on the loop.
    """

    def __init__(
        self,
        plan: ShapingPlan,
        book: SchemaBook,
        writers: TableWriters,
        budget: BudgetAccount,
        emit: Callable[[Event], None],
    ) -> None:
        self._plan = plan
        self._book = book
        self._writers = writers
        self._budget = budget
        self._emit = emit
        self._workers = anyio.CapacityLimiter(plan.workers)
        self._extracted: set[str] = set()
        self._accepted = 0
        """Number of pages that have been accepted."""
        self._accepting = anyio.Event()
        """Set, and replaced, with each of them."""
        self._spent: list[Done] = []
        """Pages that nobody needs any more; the next worker frees them."""
        self._notices: dict[tuple[str, TableName, str | None], Notice] = {}
        self._aside = SetAside()

    async def run(self, pages: MemoryObjectReceiveStream[RawBatch]) -> ShapingResult:
        """Work until ``pages`` ends; then every job file is closed and durable.

        Raises:
            NormalizeError: A value can neither be kept nor put aside.
            StorageError: A file could not be written.
        """
        async with self._writers.open():
            await self._sequence_all(pages)

            if sum(done.raw.rows for done in self._spent) > _FREED_HERE:
                await in_thread(partial(free, self._spent), self._workers)

        return self._result()

    # ------------------------------------------------------------------ workers and sequencer

    async def _sequence_all(self, pages: MemoryObjectReceiveStream[RawBatch]) -> None:
        send, receive = anyio.create_memory_object_stream[Done](0)

        async with pages, send, receive, anyio.create_task_group() as tasks:
            tasks.start_soon(self._work_all, pages, send)
            await self._sequence(receive)

    async def _work_all(self, pages: MemoryObjectReceiveStream[RawBatch], done: MemoryObjectSendStream[Done]) -> None:
        async with done, anyio.create_task_group() as workers:
            for _ in range(self._plan.workers):
                workers.start_soon(self._work, pages, done)

    async def _work(self, pages: MemoryObjectReceiveStream[RawBatch], done: MemoryObjectSendStream[Done]) -> None:
        async for raw in pages:
            if raw.refusal is not None:
                await done.send(unsifted(raw, self._book[raw.schema_name]))
                continue

            try:
                await done.send(await self._shaped(raw))
            except REFUSALS:
                if raw.on_error == "fail":
                    raise

                await done.send(unsifted(raw, self._book[raw.schema_name]))

            # Not while it waits for the next one.
            del raw

    async def _shaped(self, raw: RawBatch) -> Done:
        normalizer = self._plan.normalizers[raw.schema_name]
        spent, self._spent = self._spent, []

        if raw.rows <= _SHAPED_AT_ONCE and self._is_known(raw):
            schema = self._book[raw.schema_name]
            shape = partial(shaped_page, normalizer, raw, schema, spent)
            shredded, conformed, sizes = await in_thread(shape, self._workers)

            return Done(raw, shredded, conformed, sizes, schema)

        shred = partial(shredded_page, normalizer, raw, self._book[raw.schema_name], spent)
        shredded = await in_thread(shred, self._workers)

        if not self._is_known(raw):
            # The first page brings nearly all columns: conformed beside it, the second would have to be conformed
            # twice.
            await self._turn_of(raw.page)

        schema = self._book[raw.schema_name]
        conformed, sizes = await in_thread(partial(conformed_page, normalizer, shredded, schema), self._workers)

        return Done(raw, shredded, conformed, sizes, schema)

    def _is_known(self, raw: RawBatch) -> bool:
        table = self._book[raw.schema_name].tables.get(raw.table)

        return table is not None and any(column.data_type for column in table.columns.values())

    async def _turn_of(self, page: int) -> None:
        """Wait until all earlier pages have been accepted."""
        while self._accepted < page:
            await self._accepting.wait()

    async def _sequence(self, results: MemoryObjectReceiveStream[Done]) -> None:
        early: dict[int, Done] = {}

        async for result in results:
            early[result.raw.page] = result
            del result

            while self._accepted in early:
                await self._accept(early.pop(self._accepted))
                self._accepted += 1
                self._accepting.set()
                self._accepting = anyio.Event()

    async def _accept(self, done: Done) -> None:
        name = done.raw.schema_name
        conformed, sizes, sifted = await self._conformed(done)

        if conformed.delta:
            self._book.set(apply_delta(self._book[name], conformed.delta))

        for notice in conformed.notices:
            self._note(notice)

        kept = 0

        if sifted is not None or done.raw.origins:
            kept += await self._put_aside(done.raw, sifted)

        for batch, size in zip(conformed.batches, sizes, strict=True):
            if self._book[name].disposition_of(batch.table) != "skip":
                self._writers.add(name, batch, size)
                kept += size

        if conformed.root_rows:
            self._extracted.add(name)

        if not done.raw.rows and isinstance(done.raw.payload, ArrowPage | Rows):
            self._writers.declare(name, done.raw.table)

        self._budget.adjust(kept - done.raw.nbytes)

        if not _is_freed_at_once(done.raw):
            self._spent.append(done)

        del conformed, done
        await self._writers.flush_full()

    async def _conformed(self, done: Done) -> tuple[Conformed, tuple[int, ...], Sifted | None]:
        """The page under the schema as of its number; where its resource says so, without what cannot be loaded."""
        conformed, sizes, used = done.conformed, done.sizes, done.schema
        sifted: Sifted | None = None
        name, shredded = done.raw.schema_name, done.shredded
        normalizer = self._plan.normalizers[name]
        is_new = shredded is None

        # A loop, because hints of a resource that has just begun may be merged while a page is conformed again.
        while is_new or not still_valid(conformed, used, self._book[name]):
            used, is_new = self._book[name], False

            if shredded is not None:
                try:
                    conform = partial(conformed_page, normalizer, shredded, used)
                    conformed, sizes = await in_thread(conform, self._workers)
                    continue
                except REFUSALS:
                    if done.raw.on_error == "fail":
                        raise

                    shredded = None

            found, sizes = await in_thread(partial(sifted_page, normalizer, done.raw, used), self._workers)
            sifted, conformed = found, found.conformed

        return conformed, sizes, sifted

    async def _put_aside(self, raw: RawBatch, sifted: Sifted | None) -> int:
        """Write rows that cannot be loaded, and marks for those that could after all; their bytes."""
        context = self._plan.normalizers[raw.schema_name].context
        make = partial(lines_of, raw, sifted, context, self._plan.pipeline_name)
        batch = await in_thread(make, self._workers)
        self._aside.count(raw, sifted.refused if sifted is not None else ())

        if batch is None:
            return 0

        size = int(batch.data.nbytes)
        self._book.set(with_quarantine(self._book[raw.schema_name], context.naming))
        self._writers.add(raw.schema_name, batch, size)

        return size

    # ------------------------------------------------------------------ notices, result

    def _note(self, notice: Notice) -> None:
        key = (notice.kind, notice.table, notice.column)
        known = self._notices.get(key)
        self._notices[key] = notice if known is None else _sum(known, notice)

    def _result(self) -> ShapingResult:
        aside = self._aside.notices()
        result = ShapingResult(notices=[*self._notices.values(), *aside], extracted=self._extracted)

        for notice in aside:
            self._emit(Warned(pipeline_name=self._plan.pipeline_name, message=notice.message, table=str(notice.table)))

        for (schema_name, table), jobs in self._writers.written().items():
            result.jobs.setdefault(schema_name, []).extend(jobs)
            counts = result.row_counts.setdefault(schema_name, {})
            counts[table] = counts.get(table, 0) + sum(job.rows for job in jobs)

        return result


def _is_freed_at_once(raw: RawBatch) -> bool:
    return isinstance(raw.payload, JsonPages) and len(raw.payload.bodies) <= _FREED_HERE


def _sum(first: Notice, second: Notice) -> Notice:
    return Notice(
        kind=first.kind,
        table=first.table,
        column=first.column,
        count=first.count + second.count,
        message=first.message,
    )
