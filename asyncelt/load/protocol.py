"""The contract between the engine and a destination. Public: third parties implement it.

A destination is a factory object that does no I/O (`Destination`) and a session that does
(`Session`). The engine calls, in this order::

    async with destination.connect(target) as session:
        restored = await session.restore(pipeline_name)          # once per pipeline instance
        lease = await session.acquire(pipeline_name, member)     # before anything is written
        await session.migrate(commit)                            # CREATE / ADD COLUMN; may do nothing
        await session.load(commit, package, job)                 # many at once; idempotent per job
        await session.commit(commit)                             # everything becomes visible, or nothing

Every method may raise `DestinationUnavailable` (tried again), `DestinationRejected` (not), and ``commit`` may raise
`LeaseLost` and `CommitUnknown`; after the latter the engine asks ``committed``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa

from asyncelt.flow import JobFile, Package, PositionClaim, PositionMove
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Table
from asyncelt.types import LoadId, SqlValue

__all__ = [
    "ArrowStream",
    "Commit",
    "CommitResult",
    "Destination",
    "EarlyJob",
    "Known",
    "Lease",
    "Restored",
    "Session",
    "StoredPosition",
    "SupportsEarly",
    "SupportsIdle",
    "SupportsNames",
    "SupportsPlace",
    "SupportsPositions",
    "SupportsQuery",
    "SupportsStream",
    "SupportsTakeOver",
    "SupportsTransaction",
    "Target",
    "is_same_place",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a session writes, and for whom."""

    pipeline_name: str
    dataset_name: str
    member: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a dataset knows about a pipeline. All fields empty when the dataset does not exist yet."""

    exists: bool = False
    """Whether the dataset has system tables at all."""
    state: str | None = None
    """Newest committed state of this pipeline, as stored: base64(zlib(typed JSON))."""
    state_load_id: LoadId | None = None
    schemas: Mapping[str, str] = field(default_factory=dict)
    """Newest stored schema JSON per schema name."""
    last_load_id: LoadId | None = None
    """Greatest load id in the dataset, over all pipelines."""
    head_load_id: LoadId | None = None
    """Last package that this pipeline (and member) committed, by the lease row."""
    is_known: bool = False
    """Whether head and state are those that the caller knows; then the schemas have not been read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the caller has of a dataset already, schemas included: as of the package that it committed last."""

    load_id: LoadId
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Proof of ownership. ``epoch`` grows each time the owner changes; a commit with an old epoch is refused."""

    epoch: int
    head_load_id: LoadId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """All packages of one run, to be made visible together."""

    target: Target
    lease: Lease
    packages: tuple[Package, ...]
    parent_load_id: LoadId | None
    """Head of the pipeline's chain that these packages were made on; the commit is refused when it has moved."""
    run_id: str | None = None
    is_load: bool = True
    """False: tables and the stored schema alone. Job files have no rows and need not be read, no load row is written,
    and the head stays where it is."""

    @property
    def positions(self) -> tuple[PositionMove, ...]:
        """Positions of messages that become known with this commit; for sessions that are `SupportsPositions`."""
        return tuple(move for package in self.packages for move in package.positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyJob:
    """A job file that is complete while the rest of its package is still being made."""

    load_id: LoadId
    table: Table
    """As of the file; later files may have more columns."""
    job: JobFile
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPosition:
    """A row of ``_asyncelt_positions``: what is committed of one partition of one source."""

    source: str
    partition: str
    epoch: int
    position: str
    """As `asyncelt.extract.intervals.Intervals.text` writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """What the commit did."""

    load_ids: tuple[LoadId, ...]
    already_committed: bool = False
    """True when the destination had these load ids before: nothing was written again."""
    schema_updates: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Applied DDL: load id -> table -> new columns."""


@runtime_checkable
class Session(Protocol):
    """One open connection (or pool) to one dataset. Used by one run; closed by leaving its context."""

    async def restore(self, pipeline_name: str) -> Restored:
        """Read what the dataset knows about a pipeline. Never creates anything."""
        ...

    async def acquire(self, pipeline_name: str, member: str) -> Lease:
        """Become the owner: every lease that was handed out before can no longer commit.

        Leaves no trace in a dataset in which this pipeline (and member) has never committed: of two owners that
        begin there, the first to commit wins.

        Raises:
            PipelineBusy: Another owner is alive.
        """
        ...

    async def migrate(self, commit: Commit) -> None:
        """Bring tables to the packages' schemas, as far as this must happen before the commit's transaction.

        Only CREATE and ADD COLUMN. Destinations with transactional DDL do it in ``commit`` and return here.
        """
        ...

    async def load(self, commit: Commit, package: Package, job: JobFile) -> None:
        """Bring one job's data to the destination without making it visible. Idempotent."""
        ...

    async def commit(self, commit: Commit) -> CommitResult:
        """Make all packages, state and load rows visible at once. Idempotent by load id.

        Packages are written in their order. Tables that a package drops, truncates or replaces lose their rows when
        its turn comes, so rows of an earlier package of the same commit go too. With dropped tables go the stored
        versions of the package's schema, except the one that the commit stores.

        Job files of tables that are merged may have a column that the schema does not have (`asyncelt.flow.ROOT_ROW`):
        it tells which nested rows came with which root row where ids do not. It is not written.

        Raises:
            LeaseLost: Epoch or parent do not match: another owner has gone on.
            CommitUnknown: The answer was lost; ``committed`` tells.
        """
        ...

    async def committed(self, load_ids: Sequence[LoadId]) -> frozenset[LoadId]:
        """Which of these packages the destination has committed."""
        ...

    async def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """Load ids that a run with this ``run_id`` has committed; empty when there was none."""
        ...


@runtime_checkable
class SupportsTakeOver(Protocol):
    """A session that becomes the owner and reads what the dataset knows in one call: small runs begin sooner."""

    async def take_over(self, pipeline_name: str, member: str, known: Known | None) -> tuple[Lease, Restored]:
        """As `Session.acquire`, and then `Session.restore`.

        Args:
            pipeline_name: As there.
            member: As there.
            known: What need not be read again, if the dataset still has it; None: everything is read.

        Raises:
            PipelineBusy: Another owner is alive.
        """
        ...


@runtime_checkable
class SupportsIdle(Protocol):
    """A session that can let go of what others wait for (an open file) while nothing is to be done."""

    async def idle(self) -> None:
        """Let go until the next call, which takes it up again by itself.

        Cancellation:
            Safe. What has been begun is finished.
        """
        ...


@runtime_checkable
class SupportsEarly(Protocol):
    """A session that can write rows into the transaction of a commit that is still to come.

    Large runs load while they extract. Whether it is done changes nothing but the time: ``commit`` writes whatever is
    not written yet, and what was written early for a commit that does not come is never visible.
    """

    @property
    def loads_early(self) -> bool:
        """Whether it is of use here. Constant."""
        ...

    async def load_early(self, jobs: Sequence[EarlyJob]) -> bool:
        """Write job files of tables that are appended to.

        Returns:
            False when nothing of what was written is kept, as somebody else waits for the destination, or because it
            has not worked: leave everything to the commit.

        Cancellation:
            Safe. Nothing is kept.
        """
        ...

    async def forget_early(self) -> None:
        """Undo what was written early, and let go of the destination."""
        ...


@runtime_checkable
class SupportsPositions(Protocol):
    """A session that keeps the positions of messages, for streams. Its destination says so in its capabilities.

    Its ``commit`` also moves `Commit.positions`, in the transaction of the rows: for each move it reads the row of
    (pipeline_name, source, partition) under a lock, lets `asyncelt.load.positions.moved` decide, and writes what comes
    of it. A package that is committed already moves nothing again.
    """

    async def positions(self, pipeline_name: str) -> Sequence[StoredPosition]:
        """What is committed, of all members of the pipeline; empty where there is no dataset or no such table."""
        ...

    async def claim(self, pipeline_name: str, claims: Sequence[PositionClaim]) -> Sequence[StoredPosition]:
        """Take partitions over, in one transaction: `asyncelt.load.positions.claimed` decides on each row under a lock.

        A commit of the former owner that is under way ends first; a later one is refused. The dataset and the table
        are made if they are not there.

        Returns:
            The rows as they are now, in the order of the claims.
        """
        ...


@runtime_checkable
class SupportsQuery(Protocol):
    """A session that can be read with SQL."""

    async def query(self, sql: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """Run one statement; unqualified table names mean the session's dataset.

        Raises:
            UndefinedRelation: It names a table that is not there.
            DestinationRejected: It is refused for another reason.
        """
        ...


class ArrowStream(Protocol):
    """The rows of one query, as they are computed. Used by one task."""

    @property
    def schema(self) -> pa.Schema:
        """Columns and types; known before the first row."""
        ...

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        """Batches with at least one row, in the order of the query. Can be gone through once."""
        ...


@runtime_checkable
class SupportsStream(Protocol):
    """A session that can hand out the rows of a query without holding all of them. Without it, `query` is used."""

    def stream(
        self, sql: str, parameters: Sequence[SqlValue] = (), *, batch_rows: int = 65_536
    ) -> AbstractAsyncContextManager[ArrowStream]:
        """Run one query; inside the block its rows can be taken as slowly as one likes.

        What is read is one state of the dataset, that of the beginning, whatever is committed meanwhile; or an error.
        Other calls of the session may go on beside it.

        Args:
            sql: One query.
            parameters: Values of its parameters.
            batch_rows: Rows of a batch, about; no batch has more than twice as many.

        Cancellation:
            A statement that runs is interrupted.
        """
        ...


@runtime_checkable
class SupportsTransaction(Protocol):
    """A session that can run several statements as one."""

    def transaction(self) -> AbstractAsyncContextManager[SupportsQuery]:
        """Statements inside the block are committed at its end, or undone when it is left by an exception."""
        ...


@runtime_checkable
class SupportsNames(Protocol):
    """A session whose tables have names by which they are found from everywhere in the destination."""

    def path_of(self, table: str | None = None) -> tuple[str, ...]:
        """Parts of the name of a table, or of the dataset, outermost first."""
        ...


@runtime_checkable
class Destination(Protocol):
    """Where packages go. Building one does no I/O; ``connect`` does."""

    @property
    def destination_name(self) -> str:
        """Name it was configured with; the type's name unless the user chose another."""
        ...

    @property
    def destination_type(self) -> str:
        """``asyncelt.destinations.<type>``."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. Constant."""
        ...

    @property
    def location(self) -> str:
        """Where the data goes, fit for printing: no secrets."""
        ...

    def for_pipeline(self, pipeline_name: str) -> Destination:
        """The same destination with defaults filled that depend on the pipeline (a DuckDB file name). No I/O."""
        ...

    def connect(self, target: Target) -> AbstractAsyncContextManager[Session]:
        """Open a session. Blocking drivers are imported and built off the event loop."""
        ...


@runtime_checkable
class SupportsPlace(Protocol):
    """A destination of which several objects may lead to the same data."""

    @property
    def place(self) -> object | None:
        """Equal in objects that lead to the same data; None: only this object leads there."""
        ...


def is_same_place(one: Destination, other: Destination) -> bool:
    """Whether both lead to the same data. Never true by chance: where it cannot be told, they do not."""
    if one is other:
        return True

    if not isinstance(one, SupportsPlace) or not isinstance(other, SupportsPlace):
        return False

    return one.place is not None and one.destination_type == other.destination_type and one.place == other.place
