"""A value of a type, whose fields may stand in different places."""

from __future__ import annotations

from collections.abc import Mapping

from asyncelt.configuration.casting import field_names, typed
from asyncelt.configuration.lookup import Found, Wanted, find

__all__ = ["resolve"]


def resolve(wanted: Wanted, hint: object, default: object = None) -> object:
    """The value as ``hint``; ``default`` where nothing of it is anywhere.

    Fields of dataclasses, models and typed dictionaries are looked for one by one, so that a password may be in the
    environment and the rest in a file.

    Raises:
        ConfigError: It cannot be read as that; the place is named, the value is not shown.
    """
    found = find(wanted)
    names = field_names(hint)

    if not names or (found is not None and not isinstance(found.value, Mapping)):
        return default if found is None else typed(found, hint)

    gathered: dict[str, object] = dict(found.value) if found is not None and isinstance(found.value, Mapping) else {}
    place = found

    for name in names:
        field = find(wanted.of(name))

        if field is not None:
            gathered[name] = field.value
            place = place or field

    return default if place is None else typed(Found(gathered, place.provider, place.path), hint)
