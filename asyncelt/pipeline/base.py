"""What every call of a pipeline stands on: its options, its facts, and the ways to own it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from asyncelt._async import in_thread, shielded
from asyncelt.config import Settings
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.engine.environment import Environment
from asyncelt.engine.ownership import Folder, Owned, own, own_folder
from asyncelt.errors import (
    AsynceltWarning,
    PackageCorrupt,
    PipelineConfigMissing,
    PipelineNotActive,
    PipelineStepFailed,
    SchemaNotFound,
    warn,
)
from asyncelt.info.trace import PipelineTrace, StepTrace
from asyncelt.load.protocol import Destination
from asyncelt.load.staging import check_staging
from asyncelt.observe import Event, Warned
from asyncelt.pipeline import schema_files
from asyncelt.pipeline.options import DestinationReference, Options, active, destination_of, resolved, staging_of
from asyncelt.pipeline.tracing import keep_trace, read_trace
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import Naming, naming_for
from asyncelt.storage.head import Head, Tip, read_head, read_tip
from asyncelt.storage.package import PackageStore, Pending
from asyncelt.storage.state import StateDoc, decode_state, default_state

__all__ = ["PipelineBase"]

_CLEANUP_S = 10.0


class PipelineBase:
    """Facts about a pipeline, answered from memory, and the doors to its folder and destination."""

    def __init__(
        self,
        pipeline_name: str,
        options: Options,
        *,
        destination: Destination | None = None,
        staging: Destination | None = None,
        dataset_name: str | None = None,
    ) -> None:
        self._name = pipeline_name
        self._options = options
        self._observers = list(options.observers)
        self._destination = destination
        self._staging = staging
        self._dataset_name = dataset_name
        self._starts_anew = options.starts_anew
        self._head = Head()
        self._pending = Pending()
        self._tip = Tip()
        self._last_trace: PipelineTrace | None = None

        if not self._starts_anew:
            self._read_folder()

    # ------------------------------------------------------------------ what it is

    @property
    def pipeline_name(self) -> str:
        """The name that state and working folder go by."""
        return self._name

    @property
    def member(self) -> str:
        """Name of this process among several that run the pipeline; "" when there is only one."""
        return self._options.member

    @property
    def pipelines_dir(self) -> str:
        """Folder with one working folder per pipeline."""
        return str(self._options.pipelines_dir)

    @property
    def working_dir(self) -> str:
        """This pipeline's working folder."""
        return str(self._root)

    @property
    def pipeline_salt(self) -> str:
        """Given by the user, else made from the name. Nothing is encrypted with it yet."""
        return self._options.pipeline_salt

    @property
    def dev_mode(self) -> bool:
        """Whether each instance begins with an empty folder and a dataset of its own."""
        return self._options.dev_mode

    @property
    def refresh(self) -> str | None:
        """What extract and run refresh where they are not told."""
        return self._options.refresh

    @property
    def destination(self) -> Destination | None:
        """Where the data goes."""
        return self._destination

    @destination.setter
    def destination(self, reference: DestinationReference) -> None:
        found = destination_of(reference, None, self._name)

        if found is not None and self._staging is not None:
            check_staging(found, self._staging)

        self._destination = found

    @property
    def staging(self) -> Destination | None:
        """Where job files go before the destination loads them."""
        return self._staging

    @staging.setter
    def staging(self, reference: DestinationReference) -> None:
        self._staging = staging_of(reference, self._destination, self._name)

    @property
    def dataset_name(self) -> str | None:
        """Name of the dataset, after the destination's naming convention; None while there is no destination."""
        if self._destination is None and self._dataset_name is None:
            return None

        capabilities = self._destination.capabilities if self._destination is not None else None

        if self._dataset_name is None and capabilities is not None and not capabilities.dataset_required:
            return None

        raw = (self._dataset_name or f"{self._name}_dataset") + self._options.dataset_suffix
        convention = capabilities.naming_convention if capabilities else None

        return naming_for(
            convention or "snake_case", capabilities.max_identifier_length if capabilities else None
        ).identifier(raw)

    @property
    def is_active(self) -> bool:
        """Whether this is the pipeline that ``asyncelt.pipeline()`` returns in this task."""
        return active.get() is self

    def activate(self) -> None:
        """Make this the pipeline that ``asyncelt.pipeline()`` without arguments returns in this task."""
        PIPELINE.set(self._name)
        active.set(self)  # type: ignore[arg-type]  # the only subclass is Pipeline

    def deactivate(self) -> None:
        """Undo `activate`.

        Raises:
            PipelineNotActive: It is not active in this task.
        """
        if not self.is_active:
            raise PipelineNotActive(f"Pipeline {self._name!r} is not active in this task.")

        active.set(None)
        PIPELINE.set(None)

    # ------------------------------------------------------------------ what it knows

    @property
    def default_schema_name(self) -> str:
        """Name of the schema that plain data goes by."""
        known = self._document().get("default_schema_name")

        if isinstance(known, str):
            return known

        return naming_for("snake_case", 64).identifier(self._name.removesuffix("_pipeline") or self._name)

    @property
    def schema_names(self) -> list[str]:
        """Names of all schemas, sorted."""
        return sorted(self._tip.schemas)

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """All schemas as of the last package."""
        return _Schemas(self._name, self._tip.schemas)

    @property
    def default_schema(self) -> Schema:
        """The default schema.

        Raises:
            SchemaNotFound: Nothing has been extracted yet.
        """
        schema = self._tip.schemas.get(self.default_schema_name)

        if schema is None:
            raise SchemaNotFound(f"Pipeline {self._name!r} has no schema yet: run it once.")

        return schema

    @property
    def naming(self) -> Naming:
        """Naming convention of the default schema, else of the destination."""
        capabilities = self._destination.capabilities if self._destination is not None else None
        schema = self._tip.schemas.get(self.default_schema_name)
        names = schema.normalizers.get("names") if schema is not None else None
        convention = names if isinstance(names, str) else capabilities.naming_convention if capabilities else None

        return naming_for(convention or "snake_case", capabilities.max_identifier_length if capabilities else None)

    @property
    def state(self) -> dict[str, object]:
        """A copy of the state document as of the last package, pending ones included; changing it has no effect."""
        return {**copy.deepcopy(self._document()), "_local": self._local()}

    @property
    def first_run(self) -> bool:
        """True until a load has ended well, or state was restored from the destination."""
        return bool(self._head.local.get("first_run", True))

    @property
    def has_pending_data(self) -> bool:
        """Whether packages wait for normalize or load, as of the last call of this object."""
        return bool(self._pending)

    @property
    def has_data(self) -> bool:
        """Whether this pipeline has ever loaded anything, or has something to load."""
        return not self.first_run or bool(self._tip.schemas) or self.has_pending_data

    @property
    def last_trace(self) -> PipelineTrace | None:
        """What the last calls did; of an earlier process, if this object has made none."""
        if self._last_trace is None and not self._starts_anew:
            self._last_trace = read_trace(self._root)

        return self._last_trace

    def __repr__(self) -> str:
        said = {
            "pipeline_name": self._name,
            "destination": self._destination.destination_name if self._destination else None,
            "staging": self._staging.destination_name if self._staging else None,
            "dataset_name": self.dataset_name,
            "default_schema_name": self.default_schema_name if self._tip.schemas else None,
            "schema_names": self.schema_names or None,
            "first_run": self.first_run,
            "dev_mode": self.dev_mode or None,
            "is_active": self.is_active,
            "pipelines_dir": self.pipelines_dir,
            "working_dir": self.working_dir,
        }

        return (
            f"<asyncelt.pipeline({', '.join(f'{key}={value!r}' for key, value in said.items() if value is not None)})>"
        )

    # ------------------------------------------------------------------ inside

    @property
    def _root(self) -> Path:
        root = self._options.pipelines_dir / self._name

        return root / f"member-{self.member}" if self.member else root

    @property
    def _store(self) -> PackageStore:
        return PackageStore(self._root)

    def _document(self) -> StateDoc:
        encoded = self._tip.document

        return default_state(self._name) if encoded is None else decode_state(encoded)

    def _local(self) -> dict[str, object]:
        return {"first_run": True, "_dev_mode": self.dev_mode, **self._head.local}

    def _read_folder(self) -> None:
        """Take note of what the working folder says, as far as it can be read."""
        self._head = read_head(self._root)

        if self._head.local.get("_dev_mode") and not self.dev_mode:
            # Of an instance in dev_mode: the first call removes it.
            self._head = Head()
            return

        self._pending = self._store.pending()

        try:
            self._tip = read_tip(self._store, self._head, self._pending)
        except PackageCorrupt as error:
            warnings.warn(
                f"Pipeline {self._name!r}: {error} abort_packages() gives pending packages up.",
                AsynceltWarning,
                stacklevel=4,
            )
            self._tip = Tip(load_id=self._head.load_id, state=self._head.state, schemas=self._head.schemas)

    def _environment(self, settings: Settings | None = None) -> Environment:
        return Environment(
            pipeline_name=self._name,
            member=self.member,
            dataset_name=self.dataset_name or "",
            default_schema_name=self.default_schema_name,
            root=self._root,
            destination=self._destination,
            staging=self._staging,
            settings=settings or self._options.settings,
            budget=self._options.budget,
            emit=self._emit,
            on_busy=self._options.on_busy,
            restore_from_destination=self._options.restore_from_destination,
            dev_mode=self.dev_mode,
            start_anew=self._starts_anew,
        )

    async def _point_to(
        self,
        destination: DestinationReference | None,
        staging: DestinationReference | None,
        dataset_name: str | None,
        credentials: object,
    ) -> None:
        """Change where the pipeline writes, from this call on."""
        reference = destination if destination is not None or credentials is None else self._destination
        found, stage = await resolved(reference, credentials, staging, self._name, self._destination)
        stage = stage or self._staging

        if found is not None and stage is not None:
            check_staging(found, stage)

        self._destination, self._staging = found, stage

        if dataset_name is not None:
            self._dataset_name = dataset_name

    def _require_destination(self) -> Destination:
        return self._environment().required_destination

    def _require_schema(self, schema_name: str | None) -> Schema:
        if not self._tip.schemas and schema_name is None:
            raise PipelineConfigMissing(f"Pipeline {self._name!r} has no schema yet: run it once.")

        return self.default_schema if schema_name is None else self.schemas[schema_name]

    @asynccontextmanager
    async def _folder(self, settings: Settings | None = None, *, may_be_damaged: bool = False) -> AsyncIterator[Folder]:
        """Own the working folder; one with a damaged package only where this is said."""
        async with own_folder(self._environment(settings)) as folder, self._followed(folder):
            if not may_be_damaged:
                folder.check()

            await self._import_schemas(folder)

            yield folder

    @asynccontextmanager
    async def _owned(self, settings: Settings | None = None) -> AsyncIterator[Owned]:
        """Own the pipeline here and at the destination."""
        async with own(self._environment(settings)) as owned, self._followed(owned):
            await self._import_schemas(owned)

            yield owned

    @asynccontextmanager
    async def _followed(self, folder: Folder) -> AsyncIterator[None]:
        """Keep what this object knows in step with the folder."""
        self._starts_anew = False
        self._follow(folder)

        try:
            yield
        except PipelineStepFailed as error:
            with shielded(_CLEANUP_S):
                await folder.look()

            error.pipeline = self
            error.has_pending_data = bool(folder.pending)
            raise
        finally:
            before = self._tip.schemas
            self._follow(folder)
            await self._export_schemas(before, folder)

    def _follow(self, folder: Folder) -> None:
        self._head, self._pending, self._tip = folder.head, folder.pending, folder.tip

    async def _import_schemas(self, folder: Folder) -> None:
        source = self._options.import_schema_path

        if source is None:
            return

        found = await in_thread(
            partial(schema_files.changed_imports, source, folder.tip.schemas, self._root), folder.threads
        )

        for message in found.messages:
            self._emit(Warned(pipeline_name=self._name, message=message))

        if found.schemas:
            folder.tip = replace(folder.tip, schemas={**folder.tip.schemas, **found.schemas})
            self._tip = folder.tip

    async def _export_schemas(self, before: Mapping[str, Schema], folder: Folder) -> None:
        options = self._options

        if options.export_schema_path is None and options.import_schema_path is None:
            return

        changed = {name: schema for name, schema in self._tip.schemas.items() if before.get(name) is not schema}

        with shielded(_CLEANUP_S):
            await in_thread(
                partial(
                    schema_files.write, changed, options.export_schema_path, options.import_schema_path, self._root
                ),
                folder.threads,
            )

    async def _record(self, steps: list[StepTrace], threads: anyio.CapacityLimiter) -> None:
        """Keep the trace of a call, however it ended."""
        keep = partial(keep_trace, self._root, self._last_trace, steps, self._name)

        with shielded(_CLEANUP_S):
            self._last_trace = await in_thread(keep, threads)

    def _emit(self, event: Event) -> None:
        if isinstance(event, Warned):
            warn(f"Pipeline {event.pipeline_name!r}: {event.message}")

        for observer in list(self._observers):
            try:
                observer.on_event(event)
            except Exception as error:
                self._observers.remove(observer)
                warnings.warn(f"Observer {observer!r} failed and was dropped: {error!r}", AsynceltWarning, stacklevel=2)


class _Schemas(dict[str, Schema]):
    """Schemas by name; a name that is not there is said."""

    def __init__(self, pipeline_name: str, schemas: Mapping[str, Schema]) -> None:
        super().__init__(schemas)
        self._pipeline_name = pipeline_name

    def __missing__(self, name: str) -> Schema:
        raise SchemaNotFound(
            f"Pipeline {self._pipeline_name!r} has no schema {name!r}; it has {', '.join(map(repr, self)) or 'none'}."
        )
