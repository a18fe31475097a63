"""What a call does that extracts, normalizes and loads all at once: `run`, and `replay`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from asyncelt._async import in_thread
from asyncelt.engine.loading import Loaded, load_pending
from asyncelt.engine.ownership import Owned
from asyncelt.engine.replaying import ReplayRequest, run_replay
from asyncelt.engine.run import Ran, RunRequest, run_fused, run_normalize
from asyncelt.errors import PipelineStepFailed, UsageError
from asyncelt.info.packages import LoadPackageInfo, package_info
from asyncelt.info.steps import LoadInfo, StepInfo
from asyncelt.load.protocol import Destination
from asyncelt.observe import Warned
from asyncelt.pipeline.results import Maker, run_report
from asyncelt.pipeline.tracing import Recorder
from asyncelt.storage.package import PackageStore
from asyncelt.types import FileFormat, LoadId, OnPending

__all__ = ["Outcome", "RunCall", "note_steps", "run_info", "run_owned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """One call of run, checked."""

    request: RunRequest
    file_format: FileFormat
    has_data: bool
    on_pending: OnPending
    raises: bool
    format_given: Callable[[str | None], FileFormat]
    """The format of job files of a package that was extracted before, by what was asked for then."""
    replay: ReplayRequest | None = None
    """Rows to load from quarantine, instead of the request's sources."""


@dataclass(slots=True)
class Outcome:
    """What a call has come to, filled in on the way."""

    ran: Ran = field(default_factory=Ran)
    pending: Ran = field(default_factory=Ran)
    """What was pending before."""
    known: tuple[LoadPackageInfo, ...] = ()
    already_committed: bool = False
    data_taken: bool = True


async def run_owned(owned: Owned, call: RunCall, outcome: Outcome) -> None:
    """Load what is pending, then what the call brings.

    Args:
        owned: The pipeline.
        call: What to do.
        outcome: Filled in on the way.
    """
    name, run_id = owned.environment.pipeline_name, call.request.run_id

    if run_id is not None:
        done = await owned.session.run_of(name, run_id)

        if done and not any(load_id in owned.pending.all for load_id in done):
            outcome.known = await in_thread(partial(_known_packages, owned.store, done), owned.threads)
            outcome.already_committed = True

            return

    if owned.pending:
        if call.has_data and call.on_pending == "raise":
            raise UsageError(
                f"Pipeline {name!r} has pending load packages {', '.join(owned.pending.all)} from an earlier "
                "call. Load them with run() without data, or give them up with abort_packages()."
            )

        await _load_pending(owned, call, outcome)
        loaded = outcome.pending.loaded
        runs = {one.package.run_id for bundle in loaded.bundles for one in bundle.packages}

        if call.has_data and run_id is not None and run_id in runs:
            return

        # Nothing but packages that turned out to be empty: there was nothing pending.
        waits = loaded.is_stuck or (loaded.bundles and call.on_pending == "load_only")

        if call.has_data and waits:
            outcome.data_taken = False
            owned.environment.emit(Warned(pipeline_name=name, message=_not_taken(loaded)))

            return

    if call.replay is not None:
        await run_replay(
            owned, call.replay, outcome.ran, file_format=call.file_format, raise_on_failed_jobs=call.raises
        )
    elif call.has_data:
        await run_fused(
            owned, call.request, outcome.ran, file_format=call.file_format, raise_on_failed_jobs=call.raises
        )


async def _load_pending(owned: Owned, call: RunCall, outcome: Outcome) -> None:
    if owned.pending.extracted:
        await run_normalize(owned, outcome.pending.normalized, file_format=call.format_given)

    await load_pending(owned, outcome.pending.loaded, raise_on_failed_jobs=call.raises)


def run_info(
    recorder: Recorder, maker: Maker, destination: Destination, run_id: str | None, outcome: Outcome
) -> LoadInfo:
    """What run returns, as of now."""
    ran, pending = outcome.ran, outcome.pending
    normalized = [*pending.normalized, *ran.normalized]
    loaded = Loaded(bundles=[*pending.loaded.bundles, *ran.loaded.bundles])

    return maker.load(
        loaded,
        destination,
        started_at=recorder.started_at,
        report=run_report(ran.extracted, normalized, loaded),
        known=outcome.known,
        extracted=ran.extracted,
        notices=[notice for one in normalized for notice in one.notices],
        run_id=run_id,
        already_committed=outcome.already_committed,
        data_taken=outcome.data_taken,
    )


def note_steps(
    recorder: Recorder,
    maker: Maker,
    outcome: Outcome,
    data: Sequence[Mapping[str, str]],
    *,
    info: StepInfo | None,
    error: BaseException | None,
) -> None:
    """Note the steps of a run: those that ended well, and the one that failed."""
    failed = error.step if isinstance(error, PipelineStepFailed) else None
    ran = outcome.ran
    normalized = [*outcome.pending.normalized, *ran.normalized]

    if ran.extracted is not None and failed != "extract":
        recorder.done("extract", maker.extract(ran.extracted, data))

    if normalized and failed not in ("extract", "normalize"):
        recorder.done("normalize", maker.normalize(normalized))

    if info is not None and not info.is_empty:
        recorder.done("load", info)
    elif failed in ("sync", "extract", "normalize", "load"):
        recorder.done(failed, error=error)


def _known_packages(store: PackageStore, load_ids: Sequence[LoadId]) -> tuple[LoadPackageInfo, ...]:
    kept = set(store.done_ids())

    return tuple(package_info(store.read(load_id), status="loaded") for load_id in load_ids if load_id in kept)


def _not_taken(loaded: Loaded) -> str:
    if loaded.is_stuck:
        return (
            "Packages of an earlier call are pending, and one of them has jobs that the destination refuses; the data "
            "passed to this run was NOT taken. See the returned info; abort_packages() or fail_pending_job() clear the "
            "way."
        )

    return (
        "Packages of an earlier run were pending and have been loaded; the data passed to this run was NOT taken. Run "
        "again, or pass on_pending='load_then_run'."
    )
