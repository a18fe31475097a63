"""The public face: a pipeline is a name, a working folder, a destination and a dataset.

Building one does no network and at most one small read of a local file. Everything that touches disk or network
is a coroutine and runs in the caller's own event loop; every property answers from memory.
"""

from __future__ import annotations

import copy
import re
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import anyio

from asyncelt._async import in_thread
from asyncelt.budget import ByteBudget
from asyncelt.config import Settings, working_root
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.configuration.settings import configured_settings, pipeline_options
from asyncelt.engine.dispositions import check_dispositions
from asyncelt.engine.environment import Environment
from asyncelt.engine.ownership import Owned, own, own_folder
from asyncelt.engine.run import Loaded, RunRequest, load_pending, run_fused
from asyncelt.engine.steps import step
from asyncelt.errors import (
    AsynceltWarning,
    CannotRestorePipeline,
    ConfigError,
    InvalidPipelineName,
    PipelineConfigMissing,
    SchemaNotFound,
    UsageError,
)
from asyncelt.extract.data import as_sources
from asyncelt.extract.source import Source
from asyncelt.info import LoadInfo, LoadPackageInfo, package_info, utc
from asyncelt.load.protocol import Destination
from asyncelt.load.registry import resolve
from asyncelt.observe import Event, Observer, Warned
from asyncelt.progress import observer_for
from asyncelt.reading.client import SqlClient, opened_client
from asyncelt.reading.dataset import Dataset, chosen_schemas
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import naming_for
from asyncelt.storage.files import remove_tree
from asyncelt.storage.head import Head, read_head
from asyncelt.storage.package import PackageStore
from asyncelt.storage.state import decode_state, default_state
from asyncelt.types import FileFormat, JsonValue, LoadId, OnBusy, OnPending

__all__ = ["Pipeline", "attach", "pipeline", "run"]

DestinationReference: TypeAlias = "str | Destination | Callable[[], object] | ModuleType"
"""A name, an instance, a factory, or a module with one."""

_active: ContextVar[Pipeline | None] = ContextVar("asyncelt_active_pipeline", default=None)


@dataclass(frozen=True, slots=True)
class _Outcome:
    packages: tuple[LoadPackageInfo, ...]
    loaded: Loaded = field(default_factory=Loaded)
    already_committed: bool = False
    data_taken: bool = True


class Pipeline:
    """Loads data into one dataset of one destination, and remembers how far it got.

    Use :func:`asyncelt.pipeline` to make one. Several pipelines may run side by side in one event loop; two runs of
    the same pipeline (and member) take turns, or the second raises, as ``on_busy`` says.
    """

    def __init__(
        self,
        pipeline_name: str,
        *,
        pipelines_dir: Path,
        destination: Destination | None,
        dataset_name: str | None,
        settings: Settings,
        budget: ByteBudget,
        observers: Sequence[Observer],
        member: str,
        on_busy: OnBusy,
        restore_from_destination: bool,
    ) -> None:
        self._name = pipeline_name
        self._pipelines_dir = pipelines_dir
        self._destination = destination.for_pipeline(pipeline_name) if destination is not None else None
        self._dataset_name = dataset_name
        self._settings = settings
        self._budget = budget
        self._observers = list(observers)
        self._member = member
        self._on_busy: OnBusy = on_busy
        self._restore = restore_from_destination
        self._head = read_head(self._root)
        self._pending: list[LoadId] = PackageStore(self._root).sealed_ids()

    # ------------------------------------------------------------------ properties: answered from memory

    @property
    def pipeline_name(self) -> str:
        """The name that state and working folder go by."""
        return self._name

    @property
    def member(self) -> str:
        """Name of this process among several that run the pipeline; "" when there is only one."""
        return self._member

    @property
    def pipelines_dir(self) -> str:
        """Folder with one working folder per pipeline."""
        return str(self._pipelines_dir)

    @property
    def working_dir(self) -> str:
        """This pipeline's working folder."""
        return str(self._root)

    @property
    def destination(self) -> Destination | None:
        """Where the data goes."""
        return self._destination

    @property
    def dataset_name(self) -> str | None:
        """Name of the dataset, after the destination's naming convention; None while there is no destination."""
        if self._destination is None and self._dataset_name is None:
            return None

        raw = self._dataset_name or f"{self._name}_dataset"
        capabilities = self._destination.capabilities if self._destination is not None else None
        convention = capabilities.naming_convention if capabilities else "snake_case"

        return naming_for(convention, capabilities.max_identifier_length if capabilities else None).identifier(raw)

    @property
    def default_schema_name(self) -> str:
        """Name of the schema that plain data goes by."""
        known = self.state.get("default_schema_name")

        if isinstance(known, str):
            return known

        return naming_for("snake_case", 64).identifier(self._name.removesuffix("_pipeline") or self._name)

    @property
    def schema_names(self) -> list[str]:
        """Names of all schemas, sorted."""
        return sorted(self._head.schemas)

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """All schemas as of the last committed package."""
        return dict(self._head.schemas)

    @property
    def default_schema(self) -> Schema:
        """The default schema.

        Raises:
            SchemaNotFound: Nothing has been loaded yet.
        """
        schema = self._head.schemas.get(self.default_schema_name)

        if schema is None:
            raise SchemaNotFound(f"Pipeline {self._name!r} has no schema yet: run it once.")

        return schema

    @property
    def state(self) -> dict[str, object]:
        """A copy of the state document as of the last package; changing it has no effect."""
        if self._head.state is None:
            return default_state(self._name)

        return copy.deepcopy(decode_state(self._head.state))

    @property
    def first_run(self) -> bool:
        """True until a load has ended well, or state was restored from the destination."""
        return bool(self._head.local.get("first_run", True))

    @property
    def has_pending_data(self) -> bool:
        """Whether sealed packages wait for their commit, as of the last call of this object."""
        return bool(self._pending)

    @property
    def has_data(self) -> bool:
        """Whether this pipeline has ever loaded anything, or has something to load."""
        return not self.first_run or bool(self._head.schemas) or self.has_pending_data

    @property
    def is_active(self) -> bool:
        """Whether this is the pipeline that ``asyncelt.pipeline()`` returns in this task."""
        return _active.get() is self

    def __repr__(self) -> str:
        kind = self._destination.destination_name if self._destination else None

        return (
            f"<asyncelt.pipeline(pipeline_name={self._name!r}, destination={kind!r}, "
            f"dataset_name={self.dataset_name!r})>"
        )

    def activate(self) -> None:
        """Make this the pipeline that ``asyncelt.pipeline()`` without arguments returns in this task."""
        _active.set(self)
        PIPELINE.set(self._name)

    def deactivate(self) -> None:
        """Undo `activate`.

        Raises:
            UsageError: It is not active in this task.
        """
        if not self.is_active:
            raise UsageError(f"Pipeline {self._name!r} is not active in this task.")

        _active.set(None)
        PIPELINE.set(None)

    # ------------------------------------------------------------------ run

    async def run(
        self,
        data: object = None,
        *,
        destination: DestinationReference | None = None,
        dataset_name: str | None = None,
        table_name: str | None = None,
        write_disposition: str | Mapping[str, object] | None = None,
        columns: ColumnHints | None = None,
        primary_key: str | Sequence[str] | None = None,
        merge_key: str | Sequence[str] | None = None,
        schema: Schema | None = None,
        schema_contract: str | Mapping[str, JsonValue] | None = None,
        loader_file_format: FileFormat | None = None,
        run_id: str | None = None,
        on_pending: OnPending = "load_only",
    ) -> LoadInfo:
        """Extract, normalize and load ``data``, all at once; everything becomes visible in one commit, or nothing.

        Packages that an earlier run sealed but did not commit are committed first. With data passed and
        ``on_pending="load_only"`` (the reference's rule) this call then returns without taking the data; the returned
        info and a warning say so.

        Args:
            data: Resources, sources, (async) generators, iterables, rows, JSON bytes, Arrow, frames, coroutines; None
                to load only what is pending.
            destination: Replaces the pipeline's destination from this run on.
            dataset_name: Replaces the pipeline's dataset from this run on.
            table_name: Table for data without a name of its own; overrides that of resources.
            write_disposition: ``append``, ``replace``, ``merge``, ``skip`` or a mapping; for all resources.
            columns: Column hints for all resources.
            primary_key: For all resources.
            merge_key: For all resources.
            schema: Schema for all sources.
            schema_contract: What may change in the schema, a mode or a mapping from entity to mode; for all resources.
            loader_file_format: Format of job files.
            run_id: Makes a repeated call return the info of the run that has already committed under this id.
            on_pending: What to do with pending packages when data is passed.

        Raises:
            ConfigError: Wrong arguments; before any I/O.
            PipelineBusy: Another owner is at work and ``on_busy`` is ``raise``.
            PipelineStepFailed: Anything else; names the step, and what is pending afterwards.

        Cancellation:
            Safe at any await: nothing half-written is left, and the next run carries on.
        """
        if destination is not None:
            self._destination = resolve(destination).for_pipeline(self._name)

        if dataset_name is not None:
            self._dataset_name = dataset_name

        environment = self._environment()
        file_format = self._file_format(environment, loader_file_format)
        sources: list[Source] = []

        if data is not None:
            with step("extract", pipeline_name=self._name):
                sources = await as_sources(
                    data,
                    default_schema_name=schema.name if schema is not None else environment.default_schema_name,
                    table_name=table_name,
                    write_disposition=write_disposition,
                    columns=columns,
                    primary_key=primary_key,
                    merge_key=merge_key,
                    schema_contract=schema_contract,
                )
                check_dispositions(sources, environment.destination)

        request = RunRequest(
            sources=tuple(sources), run_id=run_id, file_format=file_format, schema_contract=schema_contract
        )
        started_at = time.time()
        first_run = self.first_run

        async with self._owned(environment) as owned:
            with step("run", pipeline_name=self._name):
                outcome = await self._run_owned(owned, request, has_data=data is not None, on_pending=on_pending)

        return self._info(outcome, started_at=started_at, first_run=first_run, run_id=run_id)

    async def _run_owned(self, owned: Owned, request: RunRequest, *, has_data: bool, on_pending: OnPending) -> _Outcome:
        if request.run_id is not None:
            done = await owned.session.run_of(self._name, request.run_id)

            if done and not any(load_id in self._pending for load_id in done):
                known = await in_thread(partial(_known_packages, owned.store, done), owned.threads)

                return _Outcome(known, already_committed=True)

        loaded = Loaded()

        if self._pending:
            if has_data and on_pending == "raise":
                raise UsageError(
                    f"Pipeline {self._name!r} has pending load packages {', '.join(self._pending)} from an earlier "
                    "run. Load them with run() without data, or abort them with abort_packages()."
                )

            loaded = await load_pending(owned)
            finished = any(sealed.package.run_id == request.run_id for sealed in loaded.packages)

            if has_data and request.run_id is not None and finished:
                return _Outcome(_infos(loaded))

            if has_data and on_pending == "load_only":
                self._emit(
                    Warned(
                        pipeline_name=self._name,
                        message=(
                            "Packages of an earlier run were pending and have been loaded; the data passed to this run "
                            "was NOT taken. Run again, or pass on_pending='load_then_run'."
                        ),
                    )
                )

                return _Outcome(_infos(loaded), data_taken=False)

        if has_data:
            fresh = await run_fused(owned, request)
            loaded.packages += fresh.packages
            loaded.reports += fresh.reports
            loaded.notices += fresh.notices
            loaded.peak_memory = fresh.peak_memory

        return _Outcome(_infos(loaded), loaded=loaded)

    def _file_format(self, environment: Environment, given: FileFormat | None) -> FileFormat:
        formats = environment.destination.capabilities.file_formats
        chosen = given or self._settings.loader_file_format or formats[0]

        if chosen not in formats:
            raise ConfigError(
                f"Destination {environment.destination.destination_name!r} takes {', '.join(formats)}, not {chosen!r}."
            )

        return chosen

    def _info(self, outcome: _Outcome, *, started_at: float, first_run: bool, run_id: str | None) -> LoadInfo:
        destination = self._require_destination()

        return LoadInfo(
            pipeline_name=self._name,
            destination_type=destination.destination_type,
            destination_name=destination.destination_name,
            destination_displayable_credentials=destination.location,
            dataset_name=self.dataset_name,
            load_packages=outcome.packages,
            started_at=utc(started_at),
            finished_at=utc(time.time()),
            first_run=first_run,
            run_id=run_id,
            already_committed=outcome.already_committed,
            data_taken=outcome.data_taken,
            notices=tuple(outcome.loaded.notices),
            retries=sum(report.retries for report in outcome.loaded.reports),
            peak_memory=outcome.loaded.peak_memory,
        )

    # ------------------------------------------------------------------ other calls

    async def sync_destination(self) -> None:
        """Take over what the destination knows about this pipeline where it is ahead of the working folder.

        Raises:
            PipelineStepFailed: Step ``sync``: the destination could not be reached or read.
        """
        async with self._owned(self._environment()):
            pass

    async def drop(self) -> Pipeline:
        """Remove the working folder: state, schemas and pending packages. The destination is not touched.

        Returns:
            This pipeline, as if new.
        """
        async with self._owned_folder() as (store, _, threads):
            await in_thread(partial(remove_tree, store.root / "packages"), threads)
            await in_thread(partial((store.root / "head.json").unlink, missing_ok=True), threads)

        self._head = Head()
        self._pending = []

        return self

    async def abort_packages(self) -> list[LoadId]:
        """Give up all pending packages; state goes back to what the destination has.

        Returns:
            Their ids.
        """
        async with self._owned_folder() as (store, _, threads):
            bundles = await in_thread(store.sealed_bundles, threads)
            packages = [sealed.package for bundle in bundles for sealed in bundle]
            keep = self._settings.limits.keep_completed
            await in_thread(partial(store.complete, packages, "aborted", keep=keep), threads)

        self._pending = []

        return [package.load_id for package in packages]

    def list_normalized_load_packages(self) -> list[LoadId]:
        """Ids of packages that wait for their commit, oldest first, as of the last call of this object."""
        return list(self._pending)

    async def list_completed_load_packages(self) -> list[LoadId]:
        """Ids of loaded and aborted packages whose manifest is still kept, oldest first."""
        return await in_thread(PackageStore(self._root).done_ids, anyio.CapacityLimiter(1))

    async def get_load_package_info(self, load_id: str) -> LoadPackageInfo:
        """One package as it stands now.

        Raises:
            LoadPackageNotFound: There is none with this id.
        """
        read = partial(PackageStore(self._root).read, LoadId(load_id))
        sealed = await in_thread(read, anyio.CapacityLimiter(1))

        return package_info(sealed.package, sealed.package.status)

    @asynccontextmanager
    async def sql_client(self, schema_name: str | None = None) -> AsyncIterator[SqlClient]:
        """A connection that answers ``await client.query(sql)`` with an Arrow table; see `SqlClient`.

        Unqualified table names mean this pipeline's dataset, which all its schemas share.

        Raises:
            PipelineConfigMissing: There is no destination.
            ConfigError: The destination cannot be read with SQL.
            SchemaNotFound: The pipeline has no schema of this name.
        """
        environment = self._environment()

        if schema_name is not None:
            chosen_schemas(self._head.schemas, schema_name, default=environment.default_schema_name)

        async with opened_client(environment.destination, environment.target) as client:
            yield client

    def dataset(self, schema: Schema | str | None = None) -> Dataset:
        """The dataset as lazy relations that are read by awaiting them; does no I/O. See `Dataset`.

        Args:
            schema: Only this schema; all that the pipeline knows unless given.

        Raises:
            PipelineConfigMissing: There is no destination.
            ConfigError: The destination cannot be read with SQL.
            SchemaNotFound: The pipeline has no schema of this name.
        """
        environment = self._environment()
        chosen = partial(chosen_schemas, wanted=schema, default=environment.default_schema_name)
        chosen(self._head.schemas)

        return Dataset(environment.destination, environment.target, lambda: chosen(self._head.schemas))

    # ------------------------------------------------------------------ inside

    @property
    def _root(self) -> Path:
        root = self._pipelines_dir / self._name

        return root / f"member-{self._member}" if self._member else root

    def _require_destination(self) -> Destination:
        if self._destination is None:
            raise PipelineConfigMissing(
                f"Pipeline {self._name!r} has no destination: asyncelt.pipeline({self._name!r}, destination='duckdb')."
            )

        return self._destination

    def _owned_folder(
        self,
    ) -> AbstractAsyncContextManager[tuple[PackageStore, list[LoadId], anyio.CapacityLimiter]]:
        return own_folder(self._root, pipeline_name=self._name, member=self._member, on_busy=self._on_busy)

    def _environment(self) -> Environment:
        return Environment(
            pipeline_name=self._name,
            member=self._member,
            dataset_name=self.dataset_name or "",
            default_schema_name=self.default_schema_name,
            root=self._root,
            destination=self._require_destination(),
            settings=self._settings,
            budget=self._budget,
            emit=self._emit,
            on_busy=self._on_busy,
            restore_from_destination=self._restore,
        )

    @asynccontextmanager
    async def _owned(self, environment: Environment) -> AsyncIterator[Owned]:
        async with own(environment) as owned:
            self._head = owned.head
            self._pending = list(owned.pending)

            try:
                yield owned
            finally:
                self._head = owned.head
                self._pending = list(owned.pending)

    def _emit(self, event: Event) -> None:
        if isinstance(event, Warned):
            warnings.warn(f"Pipeline {event.pipeline_name!r}: {event.message}", AsynceltWarning, stacklevel=2)

        for observer in list(self._observers):
            try:
                observer.on_event(event)
            except Exception as error:
                self._observers.remove(observer)
                warnings.warn(f"Observer {observer!r} failed and was dropped: {error!r}", AsynceltWarning, stacklevel=2)


def _known_packages(store: PackageStore, load_ids: Sequence[LoadId]) -> tuple[LoadPackageInfo, ...]:
    kept = set(store.done_ids())

    return tuple(package_info(store.read(load_id).package, "loaded") for load_id in load_ids if load_id in kept)


def _infos(loaded: Loaded) -> tuple[LoadPackageInfo, ...]:
    updates: dict[str, Mapping[str, tuple[str, ...]]] = {}

    for report in loaded.reports:
        if report.result is not None:
            updates.update(report.result.schema_updates)

    return tuple(
        package_info(sealed.package, "loaded", updates.get(sealed.package.load_id)) for sealed in loaded.packages
    )


_NAME = re.compile(r"[^\x00-\x1f/\\:]+")


def check_pipeline_name(name: str) -> str:
    """Return the name if it can be a folder.

    Raises:
        InvalidPipelineName: It cannot.
    """
    if not name or name in {".", ".."} or not _NAME.fullmatch(name) or len(name.encode()) > 200:
        raise InvalidPipelineName(
            f"{name!r} cannot be a pipeline name: it has to work as the name of a folder (no slashes, no control "
            "characters, at most 200 bytes)."
        )

    return name


def pipeline(
    pipeline_name: str | None = None,
    *,
    pipelines_dir: str | Path | None = None,
    destination: DestinationReference | None = None,
    dataset_name: str | None = None,
    progress: str | Observer | None = None,
    settings: Settings | None = None,
    max_memory: int | ByteBudget | None = None,
    workers: int | None = None,
    member: str = "",
    on_busy: OnBusy = "wait",
    restore_from_destination: bool | None = None,
) -> Pipeline:
    """Make a pipeline, or find the one that is active in this task when called without arguments.

    Does no network and at most one small read of a local file, beside that of the configuration files, which are read
    once. Arguments that are not passed may be configured, under ``pipelines.<name>``.

    Args:
        pipeline_name: Default: ``asyncelt_`` and the name of the program.
        pipelines_dir: Folder for working folders. Default: ``~/.asyncelt/pipelines``, or under ``ASYNCELT_DATA_DIR``.
        destination: A name such as ``"duckdb"``, a factory or an instance from `asyncelt.destinations`.
        dataset_name: Default: the pipeline's name and ``_dataset``.
        progress: ``rich``, ``tqdm``, ``log`` or an own observer.
        settings: Limits and retries, used as they are; without it they are taken from the configuration.
        max_memory: Bytes of data in flight, or a budget shared with other pipelines of this event loop.
        workers: Threads that turn pages into columns. Never changes the result.
        member: Name of this process among several that run the same pipeline.
        on_busy: What a second run of the same pipeline and member does: ``wait`` or ``raise``.
        restore_from_destination: Whether state is kept at the destination and restored from it.

    Raises:
        ConfigError: An argument is wrong.
    """
    active = _active.get()

    if pipeline_name is None and destination is None and dataset_name is None and active is not None:
        return active

    name = check_pipeline_name(pipeline_name if pipeline_name is not None else f"asyncelt_{_program_name()}")
    PIPELINE.set(name)
    checked = _with_workers(settings or configured_settings(), workers)
    options = pipeline_options(name)
    destination = destination if destination is not None else options.destination
    folder = pipelines_dir if pipelines_dir is not None else options.pipelines_dir
    shown = progress if progress is not None else options.progress
    restore = restore_from_destination if restore_from_destination is not None else options.restore_from_destination

    if isinstance(max_memory, int):
        checked = replace(checked, limits=replace(checked.limits, max_memory=max_memory))

    if on_busy not in ("wait", "raise"):
        raise ConfigError(f"on_busy is 'wait' or 'raise', not {on_busy!r}.")

    if member:
        check_pipeline_name(member)

    made = Pipeline(
        name,
        pipelines_dir=Path(folder) if folder is not None else working_root(),
        destination=resolve(destination) if destination is not None else None,
        dataset_name=dataset_name if dataset_name is not None else options.dataset_name,
        settings=checked,
        budget=max_memory if isinstance(max_memory, ByteBudget) else ByteBudget(checked.limits.max_memory),
        observers=[observer_for(shown)] if shown is not None else [],
        member=member,
        on_busy=on_busy,
        restore_from_destination=restore is not False,
    )
    made.activate()

    return made


async def attach(
    pipeline_name: str,
    *,
    pipelines_dir: str | Path | None = None,
    destination: DestinationReference | None = None,
    dataset_name: str | None = None,
    progress: str | Observer | None = None,
) -> Pipeline:
    """Find a pipeline that has run before: in its working folder, else at the destination.

    Raises:
        CannotRestorePipeline: Neither knows it.
    """
    found = pipeline(
        pipeline_name,
        pipelines_dir=pipelines_dir,
        destination=destination,
        dataset_name=dataset_name,
        progress=progress,
    )

    if not found.has_data and found.destination is not None:
        await found.sync_destination()

    if not found.has_data:
        raise CannotRestorePipeline(
            f"There is no pipeline {pipeline_name!r} in {found.pipelines_dir}"
            + (f" or in dataset {found.dataset_name!r} at {found.destination.location}." if found.destination else ".")
        )

    return found


async def run(
    data: object,
    *,
    destination: DestinationReference | None = None,
    dataset_name: str | None = None,
    table_name: str | None = None,
    write_disposition: str | Mapping[str, object] | None = None,
    columns: ColumnHints | None = None,
    primary_key: str | Sequence[str] | None = None,
) -> LoadInfo:
    """Run the active pipeline of this task, or a new one with default names, over ``data``. See `Pipeline.run`."""
    return await pipeline().run(
        data,
        destination=destination,
        dataset_name=dataset_name,
        table_name=table_name,
        write_disposition=write_disposition,
        columns=columns,
        primary_key=primary_key,
    )


def _program_name() -> str:
    stem = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in {"", "-c", "-m"} else ""

    return stem or "pipeline"


def _with_workers(settings: Settings, workers: int | None) -> Settings:
    if workers is None:
        return settings

    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}.")

    return replace(settings, limits=replace(settings.limits, normalize_workers=workers))
