"""The call that does it all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from asyncelt._async import in_thread
from asyncelt.arguments import FLAG, TEXT, expect_if_given
from asyncelt.engine.loading import Loaded, load_pending
from asyncelt.engine.ownership import Owned
from asyncelt.engine.replaying import ReplayRequest, run_replay
from asyncelt.engine.run import Ran, RunRequest, run_fused, run_normalize
from asyncelt.engine.steps import step
from asyncelt.errors import PipelineStepFailed, UsageError
from asyncelt.info.packages import LoadPackageInfo, package_info
from asyncelt.info.steps import LoadInfo, StepInfo
from asyncelt.observe import Warned
from asyncelt.pipeline.options import DestinationReference, check_pending
from asyncelt.pipeline.results import Maker, run_report
from asyncelt.pipeline.stages import StageCalls, described
from asyncelt.pipeline.tracing import Recorder
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.storage.package import PackageStore
from asyncelt.types import FileFormat, JsonValue, LoadId, OnPending, Refresh

__all__ = ["RunCall", "RunningCalls"]


@dataclass(slots=True)
class _Outcome:
    """What run has come to, filled in on the way."""

    ran: Ran = field(default_factory=Ran)
    pending: Ran = field(default_factory=Ran)
    """What was pending before."""
    known: tuple[LoadPackageInfo, ...] = ()
    already_committed: bool = False
    data_taken: bool = True


class RunningCalls(StageCalls):
    """Run."""

    async def run(
        self,
        data: object = None,
        *,
        destination: DestinationReference | None = None,
        staging: DestinationReference | None = None,
        dataset_name: str | None = None,
        credentials: object = None,
        table_name: str | None = None,
        write_disposition: str | Mapping[str, object] | None = None,
        columns: ColumnHints | None = None,
        primary_key: str | Sequence[str] | None = None,
        merge_key: str | Sequence[str] | None = None,
        schema: Schema | None = None,
        schema_contract: str | Mapping[str, JsonValue] | None = None,
        table_format: str | None = None,
        loader_file_format: FileFormat | None = None,
        refresh: Refresh | None = None,
        run_id: str | None = None,
        on_pending: OnPending = "load_only",
        raise_on_failed_jobs: bool | None = None,
    ) -> LoadInfo:
        """Extract, normalize and load ``data``, all at once; everything becomes visible in one commit, or nothing.

        Packages that an earlier call left behind are normalized and committed first. With data passed and
        ``on_pending="load_only"`` (the reference's rule) this call then returns without taking the data; the returned
        info and a warning say so.

        Args:
            data: Resources, sources, (async) generators, iterables, rows, JSON bytes, Arrow, frames, coroutines; None
                to load only what is pending.
            destination: Replaces the pipeline's destination from this run on.
            staging: Replaces the staging destination.
            dataset_name: Replaces the pipeline's dataset from this run on.
            credentials: For the destination.
            table_name: Table for data without a name of its own; overrides that of resources.
            write_disposition: ``append``, ``replace``, ``merge``, ``skip`` or a mapping; for all resources.
            columns: Column hints for all resources.
            primary_key: For all resources.
            merge_key: For all resources.
            schema: Schema for all sources.
            schema_contract: What may change in the schema, a mode or a mapping from entity to mode; for all resources.
            table_format: For all resources.
            loader_file_format: Format of job files.
            refresh: ``drop_sources`` (tables, schema and state of each source), ``drop_resources`` (of the resources
                that are loaded) or ``drop_data`` (their rows and state) start over, in the commit of the new data.
            run_id: Makes a repeated call return the info of the run that has already committed under this id.
            on_pending: What to do with pending packages when data is passed.
            raise_on_failed_jobs: As for `load`.

        Raises:
            ConfigError: Wrong arguments; before any I/O.
            PipelineBusy: Another owner is at work and ``on_busy`` is ``raise``.
            PipelineStepFailed: Anything else; names the step, and what is pending afterwards.

        Cancellation:
            Safe at any await: nothing half-written is left, and the next run carries on.
        """
        check_pending(on_pending)
        expect_if_given("run", TEXT, run_id=run_id)
        expect_if_given("run", FLAG, raise_on_failed_jobs=raise_on_failed_jobs)
        mode = self._refresh_mode(refresh)
        raises = self._options.settings.raise_on_failed_jobs if raise_on_failed_jobs is None else raise_on_failed_jobs

        with self._entered():
            aim = await self._aimed(destination, staging, dataset_name, credentials)
            file_format = self._checked_format(loader_file_format, aim)
            sources = []

            if data is not None:
                sources = await self._sources(
                    data,
                    schema,
                    aim,
                    table_name=table_name,
                    write_disposition=write_disposition,
                    columns=columns,
                    primary_key=primary_key,
                    merge_key=merge_key,
                    schema_contract=schema_contract,
                    table_format=table_format,
                )

            request = RunRequest(
                sources=tuple(sources),
                run_id=run_id,
                file_format=file_format,
                schema_contract=schema_contract,
                refresh=mode,
            )
            call = RunCall(
                request=request,
                file_format=file_format,
                has_data=data is not None,
                on_pending=on_pending,
                raises=raises,
            )
            self._take(aim)

            return await self._run_and_record(call, described(data))

    # ------------------------------------------------------------------ inside

    async def _run_and_record(self, call: RunCall, data: Sequence[Mapping[str, str]]) -> LoadInfo:
        recorder, maker, outcome = self._recorder(), self._maker(), _Outcome()
        info_so_far = partial(self._run_info, recorder, maker, outcome, call.request.run_id)

        def note(info: StepInfo | None, error: BaseException | None) -> None:
            _note_steps(recorder, maker, outcome, data, info=info, error=error)
            recorder.done("run", info, error, whole=True)

        async with self._owned() as owned, self._recorded(recorder, owned.threads, info_so_far, note) as kept:
            with step("run", pipeline_name=self._name):
                await self._run_owned(owned, call, outcome)

        return kept.info

    async def _run_owned(self, owned: Owned, call: RunCall, outcome: _Outcome) -> None:
        run_id = call.request.run_id

        if run_id is not None:
            done = await owned.session.run_of(self._name, run_id)

            if done and not any(load_id in owned.pending.all for load_id in done):
                outcome.known = await in_thread(partial(_known_packages, owned.store, done), owned.threads)
                outcome.already_committed = True

                return

        if owned.pending:
            if call.has_data and call.on_pending == "raise":
                raise UsageError(
                    f"Pipeline {self._name!r} has pending load packages {', '.join(owned.pending.all)} from an earlier "
                    "call. Load them with run() without data, or give them up with abort_packages()."
                )

            await self._load_pending(owned, call, outcome)
            loaded = outcome.pending.loaded
            runs = {one.package.run_id for bundle in loaded.bundles for one in bundle.packages}

            if call.has_data and run_id is not None and run_id in runs:
                return

            # Nothing but packages that turned out to be empty: there was nothing pending.
            waits = loaded.is_stuck or (loaded.bundles and call.on_pending == "load_only")

            if call.has_data and waits:
                outcome.data_taken = False
                self._emit(Warned(pipeline_name=self._name, message=_not_taken(loaded)))

                return

        if call.replay is not None:
            await run_replay(
                owned, call.replay, outcome.ran, file_format=call.file_format, raise_on_failed_jobs=call.raises
            )
        elif call.has_data:
            await run_fused(
                owned, call.request, outcome.ran, file_format=call.file_format, raise_on_failed_jobs=call.raises
            )

    async def _load_pending(self, owned: Owned, call: RunCall, outcome: _Outcome) -> None:
        if owned.pending.extracted:
            await run_normalize(owned, outcome.pending.normalized, file_format=self._format_given)

        await load_pending(owned, outcome.pending.loaded, raise_on_failed_jobs=call.raises)

    def _run_info(self, recorder: Recorder, maker: Maker, outcome: _Outcome, run_id: str | None) -> LoadInfo:
        ran, pending = outcome.ran, outcome.pending
        normalized = [*pending.normalized, *ran.normalized]
        loaded = Loaded(bundles=[*pending.loaded.bundles, *ran.loaded.bundles])

        return maker.load(
            loaded,
            self._require_destination(),
            self._staging,
            self.dataset_name,
            started_at=recorder.started_at,
            report=run_report(ran.extracted, normalized, loaded),
            known=outcome.known,
            extracted=ran.extracted,
            notices=[notice for one in normalized for notice in one.notices],
            run_id=run_id,
            already_committed=outcome.already_committed,
            data_taken=outcome.data_taken,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """One call of run, checked."""

    request: RunRequest
    file_format: FileFormat
    has_data: bool
    on_pending: OnPending
    raises: bool
    replay: ReplayRequest | None = None
    """Rows to load from quarantine, instead of the request's sources."""


def _note_steps(
    recorder: Recorder,
    maker: Maker,
    outcome: _Outcome,
    data: Sequence[Mapping[str, str]],
    *,
    info: StepInfo | None,
    error: BaseException | None,
) -> None:
    """The steps of a run: those that ended well, and the one that failed."""
    failed = error.step if isinstance(error, PipelineStepFailed) else None
    ran = outcome.ran
    normalized = [*outcome.pending.normalized, *ran.normalized]

    if ran.extracted is not None and failed != "extract":
        recorder.done("extract", maker.extract(ran.extracted, data))

    if normalized and failed not in ("extract", "normalize"):
        recorder.done("normalize", maker.normalize(normalized))

    if info is not None and not info.is_empty:
        recorder.done("load", info)
    elif failed in ("extract", "normalize", "load"):
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
