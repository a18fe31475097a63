"""Making and finding pipelines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import anyio

from asyncelt._async import in_thread
from asyncelt.budget import ByteBudget
from asyncelt.config import Settings, working_root
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.configuration.settings import configured_name, configured_settings, pipeline_options
from asyncelt.errors import CannotRestorePipeline, ConfigError
from asyncelt.info.steps import LoadInfo
from asyncelt.load.protocol import Destination
from asyncelt.load.registry import resolve
from asyncelt.observe import Observer
from asyncelt.pipeline.facade import Pipeline
from asyncelt.pipeline.options import (
    DestinationReference,
    Options,
    active,
    check_pipeline_name,
    default_salt,
    destination_of,
    dev_suffix,
    one_of,
    staging_of,
)
from asyncelt.progress import observer_for
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.storage.head import Head, read_head
from asyncelt.types import FileFormat, JsonValue, OnBusy, Refresh

__all__ = ["attach", "check_pipeline_name", "pipeline", "replay", "run"]


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
    found = active.get()

    if pipeline_name is None and destination is None and dataset_name is None and found is not None:
        return found

    name = check_pipeline_name(pipeline_name or configured_name() or f"asyncelt_{_program_name()}")
    one_of("on_busy", on_busy, OnBusy)
    one_of("refresh", refresh, Refresh)
    PIPELINE.set(name)
    checked = _with_workers(settings or configured_settings(), workers)
    configured = pipeline_options(name)

    if isinstance(max_memory, int):
        checked = replace(checked, limits=replace(checked.limits, max_memory=max_memory))

    if member:
        check_pipeline_name(member)

    shown = configured.progress if progress is None else progress
    is_dev = bool(configured.dev_mode if dev_mode is None else dev_mode)
    restores = configured.restore_from_destination if restore_from_destination is None else restore_from_destination
    options = Options(
        pipelines_dir=_path(pipelines_dir or configured.pipelines_dir) or working_root(),
        settings=checked,
        budget=max_memory if isinstance(max_memory, ByteBudget) else ByteBudget(checked.limits.max_memory),
        observers=(observer_for(shown),) if shown is not None else (),
        member=member,
        on_busy=on_busy or configured.on_busy or "wait",
        restore_from_destination=restores is not False,
        pipeline_salt=pipeline_salt or configured.pipeline_salt or default_salt(name),
        import_schema_path=_path(import_schema_path or configured.import_schema_path),
        export_schema_path=_path(export_schema_path or configured.export_schema_path),
        dev_mode=is_dev,
        dataset_suffix=dev_suffix() if is_dev else "",
        refresh=refresh or configured.refresh,
        starts_anew=is_dev,
    )

    return _made(
        name,
        options,
        configured.destination if destination is None else destination,
        configured.staging if staging is None else staging,
        dataset_name or configured.dataset_name,
    )


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _made(
    name: str,
    options: Options,
    destination: DestinationReference | None,
    staging: DestinationReference | None,
    dataset_name: str | None,
) -> Pipeline:
    target = destination_of(destination, None, name)
    dataset = dataset_name

    # What the folder was used with last is the default. A dataset of another destination is not.
    if not options.dev_mode and (target is None or dataset is None):
        head = _last_used(options, name)
        target = target or _destination_of(head, name)

        if dataset is None and target is not None and head.destination_type in (None, target.destination_type):
            dataset = head.dataset_name

    made = Pipeline(
        name,
        options,
        destination=target,
        staging=staging_of(staging, target, name),
        dataset_name=dataset,
    )
    made.activate()

    return made


def _last_used(options: Options, name: str) -> Head:
    root = options.pipelines_dir / name
    head = read_head(root / f"member-{options.member}" if options.member else root)

    return Head() if head.local.get("_dev_mode") else head


def _destination_of(head: Head, name: str) -> Destination | None:
    if head.destination_type is None or head.destination_name not in (None, _kind(head)):
        return None

    try:
        return resolve(head.destination_type).for_pipeline(name)
    except ConfigError:
        # One that needs arguments: only the caller has them.
        return None


def _kind(head: Head) -> str:
    return cast(str, head.destination_type).rpartition(".")[2]


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

    Never removes anything.

    Raises:
        CannotRestorePipeline: Neither knows it.
    """
    found = pipeline(
        pipeline_name,
        pipelines_dir,
        pipeline_salt,
        destination=destination,
        staging=staging,
        dataset_name=dataset_name,
        progress=progress,
        dev_mode=False,
    )
    found = await in_thread(partial(_continued, found, destination), anyio.CapacityLimiter(1))
    found.activate()

    if not found.has_data and found.destination is not None:
        await found.sync_destination()

    if not found.has_data:
        raise CannotRestorePipeline(
            f"There is no pipeline {found.pipeline_name!r} in {found.pipelines_dir}"
            + (f" or in dataset {found.dataset_name!r} at {found.destination.location}." if found.destination else ".")
        )

    return found


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
    return await pipeline.replay(data, where=where)


def _continued(found: Pipeline, destination: DestinationReference | None) -> Pipeline:
    """The same pipeline, going on in dev_mode where its folder was used in it last."""
    head = read_head(Path(found.working_dir))

    if not head.local.get("_dev_mode"):
        return found

    target = destination_of(destination, None, found.pipeline_name) or _destination_of(head, found.pipeline_name)

    return found.in_dev_mode(target, head.dataset_name)


def _program_name() -> str:
    stem = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in {"", "-c", "-m"} else ""

    return stem or "pipeline"


def _with_workers(settings: Settings, workers: int | None) -> Settings:
    if workers is None:
        return settings

    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}.")

    return replace(settings, limits=replace(settings.limits, normalize_workers=workers))
