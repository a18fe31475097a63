"""The last part of a run: sealed bundles are committed, oldest first, and filed away."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from asyncelt._async import in_thread, shielded
from asyncelt.engine.ownership import Owned
from asyncelt.engine.steps import stage
from asyncelt.errors import AsynceltError, DestinationRejected, LoadError, PipelineStepFailed, TableBlocked, Unsupported
from asyncelt.flow import JobFile, Package
from asyncelt.load.committing import LoadReport, load_bundle
from asyncelt.load.protocol import Commit
from asyncelt.observe import Warned
from asyncelt.storage.head import Tip
from asyncelt.storage.manifest import Outcome, SealedPackage, read_outcome, write_outcome
from asyncelt.storage.package import PackageStore
from asyncelt.types import LoadId

__all__ = ["Loaded", "LoadedBundle", "commit_bundle", "load_bundles", "load_pending"]

_FOR_GOOD = (DestinationRejected, Unsupported)
"""Trying these again will not help unless somebody changes something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBundle:
    """What became of one bundle."""

    packages: tuple[SealedPackage, ...]
    outcomes: Mapping[LoadId, Outcome]
    report: LoadReport
    is_loaded: bool
    is_aborted: bool = False
    """Whether it was given up: nothing waits for it."""
    started_at: float
    finished_at: float


@dataclass(slots=True)
class Loaded:
    """What a call has loaded."""

    bundles: list[LoadedBundle] = field(default_factory=list)

    @property
    def is_stuck(self) -> bool:
        """Whether a bundle failed; later ones wait for it."""
        return any(not bundle.is_loaded and not bundle.is_aborted for bundle in self.bundles)


async def load_pending(owned: Owned, loaded: Loaded, *, raise_on_failed_jobs: bool) -> None:
    """Commit what is sealed, oldest first.

    Args:
        owned: The pipeline.
        loaded: Filled in bundle by bundle.
        raise_on_failed_jobs: False: a job that the destination refuses ends the call without an error.

    Raises:
        PipelineStepFailed: Step ``load``. The bundle at hand and later ones stay pending.
    """
    bundles = await in_thread(owned.store.sealed_bundles, owned.threads)

    await load_bundles(owned, bundles, loaded, raise_on_failed_jobs=raise_on_failed_jobs)


async def load_bundles(
    owned: Owned,
    bundles: Sequence[Sequence[SealedPackage]],
    loaded: Loaded,
    *,
    raise_on_failed_jobs: bool,
    is_fresh: bool = False,
) -> None:
    """Commit these bundles, until one fails.

    Args:
        owned: The pipeline.
        bundles: Oldest first.
        loaded: Filled in bundle by bundle.
        raise_on_failed_jobs: See `load_pending`.
        is_fresh: The bundles have just been sealed, so that no job of theirs can have failed before.
    """
    for bundle in bundles:
        outcomes: dict[LoadId, Outcome] = {}

        if not is_fresh:
            outcomes = await in_thread(partial(_outcomes, bundle), owned.threads)

        await _load(owned, tuple(bundle), outcomes, loaded, raise_on_failed_jobs=raise_on_failed_jobs)

        if not loaded.bundles[-1].is_loaded:
            break


async def _load(
    owned: Owned,
    bundle: tuple[SealedPackage, ...],
    outcomes: Mapping[LoadId, Outcome],
    loaded: Loaded,
    *,
    raise_on_failed_jobs: bool,
) -> None:
    """Commit one sealed bundle and move the head. What has become of it is added to ``loaded``, also where it fails."""
    environment = owned.environment
    began = partial(LoadedBundle, started_at=time.time())
    commit = _commit_of(owned, bundle, outcomes)

    try:
        with stage(environment, "load", bundle[0].package.load_id):
            report = await commit_bundle(owned, commit)
    except PipelineStepFailed as error:
        cause = error.__cause__
        failed = _failed_jobs(commit.packages, cause) if isinstance(cause, _FOR_GOOD) else []
        is_aborted = False

        if isinstance(cause, _FOR_GOOD):
            outcomes = await in_thread(partial(_note_failure, bundle, failed, str(cause)), owned.threads)
            # What is committed is never given up: its rows would come again.
            is_aborted = environment.settings.auto_abort_on_terminal_error and not await _is_committed(owned, commit)

        if is_aborted:
            bundle = await _give_up(owned, bundle)

        loaded.bundles.append(
            began(
                packages=bundle,
                outcomes=outcomes,
                report=LoadReport(),
                is_loaded=False,
                is_aborted=is_aborted,
                finished_at=time.time(),
            )
        )

        if not isinstance(cause, _FOR_GOOD):
            raise

        if raise_on_failed_jobs:
            raise (_given_up(error, bundle) if is_aborted else _with_advice(error, failed)) from cause

        return

    # The destination has it: filing it away here may be cut off (the next run repeats it) but should not be.
    with shielded():
        await _file_away(owned, bundle, report)

    loaded.bundles.append(
        began(packages=bundle, outcomes=outcomes, report=report, is_loaded=True, finished_at=time.time())
    )


async def commit_bundle(owned: Owned, commit: Commit) -> LoadReport:
    """Make a commit happen; see `load_bundle` for what it guarantees and raises."""
    environment = owned.environment

    return await load_bundle(
        owned.session,
        commit,
        environment.settings,
        environment.emit,
        max_parallel=environment.capabilities.max_parallel_load_jobs,
    )


def _commit_of(owned: Owned, bundle: Sequence[SealedPackage], outcomes: Mapping[LoadId, Outcome]) -> Commit:
    environment = owned.environment
    packages = tuple(_without(one.package, outcomes.get(one.package.load_id)) for one in bundle)
    first = bundle[0]
    parent = first.package.parent_load_id

    # The caller names another place than the packages were made for: there they go on top of what is there.
    if first.place is not None and first.place != environment.place:
        environment.emit(
            Warned(
                pipeline_name=environment.pipeline_name,
                message=(
                    f"Load package {first.package.load_id} was made for dataset {first.package.dataset_name!r} and is "
                    f"loaded into {environment.dataset_name!r} at {environment.required_destination.location}. Rows "
                    "that went to the first place before are not in the second."
                ),
            )
        )
        parent = owned.lease.head_load_id

    return Commit(
        target=environment.target,
        lease=owned.lease,
        packages=packages,
        parent_load_id=parent,
        run_id=first.package.run_id,
    )


def _without(package: Package, outcome: Outcome | None) -> Package:
    """The package without the jobs that were set aside."""
    if outcome is None or not outcome.set_aside:
        return package

    jobs = tuple(job for job in package.jobs if job.job_id not in outcome.set_aside)
    counts = dict(package.row_counts)

    for job in package.jobs:
        if job.job_id in outcome.set_aside:
            counts[job.table] = counts.get(job.table, 0) - job.rows

    return replace(package, jobs=jobs, row_counts=counts)


async def _file_away(owned: Owned, bundle: Sequence[SealedPackage], report: LoadReport) -> None:
    environment, head = owned.environment, owned.head
    destination = environment.required_destination
    load_ids = [one.package.load_id for one in bundle]
    local = {**head.local, "first_run": False}

    if environment.dev_mode:
        local["_dev_mode"] = True

    owned.head = replace(
        head,
        load_id=load_ids[-1],
        state=next((one.state for one in reversed(bundle) if one.state is not None), head.state),
        schemas={**head.schemas, **{one.package.schema.name: one.package.schema for one in bundle}},
        dataset_name=environment.dataset_name,
        destination_type=destination.destination_type,
        destination_name=destination.destination_name,
        place=environment.place,
        local=local,
    )
    updates = report.result.schema_updates if report.result is not None else {}
    keep = environment.settings.limits.keep_completed

    def note() -> None:
        environment.head_file.write(owned.head)
        owned.store.complete(load_ids, keep=keep, updates=updates)

    await in_thread(note, owned.threads)
    owned.pending = owned.pending.without(load_ids)
    owned.lease = replace(owned.lease, head_load_id=load_ids[-1])

    if not owned.pending:
        owned.tip = Tip(load_id=owned.head.load_id, state=owned.head.state, schemas=owned.head.schemas)


async def _is_committed(owned: Owned, commit: Commit) -> bool:
    """Whether the destination has some of it; also where it cannot say."""
    try:
        return bool(await owned.session.committed([package.load_id for package in commit.packages]))
    except AsynceltError:
        return True


async def _give_up(owned: Owned, bundle: Sequence[SealedPackage]) -> tuple[SealedPackage, ...]:
    """Abort a bundle and everything that was made after it; the state goes back to what is committed."""
    load_ids = [one.package.load_id for one in bundle]
    doomed = [one for one in owned.pending.all if one in load_ids or float(one) > float(load_ids[0])]
    keep = owned.environment.settings.limits.keep_completed

    with shielded():
        await in_thread(partial(owned.store.abort, doomed, keep=keep), owned.threads)
        await owned.look()

        return await in_thread(partial(_kept, owned.store, bundle), owned.threads)


def _kept(store: PackageStore, bundle: Sequence[SealedPackage]) -> tuple[SealedPackage, ...]:
    """The packages as they are filed away; as they were where manifests are not kept. Blocking."""
    known = set(store.done_ids())

    return tuple(store.read(one.package.load_id) if one.package.load_id in known else one for one in bundle)


def _given_up(error: PipelineStepFailed, bundle: Sequence[SealedPackage]) -> PipelineStepFailed:
    load_id = bundle[0].package.load_id

    return PipelineStepFailed(
        f"{error} Load package {load_id} and what came after it were given up (auto_abort_on_terminal_error): the next "
        "run extracts their rows again.",
        pipeline_name=error.pipeline_name,
        step=error.step,
        load_id=load_id,
    )


def _outcomes(bundle: Sequence[SealedPackage]) -> dict[LoadId, Outcome]:
    return {one.package.load_id: read_outcome(one.package.folder) for one in bundle}


def _failed_jobs(packages: Sequence[Package], error: AsynceltError) -> list[tuple[Package, JobFile]]:
    """The jobs that an error is about: one, those of one table, or all of the first package where it does not say."""
    known = error if isinstance(error, LoadError) else LoadError()
    jobs = [(package, job) for package in packages for job in package.jobs]
    meant = [
        (package, job)
        for package, job in jobs
        if known.load_id in (None, package.load_id)
        and known.table in (None, job.table)
        and known.job_id in (None, job.job_id)
    ]

    if known.table is not None and meant:
        return meant

    return [(package, job) for package, job in jobs if package.load_id == (known.load_id or packages[0].load_id)]


def _note_failure(
    bundle: Sequence[SealedPackage], failed: Sequence[tuple[Package, JobFile]], message: str
) -> dict[LoadId, Outcome]:
    """Write down which jobs failed. Blocking."""
    outcomes = {}

    for sealed in bundle:
        package = sealed.package
        before = read_outcome(package.folder)
        mine = {job.job_id: message for one, job in failed if one.load_id == package.load_id}
        outcome = outcomes[package.load_id] = replace(before, failed=mine)

        if outcome != before:
            write_outcome(package.folder, outcome)

    return outcomes


def _with_advice(error: PipelineStepFailed, failed: Sequence[tuple[Package, JobFile]]) -> PipelineStepFailed:
    load_id = failed[0][0].load_id if failed else error.load_id
    files = ", ".join(job.file_name for _, job in failed[:3]) + (", ..." if len(failed) > 3 else "")
    first = failed[0][1].file_name if failed else "..."
    # What is committed is not extracted again.
    aborting = (
        ""
        if isinstance(error.__cause__, TableBlocked)
        else f"; abort_packages({str(load_id)!r}) gives it up, so that the next run extracts its rows again"
    )

    return PipelineStepFailed(
        f"{error} Load package {load_id} and what came after it stay pending; failed: {files or 'no single job'}. When "
        f"the cause is mended, load() or run() tries again; fail_pending_job({str(load_id)!r}, {first!r}) loads the "
        f"package without that file, which is kept{aborting}.",
        pipeline_name=error.pipeline_name,
        step=error.step,
        load_id=load_id,
        has_pending_data=True,
    )
