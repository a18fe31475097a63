"""A stream: extraction, packing and committing side by side, each package as soon as it is cut.

While package N is committed, the messages of N-1 are acknowledged, N+1 is normalized, and the pages of N+2 are read.
Commits keep their order: one task makes them. When the destination is slow or gone, a sealed package waits for it, the
next one is packed and waits too, as far as ``max_disk`` lets it, and what is read after that fills the memory budget,
until the sources wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asyncelt._async import in_thread, retrying, shielded
from asyncelt.config import Retry, Roll
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.extraction import Extraction, Port, document_of
from asyncelt.engine.intake import Intake, ResourcePlan
from asyncelt.engine.loading import Loaded, load_bundles
from asyncelt.engine.normalization import Normalization
from asyncelt.engine.ownership import Owned, next_load_ids
from asyncelt.engine.plan import RunPlan, RunRequest, plan_of_sources, starting_schema
from asyncelt.engine.steps import one_error, step
from asyncelt.engine.stream.ledger import Ledger
from asyncelt.engine.stream.outages import SourceOutages
from asyncelt.engine.stream.roller import Roller, Segment
from asyncelt.errors import AsynceltError, Unsupported
from asyncelt.extract.resource import Resource
from asyncelt.extract.safety import is_automatic, is_repeatable
from asyncelt.extract.tickets import Tickets
from asyncelt.failpoints import failpoint
from asyncelt.flow import PositionClaim, PositionMove
from asyncelt.info.streams import StreamStats
from asyncelt.load.protocol import StoredPosition, SupportsIdle, SupportsPositions
from asyncelt.normalize.memory import let_go_of_memory
from asyncelt.observe import DestinationAway, DestinationBack, Event, PackageCommitted
from asyncelt.schema.model import Schema
from asyncelt.schema.quarantine import QUARANTINE_TABLE
from asyncelt.schema.system import is_system_name
from asyncelt.storage.package import SealedPackage
from asyncelt.types import FileFormat, LoadId

__all__ = ["Counts", "Streaming"]

_IDLE_AFTER_S = 0.25
"""A destination that can let go of its file does so when no package has come for this long."""
_LET_GO_EVERY_S = 30.0
"""Allocators keep what packages have used, in pieces that fit worse and worse: without this a stream's process grew by
a seventh in seven minutes of a thousand packages."""
_ACKNOWLEDGE_S = 75.0
"""How long the messages of the last packages may take, once nothing is committed any more: a little longer than a
source has for those of one."""
_ALWAYS = 1_000_000_000
_LONGEST_S = 15.0
"""Between two attempts while a destination is gone."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """A package that waits for its commit; without one, only messages that wait to be acknowledged."""

    bundle: list[SealedPackage]
    tickets: Tickets
    moves: tuple[PositionMove, ...]
    nbytes: int
    began_at: float


@dataclass(slots=True)
class Counts:
    """What `StreamStats` is made of; changed by the stream's tasks, all of them on the loop."""

    packages: int = 0
    rows: int = 0
    nbytes: int = 0
    messages: int = 0
    repeated: int = 0
    """Of streamings that have ended; the ledger counts those of the one at hand."""
    waited_s: float = 0.0
    """Likewise; the roller counts."""
    overtaken: int = 0
    dead_letters: int = 0
    retries: int = 0
    away_s: float | None = None
    last_load_id: LoadId | None = None
    last_commit_at: float | None = None
    lag_s: float | None = None


@dataclass(slots=True)
class Streaming:
    """One stream of a pipeline that is owned.

    Args:
        owned: The pipeline. Nothing is pending.
        request: What to read.
        roll: When packages end.
        file_format: Of job files.
        on_commit: Called after each commit, before its messages are acknowledged.
    """

    owned: Owned
    request: RunRequest
    roll: Roll
    file_format: FileFormat
    on_commit: Callable[[], None]
    counts: Counts = field(default_factory=Counts)
    started_at: float = field(default_factory=time.time)
    _roller: Roller | None = None
    _outages: SourceOutages | None = None
    _is_draining: bool = False
    _can_go_on: bool = False
    _sealed: int = 0
    """Bundles that wait for their commit."""
    _committed: anyio.Event = field(default_factory=anyio.Event)
    """Set, and replaced, with each commit."""
    _unacknowledged: int = 0
    """Packages that are committed, and whose messages are not acknowledged."""
    _acknowledged: anyio.Event = field(default_factory=anyio.Event)
    """Set, and replaced, with each that is."""
    _let_go_at: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        """Read until every source has ended or `drain` was called, and commit all of it.

        Raises:
            PipelineStepFailed: Names the step. What was sealed is pending; what was not is delivered again.

        Cancellation:
            Safe. Messages that were not committed are given back to their sources.
        """
        owned = self.owned
        environment = owned.environment
        patient = replace(environment.settings, retry=_patient(environment.settings.retry))
        owned.environment = replace(environment, settings=patient, emit=partial(self._emit, environment.emit))
        most = environment.settings.limits.max_disk

        if most is not None:
            # One is committed while the next is written, and files may be larger than what was received.
            self.roll = replace(self.roll, bytes=max(min(self.roll.bytes, most // 4), 1))

        account = environment.budget.account()
        keeps = isinstance(owned.session, SupportsPositions)
        ledger = Ledger(await self._positions(), self._positions if keeps else None, self._claim if keeps else None)
        document = document_of(owned.tip.document, environment.pipeline_name)
        self._roller = roller = Roller(self.roll, account, ledger, document)
        ledger.hurry = roller.hurry
        self._outages = SourceOutages(environment.pipeline_name, environment.emit)
        ledger.tell = self._outages.tell
        plan, extraction = self._extraction(roller)

        if self._is_draining:
            roller.drain()

        try:
            with one_error():
                async with anyio.create_task_group() as tasks:
                    send, receive = anyio.create_memory_object_stream[_Packed](0)
                    tasks.start_soon(self._commit_all, receive, roller)
                    tasks.start_soon(self._pack_all, plan, send, roller)
                    await self._read_all(extraction, roller)
        finally:
            owned.environment = environment
            account.close()
            await ledger.close()
            self._can_go_on = ledger.can_reopen and all(is_repeatable(resource) for resource in self._resources())

    def hand_over(self) -> bool:
        """Leave the rest, after the end of this one, to another streaming of the same request, which counts on.

        Returns:
            False: it could not read again what this one has given up.
        """
        roller, counts = self._roller, self.counts

        if not self._can_go_on or roller is None:
            return False

        counts.repeated += roller.ledger.repeated
        counts.waited_s += roller.waited_s
        counts.overtaken += 1

        return True

    def drain(self) -> None:
        """End every source at its next safe point."""
        self._is_draining = True

        if self._roller is not None:
            self._roller.drain()

    def stats(self) -> StreamStats:
        """Figures as of now."""
        counts, roller, environment = self.counts, self._roller, self.owned.environment
        oldest = roller.waiting_since if roller is not None else None

        return StreamStats(
            pipeline_name=environment.pipeline_name,
            started_at=self.started_at,
            seconds=time.time() - self.started_at,
            packages=counts.packages,
            rows=counts.rows,
            bytes=counts.nbytes,
            messages=counts.messages,
            repeated=counts.repeated + (roller.ledger.repeated if roller is not None else 0),
            overtaken=counts.overtaken,
            dead_letters=counts.dead_letters,
            queued=roller.uncommitted if roller is not None else 0,
            memory=environment.budget.used,
            waited_s=counts.waited_s + (roller.waited_s if roller is not None else 0.0),
            retries=counts.retries,
            away_s=counts.away_s,
            last_load_id=counts.last_load_id,
            last_commit_at=counts.last_commit_at,
            lag_s=counts.lag_s if oldest is None else time.time() - oldest,
            sources_away=self._outages.sources if self._outages is not None else (),
        )

    # ------------------------------------------------------------------ reading

    def _resources(self) -> list[Resource]:
        return [resource for source in self.request.sources for resource in source.selected_resources.values()]

    def _extraction(self, roller: Roller) -> tuple[RunPlan, Extraction]:
        owned, environment = self.owned, self.owned.environment
        nesting = environment.capabilities.max_table_nesting
        plan, reading = plan_of_sources(
            self.request,
            owned.tip,
            default_schema_name=environment.default_schema_name,
            last_load_id=self._last_id(),
            forced_nesting=nesting,
        )
        automatic = {id(one): is_automatic(resource) for _, resource, one in reading}

        def port_of(one: ResourcePlan) -> Port:
            return roller.port(one, is_automatic=automatic[id(one)])

        limits = environment.settings.limits
        extraction = Extraction(
            plan=plan,
            reading=reading,
            state=document_of(owned.tip.document, environment.pipeline_name),
            # A page is never larger than a package, and no resource waits for another to end.
            limits=replace(
                limits,
                gather_rows=min(limits.gather_rows, self.roll.rows),
                gather_bytes=min(limits.gather_bytes, self.roll.bytes),
                next_item_mode="round_robin",
            ),
            forced_nesting=nesting,
            port_of=port_of,
        )

        return plan, extraction

    async def _read_all(self, extraction: Extraction, roller: Roller) -> None:
        def schema_of(name: str) -> Schema:
            return starting_schema(extraction.plan, self.owned.tip, name, self.owned.environment.capabilities)

        with step("extract", pipeline_name=self.owned.environment.pipeline_name), one_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(roller.roll_by_time)
                await extraction.run(roller.take, schema_of)
                tasks.cancel_scope.cancel()

        roller.finish()

    # ------------------------------------------------------------------ packing

    async def _pack_all(self, plan: RunPlan, packed: MemoryObjectSendStream[_Packed], roller: Roller) -> None:
        with packed:
            async for segment in roller.segments():
                await self._room_on_disk()
                one = await self._pack(plan, segment, roller)
                self._sealed += bool(one.bundle)

                try:
                    await packed.send(one)
                except anyio.BrokenResourceError:
                    # Committing has failed and is about to cancel this task; its error is the one to report.
                    await anyio.sleep_forever()

    async def _room_on_disk(self) -> None:
        """Wait for commits while what is on the disk leaves no room for another package."""
        disk = self.owned.store.disk

        while disk.limit is not None and self._sealed:
            committed = self._committed

            if await in_thread(disk.measure, self.owned.threads) <= disk.limit // 2:
                return

            await committed.wait()

    async def _pack(self, plan: RunPlan, segment: Segment, roller: Roller) -> _Packed:
        """Normalize a segment while it is still being filled, and seal it when it is closed."""
        owned, created_at = self.owned, time.time()
        ids = next_load_ids(created_at, self._last_id(), len(plan.load_ids))
        own = replace(plan, load_ids=dict(zip(plan.load_ids, ids, strict=True)), created_at=created_at)
        run = Normalization(owned, own, owned.tip, file_format=self.file_format, account=roller.account, is_paid=True)

        async def feed(intake: Intake, book: SchemaBook) -> Mapping[str, object]:
            del book

            while (entry := await segment.next()) is not None:
                await intake.send(*entry)

            moves = partial(roller.ledger.moves, segment.tickets, segment.standing)
            run.positions = await in_thread(moves, owned.threads)

            return segment.state

        bundle = await run.run(feed)
        failpoint("stream.sealed")

        return _Packed(bundle, segment.tickets, run.positions, segment.nbytes, segment.began_at)

    def _last_id(self) -> LoadId | None:
        known = (self.owned.restored.last_load_id, self.owned.tip.load_id, self.counts.last_load_id)

        return max((one for one in known if one is not None), key=float, default=None)

    # ------------------------------------------------------------------ committing

    async def _commit_all(self, packed: MemoryObjectReceiveStream[_Packed], roller: Roller) -> None:
        done, to_acknowledge = anyio.create_memory_object_stream[_Packed](math.inf)

        with packed:
            async with anyio.create_task_group() as tasks:
                # Cancelled or not: whoever has sent these may be waiting to hear of it.
                shield = anyio.CancelScope(shield=True)
                tasks.start_soon(self._acknowledge_all, to_acknowledge, roller, shield)

                try:
                    with done:
                        await self._commit_each(packed, done)
                finally:
                    shield.deadline = anyio.current_time() + _ACKNOWLEDGE_S

    async def _commit_each(
        self, packed: MemoryObjectReceiveStream[_Packed], done: MemoryObjectSendStream[_Packed]
    ) -> None:
        while True:
            try:
                one = await self._next(packed)
            except anyio.EndOfStream:
                return

            # Of what is committed, at most two packages are not acknowledged: this one, and the one before.
            while self._unacknowledged > 1:
                await self._acknowledged.wait()

            try:
                await self._commit(one)
            except anyio.get_cancelled_exc_class():
                # A COMMIT that was sent is awaited: it may have happened all the same.
                if await self._is_committed(one):
                    self._unacknowledged += 1
                    done.send_nowait(one)

                raise

            self._unacknowledged += 1
            done.send_nowait(one)

            if time.monotonic() - self._let_go_at > _LET_GO_EVERY_S:
                await in_thread(let_go_of_memory, self.owned.threads)
                self._let_go_at = time.monotonic()

    async def _next(self, packed: MemoryObjectReceiveStream[_Packed]) -> _Packed:
        """Wait for a package; if that takes long, let the destination go meanwhile."""
        session = self.owned.session

        if isinstance(session, SupportsIdle):
            with anyio.move_on_after(_IDLE_AFTER_S):
                return await packed.receive()

            await session.idle()

        return await packed.receive()

    async def _commit(self, one: _Packed) -> None:
        if one.bundle:
            await load_bundles(self.owned, [one.bundle], Loaded(), raise_on_failed_jobs=True, is_fresh=True)
            self._count(one)
            self._sealed -= 1
            self._committed.set()
            self._committed = anyio.Event()

        failpoint("stream.committed")

    async def _is_committed(self, one: _Packed) -> bool:
        """Whether the destination has a package whose commit was cancelled; not if it cannot be asked."""
        load_ids = [sealed.package.load_id for sealed in one.bundle]

        with shielded(), suppress(AsynceltError):
            return bool(load_ids) and await self.owned.session.committed(load_ids) == frozenset(load_ids)

        return False

    async def _acknowledge_all(
        self, done: MemoryObjectReceiveStream[_Packed], roller: Roller, shield: anyio.CancelScope
    ) -> None:
        """In the order of the commits; ends when ``done`` is closed, or at the deadline that the shield has then."""
        with done, shield:
            async for one in done:
                await roller.ledger.committed(one.moves, self.owned.threads)
                self.counts.messages += await roller.ledger.acknowledge(one.tickets)
                roller.committed(len(one.tickets))
                self._unacknowledged -= 1
                self._acknowledged.set()
                self._acknowledged = anyio.Event()

    def _emit(self, emit: Callable[[Event], None], event: Event) -> None:
        """Hand an event on, and count while the destination is away what is known otherwise only after the commit."""
        if isinstance(event, DestinationAway):
            self.counts.retries += 1
            self.counts.away_s = event.seconds
        elif isinstance(event, DestinationBack):
            self.counts.away_s = None

        emit(event)

    def _count(self, one: _Packed) -> None:
        counts, now = self.counts, time.time()
        packages = [sealed.package for sealed in one.bundle]
        rows = sum(
            count
            for package in packages
            for table, count in package.row_counts.items()
            if package.schema.tables[table].parent is None
            and not is_system_name(table)
            and package.schema.tables[table].resource != QUARANTINE_TABLE
        )
        dead = sum(
            count
            for package in packages
            for table, count in package.row_counts.items()
            if package.schema.tables[table].resource == QUARANTINE_TABLE
        )
        counts.packages += len(packages)
        counts.dead_letters += dead
        counts.rows += rows
        counts.nbytes += one.nbytes
        counts.last_load_id = packages[-1].load_id
        counts.last_commit_at = now
        counts.lag_s = now - one.began_at
        self.on_commit()
        self.owned.environment.emit(
            PackageCommitted(
                pipeline_name=self.owned.environment.pipeline_name,
                load_id=packages[-1].load_id,
                rows=rows,
                bytes=one.nbytes,
                messages=len(one.tickets),
                lag_s=counts.lag_s,
            )
        )

    async def _positions(self) -> list[StoredPosition]:
        session = self.owned.session

        if not isinstance(session, SupportsPositions):
            return []

        with step("sync", pipeline_name=self.owned.environment.pipeline_name):
            read = partial(session.positions, self.owned.environment.pipeline_name)

            return list(await retrying(read, self.owned.environment.settings.retry))

    async def _claim(self, claims: Sequence[PositionClaim]) -> Sequence[StoredPosition]:
        session = self.owned.session

        if not isinstance(session, SupportsPositions):  # the ledger is not given this then
            raise Unsupported("The destination keeps no positions.")

        claim = partial(session.claim, self.owned.environment.pipeline_name, claims)

        return await retrying(claim, self.owned.environment.settings.retry)


def _patient(retry: Retry) -> Retry:
    """For as long as it takes."""
    return replace(retry, attempts=_ALWAYS, max_s=min(retry.max_s, _LONGEST_S))
