"""``asyncelt.destinations.memory()``: datasets that live as long as the destination object."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias, TypeVar, cast

import anyio
import pyarrow as pa

from asyncelt._async import in_thread
from asyncelt.arguments import FUNCTION, TEXT, expect_if_given
from asyncelt.destinations.memory_impl.store import (
    Contents,
    after_commit,
    committed,
    read_packages,
    restored,
)
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package, PositionClaim
from asyncelt.load.positions import claimed
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, Session, StoredPosition, Target
from asyncelt.schema.capabilities import Capabilities
from asyncelt.types import LoadId, SqlValue

__all__ = ["Fault", "Memory", "MemorySession", "memory"]

T = TypeVar("T")

Fault: TypeAlias = Callable[[str], None]
"""Called with the name of each step (``restore``, ``acquire``, ``migrate``, ``load``, ``commit``, ``committed``,
``run_of``, ``query``, and ``answer`` after a commit has become visible); what it raises, the session raises."""

_CAPABILITIES = Capabilities(
    stores_positions=True,
    merge_strategies=("delete-insert", "upsert", "scd2", "insert-only", "cdc"),
    replace_strategies=("truncate-and-insert", "insert-from-staging"),
    case_sensitive=True,
    transactional=True,
    sqlglot_dialect="duckdb",
)
_NO_DATASET = Contents()
"""One object, because a commit compares what it began with by identity."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Datasets in memory, shared by all sessions of this object and by the copies that ``for_pipeline`` makes."""

    destination_name: str
    capabilities: Capabilities = _CAPABILITIES
    fault: Fault | None = None
    _datasets: dict[str, Contents] = field(default_factory=dict)

    @property
    def destination_type(self) -> str:
        """``asyncelt.destinations.memory``."""
        return "asyncelt.destinations.memory"

    @property
    def location(self) -> str:
        """There is only one."""
        return "memory://"

    def for_pipeline(self, pipeline_name: str) -> Memory:
        """The same: nothing depends on the pipeline."""
        del pipeline_name

        return self

    def connect(self, target: Target) -> AbstractAsyncContextManager[Session]:
        """A session on one of the datasets."""
        return _connected(MemorySession(self, self._datasets, target))

    def tables(self, dataset_name: str) -> Mapping[str, pa.Table]:
        """The tables of a dataset as of its last commit, system tables included; empty when there is no dataset."""
        return {str(name): table for name, table in self._datasets.get(dataset_name, _NO_DATASET).tables.items()}


class MemorySession:
    """One session. Job files are read in a thread; a commit is one assignment on the event loop."""

    def __init__(self, destination: Memory, datasets: dict[str, Contents], target: Target) -> None:
        self._destination = destination
        self._datasets = datasets
        self._target = target
        self._limiter = anyio.CapacityLimiter(1)

    async def restore(self, pipeline_name: str) -> Restored:
        """See `Session.restore`."""
        self._pass("restore")

        return restored(self._contents, pipeline_name, self._target.member)

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """See `Session.acquire`."""
        self._pass("acquire")
        contents = self._contents
        current = contents.leases.get((pipeline_name, member))

        if current is None:
            # As elsewhere an owner that has never committed leaves no trace; the first commit decides.
            return Lease(epoch=1)

        lease = replace(current, epoch=current.epoch + 1)
        self._datasets[self._target.dataset_name] = replace(
            contents, leases={**contents.leases, (pipeline_name, member): lease}
        )

        return lease

    async def migrate(self, commit: Commit) -> None:
        """Nothing: the commit does it."""
        del commit
        self._pass("migrate")

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Nothing: the commit reads the job files by itself."""
        del commit, package, job
        self._pass("load")

    async def commit(self, commit: Commit) -> CommitResult:
        """See `Session.commit`."""
        self._pass("commit")
        capabilities = self._destination.capabilities
        staged = await self._in_thread(partial(read_packages, commit.packages, capabilities))

        while True:
            before = self._contents
            after, result = await self._in_thread(partial(after_commit, before, commit, staged, capabilities))
            failpoint("memory.before_commit")

            # No await from here to the assignment; if somebody else has committed meanwhile, compute again.
            if self._contents is before:
                self._datasets[self._target.dataset_name] = after
                failpoint("memory.after_commit")
                self._pass("answer")

                return result

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """See `Session.committed`."""
        self._pass("committed")

        return committed(self._contents, load_ids)

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """See `Session.run_of`."""
        self._pass("run_of")

        return self._contents.runs.get((pipeline_name, run_id), ())

    async def positions(self, pipeline_name: str) -> Sequence[StoredPosition]:
        """See `SupportsPositions.positions`."""
        self._pass("positions")

        return [stored for (name, _, _), stored in self._contents.positions.items() if name == pipeline_name]

    async def claim(self, pipeline_name: str, claims: Sequence[PositionClaim]) -> Sequence[StoredPosition]:
        """See `SupportsPositions.claim`. A commit that is being computed is computed again."""
        self._pass("claim")
        contents = self._contents
        known = contents.positions
        found = [claimed(known.get((pipeline_name, one.source, one.partition)), one) for one in claims]
        changed = {(pipeline_name, one.source, one.partition): one for one in found}
        self._datasets[self._target.dataset_name] = replace(contents, positions={**known, **changed})

        return found

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """See `SupportsQuery.query`. Needs the package ``duckdb``."""
        self._pass("query")
        tables = self._destination.tables(self._target.dataset_name)

        def run() -> pa.Table:
            module = importlib.import_module("asyncelt.destinations.local_sql")

            return cast(pa.Table, module.query_tables(tables, sql, parameters))

        return await self._in_thread(run)

    @property
    def _contents(self) -> Contents:
        return self._datasets.get(self._target.dataset_name, _NO_DATASET)

    def _pass(self, step: str) -> None:
        if self._destination.fault is not None:
            self._destination.fault(step)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await in_thread(work, self._limiter)


def memory(
    *, destination_name: str | None = None, naming_convention: str | None = None, fault: Fault | None = None
) -> Memory:
    """Keep datasets in memory: for tests and trying things out.

    Everything is as with a database: transactions, leases, idempotent commits, all write dispositions.

    Args:
        destination_name: Name in messages and settings; "memory" unless given.
        naming_convention: How names of the data become names of tables and columns. None: as the schema has it, a new
            one "snake_case".
        fault: Called at each step of a session, by name; raise in it to make the step fail.
    """
    expect_if_given("memory", TEXT, destination_name=destination_name, naming_convention=naming_convention)
    expect_if_given("memory", FUNCTION, fault=fault)

    return Memory(
        destination_name=destination_name or "memory",
        capabilities=replace(_CAPABILITIES, naming_convention=naming_convention),
        fault=fault,
    )


@asynccontextmanager
async def _connected(session: MemorySession) -> AsyncIterator[MemorySession]:
    yield session
