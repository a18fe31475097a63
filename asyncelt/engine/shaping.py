"""The middle of a run: pages become typed rows in package files. One instance per run.

::

    pages ──▶ N workers (threads: shred, conform) ──▶ sequencer ──▶ buffers ──▶ writers (threads) ──▶ job files

Workers run ahead of each other; the sequencer puts their results back into page order, so schemas grow and rows
are written as if one worker had done everything. A page that was conformed while an earlier page was changing
its tables is conformed again with the schema as of its own number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncelt._async import in_thread, shielded
from asyncelt.budget import BudgetAccount
from asyncelt.config import Limits
from asyncelt.engine.early import EarlyLoading
from asyncelt.engine.setting_aside import SetAside, lines_of
from asyncelt.engine.working import Done, conformed_page, free, shredded_page, sifted_page, still_valid, unsifted
from asyncelt.flow import ArrowPage, Conformed, JobFile, Notice, RawBatch, Rows, TableBatch
from asyncelt.normalize.page import Normalizer
from asyncelt.normalize.plain_road import let_go_of_memory
from asyncelt.normalize.sifting import REFUSALS, Sifted
from asyncelt.observe import Advanced, Event, Warned
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import apply_delta
from asyncelt.schema.model import Schema
from asyncelt.schema.quarantine import with_quarantine
from asyncelt.storage.package import PackageDraft
from asyncelt.storage.writer import Chunk, TableBuffer, TableFiles
from asyncelt.types import FileFormat, TableName

__all__ = ["GIL_GATE", "SchemaBook", "Shaping", "ShapingPlan"]

GIL_GATE = Lock()
"""One slot, for the whole process because the interpreter lock is: held around each slice of work that holds the
interpreter lock, so that the event loop never competes with more than one of them (design: p99 1.2 ms instead of
13.8 ms)."""

_CLEANUP_S = 10.0
_MUCH_MEMORY = 32 * 1024 * 1024
_Key = tuple[str, TableName]
"""Schema name and table name."""
_Boxed = tuple[_Key, list[Chunk]]
"""A table's chunk in a box, from which the thread that writes it takes it: there it is freed too, not on the loop."""


class SchemaBook:
    """The schemas of a run as of the page that was sequenced last. Belongs to the event loop."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = dict(schemas)

    def __getitem__(self, name: str) -> Schema:
        return self._schemas[name]

    def __contains__(self, name: str) -> bool:
        return name in self._schemas

    def set(self, schema: Schema) -> None:
        """Move one schema forward."""
        self._schemas[schema.name] = schema

    def all(self) -> dict[str, Schema]:
        """Every schema as of now."""
        return dict(self._schemas)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapingPlan:
    """What stays the same during a run's shaping."""

    pipeline_name: str
    limits: Limits
    capabilities: Capabilities
    file_format: FileFormat
    normalizers: Mapping[str, Normalizer]
    """By schema name."""
    drafts: Mapping[str, PackageDraft]
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
        budget: Page bytes come in reserved; they are exchanged for table bytes and returned when written.
        emit: Receives events, on the loop.
        early: Takes files that are complete before the run is; None: nobody does.
    """

    def __init__(
        self,
        plan: ShapingPlan,
        book: SchemaBook,
        budget: BudgetAccount,
        emit: Callable[[Event], None],
        early: EarlyLoading | None = None,
    ) -> None:
        self._plan = plan
        self._book = book
        self._budget = budget
        self._emit = emit
        self._early = early
        workers = plan.limits.normalize_workers
        self._workers = anyio.CapacityLimiter(workers)
        self._writers = anyio.CapacityLimiter(workers + 1)
        self._buffers: dict[_Key, TableBuffer] = {}
        self._files: dict[_Key, TableFiles] = {}
        self._lanes: list[MemoryObjectSendStream[_Boxed]] = []
        self._lane_of: dict[_Key, int] = {}
        self._extracted: set[str] = set()
        self._accepted = 0
        """Number of pages that have been accepted."""
        self._accepting = anyio.Event()
        """Set, and replaced, with each of them."""
        self._spent: list[Done] = []
        """Pages that nobody needs any more; the next worker frees them."""
        self._declared: set[_Key] = set()
        """Tables that came as Arrow data without rows: they exist all the same."""
        self._buffered = 0
        self._pressure = anyio.Event()
        self._flushing = anyio.Lock()
        self._notices: dict[tuple[str, TableName, str | None], Notice] = {}
        self._aside = SetAside()

    async def run(self, pages: MemoryObjectReceiveStream[RawBatch]) -> ShapingResult:
        """Work until ``pages`` ends; then every job file is closed and durable.

        Raises:
            NormalizeError: A value can neither be kept nor put aside.
            StorageError: A file could not be written.
        """
        remove_listener = self._budget.budget.on_pressure(self._relieve)

        try:
            with ExitStack() as ends:
                async with anyio.create_task_group() as tasks:
                    self._open_lanes(tasks, ends)
                    tasks.start_soon(self._flush_on_pressure)
                    await self._sequence_all(pages)
                    await self._flush_all()
                    await self._close_lanes()

            await in_thread(self._finish_files, self._writers)
        except BaseException:
            with shielded(_CLEANUP_S):
                await in_thread(self._abandon_files, self._writers)

            raise
        finally:
            remove_listener()

        return self._result()

    # ------------------------------------------------------------------ workers and sequencer

    async def _sequence_all(self, pages: MemoryObjectReceiveStream[RawBatch]) -> None:
        send, receive = anyio.create_memory_object_stream[Done](0)

        async with pages, send, receive, anyio.create_task_group() as tasks:
            tasks.start_soon(self._work_all, pages, send)
            await self._sequence(receive)

    async def _work_all(self, pages: MemoryObjectReceiveStream[RawBatch], done: MemoryObjectSendStream[Done]) -> None:
        async with done, anyio.create_task_group() as workers:
            for _ in range(self._plan.limits.normalize_workers):
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

    async def _shaped(self, raw: RawBatch) -> Done:
        normalizer = self._plan.normalizers[raw.schema_name]
        spent, self._spent = self._spent, []
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
                self._buffer(name, batch, size)
                kept += size

        if conformed.root_rows:
            self._extracted.add(name)

        if not done.raw.rows and isinstance(done.raw.payload, ArrowPage | Rows):
            self._declared.add((name, done.raw.table))

        self._budget.adjust(kept - done.raw.nbytes)
        self._spent.append(done)
        del conformed, done
        await self._flush_full()

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
        self._buffer(raw.schema_name, batch, size)

        return size

    # ------------------------------------------------------------------ buffers and writers

    def _buffer(self, schema_name: str, batch: TableBatch, size: int) -> None:
        key = (schema_name, batch.table)
        buffer = self._buffers.get(key)

        if buffer is None:
            buffer = self._buffers[key] = TableBuffer(batch.table)

        buffer.add(batch, size)
        self._buffered += size
        self._emit(
            Advanced(
                pipeline_name=self._plan.pipeline_name, stage="normalize", name=batch.table, rows=batch.rows, bytes=size
            )
        )

    async def _flush_full(self) -> None:
        limits = self._plan.limits
        full = [key for key, buffer in self._buffers.items() if buffer.is_full(limits) or self._is_due(key)]

        for key in full:
            await self._flush(key)

        most = max(limits.max_memory // 4, 1)

        while self._buffered > most:
            await self._flush(max(self._buffers, key=lambda key: self._buffers[key].nbytes))

    async def _flush_all(self) -> None:
        async with self._flushing:
            for key in list(self._buffers):
                await self._flush(key)

    async def _close_lanes(self) -> None:
        """End the writers once their lanes are empty, and the flusher, which has nothing left to wait for."""
        async with self._flushing:
            for lane in self._lanes:
                lane.close()

            self._lanes = []
            self._pressure.set()

    async def _flush(self, key: _Key) -> None:
        buffer = self._buffers[key]

        if not buffer.rows:
            return

        self._buffered -= buffer.nbytes
        lane = self._lane_of.setdefault(key, len(self._lane_of) % len(self._lanes))
        await self._lanes[lane].send((key, [buffer.take(self._book[key[0]].tables[key[1]])]))

    def _open_lanes(self, tasks: TaskGroup, ends: ExitStack) -> None:
        for _ in range(self._plan.limits.normalize_workers):
            send, receive = anyio.create_memory_object_stream[_Boxed](1)
            self._lanes.append(send)
            ends.enter_context(send)
            ends.enter_context(receive)
            tasks.start_soon(self._write, receive)

    async def _write(self, chunks: MemoryObjectReceiveStream[_Boxed]) -> None:
        async with chunks:
            async for key, box in chunks:
                await self._write_chunk(key, box)

    async def _write_chunk(self, key: _Key, box: list[Chunk]) -> None:
        files, table = self._files_of(key), box[0].table
        early = self._early_of(key)
        load_id = self._plan.drafts[key[0]].load_id
        is_due = early is not None and early.is_due(load_id, table, box[0].nbytes)
        known = len(files.jobs)
        self._budget.release(await in_thread(partial(_append, files, box, is_last=is_due), self._writers))

        if early is not None:
            for job in files.jobs[known:]:
                early.offer(load_id, table, job, self._plan.drafts[key[0]].jobs_folder)

    def _early_of(self, key: _Key) -> EarlyLoading | None:
        """Who takes the table's files before the run is complete."""
        if self._early is None or not self._early.is_on:
            return None

        return self._early if self._book[key[0]].disposition_of(key[1]) == "append" else None

    def _is_due(self, key: _Key) -> bool:
        """Whether the table has gathered enough for a file that is loaded early."""
        early = self._early_of(key)

        if early is None:
            return False

        table = self._book[key[0]].tables[key[1]]

        return self._buffers[key].nbytes >= early.due_in(self._plan.drafts[key[0]].load_id, table)

    def _files_of(self, key: _Key) -> TableFiles:
        files = self._files.get(key)

        if files is None:
            schema_name, table = key
            plan = self._plan
            form = plan.capabilities.file_format_for(self._book[schema_name].root_of(table).hints, plan.file_format)
            files = self._files[key] = TableFiles(plan.drafts[schema_name], table, form, plan.limits, plan.capabilities)

        return files

    def _finish_files(self) -> None:
        free(self._spent)

        for key in self._declared - self._files.keys():
            table = self._book[key[0]].tables[key[1]]
            self._files_of(key).append(Chunk(table=table, batches=(), rows=0, nbytes=0))

        for files in self._files.values():
            files.finish()

        if self._budget.budget.peak > _MUCH_MEMORY:
            # What loads the files next takes memory of its own.
            let_go_of_memory()

    def _abandon_files(self) -> None:
        for files in self._files.values():
            files.abandon()

    # ------------------------------------------------------------------ pressure, notices, result

    def _relieve(self) -> None:
        self._pressure.set()

    async def _flush_on_pressure(self) -> None:
        while self._lanes:
            await self._pressure.wait()

            if not self._lanes:
                return

            self._pressure = anyio.Event()
            await self._flush_all()

    def _note(self, notice: Notice) -> None:
        key = (notice.kind, notice.table, notice.column)
        known = self._notices.get(key)
        self._notices[key] = notice if known is None else _sum(known, notice)

    def _result(self) -> ShapingResult:
        aside = self._aside.notices()
        result = ShapingResult(notices=[*self._notices.values(), *aside], extracted=self._extracted)

        for notice in aside:
            self._emit(Warned(pipeline_name=self._plan.pipeline_name, message=notice.message, table=str(notice.table)))

        for (schema_name, table), files in self._files.items():
            result.jobs.setdefault(schema_name, []).extend(files.jobs)
            counts = result.row_counts.setdefault(schema_name, {})
            counts[table] = counts.get(table, 0) + sum(job.rows for job in files.jobs)

        return result


def _append(files: TableFiles, box: list[Chunk], *, is_last: bool) -> int:
    chunk = box.pop()
    files.append(chunk)

    if is_last:
        files.finish()

    return chunk.nbytes


def _sum(first: Notice, second: Notice) -> Notice:
    return Notice(
        kind=first.kind,
        table=first.table,
        column=first.column,
        count=first.count + second.count,
        message=first.message,
    )
