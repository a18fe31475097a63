"""The end of a run's middle: typed batches, in page order, become job files.

::

    add ──▶ a buffer per table ──▶ a line per table ──▶ writers (threads) ──▶ job files

A line has one writer at a time, so a table's rows reach its files in the order in which they were added, however many
writers there are. Buffers go when they are full, when all of them hold too much, or when a stage waits for memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import anyio

from asyncelt._async import each, in_thread, shielded
from asyncelt.budget import BudgetAccount
from asyncelt.config import Limits
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.early import EarlyLoading
from asyncelt.engine.lines import Lines
from asyncelt.errors import SchemaConflict
from asyncelt.flow import JobFile, TableBatch
from asyncelt.normalize.memory import let_go_of_memory, let_go_of_own_memory
from asyncelt.observe import Advanced, Event
from asyncelt.schema.arrow import arrow_type
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Column
from asyncelt.storage.package import PackageDraft
from asyncelt.storage.writer import Chunk, TableBuffer, TableFiles
from asyncelt.types import ColumnName, FileFormat, TableName

__all__ = ["TableKey", "TableWriters", "WritingPlan"]

_MUCH_MEMORY = 32 * 1024 * 1024
_FILES_OF_A_CALL = 4
_COLUMN_BYTES = 16 * 1024
"""A column takes as long to write as so many bytes."""
TableKey = tuple[str, TableName]
"""Schema name and table name."""


@dataclass(frozen=True, slots=True)
class _Box:
    """A table's chunk on its way to a thread, which takes it out: there it is freed too, not on the loop."""

    chunks: list[Chunk]
    is_last: bool
    """Known to be the last of its table; False says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingPlan:
    """What stays the same while a run's files are written."""

    pipeline_name: str
    limits: Limits
    capabilities: Capabilities
    file_format: FileFormat
    drafts: Mapping[str, PackageDraft]
    """By schema name."""


class TableWriters:
    """Writes the tables of one run. Belongs to the event loop; one instance per run.

    Args:
        plan: What stays the same.
        book: Schemas as of the batch that was added last.
        budget: The bytes of what is added are reserved; they are returned when it is written.
        emit: Receives events, on the loop.
        early: Takes files that are complete before the run is; None: nobody does.
    """

    def __init__(
        self,
        plan: WritingPlan,
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
        self._threads = anyio.CapacityLimiter(plan.limits.normalize_workers + 1)
        self._buffers: dict[TableKey, TableBuffer] = {}
        self._buffered = 0
        self._files: dict[TableKey, TableFiles] = {}
        self._declared: set[TableKey] = set()
        self._settled: dict[TableKey, Mapping[ColumnName, Column]] = {}
        """Columns of each table as of the rows that were added last."""
        self._lines = Lines(self._write, workers=plan.limits.normalize_workers)
        self._pressure = anyio.Event()
        self._ends = False
        """Whether everything has been added."""
        self._written = 0
        """Bytes, since memory was given back."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Write what is added inside the block; after it, every job file is closed and durable.

        Raises:
            StorageError: A file could not be written.

        Cancellation:
            Safe, as are errors of the block: open files are let go of.
        """
        remove_listener = self._budget.budget.on_pressure(self._relieve)

        try:
            async with self._lines.open(), anyio.create_task_group() as tasks:
                tasks.start_soon(self._flush_on_pressure)

                yield

                self._ends = True
                self._pressure.set()
                await self._flush_all()

            await self._finish()
        except BaseException:
            with shielded():
                await in_thread(self._abandon_files, self._threads)

            raise
        finally:
            remove_listener()

    def add(self, schema_name: str, batch: TableBatch, size: int) -> None:
        """Take a batch of ``size`` bytes that is valid under its schema as of now. Never waits: see `flush_full`.

        Raises:
            SchemaConflict: Hints have given a column another type than rows have that were added before.
        """
        key = (schema_name, batch.table)
        self._settle(key)
        buffer = self._buffers.get(key)

        if buffer is None:
            buffer = self._buffers[key] = TableBuffer(batch.table)

        buffer.add(batch, size)
        self._buffered += size

        # Whoever waits has said so once, before this came.
        if self._budget.budget.waiting:
            self._relieve()

        self._emit(
            Advanced(
                pipeline_name=self._plan.pipeline_name, stage="normalize", name=batch.table, rows=batch.rows, bytes=size
            )
        )

    def declare(self, schema_name: str, table: TableName) -> None:
        """Have a file of the table even if there are no rows for it."""
        self._declared.add((schema_name, table))

    async def flush_full(self) -> None:
        """Hand on what need not wait for more. Waits while its writers are busy."""
        limits = self._plan.limits
        full = [key for key, buffer in self._buffers.items() if buffer.is_full(limits) or self._is_due(key)]

        for key in full:
            await self._flush(key)

        most = max(limits.max_memory // 4, 1)

        while self._buffered > most:
            await self._flush(max(self._buffers, key=lambda key: self._buffers[key].nbytes))

    def written(self) -> dict[TableKey, list[JobFile]]:
        """The job files of each table, in order; the tables in the order in which their first rows came."""
        known = dict.fromkeys((*self._buffers, *self._files))

        return {key: self._files[key].jobs for key in known if key in self._files}

    def _settle(self, key: TableKey) -> None:
        """Rows of a table that lie in one file, or in one destination's column, have one type."""
        known, columns = self._settled.get(key), self._book[key[0]].tables[key[1]].columns

        if columns is known:
            return

        can = self._plan.capabilities

        for name, before in (known or {}).items():
            now = columns.get(name, before)

            if now is before or before.data_type is None:
                continue

            if arrow_type(now, can) != arrow_type(before, can):
                raise SchemaConflict(
                    f"Column {name!r} of table {key[1]!r} is {before.data_type} in rows of this run, and hints that "
                    f"came with later rows want {now.data_type}. A column has one type in a run: give it with the "
                    "resource (columns=...), or with the first rows."
                )

        self._settled[key] = columns

    # ------------------------------------------------------------------ from buffers into lines

    async def _flush_all(self) -> None:
        """Those that take longest first: nobody waits for them alone in the end."""
        for key in sorted(self._buffers, key=self._effort, reverse=True):
            await self._flush(key)

    def _effort(self, key: TableKey) -> int:
        return self._buffers[key].nbytes + _COLUMN_BYTES * len(self._book[key[0]].tables[key[1]].columns)

    async def _flush(self, key: TableKey) -> None:
        buffer = self._buffers[key]

        if not buffer.rows:
            return

        self._buffered -= buffer.nbytes
        box = _Box([buffer.take(self._book[key[0]].tables[key[1]])], is_last=self._ends)
        await self._lines.put(key, box)

    def _relieve(self) -> None:
        self._pressure.set()

    async def _flush_on_pressure(self) -> None:
        while not self._ends:
            await self._pressure.wait()
            self._pressure = anyio.Event()

            if not self._ends:
                await self._flush_all()

    # ------------------------------------------------------------------ into files

    async def _write(self, key: TableKey, box: _Box) -> None:
        files, table, nbytes = self._files_of(key), box.chunks[0].table, box.chunks[0].nbytes
        early = self._early_of(key)
        load_id = self._plan.drafts[key[0]].load_id
        ends_file = box.is_last or (early is not None and early.is_due(load_id, table, nbytes))
        known = len(files.jobs)
        await in_thread(partial(_append, files, box.chunks, ends_file=ends_file), self._threads)
        self._budget.release(nbytes)
        self._written += nbytes

        # The last ones are as well left to the commit, which is about to begin.
        if early is not None and not box.is_last:
            for job in files.jobs[known:]:
                early.offer(load_id, table, job, self._plan.drafts[key[0]].jobs_folder)

        if self._written >= _MUCH_MEMORY:
            # Every thread that has made rows has an allocator that keeps their memory for others.
            self._written = 0
            await in_thread(let_go_of_memory, self._threads)

    def _early_of(self, key: TableKey) -> EarlyLoading | None:
        """Who takes the table's files before the run is complete."""
        if self._early is None or not self._early.is_on:
            return None

        return self._early if self._book[key[0]].disposition_of(key[1]) == "append" else None

    def _is_due(self, key: TableKey) -> bool:
        """Whether the table has gathered enough for a file that is loaded early."""
        early = self._early_of(key)

        if early is None:
            return False

        table = self._book[key[0]].tables[key[1]]

        return self._buffers[key].nbytes >= early.due_in(self._plan.drafts[key[0]].load_id, table)

    def _files_of(self, key: TableKey) -> TableFiles:
        files = self._files.get(key)

        if files is None:
            schema_name, table = key
            plan, can = self._plan, self._plan.capabilities
            hints = self._book[schema_name].root_of(table).hints
            form, parquet = can.file_format_for(hints, plan.file_format), can.parquet_for(hints)
            files = TableFiles(plan.drafts[schema_name], table, form, plan.limits, can, parquet)
            self._files[key] = files

        return files

    async def _finish(self) -> None:
        """Close all files. Each waits for the disk, so those of many tables are closed several at a time."""
        ends = [files.finish for files in self._files.values()]
        ends += map(self._declared_end, self._declared - self._files.keys())
        groups = [ends[at : at + _FILES_OF_A_CALL] for at in range(0, len(ends), _FILES_OF_A_CALL)]

        async def finish(group: Sequence[Callable[[], None]]) -> None:
            await in_thread(partial(_call_all, group), self._threads)

        await each(finish, groups, at_once=self._plan.limits.normalize_workers + 1)

        if self._written and self._budget.budget.peak > _MUCH_MEMORY:
            # What loads the files next takes memory of its own.
            await in_thread(let_go_of_memory, self._threads)

    def _declared_end(self, key: TableKey) -> Callable[[], None]:
        files, table = self._files_of(key), self._book[key[0]].tables[key[1]]

        def finish() -> None:
            files.append(Chunk(table=table, batches=(), rows=0, nbytes=0))
            files.finish()

        return finish

    def _abandon_files(self) -> None:
        for files in self._files.values():
            files.abandon()


def _append(files: TableFiles, chunks: list[Chunk], *, ends_file: bool) -> None:
    nbytes = chunks[0].nbytes
    files.append(chunks.pop())
    let_go_of_own_memory(nbytes)

    if ends_file:
        files.finish()


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()
