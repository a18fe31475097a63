"""The calls that move data one step at a time: extract, normalize, load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncelt.arguments import COUNT, FLAG, expect_if_given
from asyncelt.config import Settings
from asyncelt.engine.loading import Loaded, load_pending
from asyncelt.engine.run import Extracted, Normalized, RunRequest, run_extract, run_normalize
from asyncelt.engine.steps import step
from asyncelt.info.steps import ExtractInfo, LoadInfo, NormalizeInfo
from asyncelt.pipeline.base import PipelineBase
from asyncelt.pipeline.options import DestinationReference, with_limits
from asyncelt.pipeline.results import described, run_report
from asyncelt.pipeline.tracing import Recording
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.types import FileFormat, JsonValue, LoadId, Refresh

__all__ = ["StageCalls"]


class StageCalls(PipelineBase):
    """Extract, normalize, load."""

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
            max_parallel_items: Deferred calls that one resource may have under way; None: as set.
            workers: Threads for deferred functions and parallelized transformers of one resource; None: as set.
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
        expect_if_given("extract", COUNT, max_parallel_items=max_parallel_items, workers=workers)
        settings = with_limits(self._options.settings, max_parallel_items=max_parallel_items, extract_workers=workers)
        file_format = self._checked_format(loader_file_format) if loader_file_format is not None else None
        mode = self._refresh_mode(refresh)

        with self._entered():
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
                sources=tuple(sources), file_format=file_format, schema_contract=schema_contract, refresh=mode
            )

            return await self._extract(request, described(data), settings)

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
        expect_if_given("normalize", COUNT, workers=workers)
        settings = with_limits(self._options.settings, normalize_workers=workers)
        self._require_destination()

        if loader_file_format is not None:
            self._checked_format(loader_file_format)

        recorder, maker = self._recorder(), self._maker()
        done: list[Normalized] = []

        def chosen(stored: str | None) -> FileFormat:
            return loader_file_format or self._format_given(stored)

        def info_so_far() -> NormalizeInfo:
            return maker.normalize(done, started_at=recorder.started_at)

        with self._entered():
            async with self._folder(settings) as folder:
                if not folder.pending and not folder.tip.schemas:
                    return None

                async with self._recording(recorder, info_so_far, recorder.noting("normalize")) as kept:
                    await run_normalize(folder, done, file_format=chosen)

        return kept.info

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
        expect_if_given("load", COUNT, workers=workers)
        expect_if_given("load", FLAG, raise_on_failed_jobs=raise_on_failed_jobs)
        settings = with_limits(self._options.settings, load_workers=workers)
        raises = self._raises(raise_on_failed_jobs)

        with self._entered():
            self._take(await self._aimed(destination, None, dataset_name, credentials))
            destination, loaded = self._require_destination(), Loaded()
            recorder, maker = self._recorder(), self._maker()

            def info_so_far() -> LoadInfo:
                return maker.load(
                    loaded, destination, started_at=recorder.started_at, report=run_report(None, (), loaded)
                )

            kept = self._recording(recorder, info_so_far, recorder.noting("load"))

            async with self._owned(settings, kept) as owned:
                if not owned.pending and not owned.tip.schemas:
                    return None

                async with kept:
                    with step("load", pipeline_name=self._name):
                        await load_pending(owned, loaded, raise_on_failed_jobs=raises)

        return kept.info

    # ------------------------------------------------------------------ inside

    async def _extract(
        self, request: RunRequest, data: Sequence[Mapping[str, str]], settings: Settings | None
    ) -> ExtractInfo:
        recorder, maker = self._recorder(), self._maker()
        extracted: Extracted | None = None

        def info_so_far() -> ExtractInfo:
            return maker.extract(extracted, data, started_at=recorder.started_at)

        kept = self._recording(recorder, info_so_far, recorder.noting("extract"))
        last = await self._state_of_an_empty_folder(kept)

        async with self._folder(settings) as folder, kept:
            with step("extract", pipeline_name=self._name):
                extracted = await run_extract(folder, request, last_load_id=last)

        return kept.info

    async def _state_of_an_empty_folder(self, recording: Recording[ExtractInfo]) -> LoadId | None:
        """Ask the destination where this pipeline stands, if nothing here knows; the dataset's greatest load id."""
        knows = self._head.load_id is not None or self._pending or self._head.edited is not None

        if self._destination is None or knows or not self._options.restore_from_destination or self.dev_mode:
            return None

        async with self._synced(recording=recording) as owned:
            return owned.restored.last_load_id
