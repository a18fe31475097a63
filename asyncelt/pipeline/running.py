"""The calls that move data: extract, normalize, load, and all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from asyncelt._async import in_thread
from asyncelt.config import Settings
from asyncelt.engine.dispositions import check_dispositions
from asyncelt.engine.loading import Loaded, load_pending
from asyncelt.engine.ownership import Folder, Owned, own
from asyncelt.engine.run import Normalized, Ran, RunRequest, run_extract, run_fused, run_normalize
from asyncelt.engine.steps import step
from asyncelt.errors import ConfigError, PipelineStepFailed, UsageError
from asyncelt.extract.data import as_sources
from asyncelt.extract.source import Source
from asyncelt.info.packages import LoadPackageInfo, package_info
from asyncelt.info.steps import ExtractInfo, LoadInfo, NormalizeInfo
from asyncelt.observe import Warned
from asyncelt.pipeline.base import PipelineBase
from asyncelt.pipeline.options import DestinationReference, check_pending, destination_of, one_of, staging_of
from asyncelt.pipeline.results import Maker, run_report
from asyncelt.pipeline.tracing import Recorder
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.storage.package import PackageStore
from asyncelt.types import FileFormat, JsonValue, LoadId, OnPending, Refresh

__all__ = ["RunningCalls"]


@dataclass(slots=True)
class _Outcome:
    """What run has come to, filled in on the way."""

    ran: Ran = field(default_factory=Ran)
    pending: Ran = field(default_factory=Ran)
    """What was pending before."""
    known: tuple[LoadPackageInfo, ...] = ()
    already_committed: bool = False
    data_taken: bool = True


class RunningCalls(PipelineBase):
    """Extract, normalize, load, run."""

    async def extract(
        self,
        data: object,
        *,
        table_name: str | None = None,
        parent_table_name: str | None = None,
        write_disposition: str | Mapping[str, object] | None = None,
        columns: ColumnHints | None = None,
        primary_key: str | Sequence[str] | None = None,
        merge_key: str | Sequence[str] | None = None,
        schema: Schema | None = None,
        max_parallel_items: int | None = None,
        workers: int | None = None,
        table_format: str | None = None,
        schema_contract: str | Mapping[str, JsonValue] | None = None,
        refresh: Refresh | None = None,
        loader_file_format: FileFormat | None = None,
    ) -> ExtractInfo:
        """Read ``data`` into packages in the working folder, which wait there for `normalize`, here or elsewhere.

        Works without a destination. With one, a folder that knows nothing yet first asks it for the pipeline's state.

        Args:
            data: As for `run`.
            table_name: As for `run`, like all hints.
            parent_table_name: Hint: the table that rows are nested in.
            write_disposition: Hint.
            columns: Hint.
            primary_key: Hint.
            merge_key: Hint.
            schema: Schema for all sources.
            max_parallel_items: Accepted for the reference's sake: the memory budget is the bound.
            workers: The same.
            table_format: Hint.
            schema_contract: Hint; also kept as the schemas' own.
            refresh: What starts over before the data is loaded, as for `run`.
            loader_file_format: Format of job files, for `normalize`.

        Raises:
            ConfigError: Wrong arguments; before any I/O.
            PipelineBusy: Another owner is at work and ``on_busy`` is ``raise``.
            PipelineStepFailed: Step ``extract``: nothing is left, state and schemas are as before.

        Cancellation:
            Safe at any await: nothing is left.
        """
        for name, count in (("max_parallel_items", max_parallel_items), ("workers", workers)):
            _at_least_one(name, count)

        file_format = self._checked_format(loader_file_format) if loader_file_format is not None else None
        sources = await self._sources(
            data,
            schema,
            table_name=table_name,
            parent_table_name=parent_table_name,
            write_disposition=write_disposition,
            columns=columns,
            primary_key=primary_key,
            merge_key=merge_key,
            schema_contract=schema_contract,
            table_format=table_format,
        )
        request = RunRequest(
            sources=tuple(sources),
            file_format=file_format,
            schema_contract=schema_contract,
            refresh=self._refresh_mode(refresh),
        )
        recorder, maker = self._recorder(), self._maker()
        last = await self._state_of_an_empty_folder()

        async with self._folder() as folder:
            try:
                with step("extract", pipeline_name=self._name):
                    extracted = await run_extract(folder, request, last_load_id=last)
            except BaseException as error:
                recorder.done("extract", error=error)
                await self._record(recorder.steps, folder.threads)
                raise

            info = maker.extract(extracted, _described(data))
            recorder.done("extract", info)
            await self._record(recorder.steps, folder.threads)

        return info

    async def normalize(
        self, workers: int | None = None, loader_file_format: FileFormat | None = None
    ) -> NormalizeInfo | None:
        """Turn extracted packages into job files for the destination, oldest first.

        Args:
            workers: Threads that turn pages into columns; None: as set. Never changes the result.
            loader_file_format: Format of job files; None: what extract was told, else as set.

        Returns:
            None when nothing was ever extracted.

        Raises:
            ConfigError: Wrong arguments, or no destination.
            PipelineStepFailed: Step ``normalize``: the package at hand and later ones stay extracted.

        Cancellation:
            Safe at any await: packages that are done stay done.
        """
        settings = self._with_limits(normalize_workers=_at_least_one("workers", workers))
        self._require_destination()

        if loader_file_format is not None:
            self._checked_format(loader_file_format)

        recorder, maker = self._recorder(), self._maker()
        done: list[Normalized] = []

        async with self._folder(settings) as folder:
            if not folder.pending and not folder.tip.schemas:
                return None

            await self._normalized(folder, done, loader_file_format, recorder)
            info = maker.normalize(done, started_at=recorder.started_at)
            recorder.done("normalize", info)
            await self._record(recorder.steps, folder.threads)

        return info

    async def load(
        self,
        destination: DestinationReference | None = None,
        dataset_name: str | None = None,
        credentials: object = None,
        *,
        workers: int | None = None,
        raise_on_failed_jobs: bool | None = None,
    ) -> LoadInfo | None:
        """Commit normalized packages, oldest first, each run's packages in one transaction.

        Args:
            destination: Replaces the pipeline's destination from this call on.
            dataset_name: Replaces the pipeline's dataset from this call on.
            credentials: For the destination.
            workers: Jobs that move at the same time; None: as set.
            raise_on_failed_jobs: False: a job that the destination refuses is reported in the info instead of raised;
                the package stays pending, nothing of it is visible, and later ones wait. None: as set.

        Returns:
            None when there was never anything to load.

        Raises:
            ConfigError: Wrong arguments, or no destination.
            PipelineStepFailed: Step ``load``: the package at hand and later ones stay pending.

        Cancellation:
            Safe at any await. A COMMIT that was sent is awaited, up to its deadline.
        """
        self._point_to(destination, None, dataset_name, credentials)
        settings = self._with_limits(load_workers=_at_least_one("workers", workers))
        self._require_destination()
        raises = self._raises(raise_on_failed_jobs)
        recorder, maker = self._recorder(), self._maker()

        async with self._owned(settings) as owned:
            if not owned.pending and not owned.tip.schemas:
                return None

            loaded = Loaded()

            try:
                with step("load", pipeline_name=self._name):
                    loaded = await load_pending(owned, raise_on_failed_jobs=raises)
            except BaseException as error:
                recorder.done("load", error=error)
                await self._record(recorder.steps, owned.threads)
                raise

            info = maker.load(
                loaded,
                self._require_destination(),
                self._staging,
                self.dataset_name,
                started_at=recorder.started_at,
                report=run_report(None, (), loaded),
            )
            recorder.done("load", info)
            await self._record(recorder.steps, owned.threads)

        return info

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
            refresh: ``drop_sources`` (tables, schema and state of each source), ``drop_resources`` (of the resources that
                are loaded) or ``drop_data`` (their rows and state) start over, in the same commit as the new data.
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
        self._point_to(destination, staging, dataset_name, credentials)
        check_pending(on_pending)
        self._require_destination()
        file_format = self._checked_format(loader_file_format)
        sources = []

        if data is not None:
            sources = await self._sources(
                data,
                schema,
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
            refresh=self._refresh_mode(refresh),
        )
        call = _RunCall(
            request=request,
            file_format=file_format,
            has_data=data is not None,
            on_pending=on_pending,
            raises=self._raises(raise_on_failed_jobs),
        )

        return await self._run_and_record(call, _described(data))

    # ------------------------------------------------------------------ inside

    async def _run_and_record(self, call: _RunCall, data: Sequence[Mapping[str, str]]) -> LoadInfo:
        recorder, maker, outcome = self._recorder(), self._maker(), _Outcome()

        async with self._owned() as owned:
            try:
                with step("run", pipeline_name=self._name):
                    await self._run_owned(owned, call, outcome)
            except BaseException as error:
                self._note_steps(recorder, maker, outcome, data, error=error)
                recorder.done("run", error=error, whole=True)
                await self._record(recorder.steps, owned.threads)
                raise

            info = self._run_info(recorder, maker, outcome, call.request.run_id)
            self._note_steps(recorder, maker, outcome, data, info=info)
            recorder.done("run", info, whole=True)
            await self._record(recorder.steps, owned.threads)

        return info

    async def _run_owned(self, owned: Owned, call: _RunCall, outcome: _Outcome) -> None:
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

        if call.has_data:
            await run_fused(
                owned, call.request, outcome.ran, file_format=call.file_format, raise_on_failed_jobs=call.raises
            )

    async def _load_pending(self, owned: Owned, call: _RunCall, outcome: _Outcome) -> None:
        if owned.pending.extracted:
            await run_normalize(owned, outcome.pending.normalized, file_format=self._format_given)

        outcome.pending.loaded = await load_pending(owned, raise_on_failed_jobs=call.raises)

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
            notices=[notice for one in normalized for notice in one.notices],
            run_id=run_id,
            already_committed=outcome.already_committed,
            data_taken=outcome.data_taken,
        )

    def _note_steps(
        self,
        recorder: Recorder,
        maker: Maker,
        outcome: _Outcome,
        data: Sequence[Mapping[str, str]],
        *,
        info: LoadInfo | None = None,
        error: BaseException | None = None,
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

    async def _normalized(
        self, folder: Folder, done: list[Normalized], file_format: FileFormat | None, recorder: Recorder
    ) -> None:
        def chosen(stored: str | None) -> FileFormat:
            return file_format or self._format_given(stored)

        try:
            await run_normalize(folder, done, file_format=chosen)
        except BaseException as error:
            recorder.done("normalize", error=error)
            await self._record(recorder.steps, folder.threads)
            raise

    async def _sources(self, data: object, schema: Schema | None, **hints: object) -> list[Source]:
        with step("extract", pipeline_name=self._name):
            sources = await as_sources(
                data,
                default_schema_name=schema.name if schema is not None else self.default_schema_name,
                **hints,  # type: ignore[arg-type]  # named and typed by the callers
            )

            if self._destination is not None:
                check_dispositions(sources, self._destination)

        if schema is not None:
            for source in sources:
                source.schema = schema

        return sources

    async def _state_of_an_empty_folder(self) -> LoadId | None:
        """Ask the destination where this pipeline stands, if nothing here knows; the dataset's greatest load id."""
        knows = self._head.load_id is not None or self._pending or self._head.edited is not None

        if self._destination is None or knows or not self._options.restore_from_destination or self.dev_mode:
            return None

        async with own(self._environment()) as owned, self._followed(owned):
            return owned.restored.last_load_id

    def _point_to(
        self,
        destination: DestinationReference | None,
        staging: DestinationReference | None,
        dataset_name: str | None,
        credentials: object,
    ) -> None:
        """Change where the pipeline writes, from this call on."""
        reference = destination if destination is not None or credentials is None else self._destination
        found = destination_of(reference, credentials, self._name) or self._destination

        self._staging = staging_of(staging, found, self._name) or self._staging
        self._destination = found

        if dataset_name is not None:
            self._dataset_name = dataset_name

    def _checked_format(self, given: FileFormat | None) -> FileFormat:
        """The format of job files: the one that was given, else the configured one, else what the destination likes."""
        capabilities = self._environment().capabilities
        formats = capabilities.file_formats
        chosen = given or self._options.settings.loader_file_format or formats[0]

        if chosen not in formats:
            name = self._destination.destination_name if self._destination is not None else "(none yet)"

            raise ConfigError(f"Destination {name!r} takes {', '.join(formats)}, not {chosen!r}.")

        return chosen

    def _format_given(self, stored: str | None) -> FileFormat:
        """The format that an extracted package asks for, where the destination takes it."""
        return self._checked_format(stored if stored in self._environment().capabilities.file_formats else None)

    def _refresh_mode(self, given: Refresh | None) -> Refresh | None:
        one_of("refresh", given, Refresh)

        return given or self._options.refresh

    def _raises(self, given: bool | None) -> bool:
        return self._options.settings.raise_on_failed_jobs if given is None else given

    def _with_limits(self, **changes: int | None) -> Settings:
        settings = self._options.settings
        said = {name: value for name, value in changes.items() if value is not None}

        return replace(settings, limits=replace(settings.limits, **said)) if said else settings  # type: ignore[arg-type]

    def _recorder(self) -> Recorder:
        return Recorder(self._name)

    def _maker(self) -> Maker:
        return Maker(pipeline=self, pipeline_name=self._name, first_run=self.first_run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunCall:
    """One call of run, checked."""

    request: RunRequest
    file_format: FileFormat
    has_data: bool
    on_pending: OnPending
    raises: bool


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


def _described(data: object) -> list[Mapping[str, str]]:
    """Name and kind of what was passed."""
    items = data if isinstance(data, list | tuple) and data and not isinstance(data[0], dict) else [data]

    return [
        {"name": str(getattr(one, "name", "") or getattr(one, "__name__", "")), "data_type": type(one).__name__}
        for one in items[:100]
        if one is not None
    ]


def _at_least_one(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be at least 1, not {value}.")

    return value
