"""What can be known about users' functions without calling them."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

from asyncelt.arguments import FUNCTION, expect
from asyncelt.configuration.injection import call_configured
from asyncelt.errors import ConfigError
from asyncelt.extract.items import Kind, kind_of

__all__ = [
    "RowFunction",
    "call_with_item",
    "check_name",
    "defer",
    "is_async_function",
    "is_function",
    "name_of_data",
    "row_function",
    "section_of",
    "with_meta",
]

P = ParamSpec("P")
R = TypeVar("R")
RowFunction: TypeAlias = Callable[[object], object]


def defer(function: Callable[P, R]) -> Callable[P, Callable[[], R]]:
    """Let calls of a function be made later, by the run: a plain one in a thread, an asynchronous one on the loop.

    Yield such calls from a resource or transformer: up to ``max_parallel_items`` of them are under way at a time, and
    their results come in the order in which they were yielded.

    Raises:
        ConfigError: It is no function.
    """
    expect("asyncelt.defer", FUNCTION, function=function)

    @functools.wraps(function)
    def deferred(*args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
        return functools.partial(function, *args, **kwargs)

    return deferred


def row_function(function: object, label: str) -> RowFunction:
    """A user's function as one of the row alone. A second parameter is for the mark of the row, see `with_meta`.

    Raises:
        ConfigError: Not callable, or it cannot take one row.
    """
    if not callable(function):
        raise ConfigError(f"{label} takes a function of one row, not {type(function).__name__}.")

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built-in functions without a signature
        return function

    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    required = [p for p in positional if p.default is p.empty]
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]

    if len(required) > 2 or named or not (positional or takes_many):
        raise ConfigError(
            f"{label} takes a function of one row; {_name(function)}{inspect.signature(function)} is not one."
        )

    if len(required) == 2 or [p.name for p in positional[1:2]] == ["meta"]:
        return functools.partial(_call_with_meta, function, None)

    return function


def _call_with_meta(function: Callable[[object, object], object], meta: object, row: object) -> object:
    return function(row, meta)


def with_meta(function: RowFunction, meta: object) -> RowFunction:
    """The function, told of ``meta`` if it is one that wants to know: of `row_function`, or a transformer's."""
    if meta is None or not isinstance(function, functools.partial):
        return function

    if function.func is _call_with_meta:
        return functools.partial(_call_with_meta, function.args[0], meta)

    if function.func is call_with_item and "meta" in function.args[2]:
        called, args, kwargs = function.args

        return functools.partial(call_with_item, called, args, {**kwargs, "meta": meta})

    return function


def is_async_function(function: object) -> bool:
    """Whether calling it gives a coroutine or an async generator; looks through partials and callable objects."""
    while isinstance(function, functools.partial):
        function = function.args[0] if function.func in _CALLERS else function.func

    if not inspect.isroutine(function):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - the method itself is wanted

    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _name(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)


def call_with_item(
    function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object], item: object
) -> object:
    """Call a transformer's function: the item first, then the arguments it was bound to."""
    return function(item, *args, **kwargs)


_CALLERS = (_call_with_meta, call_with_item, call_configured)
"""Functions that call the one that is their first argument."""


def check_name(name: object, what: str) -> None:
    """Raise `ConfigError` unless ``name`` is text that is not blank."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"A {what} needs a name that is text and not blank, not {name!r}.")


def is_function(data: object) -> bool:
    """Whether data is something to call, rather than something to read."""
    return kind_of(type(data)) is Kind.CALLABLE or (
        callable(data) and kind_of(type(data)) is Kind.ROW and not hasattr(data, "__iter__")
    )


def name_of_data(data: object) -> str | None:
    """The name that data brings along: a function's or a generator's; None for all other data."""
    if isinstance(data, functools.partial):
        return name_of_data(data.func)

    name = getattr(data, "__name__", None)

    return name if isinstance(name, str) and name.isidentifier() else None


def section_of(function: object) -> str:
    """Section of a function's configuration: the last part of its module's name, or of the program's file."""
    name = str(getattr(function, "__module__", None) or "")

    if name == "__main__":
        return Path(str(getattr(sys.modules[name], "__file__", None) or name)).stem

    return name.rpartition(".")[2]
