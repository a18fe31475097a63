"""One fused run: extract, normalize and load at once, committed whole. The order of events is design.md 4.

Nothing is pending before the seal: a failure until then removes what was written and leaves the destination as
it was. From the seal on the packages will be committed, by this run or by the next.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import anyio

from asyncelt import current
from asyncelt._async import in_thread, shielded
from asyncelt.budget import BudgetAccount
from asyncelt.engine.dispositions import disposition_of
from asyncelt.engine.intake import Intake, ResourcePlan
from asyncelt.engine.ownership import Owned, next_load_ids
from asyncelt.engine.sealing import Harvest, seal_run, state_after
from asyncelt.engine.shaping import GIL_GATE, SchemaBook, Shaping, ShapingPlan, ShapingResult
from asyncelt.engine.steps import one_error, step
from asyncelt.extract.graph import Branch, connected
from asyncelt.extract.pump import pump
from asyncelt.extract.resource import Resource
from asyncelt.extract.source import Source
from asyncelt.flow import Notice, RawBatch
from asyncelt.load.committing import LoadReport, load_bundle
from asyncelt.load.protocol import Commit, SupportsIdle
from asyncelt.normalize.bound import check_bound
from asyncelt.normalize.page import NormalizeContext, Normalizer
from asyncelt.observe import reported
from asyncelt.schema.evolve import bump
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import Naming, naming_for
from asyncelt.schema.system import new_schema
from asyncelt.storage.package import PackageDraft, SealedPackage
from asyncelt.storage.state import decode_state, default_state
from asyncelt.types import FileFormat, JsonValue, LoadId, TableName

__all__ = ["Loaded", "RunRequest", "load_pending", "run_fused"]

_CLEANUP_S = 10.0
_IDLE_AFTER_S = 0.25
"""Opening and closing a database costs tens of milliseconds, which short runs should not pay twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What one call of run asks for, checked."""

    sources: tuple[Source, ...]
    run_id: str | None
    file_format: FileFormat
    schema_contract: JsonValue = None
    """Kept as the schemas' own contract too, so that later runs go by it."""


@dataclass(slots=True)
class Loaded:
    """Packages that a call has committed."""

    packages: list[SealedPackage] = field(default_factory=list)
    reports: list[LoadReport] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    peak_memory: int = 0
    custom_metrics: dict[str, dict[str, object]] = field(default_factory=dict)
    """Figures that resources have counted themselves, by resource."""


async def load_pending(owned: Owned) -> Loaded:
    """Commit what earlier runs have sealed, oldest first."""
    loaded = Loaded()

    for bundle in await in_thread(owned.store.sealed_bundles, owned.threads):
        loaded.reports.append(await _load(owned, bundle))
        loaded.packages.extend(bundle)

    return loaded


async def run_fused(owned: Owned, request: RunRequest) -> Loaded:
    """Extract, normalize and commit ``request.sources`` as one bundle of packages.

    Raises:
        PipelineStepFailed: Names the step. Before the seal nothing is left; after it the bundle is pending.
    """
    environment = owned.environment
    account = environment.budget.account()
    run = _FusedRun(owned, request, account)

    try:
        bundle = await _while_idle(owned, run.build)
    finally:
        account.close()

    loaded = Loaded(notices=run.notices, peak_memory=environment.budget.peak, custom_metrics=run.custom_metrics)

    if bundle:
        loaded.reports.append(await _load(owned, bundle))
        loaded.packages.extend(bundle)
    elif request.schema_contract:
        # No package carries the contract to the destination, and yet later runs go by it.
        await owned.save_head(replace(owned.head, schemas={**owned.head.schemas, **run.contracted()}))

    return loaded


async def _while_idle(owned: Owned, build: Callable[[], Awaitable[list[SealedPackage]]]) -> list[SealedPackage]:
    """Run ``build``, and let the session go idle meanwhile if it takes long enough to be worth it."""

    async def go_idle(session: SupportsIdle) -> None:
        await anyio.sleep(_IDLE_AFTER_S)
        await session.idle()

    bundle: list[SealedPackage] = []

    with one_error():
        async with anyio.create_task_group() as tasks:
            if isinstance(owned.session, SupportsIdle):
                tasks.start_soon(go_idle, owned.session)

            bundle = await build()
            tasks.cancel_scope.cancel()

    return bundle


async def _load(owned: Owned, bundle: Sequence[SealedPackage]) -> LoadReport:
    """Commit one sealed bundle and move the head."""
    environment = owned.environment
    packages = tuple(sealed.package for sealed in bundle)
    first, last = packages[0], packages[-1]
    commit = Commit(
        target=environment.target,
        lease=owned.lease,
        packages=packages,
        parent_load_id=first.parent_load_id,
        run_id=first.run_id,
    )
    capabilities = environment.destination.capabilities
    name = environment.pipeline_name

    with reported(environment.emit, name, "load"), step("load", pipeline_name=name, load_id=first.load_id), one_error():
        report = await load_bundle(
            owned.session,
            commit,
            environment.settings,
            environment.emit,
            max_parallel=capabilities.max_parallel_load_jobs,
        )

    # The destination has it: filing it away here may be cut off (the next run repeats it) but should not be.
    with shielded(_CLEANUP_S):
        head = replace(
            owned.head,
            load_id=last.load_id,
            state=next((sealed.state for sealed in reversed(bundle) if sealed.state is not None), owned.head.state),
            schemas={**owned.head.schemas, **{package.schema.name: package.schema for package in packages}},
            dataset_name=environment.dataset_name,
            destination_type=environment.destination.destination_type,
            local={**owned.head.local, "first_run": False},
        )
        await owned.save_head(head)
        keep = environment.settings.limits.keep_completed
        await in_thread(partial(owned.store.complete, packages, "loaded", keep=keep), owned.threads)
        owned.pending = [load_id for load_id in owned.pending if load_id not in first.bundle]

    return report


class _FusedRun:
    """The part of a run before the commit: from sources to a sealed bundle."""

    def __init__(self, owned: Owned, request: RunRequest, account: BudgetAccount) -> None:
        self._owned = owned
        self._request = request
        self._account = account
        self._environment = owned.environment
        self._state = _head_state(owned)
        self.notices: list[Notice] = []
        self.custom_metrics: dict[str, dict[str, object]] = {}
        names = sorted({_schema_name(source) for source in request.sources})
        self._schema_names = names or [self._environment.default_schema_name]
        self._namings = {name: self._naming(name) for name in self._schema_names}
        self._book = SchemaBook({name: self._under_contract(self._schema(name)) for name in self._schema_names})
        self._created_at = time.time()
        load_ids = next_load_ids(self._created_at, _last_load_id(owned), len(self._schema_names))
        self._load_ids = dict(zip(self._schema_names, load_ids, strict=True))

    async def build(self) -> list[SealedPackage]:
        """Run extract and normalize; returns the sealed bundle, empty when there was nothing to keep."""
        store = self._owned.store
        drafts = {
            name: await in_thread(partial(store.draft, load_id), self._owned.threads)
            for name, load_id in self._load_ids.items()
        }

        try:
            harvest = await self._shape(drafts)

            with step("normalize", pipeline_name=self._environment.pipeline_name, load_id=self._first_id):
                sealed = await in_thread(partial(seal_run, store, harvest), self._owned.threads)

            self._owned.pending += [one.package.load_id for one in sealed]

            return sealed
        finally:
            # What was sealed has left these folders; what remains is unfinished or was not needed.
            with shielded(_CLEANUP_S):
                await in_thread(partial(store.discard, list(drafts.values())), self._owned.threads)

    def contracted(self) -> dict[str, Schema]:
        """The schemas as they were before the run, under its contract."""
        return {name: bump(self._under_contract(self._schema(name))) for name in self._schema_names}

    @property
    def _first_id(self) -> LoadId:
        return self._load_ids[self._schema_names[0]]

    async def _shape(self, drafts: dict[str, PackageDraft]) -> Harvest:
        environment = self._environment
        name = environment.pipeline_name
        plan = ShapingPlan(
            pipeline_name=name,
            limits=environment.settings.limits,
            capabilities=environment.destination.capabilities,
            file_format=self._request.file_format,
            normalizers={schema: self._normalizer(schema) for schema in self._schema_names},
            drafts=drafts,
        )
        send, receive = anyio.create_memory_object_stream[RawBatch](0)
        intake = Intake(
            pipeline_name=name,
            book=self._book,
            namings=self._namings,
            capabilities=environment.destination.capabilities,
            budget=self._account,
            pages=send,
            emit=environment.emit,
        )
        shaping = Shaping(plan, self._book, self._account, environment.emit)
        result = ShapingResult()

        async def normalize() -> None:
            nonlocal result

            with self._stage("normalize"):
                result = await shaping.run(receive)

        with one_error(), send, receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(normalize)

                with self._stage("extract"):
                    await self._extract(intake)

                send.close()

        with step("normalize", pipeline_name=name, load_id=self._first_id):
            self.notices = [*result.notices, *self._unbound(result)]

        return self._harvest(drafts, result, intake)

    @contextmanager
    def _stage(self, name: Literal["extract", "normalize"]) -> Iterator[None]:
        """Report a stage to observers, and what goes wrong in it as a failure of this step."""
        environment = self._environment
        pipeline = environment.pipeline_name

        with (
            reported(environment.emit, pipeline, name),
            step(name, pipeline_name=pipeline, load_id=self._first_id),
            one_error(),
        ):
            yield

    async def _extract(self, intake: Intake) -> None:
        with ExitStack() as stack:
            trees = [
                (source, tree)
                for source in self._request.sources
                for tree in stack.enter_context(connected(_read_resources(source)))
            ]

            # One after the other, or all side by side; a resource and its transformers always are.
            is_fifo = self._environment.settings.limits.next_item_mode == "fifo"

            for group in [[tree] for tree in trees] if is_fifo else [trees]:
                async with anyio.create_task_group() as tasks:
                    for source, tree in group:
                        for branch in tree.all():
                            tasks.start_soon(self._pump, intake, source, branch)

    async def _pump(self, intake: Intake, source: Source, branch: Branch) -> None:
        resource = branch.resource
        plan = self._resource_plan(source, resource)

        if branch.keeps and disposition_of(resource) == "replace":
            _reset_resource_state(self._state, plan.schema_name, resource.name)

        schema = self._book[plan.schema_name]
        metrics: dict[str, object] = {}

        with current.activate_resource(
            self._state,
            plan.schema_name,
            resource.name,
            resource=resource,
            source=source,
            schema=schema,
            metrics=metrics,
        ):
            await pump(
                resource,
                limits=self._environment.settings.limits,
                send=partial(intake.send, plan),
                link=branch.link,
            )

        if metrics:
            self.custom_metrics[resource.name] = metrics

    def _resource_plan(self, source: Source, resource: Resource) -> ResourcePlan:
        schema_name = _schema_name(source)
        nesting = resource.max_table_nesting
        nesting = source.max_table_nesting if nesting is None else nesting
        forced = self._environment.destination.capabilities.max_table_nesting

        return ResourcePlan(
            name=resource.name,
            schema_name=schema_name,
            hints=resource.table_hints,
            max_nesting=nesting if forced is None else forced,
        )

    def _harvest(self, drafts: dict[str, PackageDraft], result: ShapingResult, intake: Intake) -> Harvest:
        environment = self._environment

        with step("extract", pipeline_name=environment.pipeline_name, load_id=self._first_id):
            self._announce_all(intake)

        state = state_after(
            self._state,
            dataset_name=environment.dataset_name,
            destination=environment.destination,
            default_schema_name=self._default_schema_name(),
            schema_names=sorted({*self._owned.head.schemas, *self._schema_names}),
        )

        return Harvest(
            pipeline_name=environment.pipeline_name,
            dataset_name=environment.dataset_name,
            drafts=drafts,
            schemas=self._counted(intake),
            shaped=result,
            replaced={name: self._replaced(name) for name in self._schema_names},
            state=state if environment.restore_from_destination else None,
            head_state=self._owned.head.state,
            state_schema=self._state_schema(),
            parent_load_id=self._owned.head.load_id,
            run_id=self._request.run_id,
            created_at=self._created_at,
            capabilities=environment.destination.capabilities,
            file_format=self._request.file_format,
            limits=environment.settings.limits,
        )

    def _counted(self, intake: Intake) -> dict[str, Schema]:
        """The schemas of the run, with the version that their hints alone have brought them to.

        As in the reference, whose extract and normalize each count what they change; a schema's first run counts once.
        """
        counted = self._book.all()

        for name, hinted in intake.hinted.items():
            if name in self._owned.head.schemas:
                reached = bump(hinted)
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
            for name in self._schema_names
            for notice in check_bound(self._book[name], list(result.row_counts.get(name, ())))
        ]

    def _announce_all(self, intake: Intake) -> None:
        """A resource that yielded nothing is in the schema too, and replaces its tables if it is to."""
        for source in self._request.sources:
            for resource in source.selected_resources.values():
                name = resource.table_name

                if disposition_of(resource) != "skip" and isinstance(name, str):
                    intake.announce(self._resource_plan(source, resource), name)

    def _replaced(self, schema_name: str) -> tuple[TableName, ...]:
        """Root tables whose old rows go: those of every replace resource of this run."""
        resources = {
            resource.name
            for source in self._request.sources
            if _schema_name(source) == schema_name
            for resource in source.selected_resources.values()
        }

        return tuple(
            table.name
            for table in self._book[schema_name].tables.values()
            if table.parent is None and table.resource in resources and table.write_disposition == "replace"
        )

    def _default_schema_name(self) -> str:
        known = self._state.get("default_schema_name")

        return known if isinstance(known, str) else self._schema_names[0]

    def _state_schema(self) -> str:
        """The schema in whose package the state row travels: the default one if it is part of this run."""
        default = self._default_schema_name()

        return default if default in self._schema_names else self._schema_names[0]

    def _naming(self, schema_name: str) -> Naming:
        capabilities = self._environment.destination.capabilities

        return naming_for(_naming_name(self._schema(schema_name)), capabilities.max_identifier_length)

    def _schema(self, schema_name: str) -> Schema:
        """The stored schema, else the one a source brings, else an empty one."""
        known = self._owned.head.schemas.get(schema_name)

        if known is not None:
            return known

        brought = next((s.schema for s in self._request.sources if s.schema and _schema_name(s) == schema_name), None)

        # An empty schema is version 1, so the first one with tables is version 2.
        return brought or bump(
            new_schema(schema_name, naming=self._environment.destination.capabilities.naming_convention)
        )

    def _under_contract(self, schema: Schema) -> Schema:
        contract = self._request.schema_contract

        return replace(schema, settings={**schema.settings, "schema_contract": contract}) if contract else schema

    def _normalizer(self, schema_name: str) -> Normalizer:
        return Normalizer(
            NormalizeContext(
                load_id=self._load_ids[schema_name],
                naming=self._namings[schema_name],
                capabilities=self._environment.destination.capabilities,
                gate=GIL_GATE,
                slice_s=self._environment.settings.limits.slice_s,
            )
        )


def _read_resources(source: Source) -> list[Resource]:
    return [resource for resource in source.selected_resources.values() if disposition_of(resource) != "skip"]


def _schema_name(source: Source) -> str:
    return source.schema.name if source.schema is not None else source.name


def _head_state(owned: Owned) -> dict[str, object]:
    if owned.head.state is None:
        return default_state(owned.environment.pipeline_name)

    return decode_state(owned.head.state)


def _last_load_id(owned: Owned) -> LoadId | None:
    known = [load_id for load_id in (owned.restored.last_load_id, owned.head.load_id) if load_id is not None]

    return max(known, key=float, default=None)


def _reset_resource_state(state: dict[str, object], schema_name: str, resource_name: str) -> None:
    resources = current.source_state_of(state, schema_name).get("resources")

    if isinstance(resources, dict):
        resources.pop(resource_name, None)


def _naming_name(schema: Schema) -> str:
    name = schema.normalizers.get("names")

    return name if isinstance(name, str) else "snake_case"
