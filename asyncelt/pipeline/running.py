"""The call that does it all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncelt.arguments import FLAG, TEXT, expect_if_given
from asyncelt.engine.run import RunRequest
from asyncelt.info.steps import LoadInfo
from asyncelt.pipeline.base import PipelineBase
from asyncelt.pipeline.options import DestinationReference, check_pending
from asyncelt.pipeline.whole import RunCall
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.types import FileFormat, JsonValue, OnPending, Refresh

__all__ = ["RunningCalls"]


class RunningCalls(PipelineBase):
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
                raises=self._raises(raise_on_failed_jobs),
                format_given=self._format_given,
            )
            self._take(aim)

            return await self._run(call, data)
