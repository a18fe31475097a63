"""From a resource to numbered pages: the one task per resource that a run starts."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from asyncelt import current
from asyncelt._async import unwrap
from asyncelt.config import Limits
from asyncelt.errors import ResourceExtractionError, UsageError
from asyncelt.extract.chain import Chain
from asyncelt.extract.driver import Driver
from asyncelt.extract.feeds import Feed, Offering
from asyncelt.extract.messages import SafePoint
from asyncelt.extract.pages import Gatherer, Page
from asyncelt.extract.points import Cut, Cuts, Cutter
from asyncelt.extract.readers import AsyncReader, Reader, open_reader
from asyncelt.extract.requests import HintNews, Note
from asyncelt.extract.resource import Resource

__all__ = ["Link", "OnRows", "PumpReport", "Send", "pump"]

Send: TypeAlias = Callable[[Page], Awaitable[None]]
"""Reserves memory for a page, numbers it and hands it on. Given by the engine; this is where back-pressure happens."""

OnRows: TypeAlias = Callable[[int, int], None]
"""Told the rows and bytes of each page that was sent."""


_OFFERS = 64
"""Items for transformers that are handed over together, if they come quickly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A resource's place among those that are read together."""

    feed: Feed | None = None
    """Where a transformer's items come from; None: from its parent's data."""
    offering: Offering | None = None
    """Takes the items for the transformers that read from this resource."""
    keeps: bool = True
    """Whether the resource's own rows are loaded."""
    cuts: Cuts | None = None
    """Who cuts the data into packages, in a stream."""


class _Ready:
    """Whether there is something to hand on: a page, or enough items for transformers."""

    def __init__(self, pages: Sized, offers: Sized) -> None:
        self._pages = pages
        self._offers = offers

    def __len__(self) -> int:
        return len(self._pages) + len(self._offers) // _OFFERS


@dataclass(slots=True, kw_only=True)
class PumpReport:
    """What a resource has given."""

    resource: str
    pages: int = 0
    rows: int = 0
    """Without rows of JSON bodies, which nobody has counted yet."""
    nbytes: int = 0
    tables: dict[str, int] = field(default_factory=dict)
    """Rows per table, in the order in which the tables appeared. Names are raw."""


async def pump(
    resource: Resource,
    *,
    limits: Limits,
    send: Send,
    flush_after_s: float | None = None,
    on_rows: OnRows | None = None,
    link: Link | None = None,
) -> PumpReport:
    """Read a resource to its end and send its pages, in order.

    An asynchronous source is iterated and closed in the calling task, a synchronous one in a thread of its own. The
    next item is not asked for before ``send`` has returned. What is read is gathered into pages of
    ``limits.gather_bytes``; the cuts depend on the data alone, unless ``flush_after_s`` is given.

    Args:
        resource: What to read; left unchanged.
        limits: Sizes, slices, and how long clean-up of user code may take.
        send: Receives each page; one call at a time.
        flush_after_s: Rows are held back no longer than this, for sources that go quiet; None: until a page is full
            or the source has ended.
        on_rows: Called after each page was sent.
        link: Where a transformer's items come from, and who else takes this resource's items; None: a transformer reads
            its parent itself.

    Returns:
        Totals, when the source is at its end and everything was sent.

    Raises:
        ResourceExtractionError: User code raised; the message names resource and position.
        SourceExhausted: The data can be read only once, and has been.
        Exception: What ``send`` raises comes out as it is.

    Cancellation:
        Safe. Asynchronous sources are closed in this task, shielded, and synchronous ones in their thread; both
        within ``limits.cancel_grace_s``, after which a `RuntimeWarning` names the resource.
    """
    reading = _Pump(resource, limits, send, flush_after_s, on_rows, link or Link())

    await reading.whole()

    return reading.report


class _Pump:
    def __init__(
        self,
        resource: Resource,
        limits: Limits,
        send: Send,
        flush_after_s: float | None,
        on_rows: OnRows | None,
        link: Link,
    ) -> None:
        self.report = PumpReport(resource=resource.name)
        self._resource = resource
        self._limits = limits
        self._send = send
        self._on_rows = on_rows
        self._flush_after_s = flush_after_s
        self._sending = anyio.Lock(fast_acquire=True)
        self._holding = asyncio.Event()
        cuts = link.cuts
        self._cutter = None if cuts is None else Cutter(cuts)
        self._gatherer = Gatherer(resource.name, limits, self._holding.set if cuts is None else cuts.began)
        self._feed = link.feed
        self._offering = link.offering
        self._keeps = link.keeps
        self._offers: list[object] = []
        self._reading = resource.reading(state_of_run, feed=link.feed)
        chain = Chain(
            resource.name,
            self._reading.steps,
            resource.table_name,
            self._take,
            hints=resource.hint_book(),
            offers=link.offering is not None,
            keeps=link.keeps,
        )
        self._driver = Driver(
            chain,
            limits,
            self._relieve,
            ready=_Ready(self._gatherer.ready, self._offers),
            take_row=self._gatherer.add_row if self._cutter is None else self._take,
            eager=flush_after_s is not None or self._cutter is not None,
        )

    async def whole(self) -> None:
        """Read to the end, with helper tasks where there is something for them to do."""
        try:
            async with anyio.create_task_group() as tasks:
                if self._flush_after_s is not None:
                    tasks.start_soon(self._flush_late, self._flush_after_s)

                if self._cutter is not None:
                    tasks.start_soon(self._cut_at_rest, self._cutter)

                self._driver.look_ahead(tasks)

                try:
                    await self._read_all()
                finally:
                    self._driver.abandon()

                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = unwrap(group)
            raise error from error.__cause__
        finally:
            # Whoever is at the other end must not wait for somebody who has left.
            if self._feed is not None:
                self._feed.close()

            if self._offering is not None:
                self._offering.close()

    async def _read_all(self) -> None:
        headway = self._driver.headway

        async with opened_reader(self._resource.name, self._reading.data, self._driver) as reader:
            while await reader.read():
                if self._cutter is None:
                    continue

                if self._cutter.is_due(between_items=not self._driver.has_pending):
                    await self._cut(self._cutter)

                await self._cutter.wait_for_the_others()

            await self._driver.finish()

        try:
            self._driver.chain.settle(finished=not headway.ended())
        except Exception as error:
            headway.fail(error, "at its end")

        self._gatherer.flush()

        if self._cutter is not None:
            self._gatherer.cut(self._cutter.cut(is_end=True))

        await self._relieve()

        # The last page may be on its way in the task that flushes late, which is about to be cancelled.
        async with self._sending:
            pass

    async def _flush_late(self, after_s: float) -> None:
        """Woken when something begins to be held back; sends whatever is still held some time later."""
        while True:
            await self._holding.wait()
            await anyio.sleep(after_s)
            self._holding.clear()
            self._gatherer.flush()
            await self._relieve()

    async def _cut(self, cutter: Cutter) -> None:
        """Let the package end here: with the rows so far, and with the state as it is now."""
        if cutter.cuts.is_automatic:
            self._driver.chain.settle(finished=False)

        self._gatherer.cut(cutter.cut())
        await self._relieve()

    async def _cut_at_rest(self, cutter: Cutter) -> None:
        """Cut a resource that waits for its source. One that is at work is cut after the item at hand."""
        while True:
            asking, settled = cutter.cuts.asking, cutter.cuts.settled
            await asking.wait()

            if cutter.is_due(between_items=self._driver.at_rest):
                await self._cut(cutter)

            await settled.wait()

    def _take(self, table: str, item: object) -> None:
        if type(item) is not dict and isinstance(item, Note):
            self._take_note(table, item)
            return

        if self._cutter is not None:
            self._cutter.is_safe = False

        self._gatherer.add(table, item)

    def _take_note(self, table: str, note: Note) -> None:
        if isinstance(note, SafePoint):
            # A run commits as a whole.
            if self._cutter is not None:
                self._cutter.note(note)

            return

        if self._cutter is not None:
            self._cutter.is_safe = False

        if isinstance(note, HintNews):
            self._gatherer.set_hints(table, note.hints)
        else:
            self._offers.append(note.item)

    async def _relieve(self) -> None:
        """Send what is ready. Pages leave in order: the lock is fair and a page is taken while it is held."""
        if not self._gatherer.ready and not self._offers:
            return

        async with self._sending:
            while self._gatherer.ready:
                page = self._gatherer.ready.popleft()

                if isinstance(page, Cut):
                    await self._reach(page)
                    continue

                await self._send(page)
                self._count(page)

            if self._offers and self._offering is not None:
                offers = self._offers.copy()
                self._offers.clear()

                if not await self._offering.send(offers) and not self._keeps:
                    self._driver.headway.stop()

    async def _reach(self, cut: Cut) -> None:
        if self._cutter is not None:
            await self._cutter.cuts.reached(cut)

    def _count(self, page: Page) -> None:
        report = self.report
        report.pages += 1
        report.rows += page.rows
        report.nbytes += page.nbytes
        report.tables[page.table_name] = report.tables.get(page.table_name, 0) + page.rows

        if self._on_rows is not None:
            self._on_rows(page.rows, page.nbytes)


@asynccontextmanager
async def opened_reader(name: str, data: object, driver: Driver) -> AsyncIterator[Reader]:
    """A reader that is closed on every way out, cancellation included, in this task and within the grace time.

    The scope is entered before the source starts and left after it is closed, since a source may hold scopes of its
    own open in between; it shields and limits only the closing.
    """
    failure: BaseException | None = None

    with anyio.CancelScope() as scope:
        reader: Reader | None = None

        try:
            reader = await open_reader(data, driver)
            yield reader
        except BaseException as error:
            failure = error

        scope.shield = True

        if isinstance(reader, AsyncReader):  # a thread has a limit of its own
            scope.deadline = anyio.current_time() + driver.limits.cancel_grace_s

        found = failure

        if reader is not None:
            found = await reader.close(failure)

        if not scope.cancel_called:
            failure = found

    if scope.cancel_called:
        warnings.warn(
            f"Resource {name!r}: its clean-up did not end within {driver.limits.cancel_grace_s:g} s after it had been "
            "closed; it was cancelled.",
            RuntimeWarning,
            stacklevel=2,
        )

    if isinstance(failure, asyncio.CancelledError) and not _is_cancelled():
        raise ResourceExtractionError(
            f"resource {name!r} failed after {driver.headway.rows} rows: it was cancelled from inside. Something it "
            "awaited was cancelled, or a timeout or task group that it holds open across a yield has ended while a "
            "page was being handed on. Do not yield inside a timeout; let a task group fill a queue and read that.",
            resource=name,
        ) from failure

    if failure is not None:
        raise failure


def state_of_run(resource: str) -> dict[str, object]:
    """The state of a resource in the run at hand; an empty one, to be thrown away, where there is no run."""
    try:
        return current.resource_state(resource)
    except UsageError:
        return {}


def _is_cancelled() -> bool:
    task = asyncio.current_task()

    return task is not None and task.cancelling() > 0
