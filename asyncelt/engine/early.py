"""Loading while extraction runs: complete job files go into the transaction of the commit to come.

Only where the session offers it (`SupportsEarly`), and only tables that are appended to. What it does not come to, or
gives up, the commit does; so nothing depends on it but the time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from asyncelt.config import MIB, Limits
from asyncelt.engine.steps import one_error
from asyncelt.flow import JobFile
from asyncelt.load.protocol import EarlyJob, Session, SupportsEarly
from asyncelt.schema.model import Table
from asyncelt.types import FileFormat, LoadId, TableName

__all__ = ["EarlyLoading", "early_loading"]

_COLUMN_BYTES = 16 * 1024
"""What a column adds to the size of a file that is worth its price: a file, and a statement, cost by the column."""
_MOST_BYTES = 64 * MIB
_PATIENCE_S = 0.5
"""How long the destination is held without a new file: it is for sources that deliver faster than that."""


@dataclass(slots=True)
class _Progress:
    """Of one table, in bytes of columns."""

    wanted: int
    """When its file is due."""
    gathered: int = 0
    """Since its last file."""


class EarlyLoading:
    """Belongs to the event loop. One instance per run.

    Args:
        session: Open, its lease held.
        first_bytes: Of a table, before its first file is due.
    """

    def __init__(self, session: SupportsEarly, first_bytes: int) -> None:
        self._session = session
        self._first_bytes = first_bytes
        self._progress: dict[tuple[LoadId, TableName], _Progress] = {}
        self._waiting: list[EarlyJob] = []
        self._news = anyio.Event()
        self._ends = False
        self._ended = anyio.Event()
        self.is_on = True
        """False once it has been given up."""

    def due_in(self, load_id: LoadId, table: Table) -> int:
        """How many bytes a table may gather before its file is due."""
        progress = self._of(load_id, table)

        return max(progress.wanted - progress.gathered, 0)

    def is_due(self, load_id: LoadId, table: Table, nbytes: int) -> bool:
        """Whether to close the table's file, now that ``nbytes`` more are written to it. Files grow with the table."""
        if not self.is_on:
            return False

        progress = self._of(load_id, table)
        progress.gathered += nbytes

        if progress.gathered < progress.wanted:
            return False

        progress.gathered = 0
        progress.wanted = min(progress.wanted * 2, _MOST_BYTES)

        return True

    def offer(self, load_id: LoadId, table: Table, job: JobFile, folder: Path) -> None:
        """Take a file that is complete."""
        if self.is_on:
            self._waiting.append(EarlyJob(load_id=load_id, table=table, job=job, path=folder / job.file_name))
            self._news.set()

    async def run(self) -> None:
        """Load what is offered, until `end`.

        Cancellation:
            Safe. Nothing is kept of what was loaded.
        """
        try:
            await self._run()
        finally:
            self._ended.set()

    async def _run(self) -> None:
        has_begun = False

        while self.is_on and not self._ends:
            if not self._waiting:
                with anyio.move_on_after(_PATIENCE_S if has_begun else None) as waiting:
                    await self._news.wait()

                if waiting.cancelled_caught:
                    self.is_on = False
                    await self._session.forget_early()

                self._news = anyio.Event()
                continue

            has_begun = True
            self.is_on = await self._session.load_early(self._next())

    def _next(self) -> list[EarlyJob]:
        """The first file of each table: when the run ends, no more than these are waited for."""
        jobs: dict[tuple[LoadId, TableName], EarlyJob] = {}

        for one in self._waiting:
            jobs.setdefault((one.load_id, one.table.name), one)

        self._waiting = [one for one in self._waiting if jobs[one.load_id, one.table.name] is not one]

        return list(jobs.values())

    async def end(self) -> None:
        """Leave the rest to the commit; returns when no file is being read, so that the package may move."""
        self._ends = True
        self._news.set()
        await self._ended.wait()

    def _of(self, load_id: LoadId, table: Table) -> _Progress:
        progress = self._progress.get((load_id, table.name))

        if progress is None:
            wanted = self._first_bytes + len(table.columns) * _COLUMN_BYTES
            progress = self._progress[load_id, table.name] = _Progress(min(wanted, _MOST_BYTES))

        return progress


@asynccontextmanager
async def early_loading(
    session: Session, limits: Limits, file_format: FileFormat
) -> AsyncIterator[EarlyLoading | None]:
    """Load early inside the block, if that is possible and wanted; what was loaded waits for its commit afterwards."""
    if limits.load_early_bytes is None or file_format != "parquet" or not isinstance(session, SupportsEarly):
        yield None
        return

    if not session.loads_early:
        yield None
        return

    early = EarlyLoading(session, limits.load_early_bytes)

    with one_error():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(early.run)

            yield early

            await early.end()
