"""What a resource is made of, and what one run of it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from asyncelt.errors import ConfigError, InvalidResourceData
from asyncelt.extract.functions import check_name
from asyncelt.extract.hinting import DYNAMIC, is_dynamic
from asyncelt.extract.steps import Step
from asyncelt.schema.hints import NestedPath, TableHints
from asyncelt.types import JsonValue

__all__ = ["Contract", "Names", "NestedHints", "Reading", "WriteDispositionHint", "check_definition"]

WriteDispositionHint: TypeAlias = str | Mapping[str, object]
Names: TypeAlias = str | Sequence[str]
Contract: TypeAlias = str | Mapping[str, JsonValue]
NestedHints: TypeAlias = Mapping[NestedPath, TableHints | Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one run of a resource reads, and what its items go through."""

    data: object
    steps: tuple[Step, ...]


def check_definition(name: str, data: object, table_name: object, hints: TableHints) -> None:
    """Refuse what cannot be a resource, as far as can be told without reading it.

    Raises:
        ConfigError: The name or a hint is wrong.
        InvalidResourceData: The data cannot be read.
    """
    check_name(name, "resource")

    if table_name is not None and not isinstance(table_name, str) and not callable(table_name):
        raise ConfigError(f"Resource {name!r}: table_name is text or a function of a row, not {table_name!r}.")

    if isinstance(data, str):
        raise InvalidResourceData(
            f"Resource {name!r} was given text. Pass rows (a list of dicts, a generator, a frame), JSON as bytes, or "
            "JsonPage(text)."
        )

    if data is None:
        raise InvalidResourceData(f"Resource {name!r} was given None instead of data.")

    if callable(table_name):
        return

    for hint in DYNAMIC:
        if is_dynamic(getattr(hints, hint)):
            raise ConfigError(
                f"Resource {name!r}: {hint} is a function of a row, which it can be only if table_name is one too."
            )
