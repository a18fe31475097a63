"""Pages of resources that the run may have to do without: they wait on the disk until it is clear that they come.

Nothing can be taken back once a page has gone on to normalizing: rows of all resources share buffers, files and the
schema. So a resource that may fail without failing the run is read to its end first, with the transformers that
hang on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TypeAlias

import anyio

from asyncelt._async import in_thread, shielded
from asyncelt.budget import BudgetAccount
from asyncelt.config import Limits
from asyncelt.engine.intake import ResourcePlan
from asyncelt.extract.pages import Page
from asyncelt.normalize.gating import GIL_GATE, Gate
from asyncelt.schema.hints import TableHints
from asyncelt.storage.files import remove_tree
from asyncelt.storage.package import PackageDraft
from asyncelt.storage.spool import PageSpool, StoredPage, read_payload

__all__ = ["Hold", "Holds", "Take"]

Take: TypeAlias = Callable[[ResourcePlan, Page], Awaitable[None]]
"""Takes one page over; this is where a source waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    plan: ResourcePlan
    stored: StoredPage
    hints: TableHints | None


@dataclass(slots=True)
class Hold:
    """The pages of one resource and its transformers.

    Args:
        draft: Where they lie; removed by `close`.
        account: Memory of the run.
        limits: Sizes and slices.
    """

    draft: PackageDraft
    account: BudgetAccount
    limits: Limits
    waited_s: float = 0.0
    _turn: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))
    _held: list[_Held] = field(default_factory=list)
    _spool: PageSpool = field(init=False)

    def __post_init__(self) -> None:
        self._spool = PageSpool(self.draft, self.limits.file_max_bytes, self._gate())

    async def take(self, plan: ResourcePlan, page: Page) -> None:
        """Write one page down; waits while the memory budget is used up.

        Cancellation:
            Safe. The page's bytes come back when the run's budget account closes.
        """
        began = anyio.current_time()
        await self.account.reserve(page.nbytes)
        self.waited_s += anyio.current_time() - began
        await in_thread(partial(self._write, plan, page), self._turn)
        self.account.release(page.nbytes)

    def _write(self, plan: ResourcePlan, page: Page) -> None:
        self._spool.write(
            len(self._held),
            plan.name,
            page.table_name,
            page.payload,
            rows=page.rows,
            nbytes=page.nbytes,
            on_error=plan.on_error,
        )
        self._held.append(_Held(plan=plan, stored=self._spool.pages[-1], hints=page.hints))

    async def release(self, take: Take, without: Collection[str]) -> None:
        """Hand the pages on, in the order in which they came, but for those of some resources.

        Args:
            take: Where they go.
            without: Names of resources that have failed.
        """
        for one in self._held:
            if one.plan.name in without:
                continue

            stored = one.stored
            read = partial(read_payload, self.draft.pages_folder, stored, self._gate())
            page = Page(
                resource=stored.resource,
                table_name=stored.table,
                payload=await in_thread(read, self._turn),
                rows=stored.rows,
                nbytes=stored.nbytes,
                hints=one.hints,
            )
            await take(one.plan, page)

    async def close(self) -> None:
        """Remove the pages. Shielded."""
        with shielded():
            await in_thread(partial(remove_tree, self.draft.folder), self._turn)

    def _gate(self) -> Gate:
        return Gate(GIL_GATE, self.limits.slice_s)


@dataclass(slots=True)
class Holds:
    """Makes the holds of one run.

    Args:
        make_draft: Makes a folder of this name, which a dead run leaves behind as garbage. Blocking.
        name: Of the run.
        account: Memory of the run.
        limits: Sizes and slices.
    """

    make_draft: Callable[[str], PackageDraft]
    name: str
    account: BudgetAccount
    limits: Limits
    opened: list[Hold] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def waited_s(self) -> float:
        """How long resources have waited for memory, added up over all of them."""
        return sum(hold.waited_s for hold in self.opened)

    async def open(self) -> Hold:
        """A new one."""
        make = partial(self.make_draft, f"{self.name}.held{next(self._numbers)}")
        hold = Hold(await in_thread(make, anyio.CapacityLimiter(1)), self.account, self.limits)
        self.opened.append(hold)

        return hold
