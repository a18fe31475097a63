"""From the arguments of a pipeline, and what is configured, to what it is made of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypedDict, cast

from asyncelt.arguments import COUNT, FLAG, PATH, SECRET, TEXT, Kind, choice, expect_if_given
from asyncelt.budget import ByteBudget
from asyncelt.config import Settings, working_root
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.configuration.settings import PipelineOptions, configured_name, configured_settings, pipeline_options
from asyncelt.errors import ConfigError
from asyncelt.load.protocol import Destination
from asyncelt.load.registry import resolve
from asyncelt.observe import Observer
from asyncelt.pipeline.options import (
    DestinationReference,
    Options,
    check_pipeline_name,
    default_salt,
    destination_of,
    dev_suffix,
    staging_of,
)
from asyncelt.progress import observer_for
from asyncelt.storage.head import Head, HeadFile
from asyncelt.types import OnBusy, Refresh

__all__ = ["Arguments", "Given", "Made", "destination_used", "made_of"]


class Arguments(TypedDict, total=False):
    """Arguments of a pipeline by their names, but for its own name and folder."""

    pipeline_salt: str | None
    destination: DestinationReference | None
    staging: DestinationReference | None
    dataset_name: str | None
    import_schema_path: str | Path | None
    export_schema_path: str | Path | None
    dev_mode: bool | None
    refresh: Refresh | None
    progress: str | Observer | None
    settings: Settings | None
    max_memory: int | ByteBudget | None
    workers: int | None
    member: str | None
    on_busy: OnBusy | None
    restore_from_destination: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The arguments of `asyncelt.pipeline`, as they were passed. Those of `PipelineOptions` may be configured."""

    pipeline_name: str | None = None
    pipelines_dir: str | Path | None = None
    pipeline_salt: str | None = None
    destination: DestinationReference | None = None
    staging: DestinationReference | None = None
    dataset_name: str | None = None
    import_schema_path: str | Path | None = None
    export_schema_path: str | Path | None = None
    dev_mode: bool | None = None
    refresh: Refresh | None = None
    progress: str | Observer | None = None
    settings: Settings | None = None
    max_memory: int | ByteBudget | None = None
    workers: int | None = None
    member: str | None = None
    on_busy: OnBusy | None = None
    restore_from_destination: bool | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether all arguments are at their defaults."""
        return all(getattr(self, one.name) is None for one in fields(self))

    def over(self, configured: PipelineOptions) -> Given:
        """With what is configured, where nothing was passed."""
        names = (one.name for one in fields(configured))

        return replace(self, **{name: getattr(configured, name) for name in names if getattr(self, name) is None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a pipeline is made of."""

    pipeline_name: str
    options: Options
    destination: Destination | None = None
    staging: Destination | None = None
    dataset_name: str | None = None


def made_of(given: Given) -> Made:
    """What these arguments make, once they are checked and what is configured is added. Blocking: reads small files.

    What is neither passed nor configured, destination and dataset, is what the working folder was used with last.

    Raises:
        ConfigError: An argument is wrong, or what is configured.
    """
    _check(given)
    name = check_pipeline_name(given.pipeline_name or configured_name() or f"asyncelt_{_program_name()}")

    if given.member:
        check_pipeline_name(given.member)

    with _configured_as(name):
        said = given.over(pipeline_options(name))
        options = _options(name, said, _settings(given))
        target, dataset = destination_of(said.destination, None, name), said.dataset_name or None

        # What the folder was used with last is the default. A dataset of another destination is not.
        if not options.dev_mode and (target is None or dataset is None):
            head = _last_used(options, name)
            target = target or destination_used(head, name)

            if dataset is None and target is not None and head.destination_type in (None, target.destination_type):
                dataset = head.dataset_name

        staging = staging_of(said.staging, target, name)

    return Made(pipeline_name=name, options=options, destination=target, staging=staging, dataset_name=dataset)


def _check(given: Given) -> None:
    expect_if_given(
        _CALL, TEXT, pipeline_name=given.pipeline_name, dataset_name=given.dataset_name, member=given.member
    )
    expect_if_given(_CALL, SECRET, pipeline_salt=given.pipeline_salt)
    expect_if_given(
        _CALL,
        PATH,
        pipelines_dir=given.pipelines_dir,
        import_schema_path=given.import_schema_path,
        export_schema_path=given.export_schema_path,
    )
    expect_if_given(_CALL, FLAG, dev_mode=given.dev_mode, restore_from_destination=given.restore_from_destination)
    expect_if_given(_CALL, COUNT, workers=given.workers)
    expect_if_given(_CALL, _SETTINGS, settings=given.settings)
    expect_if_given(_CALL, _MEMORY, max_memory=given.max_memory)
    expect_if_given(_CALL, choice(OnBusy), on_busy=given.on_busy)
    expect_if_given(_CALL, choice(Refresh), refresh=given.refresh)


_CALL = "asyncelt.pipeline"
_SETTINGS = Kind("asyncelt.Settings(...)", lambda value: isinstance(value, Settings))
_MEMORY = Kind(
    "a number of bytes from 1, or an asyncelt.ByteBudget",
    lambda value: isinstance(value, ByteBudget) or COUNT.accepts(value),
)


def destination_used(head: Head, name: str) -> Destination | None:
    """The destination that a working folder was used with last; None where it cannot be made from its name alone."""
    if head.destination_type is None or head.destination_name not in (None, _kind(head)):
        return None

    try:
        return resolve(head.destination_type).for_pipeline(name)
    except ConfigError:
        # One that needs arguments: only the caller has them.
        return None


@contextmanager
def _configured_as(name: str) -> Iterator[None]:
    """Look configuration up below the name of a pipeline that is not there yet."""
    token = PIPELINE.set(name)

    try:
        yield
    finally:
        PIPELINE.reset(token)


def _options(name: str, said: Given, settings: Settings) -> Options:
    is_dev = bool(said.dev_mode)

    return Options(
        pipelines_dir=_path(said.pipelines_dir) or working_root(),
        settings=settings,
        budget=said.max_memory if isinstance(said.max_memory, ByteBudget) else ByteBudget(settings.limits.max_memory),
        observers=() if said.progress is None else (observer_for(said.progress),),
        member=said.member or "",
        on_busy=said.on_busy or "wait",
        restore_from_destination=said.restore_from_destination is not False,
        pipeline_salt=said.pipeline_salt or default_salt(name),
        import_schema_path=_path(said.import_schema_path),
        export_schema_path=_path(said.export_schema_path),
        dev_mode=is_dev,
        dataset_suffix=dev_suffix() if is_dev else "",
        refresh=said.refresh,
        starts_anew=is_dev,
    )


def _settings(given: Given) -> Settings:
    settings, workers, memory = given.settings or configured_settings(), given.workers, given.max_memory
    limits = settings.limits

    if workers is not None:
        limits = replace(limits, normalize_workers=workers)

    if memory is not None and not isinstance(memory, ByteBudget):
        limits = replace(limits, max_memory=memory)

    return replace(settings, limits=limits)


def _path(given: str | Path | None) -> Path | None:
    return Path(given) if given else None


def _last_used(options: Options, name: str) -> Head:
    root = options.pipelines_dir / name
    head = HeadFile(root / f"member-{options.member}" if options.member else root).read()

    return Head() if head.local.get("_dev_mode") else head


def _kind(head: Head) -> str:
    return cast(str, head.destination_type).rpartition(".")[2]


def _program_name() -> str:
    stem = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in {"", "-c", "-m"} else ""

    return stem or "pipeline"
