"""The middle of a run: pages in, sealed packages out. Where the pages come from is up to the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import anyio

from asyncelt._async import in_thread, shielded
from asyncelt.budget import BudgetAccount
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.early import EarlyLoading
from asyncelt.engine.intake import Announcer, Intake
from asyncelt.engine.ownership import Folder
from asyncelt.engine.plan import Refreshed, RunPlan, naming_of, starting_schema, under_contract
from asyncelt.engine.sealing import Harvest, seal_run, state_after
from asyncelt.engine.shaping import Shaping, ShapingPlan, ShapingResult
from asyncelt.engine.steps import one_error, stage, step
from asyncelt.engine.withdrawing import withdrawn, without
from asyncelt.engine.writing import TableWriters, WritingPlan
from asyncelt.flow import Notice, PositionMove, RawBatch, ResourceFailure
from asyncelt.normalize.bound import check_bound
from asyncelt.normalize.gating import GIL_GATE
from asyncelt.normalize.page import NormalizeContext, Normalizer
from asyncelt.observe import Stage
from asyncelt.schema.evolve import bump
from asyncelt.schema.model import Schema
from asyncelt.storage.head import Tip
from asyncelt.storage.package import PackageDraft, SealedPackage
from asyncelt.types import FileFormat, TableName

__all__ = ["Feed", "Normalization"]

Feed: TypeAlias = Callable[[Intake, SchemaBook], Awaitable[Mapping[str, object]]]
"""Hands every page of the run to the intake; returns the state document as of the last one."""


class Normalization:
    """Turns the pages of one run into sealed packages. One instance per run.

    Args:
        folder: Owned.
        plan: Packages and resources.
        tip: Where the pipeline stands without this run.
        file_format: Of the job files.
        account: Memory of this run.
        is_replay: Whether the pages come from extracted packages, which are removed once their rows are sealed.
        is_paid: Whether memory for the pages has been reserved already.
        early: Takes job files before the packages are sealed; None: nobody does.
    """

    def __init__(
        self,
        folder: Folder,
        plan: RunPlan,
        tip: Tip,
        *,
        file_format: FileFormat,
        account: BudgetAccount,
        is_replay: bool = False,
        is_paid: bool = False,
        early: EarlyLoading | None = None,
    ) -> None:
        self._folder = folder
        self._environment = folder.environment
        self._plan = plan
        self._tip = tip
        self._file_format: FileFormat = file_format
        self._account = account
        self._is_replay = is_replay
        self._is_paid = is_paid
        self._early = early
        self.positions: tuple[PositionMove, ...] = ()
        """Of the messages among the pages; set by ``feed``."""
        self.notices: list[Notice] = []
        self.intake: Intake | None = None
        capabilities = self._environment.capabilities
        schemas = {name: starting_schema(plan, tip, name, capabilities) for name in plan.schema_names}
        self._namings = {name: naming_of(schema, capabilities) for name, schema in schemas.items()}
        self._book = SchemaBook({name: under_contract(plan, schema) for name, schema in schemas.items()})
        self._announcer = Announcer(self._book, self._namings, capabilities)

    async def run(self, feed: Feed) -> list[SealedPackage]:
        """Take every page and seal the packages.

        Returns:
            The sealed bundle, empty when there was nothing to keep.

        Raises:
            PipelineStepFailed: Step ``extract`` when ``feed`` failed and is no replay, else ``normalize``. Nothing is
                left.
        """
        drafts = await in_thread(self._drafts, self._folder.threads)
        unfinished = list(drafts.values())

        try:
            harvest = await self._shape(drafts, feed)

            if self._early is not None:
                await self._early.end()

            with step("normalize", pipeline_name=self._environment.pipeline_name, load_id=self._plan.first_id):
                sealed = await in_thread(partial(self._seal, harvest), self._folder.threads)

            kept = {one.package.load_id for one in sealed}
            unfinished = [draft for draft in unfinished if draft.load_id not in kept]
            self._folder.advance(sealed, used_up=list(self._plan.load_ids.values()))

            return sealed
        finally:
            # Or not needed.
            if unfinished:
                with shielded():
                    await in_thread(partial(self._folder.store.discard, unfinished), self._folder.threads)

    def do_without(self, failures: Sequence[ResourceFailure]) -> None:
        """Leave resources that have failed out of the plan: their tables stay as they are. Says so."""
        self._plan = without(self._plan, failures)

        for failure in failures:
            self._environment.emit(withdrawn(self._environment.pipeline_name, failure))

    async def keep_schemas(self) -> None:
        """Remember hints and contract of a run without a package, which would carry them: later runs go by them too."""
        folder = self._folder
        news = await in_thread(partial(_changed, self._book.all(), self._tip.schemas), folder.threads)

        if not news:
            return

        await folder.save_head(replace(folder.head, schemas={**folder.head.schemas, **news}))
        folder.tip = replace(folder.tip, schemas={**folder.tip.schemas, **news})

    def _drafts(self) -> dict[str, PackageDraft]:
        return {name: self._folder.store.draft(load_id) for name, load_id in self._plan.load_ids.items()}

    def _seal(self, harvest: Harvest) -> list[SealedPackage]:
        sealed = seal_run(self._folder.store, harvest)

        if self._is_replay:
            # Those that had nothing to keep go too.
            self._folder.store.remove_extracted(list(self._plan.load_ids.values()))

        return sealed

    async def _shape(self, drafts: dict[str, PackageDraft], feed: Feed) -> Harvest:
        environment = self._environment
        shaping = self._shaping(drafts)
        send, receive = anyio.create_memory_object_stream[RawBatch](0)
        intake = self.intake = Intake(
            pipeline_name=environment.pipeline_name,
            announcer=self._announcer,
            budget=self._account,
            pages=send,
            emit=environment.emit,
            is_replay=self._is_replay,
            is_paid=self._is_paid,
        )
        result = ShapingResult()
        state: Mapping[str, object] = {}
        load_id = self._plan.first_id
        # Reading stored pages is part of normalizing them.
        feeding: Stage = "normalize" if self._is_replay else "extract"

        async def normalize() -> None:
            nonlocal result

            with stage(environment, "normalize", load_id):
                result = await shaping.run(receive)

        with one_error(), send, receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(normalize)

                with stage(environment, feeding, load_id, is_reported=not self._is_replay):
                    state = await feed(intake, self._book)

                send.close()

        with step("normalize", pipeline_name=environment.pipeline_name, load_id=load_id):
            self.notices = [*result.notices, *self._unbound(result)]

        with step(feeding, pipeline_name=environment.pipeline_name, load_id=load_id):
            self._announcer.announce_all(self._plan.resources)

        return self._harvest(drafts, result, state)

    def _shaping(self, drafts: dict[str, PackageDraft]) -> Shaping:
        environment = self._environment
        limits = environment.settings.limits
        writing = WritingPlan(
            pipeline_name=environment.pipeline_name,
            limits=limits,
            capabilities=environment.capabilities,
            file_format=self._file_format,
            drafts=drafts,
        )
        plan = ShapingPlan(
            pipeline_name=environment.pipeline_name,
            workers=limits.normalize_workers,
            normalizers={name: self._normalizer(name) for name in self._plan.schema_names},
        )
        writers = TableWriters(writing, self._book, self._account, environment.emit, self._early)

        return Shaping(plan, self._book, writers, self._account, environment.emit)

    def _normalizer(self, schema_name: str) -> Normalizer:
        settings = self._environment.settings

        return Normalizer(
            NormalizeContext(
                load_id=self._plan.load_ids[schema_name],
                naming=self._namings[schema_name],
                capabilities=self._environment.capabilities,
                gate=GIL_GATE,
                slice_s=settings.limits.slice_s,
                arrow_add_dlt_id=settings.arrow_add_dlt_id,
                arrow_add_dlt_load_id=settings.arrow_add_dlt_load_id,
            )
        )

    def _harvest(self, drafts: dict[str, PackageDraft], result: ShapingResult, state: Mapping[str, object]) -> Harvest:
        environment, plan, tip = self._environment, self._plan, self._tip
        known = state.get("default_schema_name")
        default = known if isinstance(known, str) else plan.schema_names[0]

        return Harvest(
            pipeline_name=environment.pipeline_name,
            dataset_name=environment.dataset_name,
            place=environment.place,
            drafts=drafts,
            schemas=self._counted(),
            shaped=result,
            replaced={name: self._replaced(name) for name in plan.schema_names},
            refresh=plan.refresh,
            refreshed={name: plan.refreshed.get(name, Refreshed()) for name in plan.schema_names},
            state=state_after(
                state,
                dataset_name=environment.dataset_name,
                destination=environment.required_destination,
                default_schema_name=default,
                schema_names=sorted({*tip.schemas, *plan.schema_names}),
            ),
            head_state=tip.state,
            writes_state=environment.restore_from_destination and environment.capabilities.stores_state,
            # The state row travels with the default schema if it is part of this run.
            state_schema=default if default in plan.schema_names else plan.schema_names[0],
            parent_load_id=tip.load_id,
            positions=self.positions,
            run_id=plan.run_id,
            created_at=plan.created_at,
            capabilities=environment.capabilities,
            file_format=self._file_format,
            limits=environment.settings.limits,
        )

    def _counted(self) -> dict[str, Schema]:
        """The schemas of the run, with the version that their hints alone have brought them to.

        As in the reference, whose extract and normalize each count what they change; a schema's first run counts once.
        """
        counted = self._book.all()

        for name, hinted in self._announcer.hinted.items():
            is_known = name in self._tip.schemas and not self._plan.refreshed.get(name, Refreshed()).anew

            if is_known:
                reached = bump(hinted)

                if reached is hinted:
                    continue

                counted[name] = replace(
                    counted[name],
                    version=reached.version,
                    version_hash=reached.version_hash,
                    previous_hashes=reached.previous_hashes,
                )

        return counted

    def _unbound(self, result: ShapingResult) -> list[Notice]:
        """Columns that never had a value, as notices; an error where they must have one."""
        return [
            notice
            for name in self._plan.schema_names
            for notice in check_bound(self._book[name], list(result.row_counts.get(name, ())))
        ]

    def _replaced(self, schema_name: str) -> tuple[TableName, ...]:
        """Root tables whose old rows go: those of every replace resource of this run."""
        resources = {one.name for one in self._plan.resources if one.schema_name == schema_name}

        return tuple(
            table.name
            for table in self._book[schema_name].tables.values()
            if table.parent is None and table.resource in resources and table.write_disposition == "replace"
        )


def _changed(schemas: Mapping[str, Schema], known: Mapping[str, Schema]) -> dict[str, Schema]:
    """Those that are not as they were, in their new version. The hash of a wide one takes milliseconds."""
    bumped = {name: bump(schema) for name, schema in schemas.items() if schema is not known.get(name)}

    return {
        name: schema
        for name, schema in bumped.items()
        if name not in known or schema.version_hash != known[name].version_hash
    }
