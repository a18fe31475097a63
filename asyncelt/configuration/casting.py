"""Values as the type that is asked for. Errors name the place and the type; they show no value."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, cast

import msgspec

from asyncelt.configuration.lookup import Found
from asyncelt.errors import ConfigError

__all__ = ["field_names", "guessed", "typed"]

_NOTHING = frozenset({"", "none", "null"})


def guessed(found: Found, *, secret: bool = False) -> object:
    """A value nobody has said the type of: text of the environment is read as JSON would be.

    A secret stays text, so that a token of digits is not taken for a number; only objects and lists are read.
    """
    if not found.provider.is_text or not isinstance(found.value, str):
        return found.value

    text = found.value

    if text.lower() in {"true", "false"} and not secret:
        return text.lower() == "true"

    with suppress(ValueError):
        value = json.loads(text)

        if isinstance(value, dict | list) or (not secret and isinstance(value, int | float)):
            return cast(object, value)

    return text


def typed(found: Found, hint: object) -> object:
    """A value as ``hint``: numbers, booleans, times, paths, enums, literals, lists and mappings, dataclasses, models.

    Raises:
        ConfigError: It cannot be read as that.
    """
    if hint is Any or hint is None:
        return guessed(found)

    value = found.value

    if isinstance(value, str) and value.lower() in _NOTHING and type(None) in typing.get_args(hint):
        return None

    validate = _model_of(hint)

    try:
        if validate is not None:
            return validate(_decoded(value) if isinstance(value, str) else value)

        try:
            return _converted(value, hint)
        except msgspec.ValidationError:
            if not isinstance(value, str):
                raise

            return _converted(_decoded(value), hint)
    except (ValueError, TypeError) as error:
        # The chain is cut: messages of validators show the value, which may be a secret.
        reason = f" ({error})" if isinstance(error, msgspec.ValidationError) else ""

        raise ConfigError(f"{found.place} cannot be read as {_name(hint)}{reason}.") from None


def field_names(hint: object) -> tuple[str, ...]:
    """Names of the fields of a structured type; none for other types."""
    for kind in (*typing.get_args(hint), hint):
        if not isinstance(kind, type):
            continue

        if is_dataclass(kind):
            return tuple(field.name for field in fields(kind) if field.init)

        for attribute in ("model_fields", "__struct_fields__"):
            if attribute in dir(kind):
                return tuple(getattr(kind, attribute))

        if typing.is_typeddict(kind):
            return tuple(kind.__annotations__)

    return ()


def _converted(value: object, hint: object) -> object:
    return msgspec.convert(value, type=cast(Any, hint), strict=False, dec_hook=_other)


def _decoded(text: str) -> object:
    return json.loads(text)


def _other(kind: type[object], value: object) -> object:
    """Types that the converter does not know are called with the value."""
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)

    if isinstance(value, kind):
        return value

    if isinstance(value, Mapping):
        return kind(**value)

    return cast(Any, kind)(value)


def _model_of(hint: object) -> Any:
    """The validating constructor of a pydantic model, also of an optional one."""
    kinds: tuple[Any, ...] = (hint,)

    if isinstance(hint, types.UnionType) or typing.get_origin(hint):
        kinds = typing.get_args(hint)

    return next((validate for kind in kinds if (validate := getattr(kind, "model_validate", None)) is not None), None)


def _name(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
