"""The extract step by itself: pages go to the disk and wait there for normalize, in this process or another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import merge

import anyio

from asyncelt._async import in_thread, shielded
from asyncelt.budget import BudgetAccount
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.extraction import Extraction
from asyncelt.engine.intake import Announcer, ResourcePlan
from asyncelt.engine.ownership import Folder
from asyncelt.engine.plan import RunPlan, naming_of, record_of, starting_schema, under_contract
from asyncelt.engine.sealing import state_after
from asyncelt.engine.steps import stage
from asyncelt.engine.withdrawing import withdrawn, without
from asyncelt.errors import DataValidationError
from asyncelt.extract.pages import Page
from asyncelt.normalize.gating import GIL_GATE, Gate
from asyncelt.observe import Advanced, BudgetSample
from asyncelt.schema.evolve import bump
from asyncelt.schema.hints import TableHints
from asyncelt.storage.extracted import ExtractedPackage, plain_hints
from asyncelt.storage.package import PackageDraft
from asyncelt.storage.spool import PageSpool, StoredPage, read_payload
from asyncelt.storage.state import bump_state, decode_state, default_state, encode_state

__all__ = ["Spooling", "stored_pages"]


class Spooling:
    """Reads the resources of one extract call into extracted packages. One instance per call.

    Args:
        folder: Owned.
        plan: Packages and resources.
        refreshed: By schema name, the resources that a refresh is about, with those that feed them.
        account: Memory of this call.
    """

    def __init__(self, folder: Folder, plan: RunPlan, refreshed: dict[str, set[str]], account: BudgetAccount) -> None:
        self._folder = folder
        self._environment = folder.environment
        self._plan = plan
        self._refreshed = refreshed
        self._account = account
        capabilities = self._environment.capabilities
        schemas = {name: starting_schema(plan, folder.tip, name, capabilities) for name in plan.schema_names}
        self._book = SchemaBook({name: under_contract(plan, schema) for name, schema in schemas.items()})
        namings = {name: naming_of(schema, capabilities) for name, schema in schemas.items()}
        self._announcer = Announcer(self._book, namings, capabilities)
        self._lanes: dict[str, _Lane] = {}
        self._refused: set[tuple[str, str, str]] = set()
        """Schema, resource and raw name of tables that may not come into being; their rows come, to be set aside."""
        self._count = 0
        self.waited_s = 0.0

    async def run(self, extraction: Extraction) -> list[ExtractedPackage]:
        """Read everything and seal it.

        Returns:
            The sealed packages: of every schema that pages came for or whose state changed; at least none.

        Raises:
            PipelineStepFailed: Step ``extract``. Nothing is left.
        """
        environment, plan, store = self._environment, self._plan, self._folder.store
        limits = environment.settings.limits
        drafts: dict[str, PackageDraft] = {}

        try:
            for name, load_id in plan.load_ids.items():
                drafts[name] = await in_thread(partial(store.page_draft, load_id), self._folder.threads)
                spool = PageSpool(drafts[name], limits.file_max_bytes, Gate(GIL_GATE, limits.slice_s))
                self._lanes[name] = _Lane(spool, anyio.CapacityLimiter(1))

            with stage(environment, "extract", plan.first_id):
                await extraction.run(self._take, self._book.__getitem__)
                plan = self._plan = without(plan, extraction.failures)

                for failure in extraction.failures:
                    environment.emit(withdrawn(environment.pipeline_name, failure))

                self._announcer.announce_all(plan.resources)
                packages = self._packages(drafts, extraction)
                sealed = await in_thread(partial(self._seal, packages), self._folder.threads)

            await self._folder.look()

            return sealed
        finally:
            with shielded():
                await in_thread(partial(store.discard, list(drafts.values())), self._folder.threads)

    async def _take(self, plan: ResourcePlan, page: Page) -> None:
        """Write one page down; waits while the memory budget is used up, and while earlier pages are written."""
        began = anyio.current_time()
        await self._account.reserve(page.nbytes)
        self.waited_s += anyio.current_time() - began
        environment, lane = self._environment, self._lanes[plan.schema_name]

        if not self._may_come(plan, page):
            self._account.release(page.nbytes)

            return

        number = self._count
        self._count += 1

        if page.hints is not None:
            lane.news.append((number, plain_hints(page.hints)))

        environment.emit(
            Advanced(
                pipeline_name=environment.pipeline_name,
                stage="extract",
                name=plan.name,
                rows=page.rows,
                bytes=page.nbytes,
            )
        )
        budget = self._account.budget
        environment.emit(BudgetSample(pipeline_name=environment.pipeline_name, used=budget.used, limit=budget.limit))
        # The limiter of one lets pages in as they come, so each file has them in the order of their numbers.
        await in_thread(
            partial(
                lane.spool.write,
                number,
                plan.name,
                page.table_name,
                page.payload,
                rows=page.rows,
                nbytes=page.nbytes,
                on_error=plan.on_error,
            ),
            lane.turn,
        )
        self._account.release(page.nbytes)

    def _may_come(self, plan: ResourcePlan, page: Page) -> bool:
        """Whether a contract lets the page's table come into being. Rows to set aside come, to be refused later."""
        try:
            return self._announcer.announce(plan, page.table_name, page.hints) is not None
        except DataValidationError:
            if plan.on_error == "fail":
                raise

            self._refused.add((plan.schema_name, plan.name, page.table_name))

            return True

    def _seal(self, packages: Sequence[ExtractedPackage]) -> list[ExtractedPackage]:
        if not packages:
            return []

        for lane in self._lanes.values():
            lane.spool.finish()

        return self._folder.store.seal_extracted(packages)

    def _packages(self, drafts: dict[str, PackageDraft], extraction: Extraction) -> list[ExtractedPackage]:
        environment, plan = self._environment, self._plan
        state = self._state(extraction)
        found = [
            ExtractedPackage(
                load_id=drafts[name].load_id,
                pipeline_name=environment.pipeline_name,
                dataset_name=environment.dataset_name if environment.destination is not None else "",
                folder=drafts[name].folder,
                schema=bump(self._book[name]),
                brought=plan.brought.get(name),
                resources=tuple(
                    record_of(one, self._tables_of(one)) for one in plan.resources if one.schema_name == name
                ),
                news=tuple(self._lanes[name].news),
                pages=tuple(sorted(self._lanes[name].spool.pages, key=lambda page: page.page)),
                sizes=self._lanes[name].spool.sizes,
                state=state,
                run_id=plan.run_id,
                created_at=plan.created_at,
                schema_contract=plan.schema_contract,
                file_format=plan.file_format,
                refresh=plan.refresh,
                refreshed_resources=tuple(sorted(self._refreshed.get(name, ()))),
            )
            for name in plan.schema_names
        ]
        is_new = state != self._folder.tip.state
        kept = [one for one in found if one.pages or one.resources or one.refresh or is_new]
        bundle = tuple(one.load_id for one in kept)

        return [replace(one, bundle=bundle) for one in kept]

    def _state(self, extraction: Extraction) -> str:
        """The state as of now; the very text of before where nothing has changed."""
        environment, plan, tip = self._environment, self._plan, self._folder.tip
        known = extraction.state.get("default_schema_name")
        document = state_after(
            extraction.state,
            dataset_name=environment.dataset_name,
            destination=environment.destination,
            default_schema_name=known if isinstance(known, str) else plan.schema_names[0],
            schema_names=sorted({*tip.schemas, *plan.schema_names}),
        )
        before = bump_state(default_state(environment.pipeline_name)) if tip.state is None else decode_state(tip.state)
        after = bump_state(document, before)

        if tip.state is not None and after["_version_hash"] == before.get("_version_hash"):
            return tip.state

        return encode_state(after)

    def _tables_of(self, one: ResourcePlan) -> list[str]:
        tables = (*self._announcer.tables, *self._refused)

        return [raw for schema, resource, raw in tables if (schema, resource) == (one.schema_name, one.name)]


@dataclass(slots=True)
class _Lane:
    spool: PageSpool
    turn: anyio.CapacityLimiter
    """One page of a package is written at a time."""
    news: list[tuple[int, TableHints]] = field(default_factory=list)
    """Page number, and what its table's hints are from there on."""


async def stored_pages(
    folder: Folder, bundle: Sequence[ExtractedPackage]
) -> AsyncIterator[tuple[str, StoredPage, Page]]:
    """The pages of a bundle in the order in which they were extracted, with the name of their schema.

    Raises:
        PackageCorrupt: A file is missing or cut off.
    """
    gate = Gate(GIL_GATE, folder.environment.settings.limits.slice_s)
    numbered = merge(*([(page.page, one, page) for page in one.pages] for one in bundle), key=lambda item: item[0])

    news = {number: hints for one in bundle for number, hints in one.news}

    for _, package, page in numbered:
        payload = await in_thread(partial(read_payload, package.pages_folder, page, gate), folder.threads)

        yield (
            package.schema.name,
            page,
            Page(
                resource=page.resource,
                table_name=page.table,
                payload=payload,
                rows=page.rows,
                nbytes=page.nbytes,
                hints=news.get(page.page),
            ),
        )
