"""Resources made from functions, still to be called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Generic, ParamSpec, Self

from asyncelt.extract.resource import Resource

__all__ = ["ResourceFunction"]

P = ParamSpec("P")


class ResourceFunction(Resource, Generic[P]):
    """A resource made from a function: call it with the function's arguments to get a `Resource`."""

    def __init__(self, function: Callable[P, object], name: str, **options: object) -> None:
        super().__init__(function, name, **options)  # type: ignore[arg-type]
        functools.update_wrapper(self, function, updated=())

    def as_transformer(self, data_from: Resource | None) -> Self:
        """Let the function take the items of ``data_from``, which may be named later with ``|``."""
        self._is_transformer = True
        self._parent = data_from

        return self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Resource:  # type: ignore[override]
        """A copy with the function's arguments bound. The function is not called yet.

        Raises:
            UsageError: The arguments are bound already.
            TypeError: The function does not take these arguments.
        """
        return self.clone().bind(*args, **kwargs)
