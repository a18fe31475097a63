"""The calls of a pipeline, step by step or all at once.

A fused run extracts, normalizes and loads at the same time. Nothing is pending before the seal: a failure until then
removes what was written and leaves the destination as it was. From the seal on the packages will be committed, by this
run or by the next. `extract` and `normalize` seal in between; the rest is the same code.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio

from asyncelt._async import in_thread
from asyncelt.budget import BudgetAccount
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.early import early_loading
from asyncelt.engine.extraction import Extraction, document_of
from asyncelt.engine.holding import Holds
from asyncelt.engine.intake import Intake
from asyncelt.engine.loading import Loaded, load_bundles
from asyncelt.engine.normalization import Normalization
from asyncelt.engine.ownership import Folder, Owned
from asyncelt.engine.plan import RunPlan, RunRequest, parents_of, plan_of_extracted, plan_of_sources
from asyncelt.engine.spooling import Spooling, stored_pages
from asyncelt.engine.steps import one_error, step
from asyncelt.errors import PipelineStepFailed
from asyncelt.extract.pump import PumpReport
from asyncelt.flow import Notice, ResourceFailure
from asyncelt.load.protocol import SupportsIdle
from asyncelt.storage.extracted import ExtractedPackage
from asyncelt.storage.head import Tip, read_tip
from asyncelt.storage.package import PackageDraft, Pending, SealedPackage
from asyncelt.storage.state import StateDoc
from asyncelt.types import FileFormat, LoadId

__all__ = ["Extracted", "Normalized", "Ran", "RunRequest", "run_extract", "run_fused", "run_normalize", "while_idle"]

_IDLE_AFTER_S = 0.25
"""Opening and closing a database costs tens of milliseconds, which short runs should not pay twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What extraction has read."""

    plan: RunPlan
    reports: Mapping[tuple[str, str], PumpReport]
    """By schema and resource."""
    packages: tuple[ExtractedPackage, ...] = ()
    """Empty in a fused run, which stores no pages."""
    started_at: float
    finished_at: float
    waited_s: float = 0.0
    custom_metrics: Mapping[tuple[str, str], Mapping[str, object]] = field(default_factory=dict)
    """Figures that resources have counted themselves, by resource."""
    failures: tuple[ResourceFailure, ...] = ()
    """Resources that the run does without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalized:
    """What normalize has sealed."""

    packages: tuple[SealedPackage, ...] = ()
    notices: tuple[Notice, ...] = ()
    started_at: float
    finished_at: float
    peak_memory: int = 0


@dataclass(slots=True)
class Ran:
    """What a call has done, step by step. A step that it did not come to is None."""

    extracted: Extracted | None = None
    normalized: list[Normalized] = field(default_factory=list)
    loaded: Loaded = field(default_factory=Loaded)


async def run_fused(
    owned: Owned, request: RunRequest, ran: Ran, *, file_format: FileFormat, raise_on_failed_jobs: bool
) -> None:
    """Extract, normalize and commit ``request.sources`` as one bundle of packages.

    Args:
        owned: The pipeline.
        request: What to read.
        ran: Filled in step by step, so that it says how far a failing run has come.
        file_format: Of job files.
        raise_on_failed_jobs: False: a refused job ends the run without an error; the bundle stays pending.

    Raises:
        PipelineStepFailed: Names the step. Before the seal nothing is left; after it the bundle is pending.
    """
    account = owned.environment.budget.account()
    extraction = _extraction(owned, request, account, last_load_id=owned.restored.last_load_id)
    started_at = time.time()

    async def feed(intake: Intake, book: SchemaBook) -> Mapping[str, object]:
        await extraction.run(intake.send, book.__getitem__)
        run.do_without(extraction.failures)
        ran.extracted = Extracted(
            plan=extraction.plan,
            reports=extraction.reports,
            started_at=started_at,
            finished_at=time.time(),
            waited_s=intake.waited_s + extraction.waited_s,
            custom_metrics=extraction.custom_metrics,
            failures=tuple(extraction.failures),
        )

        return extraction.state

    try:
        async with early_loading(owned.session, owned.environment.settings.limits, file_format) as early:
            run = Normalization(
                owned, extraction.plan, owned.tip, file_format=file_format, account=account, early=early
            )
            bundle = await while_idle(owned, partial(run.run, feed))
    finally:
        account.close()

    ran.normalized.append(_normalized(owned, run, bundle, started_at))

    if bundle:
        await load_bundles(owned, [bundle], ran.loaded, raise_on_failed_jobs=raise_on_failed_jobs, is_fresh=True)
    else:
        await run.keep_schemas()


async def run_extract(
    folder: Folder, request: RunRequest, *, last_load_id: LoadId | None = None, state: StateDoc | None = None
) -> Extracted:
    """Read ``request.sources`` into extracted packages.

    Args:
        folder: Owned.
        request: What to read.
        last_load_id: Greatest id in the dataset, where it is known.
        state: The state to start from; None: where the pipeline stands.

    Raises:
        PipelineStepFailed: Step ``extract``. Nothing is left.
    """
    account = folder.environment.budget.account()
    extraction = _extraction(folder, request, account, last_load_id=last_load_id)

    if state is not None:
        extraction.state = state

    plan = extraction.plan
    refreshed = parents_of(extraction.reading) if request.refresh is not None else {}
    spooling = Spooling(folder, plan, refreshed, account)
    started_at = time.time()

    try:
        packages = await spooling.run(extraction)
    finally:
        account.close()

    return Extracted(
        plan=plan,
        reports=extraction.reports,
        packages=tuple(packages),
        started_at=started_at,
        finished_at=time.time(),
        waited_s=spooling.waited_s + extraction.waited_s,
        custom_metrics=extraction.custom_metrics,
        failures=tuple(extraction.failures),
    )


async def run_normalize(
    folder: Folder, done: list[Normalized], *, file_format: Callable[[str | None], FileFormat]
) -> None:
    """Turn every extracted package into job files, oldest first.

    Args:
        folder: Owned, with a destination in its environment.
        done: Filled in bundle by bundle.
        file_format: The format to use, given what extract was told.

    Raises:
        PipelineStepFailed: Step ``normalize``. The bundle at hand and later ones stay extracted.
    """
    with step("normalize", pipeline_name=folder.environment.pipeline_name):
        bundles = await in_thread(folder.store.extracted_bundles, folder.threads)

    for bundle in bundles:
        load_id = bundle[0].load_id

        try:
            done.append(await _normalize_bundle(folder, bundle, file_format(bundle[0].file_format)))
        except PipelineStepFailed as error:
            raise PipelineStepFailed(
                f"{error} Load package {load_id} and what came after it stay extracted. When the cause is mended, "
                f"normalize() or run() tries again; abort_packages({str(load_id)!r}) gives them up, so that the next "
                "run extracts their rows again.",
                pipeline_name=error.pipeline_name,
                step=error.step,
                load_id=load_id,
                has_pending_data=True,
            ) from error.__cause__

    if len(bundles) > 1:
        # What each has added to its own schema, whatever those after it were extracted on.
        await folder.look()


async def _normalize_bundle(folder: Folder, bundle: Sequence[ExtractedPackage], file_format: FileFormat) -> Normalized:
    started_at = time.time()
    tip = await in_thread(partial(_tip_before, folder), folder.threads)
    plan = plan_of_extracted(bundle, tip, forced_nesting=folder.environment.capabilities.max_table_nesting)
    plans = {(one.schema_name, one.name): one for one in plan.resources}
    account = folder.environment.budget.account()
    run = Normalization(folder, plan, tip, file_format=file_format, account=account, is_replay=True)

    async def feed(intake: Intake, book: SchemaBook) -> Mapping[str, object]:
        del book

        async for schema_name, stored, page in stored_pages(folder, bundle):
            await intake.send(plans[schema_name, stored.resource], page)

        return document_of(bundle[-1].state, folder.environment.pipeline_name)

    try:
        sealed = await run.run(feed)
    finally:
        account.close()

    if not sealed:
        await run.keep_schemas()

    return _normalized(folder, run, sealed, started_at)


def _tip_before(folder: Folder) -> Tip:
    """Where the pipeline stands without what is only extracted. Blocking."""
    pending = Pending(sealed=folder.store.pending().sealed)

    return read_tip(folder.store, folder.head, pending)


def _extraction(
    folder: Folder, request: RunRequest, account: BudgetAccount, *, last_load_id: LoadId | None
) -> Extraction:
    environment = folder.environment
    known = [one for one in (last_load_id, folder.tip.load_id) if one is not None]
    plan, reading = plan_of_sources(
        request,
        folder.tip,
        default_schema_name=environment.default_schema_name,
        last_load_id=max(known, key=float, default=None),
        forced_nesting=environment.capabilities.max_table_nesting,
    )

    limits = environment.settings.limits

    def make_draft(name: str) -> PackageDraft:
        return folder.store.page_draft(LoadId(name))

    return Extraction(
        plan=plan,
        reading=reading,
        state=document_of(folder.tip.document, environment.pipeline_name),
        limits=limits,
        holds=Holds(make_draft, plan.first_id, account, limits),
        forced_nesting=environment.capabilities.max_table_nesting,
    )


def _normalized(folder: Folder, run: Normalization, sealed: Sequence[SealedPackage], started_at: float) -> Normalized:
    return Normalized(
        packages=tuple(sealed),
        notices=tuple(run.notices),
        started_at=started_at,
        finished_at=time.time(),
        peak_memory=folder.environment.budget.peak,
    )


async def while_idle(owned: Owned, build: Callable[[], Awaitable[list[SealedPackage]]]) -> list[SealedPackage]:
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
