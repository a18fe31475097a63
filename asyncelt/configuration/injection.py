"""Arguments of functions that nobody has passed, from configuration."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from asyncelt.configuration.accessors import Placeholder
from asyncelt.configuration.lookup import Wanted, find, missing
from asyncelt.configuration.resolved import LOOKS_SECRET

__all__ = ["call_configured", "configured", "configured_factory"]

_F = TypeVar("_F", bound="Callable[..., object]")
_PLAIN = (str, int, float, bool, list, dict, tuple)
_SECRET_ARGUMENTS = frozenset({"credentials"})
_SOMETIMES_SECRET = frozenset({"iceberg_catalog"})
"""Arguments of destinations that are an address, or a mapping, with or without something secret in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Argument:
    name: str
    wanted: Wanted
    hint: object
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What to look for in calls of one function."""

    label: str
    signature: inspect.Signature
    arguments: tuple[_Argument, ...]


def configured(function: _F, *, sections: tuple[str, ...], label: str) -> _F:
    """The function, with arguments that are not passed taken from configuration when it is called.

    Arguments with the default ``asyncelt.config.value`` or ``asyncelt.secrets.value`` have to be somewhere. Others
    with a plain default are looked for in a section of the function or its kind, never by their bare name: an
    argument ``path`` is not the variable ``PATH``.

    Args:
        function: Plain or async, generator or not. Returned as it is where there is nothing to look for.
        sections: Of the function, outermost first.
        label: What it is called in messages.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built-in functions without a signature
        return function

    arguments = tuple(
        argument
        for parameter in signature.parameters.values()
        if (argument := _argument(parameter, sections)) is not None
    )

    if not arguments:
        return function

    plan = _Plan(label=label, signature=signature, arguments=_with_hints(function, arguments))
    wrapped: Any = functools.partial(call_configured, function, plan)
    functools.update_wrapper(wrapped, function, updated=())
    wrapped.__signature__ = signature

    return typing.cast(_F, wrapped)


def call_configured(function: Callable[..., object], plan: _Plan, /, *args: object, **kwargs: object) -> object:
    """Call a function that `configured` has looked at."""
    bound = plan.signature.bind_partial(*args, **kwargs)
    filled = {
        argument.name: _value(argument, plan.label)
        for argument in plan.arguments
        if isinstance(bound.arguments.get(argument.name, _UNBOUND), Placeholder | _Unbound)
    }
    bound.arguments.update({name: value for name, value in filled.items() if not isinstance(value, _Unbound)})

    return function(*bound.args, **bound.kwargs)


def configured_factory(factory: _F, name: str) -> _F:
    """A destination's factory, with what is not passed taken from ``destination.<name>.<argument>``.

    The section's name is the ``destination_name`` that is passed, then the factory's own; ``destination.<argument>``
    counts for all destinations.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return factory

    names = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name != "destination_name"
    ]

    @functools.wraps(factory)
    def call(*args: object, **kwargs: object) -> object:
        try:
            bound = signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}. It takes {', '.join(signature.parameters)}.") from None

        called = bound.arguments.get("destination_name")
        sections = [("destination", called)] if isinstance(called, str) else []

        for argument in names:
            if bound.arguments.get(argument) is None:
                value = _setting(argument, [*sections, ("destination", name)])

                if not isinstance(value, _Unbound):
                    bound.arguments[argument] = value
                elif signature.parameters[argument].default is inspect.Parameter.empty:
                    raise missing(
                        _destination(argument, ("destination", name)), f"{argument!r} of destination {name!r}"
                    )

        return factory(*bound.args, **bound.kwargs)

    return typing.cast(_F, call)


class _Unbound:
    """Neither passed nor found: the function's own default counts."""


_UNBOUND = _Unbound()


def _argument(parameter: inspect.Parameter, sections: tuple[str, ...]) -> _Argument | None:
    default = parameter.default

    if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return None

    if isinstance(default, Placeholder):
        wanted = Wanted(key=parameter.name, sections=sections, secret=default.secret)
    elif default is None or isinstance(default, _PLAIN):
        wanted = Wanted(key=parameter.name, sections=sections, bare=False)
    else:
        return None

    return _Argument(
        name=parameter.name, wanted=wanted, hint=parameter.annotation, required=isinstance(default, Placeholder)
    )


def _with_hints(function: Callable[..., object], arguments: tuple[_Argument, ...]) -> tuple[_Argument, ...]:
    """Annotations as types. Those that cannot be evaluated count as not there."""
    hints: Mapping[str, object] = {}

    # Whatever a user's annotation may raise when it is evaluated.
    with suppress(Exception):
        hints = typing.get_type_hints(function)

    return tuple(
        _Argument(
            name=one.name,
            wanted=one.wanted,
            required=one.required,
            hint=hints.get(
                one.name, Any if isinstance(one.hint, str) or one.hint is inspect.Parameter.empty else one.hint
            ),
        )
        for one in arguments
    )


def _value(argument: _Argument, label: str) -> object:
    from asyncelt.configuration.casting import guessed
    from asyncelt.configuration.resolving import resolve

    if argument.hint is Any:
        found = find(argument.wanted)
        value = _UNBOUND if found is None else guessed(found, secret=argument.wanted.secret)
    else:
        value = resolve(argument.wanted, argument.hint, _UNBOUND)

    if isinstance(value, _Unbound) and argument.required:
        raise missing(argument.wanted, f"{argument.name!r} of {label}")

    return value


def _destination(argument: str, sections: tuple[str, ...]) -> Wanted:
    secret = argument in _SECRET_ARGUMENTS

    return Wanted(key=argument, sections=sections, secret=secret, bare=secret)


def _setting(argument: str, sections: list[tuple[str, str]]) -> object:
    from asyncelt.configuration.casting import guessed

    for section in sections:
        wanted = _destination(argument, section)
        found = find(wanted)

        if found is not None and argument in _SOMETIMES_SECRET and LOOKS_SECRET.search(str(found.value)):
            found = find(replace(wanted, secret=True))

        if found is not None:
            return guessed(found, secret=argument in _SECRET_ARGUMENTS)

    return _UNBOUND
