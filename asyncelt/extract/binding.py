"""Calls of users' functions with their arguments, and the argument that an incremental cursor is passed in."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asyncelt.extract.functions import call_with_item
from asyncelt.extract.incremental import Incremental

__all__ = ["Call", "cursor_parameter", "signature_of"]

_ANNOTATED = re.compile(r"\b[Ii]ncremental\b")
_OPTIONAL = re.compile(r"\bOptional\b|\bNone\b")


@dataclass(frozen=True, slots=True)
class Call:
    """A function and the arguments it was bound to."""

    function: Callable[..., object]
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] | None = None
    takes_item: bool = False
    """A transformer's function: the item comes before the arguments."""

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments by name, defaults not included.

        Raises:
            TypeError: The function does not take them.
        """
        items = (None,) if self.takes_item else ()
        given = dict(self.kwargs or {})
        bound = signature_of(self.function).bind(*items, *self.args, **(self._meta() | given))

        unsaid = self._meta().keys() - given.keys()

        return {name: bound.arguments[name] for name in list(bound.arguments)[len(items) :] if name not in unsaid}

    def _partial_arguments(self) -> Mapping[str, object]:
        items = (None,) if self.takes_item else ()

        return inspect.signature(self.function).bind_partial(*items, *self.args, **(self.kwargs or {})).arguments

    def ready(self, cursor: Incremental[object] | None) -> Callable[..., object]:
        """The call, with a cursor in its place: a function of nothing, or of an item."""
        args, kwargs = self.args, dict(self.kwargs or {})
        parameter = cursor_parameter(self.function)

        if parameter is not None and (cursor is not None or parameter.default is parameter.empty):
            args, kwargs = self._with(parameter.name, cursor)

        if self.takes_item:
            return functools.partial(call_with_item, self.function, args, kwargs | self._meta())

        return functools.partial(self.function, *args, **kwargs) if args or kwargs else self.function

    def _with(self, name: str, cursor: Incremental[object] | None) -> tuple[tuple[object, ...], dict[str, object]]:
        items = (None,) if self.takes_item else ()
        bound = inspect.signature(self.function).bind_partial(*items, *self.args, **(self.kwargs or {}))
        bound.arguments[name] = cursor

        return bound.args[len(items) :], bound.kwargs

    def _meta(self) -> dict[str, object]:
        """The argument for the item's mark, if the function wants it: it has no other, or was bound to this one."""
        if not self.takes_item:
            return {}

        is_bound = "meta" in (self.kwargs or {})

        return {"meta": None} if is_bound or (not self.args and _takes_item_and_meta(self.function)) else {}

    def definition(self, hint: Incremental[object] | None) -> Incremental[object] | None:
        """The cursor this call goes by: what was passed, merged with the default; else ``hint``."""
        parameter = cursor_parameter(self.function)

        if parameter is None:
            return hint

        default = parameter.default
        arguments = self._partial_arguments()
        given = arguments.get(parameter.name, hint)

        if isinstance(given, Incremental):
            found = default.merge(given) if isinstance(default, Incremental) else given
        elif isinstance(default, Incremental):
            found = default.copy()

            if parameter.name in arguments:
                found.initial_value = given
        else:
            return None

        if found.is_partial() and _OPTIONAL.search(str(parameter.annotation)):
            return None

        return found


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """The signature, in which an incremental argument without a default may be left out.

    Raises:
        ValueError: A built-in function without a signature.
    """
    signature = inspect.signature(function)
    parameter = cursor_parameter(function)

    if parameter is None or parameter.default is not parameter.empty:
        return signature

    # Only by name: what follows it may have no default.
    changed = [
        one.replace(default=None) if one.name == parameter.name else one for one in signature.parameters.values()
    ]

    try:
        return signature.replace(parameters=changed)
    except ValueError:
        return signature


def _takes_item_and_meta(function: object) -> bool:
    """Whether a transformer's function takes an item and its mark, and nothing else."""
    try:
        return list(inspect.signature(function).parameters)[1:] == ["meta"]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def cursor_parameter(function: object) -> inspect.Parameter | None:
    """The parameter that has an incremental as its default or is annotated as one."""
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None

    return next((one for one in parameters if isinstance(one.default, Incremental) or _is_annotated(one)), None)


def _is_annotated(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation

    if annotation is parameter.empty:
        return False

    return bool(_ANNOTATED.search(annotation if isinstance(annotation, str) else repr(annotation)))
