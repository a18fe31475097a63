"""Whether asyncelt has a member or argument of the reference's."""

from __future__ import annotations

import inspect
from typing import Any

import asyncelt

__all__ = ["has"]

_EXAMPLES = {
    "Pipeline": lambda: asyncelt.Pipeline,
    "Resource": lambda: asyncelt.resource([], name="example"),
    "Source": lambda: asyncelt.Source("example"),
    "ResourceDict": lambda: asyncelt.Source("example").resources,
    "Incremental": lambda: asyncelt.sources.incremental("example"),
}
"""Attributes that are set when an object is made are found on an object only."""

_FUNCTIONS = {
    "pipeline": asyncelt.pipeline,
    "attach": asyncelt.attach,
    "run": asyncelt.run,
    "resource": inspect.unwrap(asyncelt.resource),
    "transformer": asyncelt.transformer,
    "source": asyncelt.source,
    "incremental": asyncelt.sources.incremental,
}


def has(name: str) -> bool | None:
    """True or False for members and arguments; None for values of options, which no signature lists."""
    group, *path = name.split(".")

    if group in _FUNCTIONS:
        return path[0] in inspect.signature(_FUNCTIONS[group]).parameters

    if group in ("mark", "current"):
        return _reached(getattr(asyncelt, group), path)

    return _reached(_EXAMPLES[group](), path) if group in _EXAMPLES else None


def _reached(owner: Any, path: list[str]) -> bool:
    member, *argument = path

    # The class first: reading a property of an object may need a run.
    found = getattr(type(owner), member, None) or inspect.getattr_static(owner, member, None)

    if found is None and member not in getattr(owner, "__dict__", {}):
        return False

    return not argument or (callable(found) and argument[0] in inspect.signature(found).parameters)
