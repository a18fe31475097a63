"""Making and finding pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from asyncelt import current
from asyncelt._async import in_thread, shielded
from asyncelt.arguments import Kind, expect
from asyncelt.budget import ByteBudget
from asyncelt.config import Settings
from asyncelt.errors import CannotRestorePipeline, PipelineBusy, StorageError
from asyncelt.info.steps import LoadInfo
from asyncelt.observe import Observer
from asyncelt.pipeline.facade import Pipeline
from asyncelt.pipeline.making import Given, destination_used, made_of
from asyncelt.pipeline.options import DestinationReference, check_pipeline_name, destination_of
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.storage.files import remove_tree
from asyncelt.storage.head import HeadFile
from asyncelt.storage.lock import hold_lock
from asyncelt.storage.package import PackageStore
from asyncelt.types import FileFormat, JsonValue, OnBusy, Refresh

__all__ = ["attach", "check_pipeline_name", "pipeline", "replay", "run"]

_PIPELINE = Kind("an asyncelt.Pipeline", lambda value: isinstance(value, Pipeline))


def pipeline(
    pipeline_name: str | None = None,
    pipelines_dir: str | Path | None = None,
    pipeline_salt: str | None = None,
    destination: DestinationReference | None = None,
    staging: DestinationReference | None = None,
    dataset_name: str | None = None,
    import_schema_path: str | Path | None = None,
    export_schema_path: str | Path | None = None,
    *,
    dev_mode: bool | None = None,
    refresh: Refresh | None = None,
    progress: str | Observer | None = None,
    settings: Settings | None = None,
    max_memory: int | ByteBudget | None = None,
    workers: int | None = None,
    member: str = "",
    on_busy: OnBusy | None = None,
    restore_from_destination: bool | None = None,
) -> Pipeline:
    """Make a pipeline, or find the one that is active in this task when called without arguments.

    Does no network, and reads a few small files of the working folder at most, beside the configuration files, which
    are read once. Arguments that are not passed may be configured, under ``pipelines.<name>``; what is not configured
    either, destination and dataset, is what the working folder was used with last.

    Args:
        pipeline_name: Default: ``asyncelt_`` and the name of the program.
        pipelines_dir: Folder for working folders. Default: ``~/.asyncelt/pipelines``, or under ``ASYNCELT_DATA_DIR``.
        pipeline_salt: Accepted for the reference's sake; nothing is encrypted with it yet.
        destination: A name such as ``"duckdb"``, a factory or an instance from `asyncelt.destinations`.
        staging: Where job files go before the destination loads them from there: a destination of files. Only
            destinations that can load so take one.
        dataset_name: Default: the pipeline's name and ``_dataset``.
        import_schema_path: Folder with schema files that people edit; an edited one replaces the pipeline's schema.
        export_schema_path: Folder to which schemas are written when they change.
        dev_mode: Begin with an empty working folder and a dataset of its own, named by the time.
        refresh: What `Pipeline.run` and `Pipeline.extract` start over where they are not told.
        progress: ``rich``, ``tqdm``, ``log`` or an own observer.
        settings: Limits and retries, used as they are; without it they are taken from the configuration.
        max_memory: Bytes of data in flight, or a budget shared with other pipelines of this event loop.
        workers: Threads that turn pages into columns. Never changes the result.
        member: Name of this process among several that run the same pipeline.
        on_busy: What a second call of the same pipeline and member does: ``wait`` or ``raise``.
        restore_from_destination: Whether state is kept at the destination and restored from it.

    Raises:
        ConfigError: An argument is wrong.
    """
    given = Given(
        pipeline_name=pipeline_name,
        pipelines_dir=pipelines_dir,
        pipeline_salt=pipeline_salt,
        destination=destination,
        staging=staging,
        dataset_name=dataset_name,
        import_schema_path=import_schema_path,
        export_schema_path=export_schema_path,
        dev_mode=dev_mode,
        refresh=refresh,
        progress=progress,
        settings=settings,
        max_memory=max_memory,
        workers=workers,
        member=member or None,
        on_busy=on_busy,
        restore_from_destination=restore_from_destination,
    )
    found = current.activated.get() if given.is_nothing else None

    if found is not None:
        return found

    made = Pipeline.of(made_of(given))
    made.activate()

    return made


async def attach(
    pipeline_name: str | None = None,
    pipelines_dir: str | Path | None = None,
    pipeline_salt: str | None = None,
    *,
    destination: DestinationReference | None = None,
    staging: DestinationReference | None = None,
    dataset_name: str | None = None,
    progress: str | Observer | None = None,
) -> Pipeline:
    """Find a pipeline that has run before: in its working folder, else at the destination.

    Never removes anything, but for the empty folder that it has made itself when it fails; then the pipeline that was
    active before is active again.

    Raises:
        CannotRestorePipeline: Neither knows it.
    """
    before = current.activated.get()
    given = Given(
        pipeline_name=pipeline_name,
        pipelines_dir=pipelines_dir,
        pipeline_salt=pipeline_salt,
        destination=destination,
        staging=staging,
        dataset_name=dataset_name,
        progress=progress,
    )

    def make() -> Pipeline:
        return Pipeline.of(made_of(replace(given, dev_mode=False)))

    try:
        if before is None or not given.is_nothing:
            return await _attached(await in_thread(make, anyio.CapacityLimiter(1)), destination)

        return await _attached(before, destination)
    except BaseException:
        if before is not None:
            before.activate()
        elif (left := current.activated.get()) is not None:
            left.deactivate()

        raise


async def _attached(found: Pipeline, destination: DestinationReference | None) -> Pipeline:
    """The pipeline, which has data, or nothing that was not there before."""
    threads = anyio.CapacityLimiter(1)
    root = Path(found.working_dir)
    was_there = await in_thread(root.exists, threads)
    found = await in_thread(partial(_continued, found, destination), threads)
    found.activate()

    try:
        await _require_data(found)
    except BaseException:
        if not was_there:
            with shielded():
                await _remove_unused(root, threads)

        raise

    return found


async def _require_data(found: Pipeline) -> None:
    if not found.has_data and found.destination is not None:
        await found.sync_destination()

    if not found.has_data:
        place = f" or in dataset {found.dataset_name!r} at {found.destination.location}" if found.destination else ""

        raise CannotRestorePipeline(f"There is no pipeline {found.pipeline_name!r} in {found.pipelines_dir}{place}.")


async def _remove_unused(root: Path, threads: anyio.CapacityLimiter) -> None:
    """Remove a working folder in which nothing has been done, nor is being done by somebody else."""

    def remove() -> None:
        if HeadFile(root).read().load_id is None and not PackageStore(root).pending():
            remove_tree(root)

    if await in_thread(root.exists, threads):
        with suppress(PipelineBusy, StorageError):
            async with hold_lock(root / ".lock", on_busy="raise", what=f"Folder {root}"):
                await in_thread(remove, threads)


async def run(
    data: object,
    *,
    destination: DestinationReference | None = None,
    staging: DestinationReference | None = None,
    dataset_name: str | None = None,
    table_name: str | None = None,
    write_disposition: str | Mapping[str, object] | None = None,
    columns: ColumnHints | None = None,
    primary_key: str | Sequence[str] | None = None,
    schema: Schema | None = None,
    loader_file_format: FileFormat | None = None,
    table_format: str | None = None,
    schema_contract: str | Mapping[str, JsonValue] | None = None,
    refresh: Refresh | None = None,
) -> LoadInfo:
    """Run the active pipeline of this task, or a new one with default names, over ``data``. See `Pipeline.run`."""
    return await pipeline().run(
        data,
        destination=destination,
        staging=staging,
        dataset_name=dataset_name,
        table_name=table_name,
        write_disposition=write_disposition,
        columns=columns,
        primary_key=primary_key,
        schema=schema,
        loader_file_format=loader_file_format,
        table_format=table_format,
        schema_contract=schema_contract,
        refresh=refresh,
    )


async def replay(pipeline: Pipeline, data: object = None, *, where: str | None = None) -> LoadInfo:
    """Load rows from the pipeline's quarantine table again. See `Pipeline.replay`."""
    expect("asyncelt.replay", _PIPELINE, pipeline=pipeline)

    return await pipeline.replay(data, where=where)


def _continued(found: Pipeline, destination: DestinationReference | None) -> Pipeline:
    """The same pipeline, going on in dev_mode where its folder was used in it last."""
    head = HeadFile(Path(found.working_dir)).read()

    if not head.local.get("_dev_mode"):
        return found

    target = destination_of(destination, None, found.pipeline_name) or destination_used(head, found.pipeline_name)

    return found.in_dev_mode(target, head.dataset_name)
