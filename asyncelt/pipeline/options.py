"""What a pipeline is made with, checked."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import anyio

from asyncelt._async import in_thread
from asyncelt.arguments import choice, expect
from asyncelt.budget import ByteBudget
from asyncelt.config import Settings
from asyncelt.errors import ConfigError, InvalidPipelineName
from asyncelt.load.protocol import Destination
from asyncelt.load.registry import resolve, with_credentials
from asyncelt.load.staging import check_staging, formats_with
from asyncelt.observe import Observer
from asyncelt.schema.capabilities import Capabilities
from asyncelt.types import FileFormat, OnBusy, OnPending, Refresh

__all__ = [
    "Aim",
    "DestinationReference",
    "Options",
    "aimed",
    "check_pending",
    "check_pipeline_name",
    "checked_format",
    "destination_of",
    "staging_of",
    "with_limits",
]

DestinationReference: TypeAlias = "str | Destination | Callable[[], object] | ModuleType"
"""A name, an instance, a factory, or a module with one."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a pipeline writes."""

    destination: Destination | None
    staging: Destination | None
    dataset_name: str | None
    is_said: bool = False
    """Whether a call has said so; else it is where the pipeline writes anyway."""

    @property
    def formats(self) -> tuple[FileFormat, ...]:
        """Formats of job files that may go there, the preferred one first."""
        return Capabilities().file_formats if self.destination is None else formats_with(self.destination, self.staging)


_NAME = re.compile(r"[^\x00-\x1f/\\:]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a pipeline behaves, as its factory was told."""

    pipelines_dir: Path
    settings: Settings
    budget: ByteBudget
    observers: tuple[Observer, ...] = ()
    member: str = ""
    on_busy: OnBusy = "wait"
    restore_from_destination: bool = True
    pipeline_salt: str = ""
    import_schema_path: Path | None = None
    export_schema_path: Path | None = None
    dev_mode: bool = False
    dataset_suffix: str = ""
    """Of dev_mode: makes each instance's dataset its own."""
    refresh: Refresh | None = None
    starts_anew: bool = field(default=False)
    """Whether the first call removes what the working folder holds."""


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


def default_salt(pipeline_name: str) -> str:
    """The salt of a pipeline that was not given one: the reference's."""
    return base64.b64encode(hashlib.sha3_256(pipeline_name.encode()).digest()).decode("ascii")


def dev_suffix(now: datetime | None = None) -> str:
    """Of a dataset in dev_mode: the time, so finely that two instances never share one."""
    return (now or datetime.now(UTC)).strftime("_%Y%m%d%H%M%S%f")


def destination_of(
    reference: DestinationReference | None, credentials: object, pipeline_name: str
) -> Destination | None:
    """The destination that a user means, with its credentials; None where neither was given."""
    if reference is None:
        return None

    found = resolve(reference)

    return (with_credentials(found, credentials) if credentials is not None else found).for_pipeline(pipeline_name)


def staging_of(
    reference: DestinationReference | None, destination: Destination | None, pipeline_name: str
) -> Destination | None:
    """The staging destination.

    Raises:
        ConfigError: The destination loads its files itself, or these two do not fit.
    """
    if reference is None:
        return None

    staging = resolve(reference).for_pipeline(pipeline_name)

    if destination is None:
        return staging

    check_staging(destination, staging)

    return staging


async def aimed(
    known: Aim,
    reference: DestinationReference | None,
    staging: DestinationReference | None,
    credentials: object,
    name: str,
) -> Aim:
    """Another aim, as far as a call says one. Names are looked up in a thread, since that may read files of packages.

    Raises:
        ConfigError: There is no such destination, it takes no such credentials, or it takes no staging destination.
    """
    if reference is None and credentials is not None:
        reference = known.destination

    if reference is None and staging is None:
        return known

    def find() -> Aim:
        found = destination_of(reference, credentials, name) or known.destination
        stage = staging_of(staging, found, name) or known.staging

        if found is not None and stage is not None:
            check_staging(found, stage)

        return replace(known, destination=found, staging=stage, is_said=True)

    return await in_thread(find, anyio.CapacityLimiter(1))


def checked_format(given: FileFormat | None, aim: Aim) -> FileFormat:
    """The format of job files: the one that was asked for, else what the destination likes.

    Raises:
        ConfigError: The destination does not take it.
    """
    formats = aim.formats
    chosen = given or formats[0]

    if chosen not in formats:
        name = aim.destination.destination_name if aim.destination is not None else "(none yet)"
        way = f" staged at {aim.staging.destination_name!r}" if aim.staging is not None else ""

        raise ConfigError(f"Destination {name!r} takes {', '.join(formats)}{way}, not {chosen!r}.")

    return chosen


def with_limits(settings: Settings, **changes: int | None) -> Settings:
    """Settings with the limits that a call has said; None: as they were."""
    said = {name: value for name, value in changes.items() if value is not None}

    return replace(settings, limits=replace(settings.limits, **said)) if said else settings  # type: ignore[arg-type]


def check_pending(value: str) -> None:
    """Check ``on_pending``."""
    expect("run", choice(OnPending), on_pending=value)
