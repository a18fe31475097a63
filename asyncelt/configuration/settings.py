"""asyncelt's own settings, from configuration: under its own names and under the reference's."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeVar, cast

from asyncelt.config import Limits, Retry, Settings
from asyncelt.configuration.lookup import Wanted, find
from asyncelt.configuration.providers import Provider, providers
from asyncelt.types import FileFormat, OnBusy, Refresh

__all__ = ["PipelineOptions", "configured_name", "configured_naming", "configured_settings", "pipeline_options"]

_Group = TypeVar("_Group", Limits, Retry)

_REFERENCE: Mapping[str, tuple[str, ...]] = {
    "limits.max_parallel_items": ("extract.max_parallel_items",),
    "limits.extract_workers": ("extract.workers",),
    "limits.next_item_mode": ("extract.next_item_mode",),
    "limits.normalize_workers": ("normalize.workers",),
    "limits.load_workers": ("load.workers",),
    "limits.buffer_max_items": ("normalize.data_writer.buffer_max_items", "data_writer.buffer_max_items"),
    "limits.file_max_items": ("normalize.data_writer.file_max_items", "data_writer.file_max_items"),
    "limits.file_max_bytes": ("normalize.data_writer.file_max_bytes", "data_writer.file_max_bytes"),
    "retry.attempts": ("load.raise_on_max_retries",),
}
"""Our setting, and the reference's keys that mean the same. Its other keys have no counterpart here."""

_SWITCHES: Mapping[str, tuple[str, ...]] = {
    "raise_on_failed_jobs": ("asyncelt.load.raise_on_failed_jobs", "load.raise_on_failed_jobs"),
    "auto_abort_on_terminal_error": (
        "asyncelt.load.auto_abort_on_terminal_error",
        "load.auto_abort_on_terminal_error",
    ),
    "arrow_add_dlt_id": ("asyncelt.normalize.arrow_add_dlt_id", "normalize.parquet_normalizer.add_dlt_id"),
    "arrow_add_dlt_load_id": (
        "asyncelt.normalize.arrow_add_dlt_load_id",
        "normalize.parquet_normalizer.add_dlt_load_id",
    ),
}
"""Fields of Settings that are on or off."""


def configured_settings() -> Settings:
    """Settings with everything that is configured laid over the defaults.

    ``asyncelt.limits.max_memory`` in a file or ``ASYNCELT__LIMITS__MAX_MEMORY`` in the environment; also below the name
    of the active pipeline. Keys of the reference count where they mean the same.

    Raises:
        ConfigError: A value cannot be read as the type of its setting.
    """
    settings, known = Settings(), providers()
    loader_file_format = _configured(FileFormat | None, ("asyncelt.loader_file_format",), known)
    switches = {
        name: found for name, keys in _SWITCHES.items() if isinstance(found := _configured(bool, keys, known), bool)
    }

    return replace(
        settings,
        **switches,
        limits=_laid_over(settings.limits, "limits", known),
        retry=_laid_over(settings.retry, "retry", known),
        loader_file_format=cast("FileFormat | None", None if loader_file_format is _NOTHING else loader_file_format),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """Arguments of ``asyncelt.pipeline`` that are configured, under ``pipelines.<name>`` or ``pipelines``.

    None where nothing is configured.
    """

    pipelines_dir: str | None = None
    pipeline_salt: str | None = None
    destination: str | None = None
    staging: str | None = None
    dataset_name: str | None = None
    import_schema_path: str | None = None
    export_schema_path: str | None = None
    dev_mode: bool | None = None
    refresh: Refresh | None = None
    progress: str | None = None
    on_busy: OnBusy | None = None
    restore_from_destination: bool | None = None


_OPTION_KEYS: Mapping[str, tuple[str, ...]] = {
    "destination": ("destination", "destination_type", "destination_name"),
    "staging": ("staging", "staging_type", "staging_name"),
}
_BARE_OPTIONS = frozenset({"restore_from_destination", "pipelines_dir", "import_schema_path", "export_schema_path"})
"""What counts without a section too. The reference reads all of them so, but a variable ``DEV_MODE`` of the machine
must not empty a working folder."""
_SECRETS = frozenset({"pipeline_salt"})


def pipeline_options(pipeline_name: str) -> PipelineOptions:
    """What is configured for a pipeline; explicit arguments outrank it.

    Raises:
        ConfigError: A value cannot be read as the type of its argument.
    """
    from asyncelt.configuration.casting import typed

    hints, known = _hints()[PipelineOptions], providers()
    found: dict[str, Any] = {}

    for option in fields(PipelineOptions):
        for key in _OPTION_KEYS.get(option.name, (option.name,)):
            sections, is_bare = ("pipelines", pipeline_name), key in _BARE_OPTIONS
            value = find(Wanted(key=key, sections=sections, bare=is_bare, secret=key in _SECRETS), known)

            if value is not None:
                found[option.name] = typed(value, hints[option.name])
                break

    return PipelineOptions(**found)


def configured_name() -> str | None:
    """The name of a pipeline that is given none.

    Raises:
        ConfigError: It is not text.
    """
    from asyncelt.configuration.casting import typed

    found = find(Wanted(key="pipeline_name", sections=("pipelines",), exact=True))

    return None if found is None else cast(str, typed(found, str))


def configured_naming(schema_name: str) -> str | None:
    """The naming convention that is configured for a schema: ``sources.<schema>.schema.naming``, ``schema.naming``.

    Raises:
        ConfigError: It is not text.
    """
    from asyncelt.configuration.casting import typed

    found = find(Wanted(key="naming", sections=("sources", schema_name), inner=("schema",)))

    return None if found is None else cast(str, typed(found, str))


class _Nothing:
    """Not configured; None would be a value."""


_NOTHING = _Nothing()


@lru_cache(maxsize=1)
def _hints() -> Mapping[type, Mapping[str, object]]:
    return {kind: typing.get_type_hints(kind) for kind in (Limits, Retry, PipelineOptions)}


def _laid_over(group: _Group, name: str, known: Sequence[Provider]) -> _Group:
    hints = _hints()[type(group)]
    changes: dict[str, Any] = {}

    for field in dataclasses.fields(group):
        ours: str = f"{name}.{field.name}"
        value = _configured(hints[field.name], (f"asyncelt.{ours}", *_REFERENCE.get(ours, ())), known)

        if not isinstance(value, _Nothing):
            changes[field.name] = value

    return replace(group, **changes) if changes else group


def _configured(hint: object, keys: Iterable[str], known: Sequence[Provider]) -> object:
    from asyncelt.configuration.casting import typed

    for key in keys:
        *sections, name = key.split(".")
        found = find(Wanted(key=name, sections=tuple(sections), exact=True), known)

        if found is not None:
            return typed(found, hint)

    return _NOTHING
