"""What every call of a pipeline stands on: the ways to own it, and what is kept of a call."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial

import anyio

from asyncelt import current
from asyncelt._async import in_thread, shielded
from asyncelt.arguments import TEXT, expect_if_given
from asyncelt.config import Settings
from asyncelt.engine.environment import Environment
from asyncelt.engine.ownership import Folder, Owned, own, own_folder
from asyncelt.errors import (
    AsynceltError,
    AsynceltWarning,
    PipelineConfigMissing,
    PipelineStepFailed,
    warn,
)
from asyncelt.info.trace import PipelineTrace, StepTrace
from asyncelt.load.protocol import Destination
from asyncelt.observe import Event, Warned
from asyncelt.pipeline import schema_files
from asyncelt.pipeline.facts import PipelineFacts
from asyncelt.pipeline.options import Aim, DestinationReference, aimed
from asyncelt.pipeline.tracing import I, Note, Recorder, Recording, keep_trace, traced
from asyncelt.schema.model import Schema

__all__ = ["PipelineBase"]

_CLEANUP_S = 10.0


class PipelineBase(PipelineFacts):
    """The doors to a pipeline's folder and destination."""

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

    def _entered(self) -> AbstractContextManager[None]:
        """Be the active pipeline for the time of a call: its configuration counts, for the code of sources too."""
        return current.activate_pipeline(self)  # type: ignore[arg-type]  # the only subclass is Pipeline

    @property
    def _aim(self) -> Aim:
        return Aim(self._destination, self._staging, self._dataset_name)

    async def _aimed(
        self,
        destination: DestinationReference | None,
        staging: DestinationReference | None,
        dataset_name: str | None,
        credentials: object,
    ) -> Aim:
        """Where a call writes that was told so. Changes nothing: the call may yet be refused."""
        expect_if_given(f"Pipeline {self._name!r}", TEXT, dataset_name=dataset_name)
        found = await aimed(self._aim, destination, staging, credentials, self._name)

        if found.destination is None:
            self._require_destination()

        return found if dataset_name is None else replace(found, dataset_name=dataset_name, is_said=True)

    def _take(self, aim: Aim) -> None:
        """Write there from this call on, if the call has said where."""
        if aim.is_said:
            self._destination, self._staging, self._dataset_name = aim.destination, aim.staging, aim.dataset_name

    def _require_destination(self) -> Destination:
        return self._environment().required_destination

    def _require_schema(self, schema_name: str | None) -> Schema:
        if not self._tip.schemas and schema_name is None:
            raise PipelineConfigMissing(f"Pipeline {self._name!r} has no schema yet: run it once.")

        return self.default_schema if schema_name is None else self.schemas[schema_name]

    @asynccontextmanager
    async def _folder(self, settings: Settings | None = None, *, may_be_damaged: bool = False) -> AsyncIterator[Folder]:
        """Own the working folder; one with a damaged package only where this is said."""
        await self._check_schema_folders()

        async with own_folder(self._environment(settings)) as folder, self._followed(folder):
            if not may_be_damaged:
                folder.check()

            await self._import_schemas(folder)

            yield folder

    @asynccontextmanager
    async def _owned(self, settings: Settings | None = None) -> AsyncIterator[Owned]:
        """Own the pipeline here and at the destination."""
        await self._check_schema_folders()

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

    async def _check_schema_folders(self) -> None:
        export, imports = self._options.export_schema_path, self._options.import_schema_path

        if export is not None or imports is not None:
            await in_thread(partial(schema_files.check_folders, export, imports), anyio.CapacityLimiter(1))

    async def _import_schemas(self, folder: Folder) -> None:
        source = self._options.import_schema_path

        if source is None:
            return

        found = await in_thread(
            partial(schema_files.changed_imports, source, folder.tip.schemas, self._root), folder.threads
        )

        for message in found.messages:
            self._warn(message)

        if found.schemas:
            folder.tip = replace(folder.tip, schemas={**folder.tip.schemas, **found.schemas})
            self._tip = folder.tip

    async def _export_schemas(self, before: Mapping[str, Schema], folder: Folder) -> None:
        options = self._options

        if options.export_schema_path is None and options.import_schema_path is None:
            return

        changed = {name: schema for name, schema in self._tip.schemas.items() if before.get(name) is not schema}

        write = partial(schema_files.write, changed, options.export_schema_path, options.import_schema_path, self._root)

        try:
            with shielded(_CLEANUP_S):
                await in_thread(write, folder.threads)
        except (OSError, AsynceltError) as error:
            # What was committed stands: a call that raised now would be made again.
            self._warn(
                f"Schemas {', '.join(map(repr, changed))} could not be written to their files: {error}. Data and state "
                "do not depend on them; they are written when they change again."
            )

    def _recorded(
        self, recorder: Recorder, threads: anyio.CapacityLimiter, info: Callable[[], I], note: Note[I]
    ) -> Recording[I]:
        """Keep a trace of a block of this call, with the steps that ``note`` gives to ``recorder``."""
        return Recording(partial(self._record, recorder.steps, threads), info, note)

    async def _record(self, steps: Sequence[StepTrace], threads: anyio.CapacityLimiter) -> None:
        """Keep the trace of a call, however it ended."""
        trace = partial(traced, self._root, self._last_trace, steps, self._name)

        with shielded(_CLEANUP_S):
            await self._keep_trace(await in_thread(trace, threads), threads)

    async def _keep_trace(self, trace: PipelineTrace, threads: anyio.CapacityLimiter) -> None:
        self._last_trace = trace
        trouble = await in_thread(partial(keep_trace, self._root, trace), threads)

        if trouble is not None:
            self._warn(trouble)

    def _warn(self, message: str) -> None:
        self._emit(Warned(pipeline_name=self._name, message=message))

    def _emit(self, event: Event) -> None:
        if isinstance(event, Warned):
            warn(f"Pipeline {event.pipeline_name!r}: {event.message}")

        for observer in list(self._observers):
            try:
                observer.on_event(event)
            except Exception as error:
                self._observers.remove(observer)
                warnings.warn(f"Observer {observer!r} failed and was dropped: {error!r}", AsynceltWarning, stacklevel=2)
