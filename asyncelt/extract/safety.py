"""Whether a resource has safe points: places where a package of a stream may end. Looks at definitions only."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Final

from asyncelt.errors import ConfigError
from asyncelt.extract.resource import Resource

__all__ = ["is_automatic", "is_repeatable", "require_safe_points"]

_MARKS: Final = frozenset({"checkpoint", "Message", "Messages", "required_stream_side"})


def is_automatic(resource: Resource) -> bool:
    """Whether each place between two items is safe: it is ordered by its cursor, which says how far it has come."""
    cursor = resource.cursor

    return cursor is not None and cursor.row_order == "asc" and not _marks(resource)


def is_repeatable(resource: Resource) -> bool:
    """Whether it can be read a second time: it is made by a function."""
    return callable(_function_of(resource))


def require_safe_points(resource: Resource, *, are_promised: bool) -> None:
    """Refuse a resource whose data cannot be cut.

    Args:
        resource: As it will be read.
        are_promised: The user says that it has some, although its code does not show it.

    Raises:
        ConfigError: Says why, and what helps.
    """
    if resource.is_transformer:
        raise ConfigError(
            f"Resource {resource.name!r} is a transformer, which a stream cannot cut. Use add_map or add_yield_map on "
            "the resource that it reads from."
        )

    if is_automatic(resource):
        if inspect.isgeneratorfunction(_function_of(resource)):
            raise ConfigError(
                f"Resource {resource.name!r} is a synchronous generator with row_order='asc'. A stream cannot see "
                "where it stands: make it asynchronous, or yield asyncelt.checkpoint() where its rows are complete."
            )

        return

    if not are_promised and not _marks(resource):
        raise ConfigError(
            f"Resource {resource.name!r} has no safe points, so a stream could not commit anything before its end "
            "without losing or doubling rows when it is run again. It needs messages with positions "
            "(asyncelt.sources.nats, asyncelt.Message), a cursor with row_order='asc', or "
            "`yield asyncelt.checkpoint()` where its rows are complete. If it yields checkpoints in code that is "
            "called from it, say stream(..., safe_points=True). For data that ends, use run()."
        )


def _marks(resource: Resource) -> bool:
    """Whether its code yields messages or checkpoints, as far as names tell."""
    code = _code_of(_function_of(resource))

    return code is not None and not _MARKS.isdisjoint(_names(code))


def _function_of(resource: Resource) -> object:
    data = resource._data  # noqa: SLF001 - the same room; nobody else has to know

    return inspect.unwrap(data) if callable(data) else data


def _code_of(function: object) -> CodeType | None:
    for attribute in ("__code__", "gi_code", "ag_code", "cr_code"):
        code = getattr(function, attribute, None)

        if isinstance(code, CodeType):
            return code

    call = getattr(function, "func", None) or getattr(type(function), "__aiter__", None)
    code = getattr(call, "__code__", None)

    return code if isinstance(code, CodeType) else None


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars

    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
