"""Where the data of a stream is cut into packages.

::

    resource ──▶ port ─┐
    resource ──▶ port ─┼─▶ open segment ──▶ segments, in order ──▶ one package each
    resource ──▶ port ─┘

When a limit is reached the roller asks every resource for a cut, and each answers at its next safe point. One that has
been cut waits with its next page until all have been: then the segment is closed, with the state as of the cuts. So
all that a package needs is in it, and nothing of the next. Belongs to the event loop; nothing here polls.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import anyio

from asyncelt.budget import BudgetAccount
from asyncelt.config import Roll
from asyncelt.engine.intake import ResourcePlan
from asyncelt.engine.stream.ledger import Ledger, Standing
from asyncelt.extract.pages import Page
from asyncelt.extract.points import Cut
from asyncelt.extract.tickets import Tickets
from asyncelt.failpoints import failpoint
from asyncelt.flow import JsonPages
from asyncelt.storage.state import StateDoc

__all__ = ["RECEIPT_BYTES", "Roller", "Segment", "StreamPort"]

RECEIPT_BYTES = 256
"""What is held of a message until it is acknowledged, wherever its rows are: what its source needs to acknowledge it,
its position, its places in the ledger. Measured; JetStream's are the largest, with 216."""


@dataclass(slots=True)
class Segment:
    """The pages of one package, as they come. Read by one task while another adds to it."""

    pages: deque[tuple[ResourcePlan, Page]] = field(default_factory=deque)
    rows: int = 0
    nbytes: int = 0
    state: StateDoc = field(default_factory=dict)
    """As of the end; set when it is closed."""
    tickets: Tickets = field(default_factory=Tickets)
    """Of its messages."""
    standing: Standing = field(default_factory=dict)
    """Of the partitions, as of the end; set when it is closed."""
    began_at: float = field(default_factory=time.time)
    """When its first row came, in Unix time; set when it is closed."""
    closed: anyio.Event = field(default_factory=anyio.Event)
    _news: anyio.Event = field(default_factory=anyio.Event)

    def add(self, plan: ResourcePlan, page: Page) -> None:
        """Take one page."""
        self.pages.append((plan, page))
        self.rows += max(page.rows, len(page.payload.bodies) if isinstance(page.payload, JsonPages) else 0)
        self.nbytes += page.nbytes
        self._news.set()

    def close(self) -> None:
        """Nothing more will come."""
        self.closed.set()
        self._news.set()

    async def next(self) -> tuple[ResourcePlan, Page] | None:
        """Wait for the next page; None at the end."""
        while not self.pages:
            if self.closed.is_set():
                return None

            self._news = anyio.Event()
            await self._news.wait()

        return self.pages.popleft()


class StreamPort:
    """One resource of a stream."""

    def __init__(self, roller: Roller, plan: ResourcePlan, *, is_automatic: bool) -> None:
        self.plan = plan
        self.is_automatic = is_automatic
        self.scope = anyio.CancelScope()
        self.holds = False
        """Whether it has something that no cut has taken along."""
        self.messages = 0
        """Since the last cut."""
        self.unpaid = 0
        """Messages that no memory was reserved for: that comes with the page that follows, or with the cut."""
        self.paid = 0
        """Those that it was reserved for, and that are in no segment yet."""
        self.is_cut = False
        """Whether it has answered the cut that is being made."""
        self.has_ended = False
        self._roller = roller

    @property
    def side(self) -> Ledger:
        """See `Port.side`."""
        return self._roller.ledger

    @property
    def asking(self) -> anyio.Event:
        """See `Cuts.asking`."""
        return self._roller.asking

    @property
    def settled(self) -> anyio.Event:
        """See `Cuts.settled`."""
        return self._roller.settled

    @property
    def is_full(self) -> bool:
        """See `Cuts.is_full`."""
        return self._roller.are_many(self.messages)

    def began(self) -> None:
        """See `Cuts.began`."""
        self.holds = True
        self._roller.began()

    def passed(self, messages: int) -> None:
        """See `Cuts.passed`."""
        self.began()
        self.messages += messages
        self.unpaid += messages
        self._roller.check_messages()

    def left(self) -> None:
        """See `Cuts.left`."""
        self.holds = False
        self.messages = 0

    async def reached(self, cut: Cut) -> None:
        """See `Cuts.reached`; waits while too many messages wait for their commits."""
        await self.turn()
        await self._roller.room_for_messages()
        self._roller.reached(self, cut)

    async def turn(self) -> None:
        """Wait while what comes now belongs to a segment that is not open yet."""
        while self.is_cut:
            await self._roller.settled.wait()


class Roller:
    """Cuts the data of a stream into segments.

    Args:
        roll: When.
        account: Memory of the stream; pages are paid for here.
        ledger: Of the messages.
        document: State to start from; the roller's own.
    """

    def __init__(self, roll: Roll, account: BudgetAccount, ledger: Ledger, document: StateDoc) -> None:
        self.ledger = ledger
        self.asking = anyio.Event()
        self.settled = anyio.Event()
        self.waited_s = 0.0
        self.uncommitted = 0
        """Segments that are closed and not committed."""
        self._messages = 0
        """Of these segments."""
        self._relieved = anyio.Event()
        """Set, and replaced, when some of these have been given back."""
        self._roll = roll
        self.account = account
        self._document = document
        self._closed_with = copy.deepcopy(document)
        """State of the segment that was closed last."""
        self._ports: list[StreamPort] = []
        self._open = Segment()
        self._is_begun = False
        """Whether the open segment has been handed out."""
        self._segments: deque[Segment] = deque()
        self._news = anyio.Event()
        self._moved = anyio.Event()
        """Set, and replaced, when a segment is handed out or closed."""
        self._armed = anyio.Event()
        """Set when the open segment, or what is held for it, has something."""
        self._began_at: float | None = None
        """Since when it has."""
        self._waiting_since: deque[float] = deque()
        """Of segments that are closed and not committed: when each began."""
        self._is_cutting = False
        self._is_draining = False
        self._has_ended = False

    # ------------------------------------------------------------------ what the stream's tasks call

    def port(self, plan: ResourcePlan, *, is_automatic: bool) -> StreamPort:
        """Let a resource take part."""
        port = StreamPort(self, plan, is_automatic=is_automatic)
        self._ports.append(port)

        if self._is_draining:
            port.scope.cancel()

        return port

    async def take(self, plan: ResourcePlan, page: Page) -> None:
        """Take one page over; waits while memory is used up, and while others have to be cut first."""
        port = self._port_of(plan)
        began = anyio.current_time()
        await port.turn()
        messages, port.unpaid = port.unpaid, 0
        await self.account.reserve(page.nbytes + messages * RECEIPT_BYTES)
        self.account.pin(messages * RECEIPT_BYTES)
        port.paid += messages
        self.waited_s += anyio.current_time() - began
        self._begin()
        self._open.add(plan, page)

        if self._open.rows >= self._roll.rows or self._open.nbytes >= self._roll.bytes:
            self._ask()

    async def segments(self) -> AsyncIterator[Segment]:
        """Each segment as soon as it has something, in order; ends with the stream."""
        while True:
            while self._segments:
                segment = self._segments.popleft()
                self._move()
                yield segment

            if self._has_ended:
                return

            self._news = anyio.Event()
            await self._news.wait()

    async def roll_by_time(self) -> None:
        """Ask for a cut when the open segment is old enough. A task of its own, which an idle stream leaves asleep.

        While others wait to be packed it goes on growing, up to the other limits: it would not be committed any sooner,
        and few large packages are quicker than many small ones.
        """
        while True:
            await self._armed.wait()

            if not self._armed.is_set():
                # Closed by another limit before this task came to it.
                continue

            segment = self._open

            with anyio.move_on_after(self._roll.seconds):
                await segment.closed.wait()

            while self._segments and not segment.closed.is_set():
                await self._moved.wait()

            if not segment.closed.is_set():
                self._ask()
                await segment.closed.wait()

    def hurry(self) -> None:
        """Cut now, if anything is there."""
        if self._is_begun or any(port.holds for port in self._ports):
            self._ask()

    def drain(self) -> None:
        """Cut now, and end every resource at its cut."""
        self._is_draining = True
        self._ask()

    def finish(self) -> None:
        """All resources have ended."""
        self._has_ended = True

        if self._document != self._closed_with:
            # State without rows.
            self._begin()

        if self._is_begun:
            self._close()

        self._news.set()

    def committed(self, messages: int) -> None:
        """A segment with so many messages has committed, and they are acknowledged."""
        self.uncommitted -= 1
        self._waiting_since.popleft()
        self._messages -= messages
        self.account.unpin(messages * RECEIPT_BYTES)
        self._relieved.set()
        self._relieved = anyio.Event()

    @property
    def waiting_since(self) -> float | None:
        """When the oldest segment that is closed and not committed began; None: there is none."""
        return self._waiting_since[0] if self._waiting_since else None

    @property
    def waiting(self) -> int:
        """Segments that wait to be packed."""
        return len(self._segments)

    # ------------------------------------------------------------------ what ports call

    def began(self) -> None:
        """A package has its first row: from now on its time runs."""
        self._began_at = self._began_at or time.time()
        self._armed.set()

    def check_messages(self) -> None:
        """Messages count as rows as soon as they are there: nobody has counted the rows of their bodies."""
        if self.are_many(sum(port.messages for port in self._ports)):
            self._ask()

    def are_many(self, messages: int) -> bool:
        """Whether so many are enough for a package.

        They take a sixth of the budget at most until they are acknowledged, or nothing would be left for pages.
        """
        return messages >= self._roll.rows or messages * RECEIPT_BYTES > self.account.budget.limit // 6

    async def room_for_messages(self) -> None:
        """Wait for commits while messages of closed segments take a quarter of the budget, with or without pages."""
        began = anyio.current_time()

        while self._messages * RECEIPT_BYTES > self.account.budget.limit // 4:
            await self._relieved.wait()

        self.waited_s += anyio.current_time() - began

    def reached(self, port: StreamPort, cut: Cut) -> None:
        """A resource stands at its cut, and everything before it is in the open segment."""
        # Of messages without rows, or whose rows went before. That there is room has been seen to: this must not wait.
        unpaid = max(len(cut.tickets) - port.paid, 0)
        port.unpaid -= unpaid
        port.paid += unpaid - len(cut.tickets)
        self.account.adjust(unpaid * RECEIPT_BYTES)
        self.account.pin(unpaid * RECEIPT_BYTES)
        self._keep_state(port.plan, cut)
        self._open.tickets.extend(cut.tickets)

        if cut.tickets:
            self._begin()

        port.is_cut = self._is_cutting
        port.has_ended = cut.is_end
        self._settle()

    # ------------------------------------------------------------------ inside

    def _begin(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            self.began()
            self._segments.append(self._open)
            self._news.set()

    def _move(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    def _ask(self) -> None:
        if not self._is_cutting:
            self._is_cutting = True
            self.asking.set()
            self._settle()

    def _settle(self) -> None:
        """Close the segment when every resource has been cut."""
        if not self._is_cutting or not all(port.is_cut or port.has_ended for port in self._ports):
            return

        self._begin()
        self._close()
        self._is_cutting = False

        for port in self._ports:
            port.is_cut = False

            if self._is_draining:
                port.scope.cancel()

        settled, self.asking, self.settled = self.settled, anyio.Event(), anyio.Event()
        settled.set()
        self.check_messages()

    def _close(self) -> None:
        failpoint("stream.roll")
        segment, self._open, self._is_begun = self._open, Segment(), False
        segment.state = self._closed_with = copy.deepcopy(self._document)
        segment.standing = self.ledger.standing()
        segment.began_at, self._began_at = self._began_at or time.time(), None
        self._waiting_since.append(segment.began_at)
        self.uncommitted += 1
        self._messages += len(segment.tickets)
        self._armed = anyio.Event()

        if any(port.holds for port in self._ports):
            self.began()

        segment.close()
        self._move()

    def _keep_state(self, plan: ResourcePlan, cut: Cut) -> None:
        """Lay the state of one resource over the document; what its source shares goes with whoever is cut last."""
        sources = cast("dict[str, dict[str, object]]", self._document.setdefault("sources", {}))
        found = dict(cut.state)
        resources = cast("dict[str, object]", found.pop("resources", {}))

        if not found and plan.name not in resources and plan.schema_name not in sources:
            return

        known = sources.setdefault(plan.schema_name, {})
        known.update(found)

        if plan.name in resources:
            cast("dict[str, object]", known.setdefault("resources", {}))[plan.name] = resources[plan.name]

    def _port_of(self, plan: ResourcePlan) -> StreamPort:
        return next(port for port in self._ports if port.plan is plan)
