"""What all groups of conformance tests share: one pipeline on one dataset of the destination under test."""

# ruff: noqa: S101, S608 - a helper of tests

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from anyio.to_thread import run_sync

from asyncelt.flow import Package
from asyncelt.load.protocol import Commit, CommitResult, Destination, Lease, Restored, Session, SupportsQuery, Target
from asyncelt.schema.model import Table
from asyncelt.schema.system import STATE_TABLE, pipeline_state_table
from asyncelt.testing.packages import Tables, make_commit, make_package, state_row
from asyncelt.types import FileFormat, LoadId

__all__ = ["Owner", "rows_of"]


@dataclass(slots=True)
class Owner:
    """One owner of one pipeline, which makes packages and commits them, each on the one before.

    Args:
        destination: Under test.
        folder: For packages.
        file_format: Of job files.
        target: Pipeline and dataset.
    """

    destination: Destination
    folder: Path
    file_format: FileFormat
    target: Target = field(default_factory=lambda: Target(pipeline_name="conformance", dataset_name="data"))
    last: Package | None = None
    lease: Lease | None = None
    clock: int = 1_700_000_000

    async def make(
        self,
        rows: Tables,
        *,
        tables: Sequence[Table] = (),
        replaced: Sequence[str] = (),
        dropped: Sequence[str] = (),
        truncated: Sequence[str] = (),
        state: str | None = None,
        after: Package | None = None,
    ) -> Package:
        """A package on top of the last one, or of ``after``."""
        self.clock += 1
        load_id = f"{self.clock}.25"
        before = after or self.last
        everything = dict(rows)
        definitions = list(tables)

        if state is not None:
            everything[STATE_TABLE] = state_row(self.target, load_id, state)
            definitions.append(pipeline_state_table())

        def write() -> Package:
            return make_package(
                self.folder / self.target.pipeline_name,
                load_id,
                everything,
                target=self.target,
                tables=definitions,
                schema=before.schema if before is not None else None,
                capabilities=self.destination.capabilities,
                file_format=self.file_format,
                replaced=replaced,
                dropped=dropped,
                truncated=truncated,
                parent_load_id=before.load_id if before is not None else None,
            )

        # In a thread, so that suites may check that nothing blocks the event loop.
        return await run_sync(write)

    async def acquire(self, session: Session) -> Lease:
        """Take the lease, once."""
        if self.lease is None:
            self.lease = await session.acquire(self.target.pipeline_name, self.target.member)

        return self.lease

    async def commit(self, *packages: Package, run_id: str | None = None) -> CommitResult:
        """Bring packages to the destination in a session of its own."""
        async with self.destination.connect(self.target) as session:
            result = await self.commit_in(
                session, make_commit(self.target, await self.acquire(session), *packages, run_id=run_id)
            )

        self.last = packages[-1]

        return result

    async def commit_in(self, session: Session, commit: Commit) -> CommitResult:
        """All steps of one commit, as the engine makes them."""
        await session.migrate(commit)

        for package in commit.packages:
            for job in package.jobs:
                await session.load(commit, package, job)

        return await session.commit(commit)

    async def run(
        self,
        rows: Tables,
        *,
        tables: Sequence[Table] = (),
        replaced: Sequence[str] = (),
        state: str | None = None,
        run_id: str | None = None,
    ) -> CommitResult:
        """Make one package and commit it."""
        package = await self.make(rows, tables=tables, replaced=replaced, state=state)

        return await self.commit(package, run_id=run_id)

    async def restore(self) -> Restored:
        """What the destination knows."""
        async with self.destination.connect(self.target) as session:
            return await session.restore(self.target.pipeline_name)

    async def committed(self, *load_ids: LoadId) -> frozenset[LoadId]:
        """Which of these the destination has."""
        async with self.destination.connect(self.target) as session:
            return await session.committed(load_ids)

    async def table(self, name: str) -> pa.Table:
        """All rows of a table, as the destination gives them back."""
        async with self.destination.connect(self.target) as session:
            assert isinstance(session, SupportsQuery), "override Owner.table for a destination without SQL"
            quoted = name.replace('"', '""')

            return await session.query(f'SELECT * FROM "{quoted}"')

    async def rows(self, name: str) -> list[dict[str, object]]:
        """All rows of a table, sorted by their text."""
        return rows_of(await self.table(name))

    async def has(self, name: str) -> bool:
        """Whether the table can be read."""
        try:
            await self.table(name)
        except Exception:
            return False

        return True


def rows_of(table: pa.Table) -> list[dict[str, object]]:
    """Rows in an order that does not depend on the destination."""
    return sorted(table.to_pylist(), key=repr)
