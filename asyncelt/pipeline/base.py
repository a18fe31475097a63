"""What the calls of a pipeline share: the doors to folder and destination, and what is kept of a call."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from asyncelt import current
from asyncelt._async import in_thread, shielded
from asyncelt.arguments import TEXT, Kind, choice, expect_if_given
from asyncelt.config import Settings
from asyncelt.engine.dispositions import check_dispositions
from asyncelt.engine.environment import Environment, without_destination
from asyncelt.engine.ownership import Folder, Owned, own_everywhere, own_folder
from asyncelt.engine.steps import step
from asyncelt.errors import (
    AsynceltError,
    AsynceltWarning,
    PipelineConfigMissing,
    PipelineStepFailed,
    warn,
)
from asyncelt.extract.data import as_sources
from asyncelt.extract.source import Source
from asyncelt.info.steps import LoadInfo, StepInfo
from asyncelt.info.trace import PipelineTrace, StepTrace
from asyncelt.load.protocol import Destination
from asyncelt.observe import Event, Warned
from asyncelt.pipeline import schema_files
from asyncelt.pipeline.facts import PipelineFacts
from asyncelt.pipeline.options import Aim, DestinationReference, aimed, checked_format
from asyncelt.pipeline.results import Maker, described
from asyncelt.pipeline.tracing import I, Note, Recorder, Recording, keep_trace, traced
from asyncelt.pipeline.whole import Outcome, RunCall, note_steps, run_info, run_owned
from asyncelt.reading.dataset import Dataset, chosen_schemas
from asyncelt.schema.model import Schema
from asyncelt.schema.system import new_schema
from asyncelt.storage.head import Tip
from asyncelt.types import FileFormat, Refresh

__all__ = ["PipelineBase"]

_SCHEMA = Kind("an asyncelt.Schema", lambda value: isinstance(value, Schema))


class PipelineBase(PipelineFacts):
    """The doors to a pipeline's folder and destination."""

    def _environment(self, settings: Settings | None = None) -> Environment:
        return Environment(
            pipeline_name=self._name,
            member=self.member,
            dataset_name=self.dataset_name or "",
            default_schema_name=self.default_schema_name,
            root=self._root,
            head_file=self._head_file,
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
        if self._destination is None:
            raise without_destination(self._name)

        return self._destination

    def _require_schema(self, schema_name: str | None) -> Schema:
        if not self._tip.schemas and schema_name is None:
            raise PipelineConfigMissing(f"Pipeline {self._name!r} has no schema yet: run it once.")

        return self.default_schema if schema_name is None else self.schemas[schema_name]

    def _loaded_schemas(self) -> dict[str, Schema]:
        """All schemas, as the destination has them; one that is only pending has the tables of every dataset."""
        return {name: self._head.schemas.get(name) or new_schema(name) for name in self._tip.schemas}

    def _relations(self, schema: Schema | str | None = None) -> Dataset:
        """The dataset, for reading."""
        destination = self._require_destination()
        chosen = partial(chosen_schemas, wanted=schema, default=self.default_schema_name)
        chosen(self._loaded_schemas())

        return Dataset(destination, self._environment().target, lambda: chosen(self._loaded_schemas()))

    # ------------------------------------------------------------------ what calls are told

    async def _sources(
        self, data: object, schema: Schema | None, aim: Aim | None = None, /, **hints: object
    ) -> list[Source]:
        expect_if_given(f"Pipeline {self._name!r}", _SCHEMA, schema=schema)
        destination = (aim or self._aim).destination

        with step("extract", pipeline_name=self._name):
            sources = await as_sources(
                data,
                default_schema_name=schema.name if schema is not None else self.default_schema_name,
                **hints,  # type: ignore[arg-type]  # named and typed by the callers
            )

            if destination is not None:
                check_dispositions(sources, destination)

        if schema is not None:
            for source in sources:
                source.schema = schema

        return sources

    def _checked_format(self, given: FileFormat | None, aim: Aim | None = None) -> FileFormat:
        """The format of job files: the one that was given, else the configured one, else what the destination likes."""
        return checked_format(given or self._options.settings.loader_file_format, aim or self._aim)

    def _format_given(self, stored: str | None) -> FileFormat:
        """The format that an extracted package asks for, where the destination takes it."""
        return self._checked_format(next((one for one in self._aim.formats if one == stored), None))

    def _refresh_mode(self, given: Refresh | None) -> Refresh | None:
        expect_if_given(f"Pipeline {self._name!r}", choice(Refresh), refresh=given)

        return given or self._options.refresh

    def _raises(self, given: bool | None) -> bool:  # noqa: FBT001 - an argument of calls
        """Whether a job that the destination refuses is an error."""
        return self._options.settings.raise_on_failed_jobs if given is None else given

    # ------------------------------------------------------------------ owning

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
    async def _owned(
        self, settings: Settings | None = None, recording: Recording[Any] | None = None
    ) -> AsyncIterator[Owned]:
        """Own the pipeline here and at the destination.

        Args:
            settings: Of this call.
            recording: Of this call, which may end before anything can be done.
        """
        await self._check_schema_folders()

        async with self._synced(settings, recording) as owned:
            await self._import_schemas(owned)

            yield owned

    @asynccontextmanager
    async def _synced(
        self, settings: Settings | None = None, recording: Recording[Any] | None = None
    ) -> AsyncIterator[Owned]:
        """The same, but for schemas that are to be imported."""
        async with own_folder(self._environment(settings)) as folder, AsyncExitStack() as stack:
            try:
                owned = await stack.enter_async_context(own_everywhere(folder))
            except PipelineStepFailed as error:
                self._say_who(error, folder)

                if recording is None:
                    recorder = self._recorder()
                    recording = self._recording(recorder, lambda: None, recorder.noting("sync"))

                await recording.end(error)
                raise

            async with self._followed(owned):
                yield owned

    @asynccontextmanager
    async def _followed(self, folder: Folder) -> AsyncIterator[None]:
        """Keep what this object knows in step with the folder."""
        self._starts_anew = False
        self._follow(folder)

        try:
            yield
        except PipelineStepFailed as error:
            with shielded():
                await folder.look()

            self._say_who(error, folder)
            raise
        finally:
            before = self._tip
            self._follow(folder)
            await self._export_schemas(before, folder)

    def _say_who(self, error: PipelineStepFailed, folder: Folder) -> None:
        error.pipeline = self
        error.has_pending_data = bool(folder.pending)

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

    async def _export_schemas(self, before: Tip, folder: Folder) -> None:
        options, has_moved = self._options, before.load_id != self._tip.load_id

        if options.export_schema_path is None and options.import_schema_path is None:
            return

        # After a load all of them, so that a file that somebody has removed is there again.
        changed = {
            name: schema
            for name, schema in self._tip.schemas.items()
            if has_moved or before.schemas.get(name) is not schema
        }
        write = partial(schema_files.write, changed, options.export_schema_path, options.import_schema_path, self._root)

        try:
            with shielded():
                await in_thread(write, folder.threads)
        except (OSError, AsynceltError) as error:
            # What was committed stands: a call that raised now would be made again.
            self._warn(
                f"Schemas {', '.join(map(repr, changed))} could not be written to their files: {error}. Data and state "
                "do not depend on them; they are written when they change again."
            )

    # ------------------------------------------------------------------ what is kept of a call, and said

    async def _run(self, call: RunCall, data: object) -> LoadInfo:
        """Load what is pending, then what ``call`` brings; ``data`` is what the user passed."""
        recorder, maker, outcome = self._recorder(), self._maker(), Outcome()
        info_so_far = partial(run_info, recorder, maker, self._require_destination(), call.request.run_id, outcome)
        passed = described(data)

        def note(info: StepInfo | None, error: BaseException | None) -> None:
            note_steps(recorder, maker, outcome, passed, info=info, error=error)
            recorder.done("run", info, error, whole=True)

        kept = self._recording(recorder, info_so_far, note)

        async with self._owned(recording=kept) as owned, kept:
            with step("run", pipeline_name=self._name):
                await run_owned(owned, call, outcome)

        return kept.info

    def _maker(self) -> Maker:
        return Maker(
            pipeline=self,
            pipeline_name=self._name,
            first_run=self.first_run,
            staging=self._staging,
            dataset_name=self.dataset_name,
        )

    def _recorder(self) -> Recorder:
        return Recorder(self._name)

    def _recording(self, recorder: Recorder, info: Callable[[], I], note: Note[I]) -> Recording[I]:
        """Keep a trace of a block of this call, with the steps that ``note`` gives to ``recorder``."""
        return Recording(partial(self._record, recorder.steps), info, note)

    async def _record(self, steps: Sequence[StepTrace]) -> None:
        """Keep the trace of a call, however it ended."""
        trace = partial(traced, self._root, self._last_trace, steps, self._name)

        with shielded():
            await self._keep_trace(trace)

    async def _keep_trace(self, trace: Callable[[], PipelineTrace]) -> None:
        def keep() -> tuple[PipelineTrace, str | None]:
            made = trace()

            return made, keep_trace(self._root, made)

        self._last_trace, trouble = await in_thread(keep, anyio.CapacityLimiter(1))

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
